"""Pipeline connections: PostgreSQL connections in libpq's pipeline mode, driven by the event loop without threads.

Statements are prepared once (``prepare``). The event loop reads the answers when the socket becomes readable.

All statements between two synchronisation points are one transaction, so BEGIN and COMMIT are implicit. ``ask`` gets its
answers with a flush, which leaves the transaction and its locks open. ``end`` synchronises, which commits, or rolls back
after an error.

Each round trip has a deadline. A connection that is lost, or whose answer is late, is closed at once and stays closed, and the
server rolls back the open transaction. The loop watches a copy of the socket's descriptor. libpq closes the original as soon
as the connection breaks, and another connection could get the same number while the loop still watches it.
"""

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Mapping
from time import perf_counter

import psycopg
from psycopg import pq

from cardwright.kit.failpoints import async_failpoint
from cardwright.storage.engine.store import noop
from cardwright.storage.failures import (
    LOST_STATES,
    MIGRATED_STATES,
    QUERY_CANCELED,
    RETRIABLE_STATES,
    Conflict,
    ConnectionLost,
    Contended,
    InDoubt,
    Refused,
    TimedOut,
    Unavailable,
    is_away,
    reason_of,
)
from cardwright.storage.outage import TIMEOUTS

BINARY = 1

AWAKE_S = 0.000_2
"""Seconds for which a connection polls for rows before it waits in ``epoll``.

A short ``epoll`` sleep costs more than it saves: the wake-up is late, and CPU caches are cold (decision 2). While the connection
polls, the event loop runs all other work.
"""

Rows = list[list[bytes | None]]


