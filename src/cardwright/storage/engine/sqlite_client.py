"""SQLite client: the event loop's connection to the process that reads and writes SQLite (``sqlite_worker``)."""

import asyncio
import marshal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cardwright.kit.failpoints import async_failpoint
from cardwright.kit.framing import FrameReader
from cardwright.kit.limits import PATIENT
from cardwright.storage.engine.sqlite_worker import CONFLICT, DAMAGED, LATE, LOCKED, REFUSED, UNAVAILABLE, packed
from cardwright.storage.engine.store import StatementRows, noop
from cardwright.storage.failures import Conflict, ConnectionLost, Damaged, InDoubt, Locked, Refused, TimedOut, Unavailable
from cardwright.storage.outage import TIMEOUTS

FAILURES = {CONFLICT: Conflict, LOCKED: Locked, LATE: TimedOut, UNAVAILABLE: Unavailable, DAMAGED: Damaged, REFUSED: Refused}

MARGIN_S = 0.2
"""Seconds by which the limit of the process is earlier than the deadline, so that a refusal arrives in time."""

REAP_S = 1.0
"""Maximum wait in seconds for the process to end. A process that hangs in a disk operation does not end."""


POLL_S = 0.005


class _Waiter(NamedTuple):
    """A request without an answer yet."""

    answer: "asyncio.Future[bytes]"
    commits: bool


class SqliteClient:
    """A process and the connection to it. The process runs requests in the order of their arrival.

    A request waits at most ``lock_s`` seconds for the lock of the file. If a request has no answer at its deadline, the client
    kills the process, and all later requests fail too.
    """

    def __init__(self, path: str, statements: Mapping[str, str], lock_s: float = PATIENT.lock_s) -> None:
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "cardwright.storage.engine.sqlite_worker", path, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._socket.setblocking(False)
        self._lock_s = lock_s
        self._unsent, self._frames = b"", FrameReader()
        self._waiters: deque[_Waiter] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._on_readable)
        self.is_open = True
        self._send(packed(statements))

    async def read(self, parts: Sequence[StatementRows], deadline: float) -> tuple[int, list[Any]]:
        """Return the version of the database, and the rows of each statement.

        Raises Unavailable if they do not arrive by ``deadline``.
        """
        _, version, results = await self._ask(None, parts, deadline, noop)
        return version, results

    async def write(self, version: int, parts: Sequence[StatementRows], deadline: float, meanwhile: Callable[[], None]) -> None:
        """Commit, unless another process has committed since that version was read. Calls ``meanwhile`` after sending.

        Raises Conflict if the batch must run again, Unavailable if the database failed, and InDoubt if no answer arrived.
        """
        await self._ask(version, parts, deadline, meanwhile)

    async def close(self) -> None:
        """Close the connection, which ends the process, and wait for the end."""
        self._end(ConnectionLost("the process that writes SQLite was closed"))
        await self.reap()

    async def reap(self) -> None:
        """Wait until the process has ended, and kill it after ``REAP_S`` seconds. Raises Unavailable if it hangs."""
        if await self._ends():
            return
        self._process.kill()
        if not await self._ends():
            raise Unavailable("the process that writes SQLite does not end")

    async def _ends(self) -> bool:
        """Return True if the process ends in time. Polls without a thread, because all threads may wait for the database."""
        end = self._loop.time() + REAP_S
        while self._process.poll() is None and self._loop.time() < end:
            await asyncio.sleep(POLL_S)
        return self._process.returncode is not None

    async def _ask(
        self, version: int | None, parts: Sequence[StatementRows], deadline: float, meanwhile: Callable[[], None]
    ) -> tuple[str, int, list[Any]]:
        if not self.is_open:
            raise ConnectionLost("the process that writes SQLite has ended")
        self._waiters.append(waiter := _Waiter(self._loop.create_future(), version is not None))
        until = min(deadline - MARGIN_S, self._loop.time() + self._lock_s)
        self._send(packed((version, until, [(name, [tuple(row) for row in rows]) for name, rows in parts])))
        meanwhile()
        if waiter.commits:
            await async_failpoint("commit.sent")
        timer = self._loop.call_at(deadline, self._time_out, waiter)
        try:
            kind, read_version, results = marshal.loads(await waiter.answer)
        finally:
            timer.cancel()
        if kind:
            raise FAILURES[kind](results[0])
        return kind, read_version, results

    def _time_out(self, waiter: _Waiter) -> None:
        TIMEOUTS.labels("commit" if waiter.commits else "statement").inc()
        # Kill the process before failing the requests: it must not begin a commit after its deadline.
        self._process.kill()
        self._end(TimedOut("the process that writes SQLite did not answer in time"))

    def _send(self, message: bytes) -> None:
        if self._unsent:
            self._unsent += message
        else:
            self._unsent = message
            self._flush()

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(ConnectionLost(str(error)))
            return
        if self._unsent:
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            chunk = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._end(ConnectionLost("the process that writes SQLite has ended"))
            return
        for message in self._frames.feed(chunk):
            answer = self._waiters.popleft().answer
            if not answer.done():
                answer.set_result(message)

    def _end(self, reason: Unavailable) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.answer.done():
                waiter.answer.set_exception(InDoubt(str(reason)) if waiter.commits else reason)
