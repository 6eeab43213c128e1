"""Concurrent requests: connections that are opened beforehand, and requests that are written at the same time."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.stress.overlap import HeldAccounts
from tests.support.server import HOST, IDLE_SECONDS, RunningServer

T = TypeVar("T")

Request = tuple[str, str, Any]
"""Verb, path and body."""

ANSWER_S = 60
"""The longest wait for the answers to concurrent requests; only a safety limit."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, with the times of its request and its answer in nanoseconds."""

    status: int
    text: bytes
    sent_ns: int
    answered_ns: int

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def overlaps(self, other: "Response") -> bool:
        """Return whether both requests were under way at some instant."""
        return self.sent_ns < other.answered_ns and other.sent_ns < self.answered_ns


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = b""
        self._sent_ns = time.monotonic_ns()
        self._answer: asyncio.Future[Response] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @property
    def is_fresh(self) -> bool:
        """True if the connection is open and was used within the last ``IDLE_SECONDS``, so the server keeps it open."""
        return not self.transport.is_closing() and time.monotonic_ns() - self._sent_ns < IDLE_SECONDS * 1e9

    def send(self, request: bytes) -> "asyncio.Future[Response]":
        """Write a request; return the future of its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._sent_ns = time.monotonic_ns()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Collect an answer, whose length is in its head."""
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if not end or len(rest) < (length := int(lines[b"content-length"])):
            return
        assert self._answer is not None
        self._buffer = rest[length:]
        self._answer.set_result(Response(int(head[9:12]), rest[:length], self._sent_ns, time.monotonic_ns()))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the pending answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server closed the connection"))


class Connections:
    """Open connections to servers, ``size`` to each; connection ``n`` leads to server ``n % len(servers)``.

    The servers have the same credentials.
    """

    def __init__(self, servers: Sequence[RunningServer], size: int) -> None:
        self._servers, self._size = servers, size * len(servers)
        pair = f"{servers[0].application_token}:{servers[0].access_token}".encode()
        self._head = f"Host: {HOST}\r\nAuthorization: Basic {base64.b64encode(pair).decode()}\r\nContent-Type: application/json"
        self._loop = asyncio.new_event_loop()
        self._connections: dict[int, Connection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connection in self._connections.values():
            connection.transport.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _refresh(self) -> None:
        """Open the missing connections, and reopen those that were idle for so long that the server may close them."""
        stale = [place for place in range(self._size) if not self._is_fresh(place)]
        self._loop.run_until_complete(self._open(stale))

    def _is_fresh(self, place: int) -> bool:
        connection = self._connections.get(place)
        if connection is not None and not connection.is_fresh:
            connection.transport.close()
        return connection is not None and connection.is_fresh

    def fire(self, requests: Sequence[Request]) -> list[Response]:
        """Send each request on a separate connection, to the servers in turn."""
        self._refresh()
        return self._loop.run_until_complete(asyncio.wait_for(self._fire(requests), ANSWER_S))

    def fire_held(
        self,
        requests: Sequence[Request],
        held: HeldAccounts,
        first: Sequence[int] = (),
        answered: Sequence[int] = (),
        last: Sequence[int] = (),
    ) -> list[Response]:
        """Send requests while accounts are locked, and release the accounts when batches of both processes wait for them.

        Requests whose numbers are in ``first`` wait for an account before the others are sent. Those in ``answered`` need no
        account and are answered before the release. Those in ``last`` are sent right before the release.
        """
        self._refresh()
        story = self._fire_held(requests, held, first, answered, last)
        return self._loop.run_until_complete(asyncio.wait_for(story, ANSWER_S))

    def keep_firing(
        self, next_request: Callable[[], Request], meanwhile: Callable[[], T], before: int, after: int
    ) -> tuple[list[Response], T]:
        """Keep all connections busy: ``before`` answers, then ``meanwhile`` in a thread, then ``after`` more answers."""
        self._refresh()
        return self._loop.run_until_complete(self._keep_firing(next_request, meanwhile, before, after))

    async def _keep_firing(
        self, next_request: Callable[[], Request], meanwhile: Callable[[], T], before: int, after: int
    ) -> tuple[list[Response], T]:
        responses, is_over = list[Response](), asyncio.Event()

        async def fire(connection: Connection) -> None:
            while not is_over.is_set():
                responses.append(await connection.send(self._bytes_of(*next_request())))

        async def wait_for(answers: int) -> None:
            while len(responses) < answers and not any(task.done() for task in firing):
                await asyncio.sleep(0.002)

        firing = [asyncio.create_task(fire(connection)) for connection in self._connections.values()]
        await wait_for(before)
        done = await asyncio.get_running_loop().run_in_executor(None, meanwhile)
        await wait_for(len(responses) + after)
        is_over.set()
        await asyncio.gather(*firing)
        return responses, done

    async def _fire(self, requests: Sequence[Request]) -> list[Response]:
        waiting = [self._send(number, request) for number, request in enumerate(requests)]
        return [await answer for answer in waiting]

    async def _fire_held(
        self, requests: Sequence[Request], held: HeldAccounts, first: Sequence[int], answered: Sequence[int], last: Sequence[int]
    ) -> list[Response]:
        waiting = {number: self._send(number, requests[number]) for number in first}
        if first:
            await asyncio.to_thread(held.wait, 1)
        for number in sorted(set(range(len(requests))) - {*first, *last}):
            waiting[number] = self._send(number, requests[number])
        await asyncio.to_thread(held.wait)
        for number in answered:
            await waiting[number]
        for number in last:
            waiting[number] = self._send(number, requests[number])
        held.release()
        return [await waiting[number] for number in range(len(requests))]

    def _send(self, number: int, request: Request) -> "asyncio.Future[Response]":
        return self._connections[number].send(self._bytes_of(*request))

    def _bytes_of(self, verb: str, path: str, body: Any) -> bytes:
        content = json.dumps(body).encode()
        return f"{verb} {path} HTTP/1.1\r\n{self._head}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content

    async def _open(self, places: Sequence[int]) -> None:
        for place in places:
            server = self._servers[place % len(self._servers)]
            _, self._connections[place] = await self._loop.create_connection(Connection, HOST, server.port)
