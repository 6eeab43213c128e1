"""Programs: isolated sets of objects, with their settings, clocks and credentials."""

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, bindparam, column, select, table

from cardwright.kit.clock import Instant, ProgramClock
from cardwright.storage.builtin_resources import insert_built_ins
from cardwright.storage.database import Row
from cardwright.storage.migrate import check_schema
from cardwright.storage.tables import meta, programs

SCHEMA = select(column("version_num")).select_from(table("alembic_version")).scalar_subquery().label("schema")
"""The schema revision of the database, as a column of another statement."""

MODE = "mode"
"""The key in ``meta`` of the mode in which a server first opened the database. It never changes."""
ROWS_IN_CLEAR = "rows in clear"
"""The key in the table ``meta`` by which a migration notes that rows of an earlier version have secrets in clear."""

# Built once: SQLAlchemy takes longer to build a statement than SQLite takes to run it.
_PROGRAM = select(programs, SCHEMA).where(programs.c.id == bindparam("program_id"))


class ProgramSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a program that an operator chooses. The API has no fields for them.

    ``mask_funding_source_tokens`` shows these tokens in orders as ten asterisks and the last four characters, as the real
    platform does. It is off, because the guide promises the full token. ``mask_webhook_secrets`` is on, as on the real platform.
    ``transaction_model`` (``v1`` or ``v2``) is the default model of transactions and their lists. With ``deposit_accounts``,
    every new user gets an account number for direct deposits.
    """

    currency: str = "USD"
    mask_funding_source_tokens: bool = False
    mask_webhook_secrets: bool = True
    transaction_model: str = "v1"
    deposit_accounts: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """A program at the snapshot of one transaction. ``revision`` counts changes of products, sources and settings."""

    id: int
    token: str
    name: str
    short_code: str
    settings: ProgramSettings
    revision: int
    clock: ProgramClock


def get_program(db: Connection, program_id: int) -> Program:
    """Return the program with this id, which must exist. Raises SchemaChanged.

    Every reader of configuration calls this function. The statement also reads the schema, and a migration increases each
    program's revision. So a process of another version detects the migration with its next batch or request.
    """
    row = db.execute(_PROGRAM, {"program_id": program_id}).one()
    check_schema([] if row.schema is None else [row.schema])
    return program_of(row)


def program_of(row: Row) -> Program:
    """Return the value of a row of ``programs``."""
    return Program(
        id=row.id,
        token=row.token,
        name=row.name,
        short_code=row.short_code,
        settings=msgspec.json.decode(row.settings, type=ProgramSettings),
        revision=row.revision,
        clock=ProgramClock(row.clock_offset_ms, row.clock_frozen_ms),
    )


def insert_program(
    db: Connection, *, token: str, name: str, short_code: str, settings: ProgramSettings, clock: ProgramClock, now: Instant
) -> int:
    """Insert a program at revision 1 with the built-in resources, and return its id."""
    columns = {
        "token": token,
        "name": name,
        "short_code": short_code,
        "settings": msgspec.json.encode(settings).decode(),
        "revision": 1,
        "clock_offset_ms": clock.offset_ms,
        "clock_frozen_ms": clock.frozen_ms,
        "created_ms": now,
    }
    key = db.execute(programs.insert().values(columns)).inserted_primary_key
    assert key is not None
    insert_built_ins(db, int(key[0]), clock.time_at(now))
    return int(key[0])


def find_value(db: Connection, key: str) -> str | None:
    """Return the value of a key in the table ``meta``, or None."""
    value: str | None = db.scalar(select(meta.c.value).where(meta.c.key == key))
    return value


def kept_value(db: Connection, key: str, value: str) -> str:
    """Return the stored value of a key in the table ``meta``. If there is none, insert ``value``."""
    stored_value = find_value(db, key)
    if stored_value is None:
        db.execute(meta.insert().values(key=key, value=value))
    return value if stored_value is None else stored_value


def set_clock(db: Connection, program_id: int, clock: ProgramClock) -> None:
    """Set a program's clock. Every process uses it from its next transaction on."""
    values = {"clock_offset_ms": clock.offset_ms, "clock_frozen_ms": clock.frozen_ms}
    db.execute(programs.update().where(programs.c.id == program_id).values(values))


def set_settings(db: Connection, program_id: int, settings: ProgramSettings) -> None:
    """Set a program's settings and increase its revision."""
    values = {"settings": msgspec.json.encode(settings).decode(), "revision": programs.c.revision + 1}
    db.execute(programs.update().where(programs.c.id == program_id).values(values))


def find_program_token(db: Connection, token: str) -> int | None:
    """Return the id of the program with this token, or None."""
    return db.scalar(select(programs.c.id).where(programs.c.token == token))
