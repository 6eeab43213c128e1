"""Database monitor: detects the beginning and the end of an outage, and revoked credentials, also without other traffic."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy import Connection, column, select, table

from cardwright.storage.credentials import access_revision
from cardwright.storage.database import Database
from cardwright.storage.failures import Contended, Damaged, Unavailable
from cardwright.storage.migrate import PROBE, check_schema

HEARTBEAT_S = 0.4
"""Seconds between two reads while the database works. A revoked credential is refused by all processes within a second."""

WRITTEN_S = 1.0
"""Seconds for which a successful commit proves that the database can serve requests."""

PROBE_S = 0.2
"""Seconds between two attempts to commit during an outage."""

SELECT_STATE = select(column("version_num"), access_revision.label("access_revision")).select_from(table("alembic_version"))

log = structlog.get_logger()


class Monitor:
    """A periodic check of the database, one in the event loop of each process.

    It calls ``on_damage`` once if the SQLite file is damaged, and ends.
    """

    def __init__(self, database: Database, on_damage: Callable[[Damaged], None]) -> None:
        self._database = database
        self._on_damage = on_damage
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="monitor")
        self._stopped = asyncio.Event()
        self._check: asyncio.Future[None] | None = None
        self._written_at = -WRITTEN_S

    async def run(self) -> None:
        """Check the database until ``stop`` is called or the file is damaged."""
        outage = self._database.outage
        while not self._stopped.is_set():
            is_away = outage.text is not None
            try:
                await self._in_thread(self._probe if is_away else self._read)
            except Contended as error:
                log.debug("the database could not be asked", error=str(error))
            except Unavailable as error:
                outage.begin(error)
                if not is_away:
                    # Running transactions would only wait until their time limit.
                    self._database.abort()
            except Exception:
                log.exception("the database could not be monitored")
            else:
                # Only a commit ends an outage: a read can succeed while writes fail.
                if is_away:
                    outage.end()
            await self._rest()
            if outage.damage is not None:
                self._on_damage(outage.damage)
                return

    def stop(self) -> None:
        """End ``run`` without waiting for the current check."""
        self._stopped.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def unreadiness(self) -> str | None:
        """Return the reason why the database cannot serve requests, or None if a commit succeeded within the last second.

        If the last commit is older, try one. The answer comes within ``ready_s`` seconds.
        """
        if (text := self._database.outage.text) is not None:
            return text
        clock = asyncio.get_running_loop().time
        if clock() - self._written_at < WRITTEN_S:
            return None
        if self._check is None or self._check.done():
            self._check = asyncio.ensure_future(self._in_thread(self._write))
            # Retrieve the exception also if all callers have stopped waiting, or asyncio logs a warning.
            self._check.add_done_callback(lambda check: check.cancelled() or check.exception())
        try:
            # All callers share one check: with a hanging database, one check for each caller would use up the threads.
            await asyncio.wait_for(asyncio.shield(self._check), self._database.limits.ready_s)
        except TimeoutError:
            return "the database does not answer in time"
        except Contended:
            return "other work on the database takes too long"
        except Unavailable as error:
            self._database.outage.begin(error)
            return self._database.outage.text
        self._written_at = clock()
        return None

    async def _rest(self) -> None:
        """Wait until the next heartbeat is due, or the next probe during an outage."""
        left_s = HEARTBEAT_S
        while left_s > 0 and not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), PROBE_S)
            left_s -= PROBE_S if self._database.outage.text is None else HEARTBEAT_S

    async def _in_thread(self, ask: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    def _read(self) -> None:
        with self._database.read(self._database.limits.statement_s) as db:
            self._check_state(db)

    def _probe(self) -> None:
        """Commit an update without a change, on a new connection."""
        self._database.renew()
        self._write()

    def _write(self) -> None:
        """Commit an update without a change. Raises SchemaChanged."""
        with self._database.write(self._database.limits.statement_s) as db:
            self._check_state(db)
            db.exec_driver_sql(PROBE)

    def _check_state(self, db: Connection) -> None:
        """Read schema and access revision. Raises SchemaChanged."""
        rows = db.execute(SELECT_STATE).all()
        check_schema([row.version_num for row in rows])
        self._database.access_revision = rows[0].access_revision
