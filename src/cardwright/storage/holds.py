"""Due holds and deposits: queries over a partial index that contains no closed rows."""

from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from cardwright.core.transaction_row import TransactionRow
from cardwright.kit.clock import Instant, ProgramClock
from cardwright.storage.tables import cards, programs, transactions

# A literal, not a parameter: a database uses a partial index only if the query repeats the index's condition.
_HAS_END = text("transactions.due_ms > 0")


class DueHold(NamedTuple):
    """The id of an authorization with an open hold, and the token of its card."""

    row_id: int
    card_token: str


def programs_with_due_holds(db: Connection, real_ms: Instant) -> list[int]:
    """Return the ids of the programs that have a due hold or deposit by their own clock."""
    first = select(func.min(transactions.c.due_ms)).where(transactions.c.program_id == programs.c.id, _HAS_END).scalar_subquery()
    query = select(programs.c.id, programs.c.clock_offset_ms, programs.c.clock_frozen_ms, first.label("first"))
    rows = db.execute(query.order_by(programs.c.id))
    return [
        row.id for row in rows
        if row.first is not None and row.first <= ProgramClock(row.clock_offset_ms, row.clock_frozen_ms).time_at(real_ms)
    ]  # fmt: skip


def load_due_deposits(db: Connection, program_id: int, now: Instant, count: int) -> list[TransactionRow]:
    """Return the first transactions of at most ``count`` due direct deposits, earliest first."""
    row = transactions.c
    columns = (transactions.c[name] for name in TransactionRow._fields)
    due = select(*columns).where(row.program_id == program_id, row.due_ms <= now, _HAS_END, row.card_id.is_(None))
    return [TransactionRow(*values) for values in db.execute(due.order_by(row.due_ms, row.id).limit(count))]


def load_due_holds(db: Connection, program_id: int, now: Instant, count: int) -> list[DueHold]:
    """Return at most ``count`` due holds of a program, earliest first."""
    row = transactions.c
    due = select(row.id, row.card_id, row.due_ms).where(
        row.program_id == program_id, row.due_ms <= now, _HAS_END, row.card_id.is_not(None)
    )
    first = due.order_by(row.due_ms, row.id).limit(count).subquery()
    query = select(first.c.id, cards.c.token).join(cards, cards.c.id == first.c.card_id).order_by(first.c.due_ms, first.c.id)
    return [DueHold(*values) for values in db.execute(query)]
