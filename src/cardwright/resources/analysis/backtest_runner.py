"""Backtest runner: execution of queued backtests, one at a time, each in a separate process, and storage of their results.

The sums, the flips and the last account of a part are one commit. An interrupted backtest therefore continues after its last
stored part, in any process of the server.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import msgspec
import structlog

from cardwright.kit.clock import RealClock
from cardwright.kit.framing import LENGTH_BYTES, length_of
from cardwright.resources.analysis.backtest_worker import MODULE, NO_DATABASE, BacktestTask, ReplayedPart, packed
from cardwright.storage.backtests import DONE, FAILED, Claimed, claim, is_idle, save_progress
from cardwright.storage.database import Database
from cardwright.storage.failures import Unavailable
from cardwright.storage.records import text_of

LEASE_MS = 10_000
"""The lease of a backtest, in milliseconds. After it expires, any process may continue the backtest."""

RENEW_S = 3.0

LOOK_S = 5.0
"""The interval of polls for backtests whose process has ended, in seconds."""

FLIPS_MAX = 100_000
"""The maximum number of flips that are stored for a backtest. Further flips are only counted."""

T = TypeVar("T")
log = structlog.get_logger()


class BacktestRunner:
    """A runner of backtests. Each process of the server has one. ``address`` is the address of the database."""

    def __init__(self, database: Database, address: str, real_clock: RealClock, executor: Executor) -> None:
        self._database, self._address, self._real_clock, self._executor = database, address, real_clock, executor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    def wake(self) -> None:
        """Start a poll for queued backtests. Any thread may call it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._awake.set)

    def stop(self) -> None:
        """End ``run``. A running backtest is interrupted and continues after the next start."""
        self._stopping = True
        self._awake.set()
        self._kill()

    async def run(self) -> None:
        """Execute backtests until ``stop``."""
        self._loop = asyncio.get_running_loop()
        self._awake.set()
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), LOOK_S)
            self._awake.clear()
            try:
                while (claimed := await self._in_thread(self._claim)) is not None:
                    await self._work(claimed)
            except Unavailable as error:
                # The backtest continues after its last stored part when the lease has expired.
                log.debug("backtest paused, database unavailable", error=str(error))
            except Exception:
                # A bug must not end the loop, because no further backtest would run.
                log.exception("a backtest failed")

    async def _in_thread(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, act)

    def _claim(self) -> Claimed | None:
        if self._stopping:
            return None
        with self._database.read() as db:
            # The queue is usually empty. A read transaction finds that without a wait for other writers.
            if is_idle(db, self._real_clock()):
                return None
        with self._database.write() as db:
            return claim(db, self._real_clock(), LEASE_MS)

    async def _work(self, claimed: Claimed) -> None:
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", MODULE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            order = BacktestTask(
                address=self._address, job=claimed.job, cursor=claimed.cursor, flips_max=FLIPS_MAX - claimed.sums.flips
            )
            process.stdin.write(packed(order))
            await self._follow(claimed, process.stdout)
        finally:
            self._kill()
            await process.wait()
            self._process = None

    async def _follow(self, claimed: Claimed, stdout: asyncio.StreamReader) -> None:
        """Store each part until the last one, or until the backtest is deleted or taken over by another process."""
        while True:
            part = await self._next(claimed, stdout)
            if part is None:
                return
            claimed.sums.add(part.sums)
            done = {"state": DONE} if part.done else {}
            lease_ms = self._real_clock() + (0 if part.done else LEASE_MS)
            if not await self._keep(claimed, part.cursor, part.flips, lease_ms=lease_ms, **done) or part.done:
                return
            claimed = claimed._replace(cursor=part.cursor)

    async def _next(self, claimed: Claimed, stdout: asyncio.StreamReader) -> ReplayedPart | None:
        """Return the next part; None if the worker ended or another process has the backtest. Renew the lease meanwhile."""
        reading = asyncio.create_task(_read(stdout))
        while not (await asyncio.wait({reading}, timeout=RENEW_S))[0]:
            if not await self._keep(claimed, claimed.cursor, [], lease_ms=self._real_clock() + LEASE_MS):
                reading.cancel()
                return None
        if (part := reading.result()) is not None:
            return part
        # After a stop or an outage the backtest continues later. Any other end of its process is an error of the backtest.
        if self._stopping or (self._process is not None and await self._process.wait() == NO_DATABASE):
            await self._keep(claimed, claimed.cursor, [], lease_ms=0)
        else:
            claimed.sums.error = "the worker process ended before the backtest was complete"
            await self._keep(claimed, claimed.cursor, [], lease_ms=self._real_clock(), state=FAILED)
        return None

    async def _keep(self, claimed: Claimed, cursor: int, flips: list[str], **columns: object) -> bool:
        def act() -> bool:
            with self._database.write() as db:
                return save_progress(db, claimed, cursor, flips, sums=text_of(claimed.sums), **columns)

        return await self._in_thread(act)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


async def _read(stdout: asyncio.StreamReader) -> ReplayedPart | None:
    """Return one part, or None at the end of the stream."""
    try:
        length = length_of(await stdout.readexactly(LENGTH_BYTES))
        return msgspec.msgpack.decode(await stdout.readexactly(length), type=ReplayedPart)
    except asyncio.IncompleteReadError:
        return None
