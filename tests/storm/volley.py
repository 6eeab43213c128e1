"""Requests that really are under way at the same time: connections opened beforehand, everything written at once."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.server import HOST, IDLE_SECONDS, RunningServer

T = TypeVar("T")

IDS_OF_A_PROCESS = 20_000
"""On PostgreSQL each process takes so many transaction ids at a time, so an id tells which process decided."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One answer and when its request was under way, in nanoseconds."""

    status: int
    text: bytes
    sent_ns: int
    answered_ns: int

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def overlaps(self, other: "Shot") -> bool:
        """Whether both were under way at some instant."""
        return self.sent_ns < other.answered_ns and other.sent_ns < self.answered_ns


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = b""
        self._sent_ns = time.monotonic_ns()
        self._answer: asyncio.Future[Shot] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @property
    def is_fresh(self) -> bool:
        """Whether the server has no reason to hang up on it."""
        return not self.transport.is_closing() and time.monotonic_ns() - self._sent_ns < IDLE_SECONDS * 1e9

    def send(self, request: bytes) -> "asyncio.Future[Shot]":
        """Writes a request; the answer comes later."""
        self._answer = asyncio.get_running_loop().create_future()
        self._sent_ns = time.monotonic_ns()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Collects an answer; its length is in its head."""
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if not end or len(rest) < (length := int(lines[b"content-length"])):
            return
        assert self._answer is not None
        self._buffer = rest[length:]
        self._answer.set_result(Shot(int(head[9:12]), rest[:length], self._sent_ns, time.monotonic_ns()))

    def connection_lost(self, error: Exception | None) -> None:
        """The server is gone, or we are."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server closed the connection"))


class Battery:
    """Open connections to a server; ``fire`` writes one request to each at once and waits for all the answers."""

    def __init__(self, server: RunningServer, size: int) -> None:
        self._server, self._size = server, size
        pair = f"{server.application_token}:{server.access_token}".encode()
        self._head = f"Host: {HOST}\r\nAuthorization: Basic {base64.b64encode(pair).decode()}\r\nContent-Type: application/json"
        self._loop = asyncio.new_event_loop()
        self._connections: dict[int, Connection] = {}

    def __enter__(self) -> Self:
        self.refresh()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hang_up()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def refresh(self) -> bool:
        """Opens anew what was idle for so long that the server may close it; tells whether there was any such connection."""
        stale = [place for place in range(self._size) if not self._is_fresh(place)]
        self._loop.run_until_complete(self._open(stale))
        return bool(stale)

    def hang_up(self) -> None:
        """Closes all connections; the next ``refresh`` opens others."""
        for connection in self._connections.values():
            connection.transport.close()

    def _is_fresh(self, place: int) -> bool:
        connection = self._connections.get(place)
        if connection is not None and not connection.is_fresh:
            connection.transport.close()
        return connection is not None and connection.is_fresh

    def fire(self, requests: Sequence[tuple[str, str, Any]], places: Sequence[int] | None = None) -> list[Shot]:
        """Sends each (verb, path, body) on a connection of its own, on those with the given numbers if there are any."""
        chosen = [self._connections[place] for place in (places or range(len(requests)))]
        raw = [self._bytes_of(*request) for request in requests]
        return self._loop.run_until_complete(asyncio.wait_for(_fire(raw, chosen), 60))

    def fire_watching(
        self, requests: Sequence[tuple[str, str, Any]], places: Sequence[int], ahead: Sequence[int] = (), head_s: float = 0.0
    ) -> list[Shot]:
        """The same, one after the other, reading between any two what has been answered: the times are true to a hair.

        Requests whose numbers are in ``ahead`` have a start of so many seconds.
        """
        chosen = [self._connections[place] for place in places]
        raw = [self._bytes_of(*request) for request in requests]
        return self._loop.run_until_complete(asyncio.wait_for(_fire_watching(raw, chosen, ahead, head_s), 60))

    def keep_firing(
        self, next_request: Callable[[], tuple[str, str, Any]], meanwhile: Callable[[], T], before: int, after: int
    ) -> tuple[list[Shot], T]:
        """Keeps every connection busy from ``before`` answers before until ``after`` answers after what a thread does."""
        return self._loop.run_until_complete(self._keep_firing(next_request, meanwhile, before, after))

    async def _keep_firing(
        self, next_request: Callable[[], tuple[str, str, Any]], meanwhile: Callable[[], T], before: int, after: int
    ) -> tuple[list[Shot], T]:
        shots, is_over = list[Shot](), asyncio.Event()

        async def fire(connection: Connection) -> None:
            while not is_over.is_set():
                shots.append(await connection.send(self._bytes_of(*next_request())))

        async def wait_for(answers: int) -> None:
            while len(shots) < answers and not any(task.done() for task in firing):
                await asyncio.sleep(0.002)

        firing = [asyncio.create_task(fire(connection)) for connection in self._connections.values()]
        await wait_for(before)
        done = await asyncio.get_running_loop().run_in_executor(None, meanwhile)
        await wait_for(len(shots) + after)
        is_over.set()
        await asyncio.gather(*firing)
        return shots, done

    def _bytes_of(self, verb: str, path: str, body: Any) -> bytes:
        content = json.dumps(body).encode()
        return f"{verb} {path} HTTP/1.1\r\n{self._head}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content

    async def _open(self, places: Sequence[int]) -> None:
        for place in places:
            _, self._connections[place] = await self._loop.create_connection(Connection, HOST, self._server.port)


async def _fire(raw: Sequence[bytes], chosen: Sequence[Connection]) -> list[Shot]:
    waiting = [connection.send(request) for connection, request in zip(chosen, raw, strict=True)]
    return [await answer for answer in waiting]


async def _fire_watching(raw: Sequence[bytes], chosen: Sequence[Connection], ahead: Sequence[int], head_s: float) -> list[Shot]:
    waiting = {number: chosen[number].send(raw[number]) for number in ahead}
    if ahead:
        await asyncio.sleep(head_s)
    for number in range(len(raw)):
        if number not in waiting:
            # The loop looks at all connections before it comes back.
            await asyncio.sleep(0)
            waiting[number] = chosen[number].send(raw[number])
    return [await waiting[number] for number in range(len(raw))]


def processes_of(shots: Sequence[Shot]) -> Iterator[int]:
    """Which process decided each of these new transactions: a number that differs between processes."""
    for shot in shots:
        assert shot.status == 201, shot.text
        yield (int(shot.json["transaction"]["identifier"]) - 1) // IDS_OF_A_PROCESS
