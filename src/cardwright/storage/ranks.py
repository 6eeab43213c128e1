"""Where in a program's list of transactions a position is, without reading what lies before it: its counts, kept true.

The counts of a list's blocks live in the process: the first position that is looked for costs a walk over the program's rows,
later ones what is new since. Nothing is written, so a purchase pays nothing.

What is counted of a block is true until a row arrives in it, because rows are final but for the state of a chain's root,
and that changes only with a new row of the chain, which began at the same time as the root. So the rows that are new since
the last look tell which blocks have to be counted again.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from sqlalchemy import Connection, func, select, text

from cardwright.storage.blocks import HIGHEST, LOWEST, Counted, Order, Range, Weight, read_blocks
from cardwright.storage.database import Row
from cardwright.storage.hot import POSTGRES_ID_BLOCK
from cardwright.storage.tables import transactions

PROGRAMS_MAX = 32
"""Programs whose counts are kept, about 1 KB for each block; the least recently used goes first."""

SETTLE_S = 1.0
"""How long the first count waits for the transactions that are under way on PostgreSQL; then the caller does without."""

_row = transactions.c


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
        return self._read_to.get(block, block * POSTGRES_ID_BLOCK)

    def _spans(self, db: Connection) -> dict[str, list[int]]:
        """The parts of all blocks in which new rows may be."""
        last = int(db.execute(_BLOCKS).scalar_one())
        spans = [(self._low(block), (block + 1) * POSTGRES_ID_BLOCK) for block in range(last)]
        # The last id of a block is odd, as all are.
        spans = [(low, high) for low, high in spans if low < high - 1]
        return {"low": [low for low, _ in spans], "high": [high for _, high in spans]}

    def _look(self, db: Connection) -> None:
        """Remembers how far the ids reach, and who was under way by then."""
        if db.dialect.name == "sqlite":
            self._read_to = {0: max(self._low(0), int(db.scalar(select(func.max(_row.id))) or 0))}
            return
        newest = (found for (found,) in db.execute(_NEWEST, self._spans(db)) if found is not None)
        reached = {(row_id - 1) // POSTGRES_ID_BLOCK: row_id for row_id in newest}
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
            # Whatever it is, half of the news may be in; who asks next counts anew.
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
