"""Where in a program's list of transactions a position is: counts by block of rows, so that no page depends on those before it.

A list in order of time is cut into blocks of some hundred rows, and of each block is known how many rows of which kind are
in it. To find row n the counts are added up; what lies before it is not read. The counts live in the process: the first
position that is looked for costs a walk over the program's rows, later ones what is new since. Nothing is written, so a
purchase pays nothing.

What is counted of a block is true until a row arrives in it, because rows are final but for the state of a chain's root,
and that changes only with a new row of the chain, which began at the same time as the root. So the rows that are new since
the last look tell which blocks have to be counted again.
"""

import threading
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, func, literal, select, text, tuple_, union_all

from cardwright.storage.database import Row
from cardwright.storage.hot_postgres import ID_BLOCK
from cardwright.storage.tables import transactions

BLOCK_ROWS = 256
"""Rows in a block when it is cut; reading so many takes less than a millisecond."""

BLOCK_ROWS_MAX = 3 * BLOCK_ROWS // 2
"""A block that grew beyond this is cut again."""

MANY_BLOCKS = 64
"""Blocks that are counted again one by one, however few there are in all."""

FILTERS_MAX = 16
"""Filters whose sums are kept for each order; the least recently used goes first."""

PROGRAMS_MAX = 32
"""Programs whose counts are kept, about 1 KB for each block; the least recently used goes first."""

SETTLE_S = 1.0
"""How long the first count waits for the transactions that are under way on PostgreSQL; then the caller does without."""

Key = tuple[int, int]
"""A place in a list: milliseconds and row id."""

LOWEST: Key = (-1, 0)
HIGHEST: Key = (2**62, 0)


class Order(Enum):
    """What a list is sorted by, the row id breaking ties: when the cardholder began it, or when the row was made."""

    BEGUN = "user_time_ms"
    MADE = "created_ms"


class Alike(NamedTuple):
    """What a filter of a whole program's list can see of a row; ``direction`` is the sign of ``moved``."""

    kind: int
    state: int
    source_id: int | None
    direction: int


class Range(NamedTuple):
    """Places from ``low`` on and before ``high``."""

    low: Key
    high: Key


Weight = Callable[[Alike], int]
"""How many entries of a list such a row is: none, its card's side or its load's side, or both."""

_row = transactions.c
_DIRECTION = case((_row.moved > 0, 1), (_row.moved < 0, -1), else_=0)


def parts_of(order: Order) -> list[tuple[ColumnElement[int], list[ColumnElement[bool]]]]:
    """The column and the condition of each index that together are the order.

    A row that follows none was made when it began, so one index serves it in both orders; the others have one of their own.
    """
    if order is Order.BEGUN:
        return [(_row.user_time_ms, [])]
    return [(_row.user_time_ms, [_row.root_id.is_(None)]), (_row.created_ms, [_row.root_id.is_not(None)])]


def within(column: ColumnElement[int], places: Range) -> list[ColumnElement[bool]]:
    """The condition that a row lies in a range of places."""
    key = tuple_(column, _row.id)
    bounds = []
    # Without a bound there is no condition: an open end costs the database nothing then.
    if places.low != LOWEST:
        bounds.append(key >= _literal(places.low))
    if places.high != HIGHEST:
        bounds.append(key < _literal(places.high))
    return bounds


def _literal(key: Key) -> Any:
    return tuple_(*(literal(part, BigInteger) for part in key))


@dataclass(frozen=True, slots=True)
class Block:
    """Rows from ``edge`` on, up to the next block's. They lie between ``first_ms`` and ``last_ms``."""

    edge: Key
    counts: tuple[tuple[Alike, int], ...]
    first_ms: int
    last_ms: int

    def total(self, weight: Weight) -> int:
        """How many entries of a list are in it."""
        return sum(weight(alike) * count for alike, count in self.counts)

    def is_within(self, places: Range) -> bool:
        """Whether the whole of it lies in a range."""
        return places.low <= (self.first_ms, 0) and (self.last_ms + 1, 0) <= places.high


