"""Load generator: raw HTTP/1.1 over asyncio, because a client library costs more than the server that it measures.

Closed loop: ``in_flight`` connections, each of which sends its next request after the answer to the last one. Open loop:
requests leave at their scheduled times, even if earlier ones have no answer yet. Latency counts from the scheduled time, so
a stall of the server delays all requests that are due meanwhile (no coordinated omission).
"""

import asyncio
import base64
import random
import time
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

NS = 1_000_000_000
GIVE_UP_S = 30
"""Maximum wait for answers after the last request, in seconds. Requests without an answer by then are lost."""

REFUSED = (429, 503)
"""Statuses of a refusal: too many requests, service unavailable."""

NextRequest = Callable[[], bytes | None]
"""A function that returns the next request, or None if there is none left."""


class Place(NamedTuple):
    """The address of a server."""

    host: str
    port: int


@dataclass(slots=True)
class Result:
    """The answers of a run in columns: the due time of the request, its latency (ns), and the status.

    ``declined`` counts 2xx answers without the expected text, and ``lost`` counts requests without an answer.
    ``late`` has the delay between the scheduled time of a request and its sending (ns).
    """

    due: "array[int]" = field(default_factory=lambda: array("q"))
    latency: "array[int]" = field(default_factory=lambda: array("q"))
    status: "array[int]" = field(default_factory=lambda: array("h"))
    late: "array[int]" = field(default_factory=lambda: array("q"))
    declined: int = 0
    lost: int = 0
    began: int = 0
    seconds: float = 0.0

    def add(self, due: int, now: int, status: int) -> None:
        """Add one answer."""
        self.due.append(due)
        self.latency.append(now - due)
        self.status.append(status)

    @property
    def statuses(self) -> dict[int, int]:
        """Number of answers by status."""
        return {status: self.status.count(status) for status in sorted(set(self.status))}

    @property
    def succeeded(self) -> int:
        """Number of 2xx answers."""
        return sum(count for status, count in self.statuses.items() if status < 300)

    @property
    def per_second(self) -> float:
        """Number of 2xx answers per second."""
        return self.succeeded / self.seconds if self.seconds else 0.0

    def latencies_ms(self, begin: int = 0, end: int = 1 << 62, *, refused: bool | None = None) -> list[float]:
        """Return the sorted latencies of the requests due in [begin, end): of all, of the refused ones, or of the others."""
        rows = zip(self.due, self.latency, self.status, strict=True)
        wanted = (row for row in rows if begin <= row[0] < end and (refused is None or (row[2] in REFUSED) is refused))
        return sorted(latency / 1e6 for _, latency, _ in wanted)

    def quantile_ms(self, share: float) -> float:
        """Return the latency in milliseconds that this share of the requests does not exceed."""
        return quantile(self.latencies_ms(), share)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share of the sorted values does not exceed, or 0 if there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request in flight."""

    def __init__(self, answered: Callable[["Connection", int, bytes], None], broke: Callable[["Connection"], None]) -> None:
        self._answered, self._broke = answered, broke
        self._buffer = b""
        self.due = 0
        self.is_busy = False
        self.is_open = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        # uvloop's transports do not inherit from asyncio.Transport.
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def connection_lost(self, _error: Exception | None) -> None:
        """Report a request in flight as lost. The server or the generator has closed the connection."""
        self.is_open = False
        if self.is_busy:
            self._broke(self)

    def send(self, request: bytes, due: int) -> None:
        """Send a request. Its latency counts from ``due``."""
        assert self.transport is not None
        self.due, self.is_busy = due, True
        self.transport.write(request)

    def close(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Collect the bytes of an answer. Its length is in the header content-length."""
        self._buffer = self._buffer + data if self._buffer else data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        header_start = head.find(b"content-length:")
        length = int(head[header_start + 15 : (head + b"\r\n").find(b"\r\n", header_start)]) if header_start >= 0 else 0
        if len(self._buffer) < head_end + 4 + length:
            return
        body, self._buffer = self._buffer[head_end + 4 :], b""
        self.is_busy = False
        self._answered(self, int(head[9:12]), body)


# --- Closed loop --------------------------------------------------------------------------


