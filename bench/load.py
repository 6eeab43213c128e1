"""The load generator: raw HTTP/1.1 over asyncio, because a client library costs more than the server it measures.

Closed loop: ``in_flight`` connections, each sends its next request when the last one is answered. Open loop: requests
leave at their appointed times whether or not earlier ones were answered, and latency counts from the appointed time, so
that a stalled server cannot hide its stall (coordinated omission).
"""

import asyncio
import base64
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

NS = 1_000_000_000


@dataclass(slots=True)
class Result:
    """What a run saw: latencies in nanoseconds, statuses by number, and how long it took."""

    latencies: list[int] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    declined: int = 0

    @property
    def per_second(self) -> float:
        """Answers of 2xx in a second."""
        return sum(count for status, count in self.statuses.items() if status < 300) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """The latency that this share of the requests stayed within, in milliseconds."""
        if not self.latencies:
            return 0.0
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, answered: Callable[["Connection", int, bytes], None]) -> None:
        self._answered = answered
        self._buffer = b""
        self.sent_at = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        # uvloop's transports are not of asyncio's class.
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, at: int) -> None:
        """Sends a request; ``at`` is the instant from which its latency counts."""
        assert self.transport is not None
        self.sent_at = at
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Collects an answer; its length is in its head."""
        self._buffer = self._buffer + data if self._buffer else data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 : (head + b"\r\n").find(b"\r\n", at)])
        if len(self._buffer) < head_end + 4 + length:
            return
        body, self._buffer = self._buffer[head_end + 4 :], b""
        self._answered(self, int(head[9:12]), body)


def post(path: str, body: bytes, credentials: tuple[str, str], host: str = "localhost") -> bytes:
    """The bytes of a POST."""
    token = base64.b64encode(":".join(credentials).encode()).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def closed_loop(
    host: str, port: int, next_request: Callable[[], bytes], in_flight: int, seconds: float, check: bytes = b""
) -> Result:
    """Keeps ``in_flight`` requests under way for a time. ``check`` must be in every body, or it counts as declined."""
    loop, result = asyncio.get_running_loop(), Result()
    deadline = time.monotonic_ns() + int(seconds * NS)
    open_connections, done = in_flight, loop.create_future()

    def answered(connection: Connection, status: int, body: bytes) -> None:
        nonlocal open_connections
        now = time.monotonic_ns()
        result.latencies.append(now - connection.sent_at)
        result.statuses[status] = result.statuses.get(status, 0) + 1
        if check not in body:
            result.declined += 1
        if now < deadline:
            connection.send(next_request(), now)
            return
        assert connection.transport is not None
        connection.transport.close()
        open_connections -= 1
        if open_connections == 0:
            done.set_result(None)

    pairs = [await loop.create_connection(lambda: Connection(answered), host, port) for _ in range(in_flight)]
    started = time.monotonic_ns()
    for _, connection in pairs:
        connection.send(next_request(), time.monotonic_ns())
    await done
    result.seconds = (time.monotonic_ns() - started) / NS
    return result


async def open_loop(
    host: str, port: int, next_request: Callable[[], bytes], rate: float, seconds: float, connections: int = 512
) -> Result:
    """Sends ``rate`` requests a second at random (Poisson) instants; a request without a free connection waits, and its wait counts."""
    loop, result = asyncio.get_running_loop(), Result()
    waiting: deque[int] = deque()
    free: list[Connection] = []
    finished, sending, under_way = loop.create_future(), True, 0

    def answered(connection: Connection, status: int, _body: bytes) -> None:
        nonlocal under_way
        now = time.monotonic_ns()
        result.latencies.append(now - connection.sent_at)
        result.statuses[status] = result.statuses.get(status, 0) + 1
        if waiting:
            connection.send(next_request(), waiting.popleft())
            return
        under_way -= 1
        free.append(connection)
        if not sending and under_way == 0 and not finished.done():
            finished.set_result(None)

    for _ in range(connections):
        _, connection = await loop.create_connection(lambda: Connection(answered), host, port)
        free.append(connection)
    started = time.monotonic_ns()
    due, end = started, started + int(seconds * NS)
    while due < end:
        now = time.monotonic_ns()
        while due <= now and due < end:
            if free:
                under_way += 1
                free.pop().send(next_request(), due)
            else:
                waiting.append(due)
            due += int(random.expovariate(rate) * NS)
        await asyncio.sleep(min(0.001, max(0.0, (due - time.monotonic_ns()) / NS)))
    sending = False
    if under_way:
        await finished
    result.seconds = (time.monotonic_ns() - started) / NS
    for connection in free:
        assert connection.transport is not None
        connection.transport.close()
    return result


def purchases(cards: Sequence[str], credentials: tuple[str, str], seed: int = 1) -> Callable[[], bytes]:
    """Requests for purchases on cards drawn evenly; the drawing is done beforehand, the generator's time is the machine's."""
    rng = random.Random(seed)
    ready = [
        post("/v3/simulate/authorization", b'{"card_token":"%s","amount":10,"mid":"1234567890"}' % card.encode(), credentials)
        for card in rng.choices(cards, k=min(len(cards) * 4, 200_000))
    ]
    index = 0

    def next_request() -> bytes:
        nonlocal index
        index = (index + 1) % len(ready)
        return ready[index]

    return next_request
