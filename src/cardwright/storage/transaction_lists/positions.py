"""Positions: the location of the n-th entry of a program's list, without reading earlier entries.

The process caches the counts of a list's blocks. The first position costs a scan of the program's rows, later ones a scan of the
new rows. Nothing is written, so a purchase pays nothing.

The counts of a block stay valid until a row arrives in it. Rows are final except for the state of a chain's root. That state
changes only with a new row of the chain, which has the time of the root. So the new rows determine which blocks to recount.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from cardwright.storage.database import Row
from cardwright.storage.tables import POSTGRES_ID_BLOCK, transactions
from cardwright.storage.transaction_lists.blocks import (
    HIGHEST,
    LOWEST,
    BlockIndex,
    ListOrder,
    ListPosition,
    Range,
    Weight,
    read_blocks,
)

PROGRAMS_MAX = 32
"""Maximum number of programs whose counts are cached, about 1 KB for each block. The least recently used is evicted first."""

_row = transactions.c


# --- What is new --------------------------------------------------------------------------


class Moment(NamedTuple):
    """The snapshot of a database transaction, in an order: a later snapshot is greater.

    On SQLite ``ended`` is the highest row id. On PostgreSQL it is the snapshot's xmax: the transaction id after the highest one
    that has ended. Transactions below it can be active: ``oldest`` is the lowest active id (xmin), and ``under_way`` is minus
    their number. ``given`` is the id of the next transaction, read at the snapshot or later. All ids from ``ended`` on are active
    too.
    """

    ended: int
    oldest: int = 0
    under_way: int = 0
    given: int = 0


def moment_of(db: Connection) -> Moment:
    """Return the moment of a read transaction."""
    if db.dialect.name == "sqlite":
        return Moment(int(db.scalar(select(func.max(_row.id))) or 0))
    ended, oldest, under_way, age = db.execute(_MOMENT).one()
    # The age of transaction 3, the first one, modulo 2^32, gives the low bits of the next id.
    return Moment(ended, oldest, under_way, ended + (3 + age - ended) % 2**32)


class NewRows:
    """The rows that arrived since the last look. No row is missed; a row may be returned twice.

    SQLite has one writer, so ids arrive in order. On PostgreSQL each process draws ids from separate id blocks, and commits
    within an id block can be out of order. A look records the highest id of each id block (``reached``), and the id of the next
    database transaction (``by``). A batch locks its accounts before it draws row ids, and the lock assigns its transaction id. So
    only transactions below ``by`` can still commit a row id below ``reached``. When all of them have ended, no new row can appear
    below the look, and reading continues from there. Until then the same span is read again.
    """

    def __init__(self, program_id: int) -> None:
        self._program_id = program_id
        self._read_to: dict[int, int] = {}
        self._last_look: tuple[dict[int, int], int] | None = None

    def begin(self, db: Connection, moment: Moment) -> bool:
        """Mark all present rows as known. Return False while a transaction is active that had begun by the first look.

        A transaction reads one snapshot, so it cannot see the end of another. A later call succeeds.
        """
        if self._last_look is None:
            self._look(db, moment)
        if db.dialect.name == "sqlite":
            return True
        assert self._last_look is not None
        reached, by = self._last_look
        if moment.oldest < by:
            return False
        self._read_to = reached
        self._look(db, moment)
        return True

    def rows(self, db: Connection, moment: Moment) -> list[Row]:
        """Return ids, times and roots of the program's new rows."""
        if db.dialect.name == "sqlite":
            columns = select(_row.program_id, _row.id, _row.user_time_ms, _row.created_ms, _row.root_id)
            rows = list(db.execute(columns.where(_row.id > self._low(0))))
            self._look(db, moment)
            return self._program_rows(rows)
        assert self._last_look is not None
        reached, by = self._last_look
        is_complete = moment.oldest >= by
        self._look(db, moment)
        if moment.oldest >= self._last_look[1]:
            is_complete, (reached, by) = True, self._last_look
        rows = list(db.execute(_IN_SPANS, self._spans(db)))
        if is_complete:
            self._read_to = reached
        else:
            # Under steady traffic some transaction is always active, so keep the older look until its transactions have ended.
            self._last_look = reached, by
        return self._program_rows(rows)

    def _program_rows(self, rows: list[Row]) -> list[Row]:
        # This is not a condition of the query: the database would choose an index over all rows of the program.
        return [row for row in rows if row.program_id == self._program_id]

    def _low(self, block: int) -> int:
        return self._read_to.get(block, block * POSTGRES_ID_BLOCK)

    def _spans(self, db: Connection) -> dict[str, list[int]]:
        """Return the parts of all id blocks that may contain new rows."""
        last = int(db.execute(_BLOCKS).scalar_one())
        spans = [(self._low(block), (block + 1) * POSTGRES_ID_BLOCK) for block in range(last)]
        # All ids are odd, so the last id of a block is ``high - 1``.
        spans = [(low, high) for low, high in spans if low < high - 1]
        return {"low": [low for low, _ in spans], "high": [high for _, high in spans]}

    def _look(self, db: Connection, moment: Moment) -> None:
        """Record the highest ids, and the id of the next database transaction."""
        if db.dialect.name == "sqlite":
            self._read_to = {0: max(self._low(0), moment.ended)}
            return
        newest = (row_id for (row_id,) in db.execute(_NEWEST, self._spans(db)) if row_id is not None)
        reached = {(row_id - 1) // POSTGRES_ID_BLOCK: row_id for row_id in newest}
        self._last_look = self._read_to | reached, moment.given


_BLOCKS = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM transaction_blocks")
_MOMENT = text(
    "SELECT pg_snapshot_xmax(seen)::text::bigint, pg_snapshot_xmin(seen)::text::bigint, "
    "-(SELECT count(*) FROM pg_snapshot_xip(seen)), age('3'::xid) FROM pg_current_snapshot() AS seen"
)
_SPANS = "unnest(CAST(:low AS bigint[]), CAST(:high AS bigint[])) AS s(low, high)"
_IN_SPANS = text(
    f"SELECT t.program_id, t.id, t.user_time_ms, t.created_ms, t.root_id FROM {_SPANS} "  # noqa: S608
    "JOIN transactions t ON t.id > s.low AND t.id <= s.high"
)
_NEWEST = text(f"SELECT (SELECT max(t.id) FROM transactions t WHERE t.id > s.low AND t.id <= s.high) FROM {_SPANS}")  # noqa: S608


# --- One program, all programs ------------------------------------------------------------


class _Program:
    """The cached counts of one program's list."""

    def __init__(self, program_id: int) -> None:
        self.lock = threading.Lock()
        self.program_id = program_id
        self._new_rows = NewRows(program_id)
        self._counted: dict[ListOrder, BlockIndex] = {}
        self._counted_at = Moment(0)
        self._anchor: tuple[int, int] | None = None

    def up_to_date(self, db: Connection, order: ListOrder) -> BlockIndex | None:
        """Return the blocks as of this transaction or a later one, or None if they cannot be counted at present."""
        try:
            return self._up_to_date(db, order)
        except BaseException:
            # After any exception only a part of the new rows may be counted, so the next call counts again from the start.
            self._clear()
            raise

    def _up_to_date(self, db: Connection, order: ListOrder) -> BlockIndex | None:
        if self._counted and not self._is_anchored(db):
            # Another process has reset the program.
            self._clear()
        moment = moment_of(db)
        if self._counted and moment < self._counted_at:
            # A count of this older snapshot would lack rows that are already known, and they would never be added.
            return self._counted.get(order)
        if self._counted:
            self._take_in(self._new_rows.rows(db, moment), db)
        elif not self._begin(db, moment):
            return None
        self._counted_at = moment
        if order not in self._counted:
            blocks = read_blocks(db, self.program_id, order, Range(LOWEST, HIGHEST))
            self._counted[order] = BlockIndex(self.program_id, order, blocks)
        return self._counted[order]

    def _clear(self) -> None:
        self._counted.clear()
        self._new_rows = NewRows(self.program_id)

    def _begin(self, db: Connection, moment: Moment) -> bool:
        newest = select(_row.id, _row.seed).where(_row.program_id == self.program_id)
        row = db.execute(newest.order_by(_row.user_time_ms.desc(), _row.id.desc()).limit(1)).one_or_none()
        self._anchor = None if row is None else (row.id, row.seed)
        return self._new_rows.begin(db, moment)

    def _is_anchored(self, db: Connection) -> bool:
        """Return True if the newest row of the first count still exists. If not, another process has reset the program."""
        if self._anchor is None:
            return False
        query = select(_row.seed).where(_row.id == self._anchor[0], _row.program_id == self.program_id)
        return db.scalar(query) == self._anchor[1]

    def _take_in(self, rows: Sequence[Row], db: Connection) -> None:
        for order, counted in self._counted.items():
            keys = {(getattr(row, order.value), row.id) for row in rows}
            # A row that follows a card's message has the begin time of its root, so the root's block is recounted too. A row that
            # follows a GPA order has another begin time, so its key leads to another block. This is harmless, because the state
            # of an order's row never changes.
            keys |= {(row.user_time_ms, row.root_id) for row in rows if row.root_id is not None}
            counted.recount(db, keys)


class ListPositions:
    """The cached counts of programs whose lists were read far from their ends."""

    def __init__(self) -> None:
        self._programs: OrderedDict[int, _Program] = OrderedDict()
        self._lock = threading.Lock()

    def find(
        self, db: Connection, program_id: int, order: ListOrder, name: Hashable, weight: Weight, places: Range,
        *, skip: int, take: int, descending: bool,
    ) -> ListPosition | None:  # fmt: skip
        """Return the position from ``BlockIndex.find``, or None if nothing can be counted at present.

        The counts can be those of a later snapshot than that of ``db``.
        """
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

    def clear(self, program_id: int) -> None:
        """Drop the counts of a program after a reset."""
        with self._lock:
            self._programs.pop(program_id, None)
