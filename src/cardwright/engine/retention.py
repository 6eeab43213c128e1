"""Retention: removes notifications, inbox messages and backtests after the retention time, a few rows at a time.

The books, transactions, chosen tokens and the history of the configuration are never removed. Age is real time: moving a
program's clock forward removes nothing. Several processes may remove at the same time. Each skips the rows that another process
has locked, so that it does not wait.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, NamedTuple, TypeVar

import structlog
from prometheus_client import Counter
from sqlalchemy import ColumnElement, Select, Table, and_, delete, exists, func, select, tuple_

from cardwright.kit.clock import DAY_MS, Instant, RealClock
from cardwright.outbox.events import Delivery
from cardwright.storage.backtests import FINISHED
from cardwright.storage.database import Database
from cardwright.storage.failures import Unavailable
from cardwright.storage.tables import backtest_flips, backtests, inbox_messages, outbox

ROWS_MAX: Final = 200
"""Maximum number of rows of one step, which is one transaction. On SQLite purchases wait for it, about 2 ms."""

MESSAGES_MAX: Final = 5
"""Maximum number of inbox messages of one step.

A message may have 1 MiB, which takes SQLite as long as 400 rows of the outbox.
"""

PAUSE_S: Final = 0.05
"""Minimum pause between two steps, in seconds."""

PAUSE_SHARE: Final = 9
"""Minimum ratio of a pause to the step before it, so that nine tenths of the time remain for other work."""

ROUND_S: Final = 60.0
"""Seconds between the end of a round and the beginning of the next. A round removes all rows that are old enough."""

REMOVED = Counter("cardwright_removed_rows", "Rows removed after the retention time", ["table"])

T = TypeVar("T")
log = structlog.get_logger()


class Removal(NamedTuple):
    """A table, and the query of the primary keys of at most one step's rows that ended before an instant of real time."""

    table: Table
    find_ended: Callable[[Instant], Select[tuple[int, ...]]]


# --- Rows that ended ----------------------------------------------------------------------


def find_delivered(before_ms: Instant) -> Select[tuple[int, ...]]:
    """Select notifications that were delivered."""
    return _settled(Delivery.DELIVERED, before_ms)


def find_dead(before_ms: Instant) -> Select[tuple[int, ...]]:
    """Select notifications without further attempts."""
    return _settled(Delivery.DEAD, before_ms)


def _settled(state: Delivery, before_ms: Instant) -> Select[tuple[int, ...]]:
    ended = select(outbox.c.id).where(outbox.c.state == int(state), outbox.c.due_ms < before_ms)
    # One state a query and in the order of the index, or PostgreSQL may choose to scan the table from its beginning.
    return ended.order_by(outbox.c.due_ms).limit(ROWS_MAX)


def find_messages(before_ms: Instant) -> Select[tuple[int, ...]]:
    """Select inbox messages, except the newest of the database.

    Ids grow with time, so only the messages with the lowest ids are read and no index on the time is needed. The newest
    message stays because SQLite would give its id to the next one, which a reader that asks for later ids would miss.
    """
    newest = select(func.max(inbox_messages.c.id)).scalar_subquery()
    oldest = select(inbox_messages.c.id).where(inbox_messages.c.id < newest).order_by(inbox_messages.c.id).limit(MESSAGES_MAX)
    return select(inbox_messages.c.id).where(inbox_messages.c.id.in_(oldest), inbox_messages.c.stored_ms < before_ms)


def find_flips(before_ms: Instant) -> Select[tuple[int, ...]]:
    """Select the last flips of a finished backtest that has any."""
    key = backtest_flips.c
    finished = select(backtests.c.id).where(_is_finished(before_ms), _HAS_FLIPS).order_by(backtests.c.id).limit(1)
    flips = select(key.backtest_id, key.number).where(key.backtest_id == finished.scalar_subquery())
    return flips.order_by(key.number.desc()).limit(ROWS_MAX)


def find_backtests(before_ms: Instant) -> Select[tuple[int, ...]]:
    """Select finished backtests whose flips are gone."""
    return select(backtests.c.id).where(_is_finished(before_ms), ~_HAS_FLIPS).limit(ROWS_MAX)


_HAS_FLIPS: Final = exists().where(backtest_flips.c.backtest_id == backtests.c.id)


def _is_finished(before_ms: Instant) -> ColumnElement[bool]:
    return and_(backtests.c.state.in_(FINISHED), backtests.c.lease_ms < before_ms)


REMOVALS: Final = (
    Removal(outbox, find_delivered),
    Removal(outbox, find_dead),
    Removal(inbox_messages, find_messages),
    # Before their backtests: SQLite may give the id of a removed backtest to a new one.
    Removal(backtest_flips, find_flips),
    Removal(backtests, find_backtests),
)


def remove_some(database: Database, removal: Removal, before_ms: Instant) -> int:
    """Remove the rows of one step in one transaction and return their number; 0 if there are none."""
    ended, table = removal.find_ended(before_ms), removal.table
    with database.read() as db:
        # Usually there is nothing to remove, and a write transaction would delay purchases on SQLite.
        if db.execute(ended.limit(1)).first() is None:
            return 0
    # A common table expression that locks rows runs once; a plain subquery with a limit may run once for each row. It is
    # nested because Python's sqlite3 counts the rows of statements that begin with DELETE, not of those that begin with WITH.
    locked = ended.with_for_update(of=table, skip_locked=True).cte("ended", nesting=True)
    with database.write() as db:
        return db.execute(delete(table).where(tuple_(*table.primary_key).in_(select(*locked.c)))).rowcount


# --- The loop -----------------------------------------------------------------------------


class Retention:
    """The loop that removes rows ``days`` days of real time after they ended. One for each process, in its event loop."""

    def __init__(
        self, database: Database, real_clock: RealClock, executor: Executor, days: int, *, round_s: float = ROUND_S
    ) -> None:
        self._database = database
        self._real_clock = real_clock
        self._executor = executor
        self._retention_ms = days * DAY_MS
        self._round_s = round_s
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Remove rows that are old enough, round after round, until ``stop`` is called."""
        while not self._stopped.is_set():
            try:
                await self.remove_all()
            except Unavailable as error:
                log.debug("rows past the retention time could not be removed", error=str(error))
            except Exception:
                # A bug in one round must not end the loop: the database would grow without limit.
                log.exception("rows past the retention time could not be removed")
            await self._rest(self._round_s)

    def stop(self) -> None:
        """End ``run`` after the step under way."""
        self._stopped.set()

    async def remove_all(self) -> None:
        """Remove all rows that are old enough now, step by step, until ``stop`` is called."""
        # One instant for the whole round, so that the round ends even if rows become old enough all the time.
        before_ms = self._real_clock() - self._retention_ms
        for removal in REMOVALS:
            while not self._stopped.is_set() and await self._remove_some(removal, before_ms):
                continue

    async def _remove_some(self, removal: Removal, before_ms: Instant) -> bool:
        """Remove the rows of one step and pause; return False without a pause if there are none."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        removed = await loop.run_in_executor(self._executor, remove_some, self._database, removal, before_ms)
        if removed == 0:
            return False
        REMOVED.labels(removal.table.name).inc(removed)
        await self._rest(max(PAUSE_S, PAUSE_SHARE * (loop.time() - start_s)))
        return True

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return
