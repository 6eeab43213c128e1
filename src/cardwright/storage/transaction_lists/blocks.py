"""Blocks: adjacent rows of a program's transaction list, with counts that lead to the n-th entry.

A list in order of time is divided into blocks of about 256 rows. Each block has the number of its rows by class. The sums of
these counts give the block of the n-th entry, so that no earlier row is read.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, func, literal, select, tuple_, union_all

from cardwright.storage.account_transactions import AccountTransactions
from cardwright.storage.tables import holder_transactions, transactions

BLOCK_ROWS = 256
"""Rows in a new block. Reading them takes less than a millisecond."""

BLOCK_ROWS_MAX = 3 * BLOCK_ROWS // 2
"""Maximum number of rows in a block. A block with more rows is divided again."""

MANY_BLOCKS = 64
"""Number of changed blocks up to which each is recounted separately. In a longer list the limit is a quarter of all blocks."""

FILTERS_MAX = 16
"""Maximum number of filters whose sums are cached for each order. The least recently used is evicted first."""

Key = tuple[int, int]
"""A place in a list: milliseconds and row id."""

LOWEST: Key = (-1, 0)
HIGHEST: Key = (2**62, 0)


class ListOrder(Enum):
    """The sort key of a list, before the row id: the creation time of the chain's root (BEGUN), or of the row itself (MADE)."""

    BEGUN = "user_time_ms"
    MADE = "created_ms"


class RowClass(NamedTuple):
    """The properties of a row that a filter of a program's list can use. ``direction`` is the sign of ``moved``."""

    type_id: int
    state: int
    source_id: int | None
    direction: int


class Range(NamedTuple):
    """Range of places, from ``low`` (inclusive) to ``high`` (exclusive)."""

    low: Key
    high: Key


class ListPosition(NamedTuple):
    """The location of entries of a list: ranges in the list's order, and the number of entries to skip in them.

    ``is_full`` is True if the ranges contain as many entries as requested.
    """

    ranges: list[Range]
    skip: int
    is_full: bool


Weight = Callable[[RowClass], int]
"""The number of list entries of a row: 0, 1 for its card's side or its load's side, or 2 for both."""

_row = transactions.c
_listed = holder_transactions.c
_DIRECTION = case((_row.moved > 0, 1), (_row.moved < 0, -1), else_=0)


class IndexPart(NamedTuple):
    """A part of the rows: the time and id by which an index sorts them, and the conditions that select them."""

    time_ms: ColumnElement[int]
    id: ColumnElement[int]
    conditions: list[ColumnElement[bool]]

    def within(self, places: Range) -> list[ColumnElement[bool]]:
        """Return the conditions that a row of the part lies in a range of places."""
        key = tuple_(self.time_ms, self.id)
        bounds = []
        # An open end adds no condition, so it costs the database nothing.
        if places.low != LOWEST:
            bounds.append(key >= _literal(places.low))
        if places.high != HIGHEST:
            bounds.append(key < _literal(places.high))
        return bounds


def parts_of(order: ListOrder) -> list[IndexPart]:
    """Return the index parts that together contain all rows in an order.

    For a root (``root_id`` is NULL) both times are equal, so one index serves both orders. Rows that follow a root have another
    index, by their creation time.
    """
    if order is ListOrder.BEGUN:
        return [IndexPart(_row.user_time_ms, _row.id, [])]
    return [
        IndexPart(_row.user_time_ms, _row.id, [_row.root_id.is_(None)]),
        IndexPart(_row.created_ms, _row.id, [_row.root_id.is_not(None)]),
    ]


def account_parts(account_transactions: AccountTransactions, order: ListOrder) -> list[IndexPart]:
    """Return the parts that together contain the accounts' transactions, each of them once.

    The list of an account has the order BEGUN. For the order MADE, all its rows are read and sorted.
    """
    listed = [_listed.holder_id.in_(account_transactions.holder_ids), _row.id == _listed.id]
    in_order = IndexPart(_listed.user_time_ms, _listed.id, listed)
    time_ms = _row[order.value]
    return [
        in_order if order is ListOrder.BEGUN else IndexPart(time_ms, _row.id, listed),
        IndexPart(time_ms, _row.id, [_row.id.in_(account_transactions.recent)]),
    ]


def _literal(key: Key) -> Any:
    return tuple_(*(literal(part, BigInteger) for part in key))


@dataclass(frozen=True, slots=True)
class Block:
    """The rows from ``edge`` to before the edge of the next block. Their times lie between ``first_ms`` and ``last_ms``."""

    edge: Key
    counts: tuple[tuple[RowClass, int], ...]
    first_ms: int
    last_ms: int

    def total(self, weight: Weight) -> int:
        """Return the number of list entries in the block."""
        return sum(weight(row_class) * count for row_class, count in self.counts)

    def is_within(self, places: Range) -> bool:
        """Return True if the whole block lies in a range."""
        return places.low <= (self.first_ms, 0) and (self.last_ms + 1, 0) <= places.high


def read_blocks(db: Connection, program_id: int, order: ListOrder, places: Range) -> list[Block]:
    """Count the rows of a range in one statement. The first block begins at the low end of the range."""
    blocks: list[Block] = []
    for number, rows in groupby(db.execute(_blocks_query(program_id, order, places)), key=attrgetter("block")):
        classes = list(rows)
        first = next((row.first_at, row.first_id) for row in classes if row.first_at is not None)
        counts = tuple((RowClass(row.type_id, row.state, row.source_id, row.direction), row.rows) for row in classes)
        span = min(row.low for row in classes), max(row.high for row in classes)
        blocks.append(Block(first if number else places.low, counts, *span))
    return blocks or [Block(places.low, (), places.low[0], places.low[0])]


