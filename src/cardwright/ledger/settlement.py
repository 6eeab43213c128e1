"""Settlement: the movements of a day by funding source, as sums over the journal.

Each report adds the day's rows to the closing balances of the day before. Amounts are minor units of each currency. A day is a
UTC day of the program's clock (wire reference, "Reports and settlement view").
"""

import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, func, or_, select, union_all

from cardwright.core.movement_types import GPA_CREDIT, GPA_DEBIT, PROGRAM
from cardwright.kit.clock import DAY_MS, Instant
from cardwright.storage.database import Row
from cardwright.storage.tables import JOURNAL_ACCOUNTS, journal, transactions
from cardwright.storage.transaction_lists.blocks import LOWEST, ListOrder, Range, parts_of

SourceAndCurrency = tuple[int | None, str]
"""Funding source (None: entries without a source) and currency."""

Balances = tuple[int, ...]
"""The balance of each account of the chart, in the order of ``JOURNAL_ACCOUNTS``."""

NOTHING: Balances = (0,) * len(JOURNAL_ACCOUNTS)

CLOSED_MS = 600_000
"""Time after midnight from which a day's rows count as complete, in milliseconds. It is longer than any commit."""


class DayTotals(NamedTuple):
    """Totals of a day: the lines of its report, none of them negative. ``entries`` is the number of journal entries."""

    jit_load: int = 0
    jit_load_reversal: int = 0
    capture: int = 0
    refund_unload: int = 0
    refund_kept: int = 0
    gpa_load: int = 0
    gpa_unload: int = 0
    program_transfer: int = 0
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Day:
    """Day of a funding source in one currency: opening balances, movements, closing balances."""

    opening: Balances
    moved: DayTotals
    closing: Balances

    def differences(self) -> dict[str, int]:
        """Return the differences between lines and accounts, and the sum of the closing balances, without zeros.

        Empty if the books are sound.
        """
        change = dict(zip(JOURNAL_ACCOUNTS, (after - before for before, after in zip(self.opening, self.closing, strict=True)),
                          strict=True))  # fmt: skip
        moved = self.moved
        ties = {
            "program_funding": change["program_funding"]
            + moved.jit_load
            + moved.gpa_load
            - moved.jit_load_reversal
            - moved.refund_unload
            - moved.gpa_unload
            - moved.program_transfer,
            "settlement": change["settlement"] - moved.capture + moved.refund_unload + moved.refund_kept,
            "closing": sum(self.closing),
        }
        return {name: difference for name, difference in ties.items() if difference}


_entry = journal.c
_RETURNED: ColumnElement[int] = case((_entry.program_funding > 0, _entry.program_funding), else_=0)
_DRAWN: ColumnElement[int] = case((_entry.program_funding < 0, -_entry.program_funding), else_=0)
_IS_REFUND = _entry.settlement < 0
_IS_MOVEMENT = transactions.c.type_id.in_((GPA_CREDIT, GPA_DEBIT, PROGRAM))


def _of(type_id: int, amount: ColumnElement[int]) -> ColumnElement[int]:
    return case((transactions.c.type_id == type_id, amount), else_=0)


LINES: dict[str, ColumnElement[int]] = {
    "jit_load": case((_IS_MOVEMENT, 0), else_=_DRAWN),
    "jit_load_reversal": case((or_(_IS_REFUND, _IS_MOVEMENT), 0), else_=_RETURNED),
    "capture": case((_entry.settlement > 0, _entry.settlement), else_=0),
    "refund_unload": case((_IS_REFUND, _RETURNED), else_=0),
    "refund_kept": case((_IS_REFUND, -_entry.settlement - _RETURNED), else_=0),
    "gpa_load": _of(GPA_CREDIT, _DRAWN),
    "gpa_unload": _of(GPA_DEBIT, _RETURNED),
    "program_transfer": _of(PROGRAM, _RETURNED),
}
"""The lines of an entry. The lines that are not zero identify its kind. A real-time fee is funded by a JIT load too."""