class _Closed:
    """A run of the closed loop. Answers that arrive in the window [begin, end) count. After its end it sends no request."""

    def __init__(self, next_request: NextRequest, check: bytes, on_body: Callable[[bytes], None] | None) -> None:
        self.result = Result()
        self.begin, self.end = 0, 1 << 62
        self.done = asyncio.get_running_loop().create_future()
        self._next, self._check, self._on_body = next_request, check, on_body
        self._open = 0
        self._last = 0

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        now, result = time.monotonic_ns(), self.result
        if self.begin <= now < self.end:
            result.add(connection.due, now, status)
            self._last = now
            if status < 300 and self._check not in body:
                result.declined += 1
            if self._on_body is not None and status < 300:
                self._on_body(body)
        self.send(connection, now)

    def send(self, connection: Connection, now: int) -> None:
        request = self._next() if now < self.end else None
        if request is not None:
            connection.send(request, now)
            return
        connection.close()
        self._leave()

    def broke(self, _connection: Connection) -> None:
        self.result.lost += 1
        self._leave()

    def start(self, connections: Sequence[Connection]) -> None:
        self._open = len(connections)
        for connection in connections:
            self.send(connection, time.monotonic_ns())

    def seconds(self) -> float:
        return (min(self.end, self._last) - self.begin) / NS

    def _leave(self) -> None:
        self._open -= 1
        if self._open == 0 and not self.done.done():
            self.done.set_result(None)


async def closed_loop(
    place: Place,
    next_request: NextRequest,
    in_flight: int,
    seconds: float | None = None,
    *,
    warm_s: float = 0.0,
    check: bytes = b"",
    on_body: Callable[[bytes], None] | None = None,
    edge: Callable[[], None] | None = None,
) -> Result:
    """Keep ``in_flight`` requests in flight for a time, or until there are none left.

    The first ``warm_s`` seconds do not count. A 2xx answer without ``check`` in its body counts as declined. ``on_body`` gets
    the bodies of successful answers. A thread calls ``edge`` at the beginning and at the end of the counted time.
    """
    loop = asyncio.get_running_loop()
    run = _Closed(next_request, check, on_body)
    pairs = [await loop.create_connection(lambda: Connection(run.answered, run.broke), *place) for _ in range(in_flight)]
    run.begin = time.monotonic_ns() + int(warm_s * NS)
    run.start([connection for _, connection in pairs])
    await asyncio.sleep(warm_s)
    if edge is not None:
        await loop.run_in_executor(None, edge)
        run.begin = time.monotonic_ns()
        run.result = Result(began=run.begin)
    if seconds is not None:
        run.end = run.begin + int(seconds * NS)
        await asyncio.wait([run.done], timeout=max(0.0, (run.end - time.monotonic_ns()) / NS))
        if edge is not None:
            await loop.run_in_executor(None, edge)
        await asyncio.wait([run.done], timeout=GIVE_UP_S)
    else:
        await run.done
        if edge is not None:
            await loop.run_in_executor(None, edge)
    run.result.seconds = run.seconds() if seconds is None else seconds
    run.result.began = run.begin
    return run.result


# --- Open loop ----------------------------------------------------------------------------