def _blocks_query(program_id: int, order: ListOrder, places: Range) -> Select[Any]:
    selects = [
        select(
            part.time_ms.label("time_ms"), _row.id, _row.type_id, _row.state, _row.source_id, _DIRECTION.label("direction")
        ).where(_row.program_id == program_id, *part.within(places), *part.conditions)
        for part in parts_of(order)
    ]
    rows = union_all(*selects).subquery() if len(selects) > 1 else selects[0].subquery()
    nth = func.row_number().over(order_by=(rows.c.time_ms, rows.c.id)) - 1
    numbered = select(rows, (nth // BLOCK_ROWS).label("block"), (nth % BLOCK_ROWS).label("nth")).subquery()
    columns = numbered.c
    group_key = (columns.block, columns.type_id, columns.state, columns.source_id, columns.direction)
    is_first = columns.nth == 0
    firsts = (
        func.min(case((is_first, columns.time_ms))).label("first_at"),
        func.min(case((is_first, columns.id))).label("first_id"),
    )
    span = (func.min(columns.time_ms).label("low"), func.max(columns.time_ms).label("high"))
    return select(*group_key, func.count().label("rows"), *firsts, *span).group_by(*group_key).order_by(columns.block)


@dataclass(slots=True)
class BlockIndex:
    """The blocks of a program's list in one order, and their cached sums for each filter."""

    program_id: int
    order: ListOrder
    blocks: list[Block]
    edges: list[Key] = field(init=False)
    sums: OrderedDict[Hashable, tuple[Weight, list[int]]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.edges = [block.edge for block in self.blocks]

    def block_of(self, key: Key) -> int:
        """Return the number of the block that a place belongs to."""
        return max(0, bisect_right(self.edges, key) - 1)

    def recount(self, db: Connection, keys: set[Key]) -> None:
        """Recount the blocks that contain these places."""
        numbers = {self.block_of(key) for key in keys}
        if len(numbers) > max(MANY_BLOCKS, len(self.blocks) // 4):
            # So many blocks changed that one scan of the whole list is faster than many scans of parts.
            self.blocks = read_blocks(db, self.program_id, self.order, Range(LOWEST, HIGHEST))
            self.edges = [block.edge for block in self.blocks]
            self.sums.clear()
            return
        for number in sorted(numbers, reverse=True):
            high = self.edges[number + 1] if number + 1 < len(self.edges) else HIGHEST
            fresh = read_blocks(db, self.program_id, self.order, Range(self.edges[number], high))
            if len(fresh) == 2 and sum(count for block in fresh for _, count in block.counts) <= BLOCK_ROWS_MAX:
                fresh = [Block(fresh[0].edge, fresh[0].counts + fresh[1].counts, fresh[0].first_ms, fresh[1].last_ms)]
            self.blocks[number : number + 1] = fresh
            self.edges[number : number + 1] = [block.edge for block in fresh]
            for weight, totals in self.sums.values():
                totals[number : number + 1] = [block.total(weight) for block in fresh]

    def totals(self, name: Hashable, weight: Weight) -> list[int]:
        """Return the number of entries of a filter's list in each block."""
        if name not in self.sums:
            self.sums[name] = weight, [block.total(weight) for block in self.blocks]
            if len(self.sums) > FILTERS_MAX:
                self.sums.popitem(last=False)
        self.sums.move_to_end(name)
        return self.sums[name][1]

    def count(self, db: Connection, weight: Weight, places: Range) -> int:
        """Return the number of entries in a part of a block."""
        return sum(block.total(weight) for block in read_blocks(db, self.program_id, self.order, places))

    def find(
        self, db: Connection, name: Hashable, weight: Weight, places: Range, *, skip: int, take: int, descending: bool
    ) -> ListPosition:
        """Return the ranges that contain the entries after the first ``skip``: ``take`` entries, or fewer at the end of the list.

        The ranges omit blocks without an entry.
        """
        first, end = self.block_of(places.low), bisect_left(self.edges, places.high)

        def part(number: int) -> Range:
            high = self.edges[number + 1] if number + 1 < end else places.high
            return Range(max(self.edges[number], places.low), high)

        totals = self.totals(name, weight)[first:end]
        # Only the first and the last block can lie partly outside of the range.
        for number in {first, end - 1}:
            if self.blocks[number].counts and not self.blocks[number].is_within(places):
                totals[number - first] = self.count(db, weight, part(number))
        if descending:
            totals.reverse()
        added = list(accumulate(totals))
        index = bisect_right(added, skip)
        offset = skip - (added[index - 1] if index else 0)
        chosen = list[Range]()
        while index < len(added):
            chosen.append(part(end - 1 - index if descending else first + index))
            if added[index] >= skip + take:
                return ListPosition(_joined(chosen), offset, is_full=True)
            index = bisect_right(added, added[index])
        return ListPosition(_joined(chosen), offset, is_full=False)


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """Return the ranges with adjacent ones joined."""
    joined: list[Range] = []
    for places in ranges:
        if joined and joined[-1].high == places.low:
            joined[-1] = Range(joined[-1].low, places.high)
        elif joined and joined[-1].low == places.high:
            joined[-1] = Range(places.low, joined[-1].high)
        else:
            joined.append(places)
    return joined
