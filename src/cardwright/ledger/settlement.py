"""What a day moved, by funding source: sums over the journal, each from the day's own rows and what the day before left.

Units are minor units of each currency. A day is a UTC day of the program's clock (wire reference, "Reports and settlement view").
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
"""Funding source (None: money that no source gave) and currency."""

Balances = tuple[int, ...]
"""What each account of the chart holds, in the order of ``JOURNAL_ACCOUNTS``."""

NOTHING: Balances = (0,) * len(JOURNAL_ACCOUNTS)

CLOSED_MS = 600_000
"""How long after midnight a day's rows are taken to be complete: longer than any commit takes."""


class DayTotals(NamedTuple):
    """The lines of a day's report, none of them negative; ``entries`` counts the journal entries behind them."""

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
    """A funding source's day in one currency."""

    opening: Balances
    moved: DayTotals
    closing: Balances

    def differences(self) -> dict[str, int]:
        """What does not tie: the lines to the accounts, and the accounts to one another. Empty on sound books."""
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
"""The lines of an entry: which of them are not zero says what it was. A real-time fee is funded by a JIT load too."""


def entries_between(program_id: int, places: Range, *columns: Any) -> list[Select[Any]]:
    """Transactions made in a time, with their journal entries: of each part of the order in which they were made."""
    joined = transactions.join(journal, _entry.id == transactions.c.id)
    return [
        select(part.time_ms.label("time_ms"), *columns).select_from(joined).where(
            transactions.c.program_id == program_id, *part.conditions, *part.within(places)
        )
        for part in parts_of(ListOrder.MADE)
    ]  # fmt: skip


def lines_of(db: Connection, program_id: int, places: Range, *columns: Any) -> Iterator[Row]:
    """Every entry of a time with its lines, in the order in which they were made."""
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
    """How a program's accounts stood at the beginning of some days, and a row by which a reset is noticed."""

    anchor: tuple[int, int] | None
    days: list[Instant] = field(default_factory=list)
    balances: list[dict[SourceAndCurrency, Balances]] = field(default_factory=list)


class ClosingBalances:
    """How programs stood at the end of days that are over: what is past never changes, so it is added up once in a process."""

    def __init__(self) -> None:
        self._programs: dict[int, _Closed] = {}
        self._lock = threading.Lock()

    def day(self, db: Connection, program_id: int, start: Instant, now: Instant) -> dict[SourceAndCurrency, Day]:
        """The day that begins at ``start``, as far as it has come by ``now``, of every source that ever moved anything."""
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