class _Open:
    """A run of the open loop. It opens connections on demand, up to a limit. Beyond it, requests wait, and the wait counts."""

    def __init__(self, place: Place, next_request: NextRequest, connections_max: int, check: bytes) -> None:
        self.result = Result()
        self.waiting: deque[int] = deque()
        self.is_sending = True
        self.loop = asyncio.get_running_loop()
        self.done = self.loop.create_future()
        self._place, self._next, self._check, self._connections_max = place, next_request, check, connections_max
        self._free: list[Connection] = []
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self.under_way = 0

    def want(self, due: int) -> None:
        """Send a request now if a connection is free, else as soon as one is free."""
        while self._free:
            if (connection := self._free.pop()).is_open:
                self._send(connection, due)
                return
            self._connections.discard(connection)
        self.waiting.append(due)
        if len(self._connections) + len(self._opening) < self._connections_max and len(self._opening) < len(self.waiting):
            task = self.loop.create_task(self.open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def open(self) -> None:
        """Open one more connection and use it."""
        try:
            _, connection = await self.loop.create_connection(lambda: Connection(self.answered, self.broke), *self._place)
        except OSError:
            # The server accepts no more connections: the request waits for one of the others.
            return
        self._connections.add(connection)
        self._release(connection)

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        self.result.add(connection.due, time.monotonic_ns(), status)
        if status < 300 and self._check not in body:
            self.result.declined += 1
        self.under_way -= 1
        self._release(connection)
        self._look()

    def broke(self, connection: Connection) -> None:
        self.result.lost += 1
        self.under_way -= 1
        self._connections.discard(connection)
        self._look()

    def close(self) -> None:
        for connection in self._connections:
            connection.is_busy = False
            connection.close()

    def _send(self, connection: Connection, due: int) -> None:
        request = self._next()
        assert request is not None, "an open loop never runs out of requests"
        self.under_way += 1
        self.result.late.append(time.monotonic_ns() - due)
        connection.send(request, due)

    def _release(self, connection: Connection) -> None:
        if self.waiting:
            self._send(connection, self.waiting.popleft())
        else:
            self._free.append(connection)

    def _look(self) -> None:
        if not self.is_sending and self.under_way == 0 and not self.waiting and not self.done.done():
            self.done.set_result(None)


async def open_loop(
    place: Place,
    next_request: NextRequest,
    phases: Sequence[tuple[float, float]],
    *,
    connections: int = 64,
    connections_max: int = 2048,
    check: bytes = b"",
    seed: int = 1,
) -> Result:
    """Send requests at random (Poisson) times. ``phases`` are successive pairs of requests per second and seconds.

    ``connections`` are opened beforehand, and more of them when no connection is free.
    """
    rng = random.Random(seed)
    run = _Open(place, next_request, connections_max, check)
    for _ in range(connections):
        await run.open()
    run.result.began = due = time.monotonic_ns()
    behind = 0
    for rate, seconds in phases:
        end = due + int(seconds * NS)
        while (due := due + int(rng.expovariate(rate) * NS)) < end:
            if (left := due - time.monotonic_ns()) > 0:
                await asyncio.sleep(left / NS)
            elif (behind := behind + 1) % 64 == 0:
                # Behind schedule the loop never sleeps, so it yields here to read answers.
                await asyncio.sleep(0)
            run.want(due)
        due = end
    run.is_sending = False
    if run.under_way or run.waiting:
        await asyncio.wait([run.done], timeout=GIVE_UP_S)
    run.result.lost += run.under_way + len(run.waiting)
    run.result.seconds = (time.monotonic_ns() - run.result.began) / NS
    run.close()
    return run.result


def normal_after_ms(result: Result, since: int, limit_ms: float, window_ns: int = NS // 4) -> float:
    """Return the milliseconds from ``since`` until the p99 of each later window is within the limit, or inf if it never is.

    A window is a quarter of a second by default.
    """
    pairs = sorted((due, latency) for due, latency in zip(result.due, result.latency, strict=True) if due >= since)
    last_bad = None
    last_due = pairs[-1][0] if pairs else since
    for begin in range(since, last_due + 1, window_ns):
        low, high = bisect_left(pairs, (begin, -1)), bisect_left(pairs, (begin + window_ns, -1))
        window = sorted(latency for _, latency in pairs[low:high])
        if window and quantile(window, 0.99) > limit_ms * 1e6:
            last_bad = begin + window_ns
    if last_bad is None:
        return 0.0
    return float("inf") if last_bad > last_due else (last_bad - since) / 1e6


# --- Requests -----------------------------------------------------------------------------

TOKEN_SIZE = 36


def post(path: str, body: bytes, credentials: tuple[str, str]) -> bytes:
    """Return the bytes of a POST request."""
    token = base64.b64encode(":".join(credentials).encode()).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def purchases(tokens: bytes, credentials: tuple[str, str], seed: int = 1) -> NextRequest:
    """Return purchases on evenly drawn cards. ``tokens`` are the cards' tokens, 36 characters each, without a separator."""
    count, draw = len(tokens) // TOKEN_SIZE, random.Random(seed).random
    before, after = _around(post("/v3/simulate/authorization", purchase(b"?" * TOKEN_SIZE), credentials))

    def next_request() -> bytes:
        offset = int(draw() * count) * TOKEN_SIZE
        return before + tokens[offset : offset + TOKEN_SIZE] + after

    return next_request


def one_each(tokens: Sequence[bytes], template: bytes) -> NextRequest:
    """Return one request for each token, in order. ``template`` has 36 question marks in place of the token."""
    before, after = _around(template)
    left = iter(tokens)

    def next_request() -> bytes | None:
        token = next(left, None)
        return None if token is None else before + token + after

    return next_request


def purchase(token: bytes) -> bytes:
    """Return the body of a purchase of 10.00 on a card."""
    return b'{"card_token":"%s","amount":10,"mid":"1234567890"}' % token


def split(tokens: bytes, count: int | None = None) -> list[bytes]:
    """Return the tokens as a list, at most ``count`` of them."""
    end = len(tokens) if count is None else min(len(tokens), count * TOKEN_SIZE)
    return [tokens[offset : offset + TOKEN_SIZE] for offset in range(0, end, TOKEN_SIZE)]


def _around(request: bytes) -> tuple[bytes, bytes]:
    before, _, after = request.partition(b"?" * TOKEN_SIZE)
    return before, after
