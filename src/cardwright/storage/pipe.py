"""A PostgreSQL connection in libpq's pipeline mode, driven from the event loop.

Statements are prepared once. There is no thread to hand over to: the loop calls back when the socket has an answer.

All statements between two synchronisation points are one transaction, so nobody says BEGIN or COMMIT: ``ask`` gets its
answers with a flush, which leaves the transaction and its locks open, ``end`` synchronises, which commits, or rolls back
after an error.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from time import perf_counter

import psycopg
from psycopg import pq

from cardwright.storage.hot import Conflict, Unavailable, nothing

BINARY = 1
RETRIABLE = frozenset({"23505", "40001", "40P01", "55P03"})
"""Unique violation, serialization failure, deadlock, lock not available: run the batch again."""

AWAKE_S = 0.000_2
"""How long a connection that waits for rows keeps the event loop awake. They come within half of that from a server that has
nothing else to do. Who falls asleep for so short a time pays twice: he is late, and then slow, for everything that he needs is
far away. This takes a tenth off the time of a purchase that is alone, and no more of the processor's; where there is other work
the loop does that meanwhile, as ever.
"""

Rows = list[list[bytes | None]]


class Pipe:
    """One connection; it belongs to one user at a time."""

    def __init__(self, connection: psycopg.Connection, statements: Mapping[str, str]) -> None:
        self._connection = connection
        self._wire = connection.pgconn
        for name, statement in statements.items():
            result = self._wire.prepare(name.encode(), statement.encode())
            assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message
        self._wire.nonblocking = 1
        self._wire.enter_pipeline_mode()
        self._results: list[pq.abc.PGresult] = []
        self._error: Exception | None = None
        self._unanswered = 0
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._wire.socket, self._on_readable)

    def close(self) -> None:
        """Ends the connection."""
        self._loop.remove_reader(self._wire.socket)
        self._connection.close()

    def send(self, name: str, *arrays: bytes) -> None:
        """Queues a statement with its parameters. Raises Unavailable."""
        try:
            self._wire.send_query_prepared(name.encode(), arrays, [BINARY] * len(arrays), result_format=BINARY)
        except psycopg.OperationalError as error:
            raise Unavailable(str(error)) from error
        self._unanswered += 1

    async def ask(self) -> list[pq.abc.PGresult]:
        """Sends what was queued and waits for its answers; the transaction stays open unless one is an error."""
        try:
            self._set_out(self._wire.send_flush_request)
            await self._stay_awake()
            await self._arrive()
        except (Conflict, Unavailable):
            await self.end()
            raise
        return self._results

    async def end(self, meanwhile: Callable[[], None] = nothing) -> list[pq.abc.PGresult]:
        """Sends what was queued and ends the transaction: with a commit, or after an error without a trace.

        ``meanwhile`` is called when everything is on its way.
        """
        self._unanswered += 1
        self._set_out(self._wire.pipeline_sync)
        meanwhile()
        await self._arrive()
        return self._results

    def _set_out(self, ask: Callable[[], None]) -> None:
        """Begins a round trip. Raises Unavailable."""
        self._results, self._error = [], None
        self._waiter = self._loop.create_future()
        try:
            ask()
            self._flush()
        except psycopg.OperationalError as error:
            raise Unavailable(str(error)) from error

    async def _stay_awake(self) -> None:
        end = perf_counter() + AWAKE_S
        while self._waiter is not None and perf_counter() < end:
            # Who else wants this processor goes first, the database above all.
            os.sched_yield()
            await asyncio.sleep(0)

    async def _arrive(self) -> None:
        """Ends a round trip. Raises Conflict or Unavailable."""
        if self._waiter is not None:
            await self._waiter
        if self._error is not None:
            raise self._error

    def _flush(self) -> None:
        if self._wire.flush() == 0:
            self._loop.remove_writer(self._wire.socket)
        else:
            # The server does not take all of it at once; go on when it takes more.
            self._loop.add_writer(self._wire.socket, self._flush)

    def _on_readable(self) -> None:
        try:
            self._wire.consume_input()
            while self._unanswered and not self._wire.is_busy():
                # None only separates the answers of two statements.
                if (result := self._wire.get_result()) is not None:
                    self._take(result)
        except psycopg.OperationalError as error:
            self._loop.remove_reader(self._wire.socket)
            self._error = Unavailable(str(error))
            self._unanswered = 0
        if not self._unanswered:
            self._finish()

    def _take(self, result: pq.abc.PGresult) -> None:
        self._unanswered -= 1
        match result.status:
            case pq.ExecStatus.FATAL_ERROR:
                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                text = f"{state} {(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b'').decode()}"
                self._error = Conflict(text) if state in RETRIABLE else Unavailable(text)
            case pq.ExecStatus.PIPELINE_ABORTED | pq.ExecStatus.PIPELINE_SYNC:
                pass
            case _:
                self._results.append(result)

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def rows_of(result: pq.abc.PGresult) -> Rows:
    """All values of a result."""
    get: Callable[[int, int], bytes | None] = result.get_value
    columns = range(result.nfields)
    return [[get(row, column) for column in columns] for row in range(result.ntuples)]