class PipelineConnection:
    """A connection with prepared statements. One task at a time may use it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._wire = connection.pgconn
        self._wire.nonblocking = 1
        self._wire.enter_pipeline_mode()
        self._results: list[pq.abc.PGresult] = []
        self._error: Exception | None = None
        self._loss: Unavailable | None = None
        self._unanswered = 0
        self._commits = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.dup(self._wire.socket)
        self._loop.add_reader(self._descriptor, self._on_readable)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    async def prepare(self, statements: Mapping[str, str], deadline: float) -> None:
        """Prepare the statements that ``send`` refers to by name.

        Raises Unavailable if the connection is lost before ``deadline``.
        """
        try:
            for name, statement in statements.items():
                self._wire.send_prepare(name.encode(), statement.encode())
                self._unanswered += 1
        except psycopg.OperationalError as error:
            raise self._lose(_loss_of(error)) from error
        await self.end(deadline)

    def close(self) -> None:
        """Close the connection."""
        self._lose(ConnectionLost("the connection was closed"))

    def send(self, name: str, *arrays: bytes) -> None:
        """Queue a statement with its parameters. Raises Unavailable if the connection is lost."""
        if self._loss is not None:
            raise self._loss
        try:
            self._wire.send_query_prepared(name.encode(), arrays, [BINARY] * len(arrays), result_format=BINARY)
        except psycopg.OperationalError as error:
            raise self._lose(_loss_of(error)) from error
        self._unanswered += 1

    async def ask(self, deadline: float) -> list[pq.abc.PGresult]:
        """Send the queued statements and return their results. The transaction stays open unless one of them fails.

        ``deadline`` is a time of the event loop. Raises Conflict or Unavailable, after which the transaction has ended.
        """
        try:
            self._set_out(self._wire.send_flush_request, commits=False)
            await self._stay_awake()
            await self._arrive(deadline)
        except Conflict:
            await self.end(deadline)
            raise
        except asyncio.CancelledError:
            self._abandon()
            raise
        return self._results

    async def end(self, deadline: float, meanwhile: Callable[[], None] = noop, *, commits: bool = False) -> list[pq.abc.PGresult]:
        """Send the queued statements, end the transaction and return the results. It is committed, or rolled back after an error.

        Calls ``meanwhile`` after sending. Raises Conflict or Unavailable, and InDoubt if the transaction ``commits`` changes
        and no answer arrived.
        """
        self._unanswered += 1
        self._set_out(self._wire.pipeline_sync, commits=commits)
        meanwhile()
        if commits:
            await async_failpoint("commit.sent")
        await self._arrive(deadline)
        return self._results

    def _set_out(self, ask: Callable[[], None], *, commits: bool) -> None:
        """Begin a round trip. Raises Unavailable if the connection is already lost, so that nothing can reach the server."""
        if self._loss is not None:
            raise self._loss
        self._results, self._error, self._commits = [], None, commits
        self._waiter = self._loop.create_future()
        try:
            ask()
            self._flush()
        except psycopg.OperationalError as error:
            self._lose(_loss_of(error))

    async def _stay_awake(self) -> None:
        end = perf_counter() + AWAKE_S
        while self._waiter is not None and perf_counter() < end:
            # Yield the processor to other processes, such as a database on the same machine.
            os.sched_yield()
            await asyncio.sleep(0)

    async def _arrive(self, deadline: float) -> None:
        """End a round trip. Raises its error: Conflict, Unavailable or InDoubt."""
        if self._waiter is not None:
            timer = self._loop.call_at(deadline, self._time_out)
            try:
                await self._waiter
            except asyncio.CancelledError:
                self._abandon()
                raise
            finally:
                timer.cancel()
        if self._error is not None:
            raise self._error

    def _abandon(self) -> None:
        """Close the connection after a cancelled wait. Its late answers would be taken for those of the next round trip."""
        self._lose(ConnectionLost("the wait for the answer was cancelled"))

    def _time_out(self) -> None:
        TIMEOUTS.labels("commit" if self._commits else "statement").inc()
        self._lose(TimedOut("the database did not answer in time"))

    def _flush(self) -> None:
        try:
            is_sent = self._wire.flush() == 0
        except psycopg.OperationalError as error:
            self._lose(_loss_of(error))
            return
        if is_sent:
            self._loop.remove_writer(self._descriptor)
        else:
            # The socket's buffer is full. Continue when the socket is writable.
            self._loop.add_writer(self._descriptor, self._flush)

    def _on_readable(self) -> None:
        try:
            self._read()
            # After a connection reset the loop calls back only once, and more data or the end may follow the data that was read.
            while self._unanswered and self._poll.poll(0):
                self._read()
        except psycopg.OperationalError as error:
            self._lose(_loss_of(error))
            return
        if not self._unanswered:
            self._finish()

    def _read(self) -> None:
        self._wire.consume_input()
        while self._unanswered and not self._wire.is_busy():
            # None separates the answers of two statements.
            if (result := self._wire.get_result()) is not None:
                self._take(result)

    def _take(self, result: pq.abc.PGresult) -> None:
        self._unanswered -= 1
        match result.status:
            case pq.ExecStatus.FATAL_ERROR:
                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                text = f"{state} {(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b'').decode()}"
                self._error = self._error_of(state, text)
            case pq.ExecStatus.PIPELINE_ABORTED | pq.ExecStatus.PIPELINE_SYNC:
                pass
            case _:
                self._results.append(result)

    def _error_of(self, state: str, text: str) -> Exception:
        """Return the exception for an error of the server."""
        if state in LOST_STATES or not state:
            # The server ends the connection. This error can replace any answer, even the answer to COMMIT.
            return InDoubt(text) if self._commits else ConnectionLost(text)
        if state in RETRIABLE_STATES:
            return Conflict(text)
        if state == QUERY_CANCELED:
            return Contended(text)
        return Unavailable(text) if is_away(state) or state in MIGRATED_STATES else Refused(text)

    def _lose(self, loss: Unavailable) -> Unavailable:
        """Close the connection and let the current round trip fail. Return the first reason of the loss."""
        if self._loss is None:
            self._loss = loss
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
        if self._waiter is not None:
            self._error = InDoubt(str(self._loss)) if self._commits else self._loss
            self._finish()
        return self._loss

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _loss_of(error: psycopg.OperationalError) -> ConnectionLost:
    return ConnectionLost(reason_of(error))


def rows_of(result: pq.abc.PGresult) -> Rows:
    """Return all rows of a result."""
    get: Callable[[int, int], bytes | None] = result.get_value
    columns = range(result.nfields)
    return [[get(row, column) for column in columns] for row in range(result.ntuples)]