def entries_between(program_id: int, places: Range, *columns: Any) -> list[Select[Any]]:
    """Return queries of the transactions created in a period, with their journal entries.

    Each covers a part of the order by creation.
    """
    joined = transactions.join(journal, _entry.id == transactions.c.id)
    return [
        select(part.time_ms.label("time_ms"), *columns).select_from(joined).where(
            transactions.c.program_id == program_id, *part.conditions, *part.within(places)
        )
        for part in parts_of(ListOrder.MADE)
    ]  # fmt: skip


def lines_of(db: Connection, program_id: int, places: Range, *columns: Any) -> Iterator[Row]:
    """Yield every entry of a period with its lines, in order of creation."""
    lines = [line.label(name) for name, line in LINES.items()]
    rows = union_all(*entries_between(program_id, places, transactions.c.id, *columns, *lines)).subquery()
    yield from db.execute(select(rows).order_by(rows.c.time_ms, rows.c.id), execution_options={"yield_per": 1_000})


def _sums(db: Connection, program_id: int, places: Range) -> dict[SourceAndCurrency, tuple[Balances, DayTotals]]:
    accounts = [_entry[account].label(f"in_{account}") for account in JOURNAL_ACCOUNTS]
    lines = [line.label(name) for name, line in LINES.items()]
    shared = (transactions.c.source_id, _entry.currency, *accounts, *lines)
    rows = union_all(*entries_between(program_id, places, *shared)).subquery().c
    totals = [func.sum(rows[column.name]) for column in (*accounts, *lines)]
    query = select(rows.source_id, rows.currency, *totals, func.count()).group_by(rows.source_id, rows.currency)
    sums_by_source = {}
    for source_id, currency, *sums in db.execute(query):
        numbers = [int(value) for value in sums]
        size = len(JOURNAL_ACCOUNTS)
        sums_by_source[source_id, currency] = tuple(numbers[:size]), DayTotals(*numbers[size:])
    return sums_by_source


@dataclass(slots=True)
class _Closed:
    """Opening balances of a program's days, and a row (``anchor``) that identifies the history, so that a reset is detected."""

    anchor: tuple[int, int] | None
    days: list[Instant] = field(default_factory=list)
    balances: list[dict[SourceAndCurrency, Balances]] = field(default_factory=list)


class ClosingBalances:
    """Cache of the balances at the end of closed days. They never change, so each process adds them up once."""

    def __init__(self) -> None:
        self._programs: dict[int, _Closed] = {}
        self._lock = threading.Lock()

    def day(self, db: Connection, program_id: int, start: Instant, now: Instant) -> dict[SourceAndCurrency, Day]:
        """Return the day from ``start`` on, up to ``now``, for every source and currency with a journal entry."""
        opening = self._opening(db, program_id, start, now)
        moved = _sums(db, program_id, Range((start, 0), (start + DAY_MS, 0)))
        days = {}
        for place in opening.keys() | moved.keys():
            before = opening.get(place, NOTHING)
            change, lines = moved.get(place, (NOTHING, DayTotals()))
            days[place] = Day(before, lines, tuple(balance + amount for balance, amount in zip(before, change, strict=True)))
        return days

    def _opening(self, db: Connection, program_id: int, start: Instant, now: Instant) -> dict[SourceAndCurrency, Balances]:
        first = select(transactions.c.id, transactions.c.seed).where(transactions.c.program_id == program_id)
        row = db.execute(first.order_by(transactions.c.user_time_ms, transactions.c.id).limit(1)).one_or_none()
        anchor = None if row is None else (row.id, row.seed)
        with self._lock:
            closed = self._programs.get(program_id)
            if closed is None or closed.anchor != anchor:
                closed = self._programs[program_id] = _Closed(anchor)
            index = bisect_right(closed.days, start)
            low, opening = ((closed.days[index - 1], 0), closed.balances[index - 1]) if index else (LOWEST, {})
        if low != (start, 0):
            moved = _sums(db, program_id, Range(low, (start, 0)))
            opening = {
                place: tuple(map(sum, zip(opening.get(place, NOTHING), moved.get(place, (NOTHING, None))[0], strict=True)))
                for place in opening.keys() | moved.keys()
            }
            if now - start >= CLOSED_MS:
                with self._lock:
                    index = bisect_right(closed.days, start)
                    closed.days.insert(index, start)
                    closed.balances.insert(index, opening)
        return opening
