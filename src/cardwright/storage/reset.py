"""Program reset: the deletion of all objects of a program. Its credentials, settings and built-in resources stay."""

from typing import Any

from sqlalchemy import Connection, delete, select

from cardwright.kit.clock import ProgramClock
from cardwright.settings import Mode
from cardwright.storage.builtin_resources import BUILT_IN
from cardwright.storage.programs import MODE, find_value, set_clock
from cardwright.storage.tables import credentials, holders, meta, metadata, programs

RESET_ORDER = tuple(table for table in reversed(metadata.sorted_tables) if "program_id" in table.c and table is not credentials)
"""All tables with data of programs. A table comes before the tables that its foreign keys refer to."""

RESETTING = "resetting"
"""The key in ``meta`` that permits deletion from the append-only journal. The same transaction inserts and deletes it."""


class ProductionData(Exception):
    """The refusal to delete objects from a database that a server in production mode has opened."""


def reset_program(db: Connection, program_id: int, clock: ProgramClock) -> dict[str, Any]:
    """Delete the program's objects and set its clock. Return the number of deleted rows by table. Raises ProductionData."""
    if find_value(db, MODE) == Mode.PRODUCTION:
        raise ProductionData
    # This lock blocks every transaction that changes the program or inserts one of its objects.
    db.execute(select(programs.c.id).where(programs.c.id == program_id).with_for_update())
    # Lock all accounts, so that running batches commit first. Rows of a later commit would remain.
    db.execute(select(holders.c.id).where(holders.c.program_id == program_id).order_by(holders.c.id).with_for_update()).all()
    db.execute(meta.insert().values(key=RESETTING, value=str(program_id)))
    removed = {}
    for table in RESET_ORDER:
        statement = delete(table).where(table.c.program_id == program_id)
        if table.name in BUILT_IN:
            # Built-in resources cannot be changed, so they need no reset.
            statement = statement.where(table.c.token.not_in(BUILT_IN[table.name]))
        removed[table.name] = db.execute(statement).rowcount
    db.execute(delete(meta).where(meta.c.key == RESETTING))
    set_clock(db, program_id, clock)
    db.execute(programs.update().where(programs.c.id == program_id).values(revision=programs.c.revision + 1))
    return {"removed": {name: count for name, count in removed.items() if count}}