def read_blocks(db: Connection, program_id: int, order: Order, places: Range) -> list[Block]:
    """Counts the rows of a range in one statement; the first block begins where the range does."""
    blocks: list[Block] = []
    for number, rows in groupby(db.execute(_blocks_query(program_id, order, places)), key=attrgetter("block")):
        alike = list(rows)
        first = next((row.first_at, row.first_id) for row in alike if row.first_at is not None)
        counts = tuple((Alike(row.kind, row.state, row.source_id, row.direction), row.rows) for row in alike)
        span = min(row.low for row in alike), max(row.high for row in alike)
        blocks.append(Block(first if number else places.low, counts, *span))
    return blocks or [Block(places.low, (), places.low[0], places.low[0])]


def _blocks_query(program_id: int, order: Order, places: Range) -> Select[Any]:
    selects = [
        select(column.label("at"), _row.id, _row.kind, _row.state, _row.source_id, _DIRECTION.label("direction")).where(
            _row.program_id == program_id, *within(column, places), *conditions
        )
        for column, conditions in parts_of(order)
    ]
    rows = union_all(*selects).subquery() if len(selects) > 1 else selects[0].subquery()
    nth = func.row_number().over(order_by=(rows.c.at, rows.c.id)) - 1
    numbered = select(rows, (nth // BLOCK_ROWS).label("block"), (nth % BLOCK_ROWS).label("nth")).subquery()
    one = numbered.c
    alike = (one.block, one.kind, one.state, one.source_id, one.direction)
    is_first = one.nth == 0
    firsts = (func.min(case((is_first, one.at))).label("first_at"), func.min(case((is_first, one.id))).label("first_id"))
    span = (func.min(one.at).label("low"), func.max(one.at).label("high"))
    return select(*alike, func.count().label("rows"), *firsts, *span).group_by(*alike).order_by(one.block)


@dataclass(slots=True)
class Counted:
    """A program's list in one order, in blocks, and their sums for the filters that were asked for."""

    program_id: int
    order: Order
    blocks: list[Block]
    edges: list[Key] = field(init=False)
    sums: OrderedDict[Hashable, tuple[Weight, list[int]]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.edges = [block.edge for block in self.blocks]

    def block_of(self, key: Key) -> int:
        """The number of the block that a place belongs to."""
        return max(0, bisect_right(self.edges, key) - 1)

    def recount(self, db: Connection, keys: set[Key]) -> None:
        """Counts the blocks again that something happened in."""
        numbers = {self.block_of(key) for key in keys}
        if len(numbers) > max(MANY_BLOCKS, len(self.blocks) // 4):
            # So much is new that one walk over everything is quicker than many over parts.
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
        """How many entries of a filter's list are in each block."""
        if name not in self.sums:
            self.sums[name] = weight, [block.total(weight) for block in self.blocks]
            if len(self.sums) > FILTERS_MAX:
                self.sums.popitem(last=False)
        self.sums.move_to_end(name)
        return self.sums[name][1]

    def count(self, db: Connection, weight: Weight, places: Range) -> int:
        """The entries in a part of a block."""
        return sum(block.total(weight) for block in read_blocks(db, self.program_id, self.order, places))

    def find(
        self, db: Connection, name: Hashable, weight: Weight, places: Range, *, skip: int, take: int, descending: bool
    ) -> tuple[list[Range], int]:
        """The ranges, in the list's order, that hold the entries after the first ``skip``, and how many to skip in them.

        They hold at least ``take`` entries where there are so many, and no block without one.
        """
        first, end = self.block_of(places.low), bisect_left(self.edges, places.high)

        def part(number: int) -> Range:
            high = self.edges[number + 1] if number + 1 < end else places.high
            return Range(max(self.edges[number], places.low), high)

        totals = self.totals(name, weight)[first:end]
        # Only at its ends can the part that is asked for cut through a block.
        for number in {first, end - 1}:
            if self.blocks[number].counts and not self.blocks[number].is_within(places):
                totals[number - first] = self.count(db, weight, part(number))
        if descending:
            totals.reverse()
        added = list(accumulate(totals))
        at = bisect_right(added, skip)
        offset = skip - (added[at - 1] if at else 0)
        chosen = list[Range]()
        while at < len(added):
            chosen.append(part(end - 1 - at if descending else first + at))
            if added[at] >= skip + take:
                break
            at = bisect_right(added, added[at])
        return _joined(chosen), offset


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """Neighbours as one range."""
    joined: list[Range] = []
    for one in ranges:
        if joined and joined[-1].high == one.low:
            joined[-1] = Range(joined[-1].low, one.high)
        elif joined and joined[-1].low == one.high:
            joined[-1] = Range(one.low, joined[-1].high)
        else:
            joined.append(one)
    return joined


# --- What is new --------------------------------------------------------------------------


class News:
    """The rows that arrived since the last look. No row is missed; one may be told twice.

    SQLite has one writer, so ids arrive in order. On PostgreSQL every process draws them from blocks of its own, and in a
    block they may be committed out of order by as much as is under way at a time: what lies below a look is complete when
    every transaction has ended that had begun by then.
    """

    def __init__(self, program_id: int) -> None:
        self._program_id = program_id
        self._read_to: dict[int, int] = {}
        self._seen: tuple[dict[int, int], int] = {}, 0

    def begin(self, db: Connection) -> bool:
        """Takes what there is for known; False when transactions under way do not come to an end."""
        self._look(db)
        if db.dialect.name == "sqlite":
            return True
        deadline = time.monotonic() + SETTLE_S
        while not self._is_settled(db):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        self._read_to = self._seen[0]
        return True

    def rows(self, db: Connection) -> list[Row]:
        """Ids, times and roots of the program's new rows."""
        if db.dialect.name == "sqlite":
            columns = select(_row.program_id, _row.id, _row.user_time_ms, _row.created_ms, _row.root_id)
            found = list(db.execute(columns.where(_row.id > self._low(0))))
            self._look(db)
            return self._own(found)
        # Asked before the rows are read: what had begun by a look is then among them or never comes.
        reached, by = self._seen
        is_complete = self._is_settled(db)
        self._look(db)
        if self._is_settled(db):
            is_complete, (reached, by) = True, self._seen
        found = list(db.execute(_IN_SPANS, self._spans(db)))
        if is_complete:
            self._read_to = reached
        else:
            # Under steady traffic some transaction is always under way; only an older look can come to rest.
            self._seen = reached, by
        return self._own(found)

    def _own(self, rows: list[Row]) -> list[Row]:
        # Not a condition of the query: it would lead the database to an index over everything that the program ever did.
        return [row for row in rows if row.program_id == self._program_id]

    def _low(self, block: int) -> int:
        return self._read_to.get(block, block * ID_BLOCK)

    def _spans(self, db: Connection) -> dict[str, list[int]]:
        """The parts of all blocks in which new rows may be."""
        last = int(db.execute(_BLOCKS).scalar_one())
        spans = [(self._low(block), (block + 1) * ID_BLOCK) for block in range(last)]
        # The last id of a block is odd, as all are.
        spans = [(low, high) for low, high in spans if low < high - 1]
        return {"low": [low for low, _ in spans], "high": [high for _, high in spans]}

    def _look(self, db: Connection) -> None:
        """Remembers how far the ids reach, and who was under way by then."""
        if db.dialect.name == "sqlite":
            self._read_to = {0: max(self._low(0), int(db.scalar(select(func.max(_row.id))) or 0))}
            return
        newest = (found for (found,) in db.execute(_NEWEST, self._spans(db)) if found is not None)
        reached = {(row_id - 1) // ID_BLOCK: row_id for row_id in newest}
        # In this order: whoever drew one of these ids had begun before.
        self._seen = self._read_to | reached, int(db.execute(_NEXT_TRANSACTION).scalar_one())

    def _is_settled(self, db: Connection) -> bool:
        return int(db.execute(_OLDEST_TRANSACTION).scalar_one()) >= self._seen[1]


_BLOCKS = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM transaction_blocks")
_OLDEST_TRANSACTION = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
_NEXT_TRANSACTION = text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
_SPANS = "unnest(CAST(:low AS bigint[]), CAST(:high AS bigint[])) AS s(low, high)"
_IN_SPANS = text(
    f"SELECT t.program_id, t.id, t.user_time_ms, t.created_ms, t.root_id FROM {_SPANS} "  # noqa: S608
    "JOIN transactions t ON t.id > s.low AND t.id <= s.high"
)
_NEWEST = text(f"SELECT (SELECT max(t.id) FROM transactions t WHERE t.id > s.low AND t.id <= s.high) FROM {_SPANS}")  # noqa: S608


# --- One program, all programs ------------------------------------------------------------


class _Program:
    """What is known of one program's list."""

    def __init__(self, program_id: int) -> None:
        self.lock = threading.Lock()
        self.program_id = program_id
        self._news = News(program_id)
        self._counted: dict[Order, Counted] = {}
        self._anchor: tuple[int, int] | None = None

    def up_to_date(self, db: Connection, order: Order) -> Counted | None:
        """The blocks as they are now; None when they cannot be counted at the moment."""
        try:
            return self._up_to_date(db, order)
        except BaseException:
            # Half of the news may be in.
            self._counted.clear()
            raise

    def _up_to_date(self, db: Connection, order: Order) -> Counted | None:
        if self._counted and not self._is_anchored(db):
            # Another process has reset the program.
            self._counted.clear()
        if self._counted:
            self._take_in(self._news.rows(db), db)
        elif not self._begin(db):
            return None
        if order not in self._counted:
            blocks = read_blocks(db, self.program_id, order, Range(LOWEST, HIGHEST))
            self._counted[order] = Counted(self.program_id, order, blocks)
        return self._counted[order]

    def _begin(self, db: Connection) -> bool:
        self._news = News(self.program_id)
        newest = select(_row.id, _row.seed).where(_row.program_id == self.program_id)
        row = db.execute(newest.order_by(_row.user_time_ms.desc(), _row.id.desc()).limit(1)).one_or_none()
        self._anchor = None if row is None else (row.id, row.seed)
        return self._news.begin(db)

    def _is_anchored(self, db: Connection) -> bool:
        if self._anchor is None:
            return False
        query = select(_row.seed).where(_row.id == self._anchor[0], _row.program_id == self.program_id)
        return db.scalar(query) == self._anchor[1]

    def _take_in(self, rows: Sequence[Row], db: Connection) -> None:
        for order, counted in self._counted.items():
            keys = {(getattr(row, order.value), row.id) for row in rows}
            # A root began when what follows it began, and was made then too. Of an order without a card neither is so, but its
            # state never changes.
            keys |= {(row.user_time_ms, row.root_id) for row in rows if row.root_id is not None}
            counted.recount(db, keys)


class Ranks:
    """The counts of the programs whose lists somebody went deep into."""

    def __init__(self) -> None:
        self._programs: OrderedDict[int, _Program] = OrderedDict()
        self._lock = threading.Lock()

    def find(
        self, db: Connection, program_id: int, order: Order, name: Hashable, weight: Weight, places: Range,
        *, skip: int, take: int, descending: bool,
    ) -> tuple[list[Range], int] | None:  # fmt: skip
        """See ``Counted.find``; None when nothing can be counted at the moment."""
        with self._lock:
            program = self._programs.setdefault(program_id, _Program(program_id))
            self._programs.move_to_end(program_id)
            if len(self._programs) > PROGRAMS_MAX:
                self._programs.popitem(last=False)
        with program.lock:
            counted = program.up_to_date(db, order)
            if counted is None:
                return None
            return counted.find(db, name, weight, places, skip=skip, take=take, descending=descending)

    def forget(self, program_id: int) -> None:
        """Drops what is known of a program: its rows are gone."""
        with self._lock:
            self._programs.pop(program_id, None)

