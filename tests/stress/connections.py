"""Connections: clients that stop half-way or send one-byte chunks, and their effect on the requests of others.

`python -m tests.stress.connections` prints two sets of figures. The first is the memory, and the latency of purchases, with
3,000 connections that send nothing, half a head or half a body. The second is the latency of other requests while 10 MB of
one-byte chunks arrive.
"""

import argparse
import asyncio
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.load import NextRequest, Place, Result, closed_loop, open_loop, post, purchase
from tests.support.server import HOST, RunningServer
from tests.support.shop import Shop

KIND_CONNECTIONS = 1_000
"""Connections of each kind: nothing sent, half a head, half a body."""

ARRIVAL_S = 0.2
"""Delay before the connections arrive. The purchases have open connections by then: the accept queue delays only new ones."""

HALF_BODY_BYTES = 30_000
CHUNKS_BYTES = 10_000_000
PURCHASES_PER_S = 200
PURCHASE_CONNECTIONS = 16

GROWTH_MAX_MB = 100
P99_RATIO_MAX = 2
DELAY_MAX_MS = 50

ENVIRONMENT = {"CARDWRIGHT_HEAD_TIMEOUT_S": "600", "CARDWRIGHT_BODY_TIMEOUT_S": "600"}
"""Timeouts longer than the run. With the defaults the server would close most half requests before its end."""


@dataclass(frozen=True, slots=True)
class Held:
    """Figures of the connections that stop half-way."""

    connections: int
    growth_mb: float
    p99_before_ms: float
    p99_ms: float
    lost: int

    @property
    def is_kept(self) -> bool:
        """True if memory and latency are within the guaranteed bounds."""
        return self.growth_mb <= GROWTH_MAX_MB and self.p99_ms <= P99_RATIO_MAX * self.p99_before_ms and not self.lost


@dataclass(frozen=True, slots=True)
class Chunked:
    """Figures of the one-byte chunks, for one kind of request of other clients."""

    name: str
    sent_bytes: int
    attempts: int
    p99_before_ms: float
    max_before_ms: float
    p99_ms: float
    max_ms: float

    @property
    def delay_ms(self) -> float:
        """The increase of the largest latency, in milliseconds."""
        return self.max_ms - self.max_before_ms

    @property
    def is_kept(self) -> bool:
        """True if the delay is within the guaranteed bound."""
        return self.delay_ms <= DELAY_MAX_MS


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def hold(server: RunningServer, count: int, sent: bytes) -> list[socket.socket]:
    """Open ``count`` connections, each of which sends only these bytes."""
    connections = []
    for _ in range(count):
        connection = socket.create_connection((HOST, server.port), 30)
        connection.sendall(sent)
        connections.append(connection)
    return connections


def _hold_all(server: RunningServer, kinds: Sequence[bytes], held: list[socket.socket]) -> None:
    for sent in kinds:
        held += hold(server, KIND_CONNECTIONS, sent)


def run_held(server: RunningServer, shop: Shop, seconds: float, rounds: int) -> Held:
    """Measure purchases in turn without and with the half-way connections. Latencies are medians of the rounds."""
    request = purchase_request(shop)
    head = post("/v3/users", b"", credentials_of(shop)).replace(b"Content-Length: 0\r\n\r\n", b"")
    half_head = head + b"X-Padding: %s\r\n" % (b"x" * 1_000)
    half_body = head + b"Content-Length: %d\r\n\r\n%s" % (2 * HALF_BODY_BYTES, b"x" * HALF_BODY_BYTES)
    buy(server, request, seconds)
    before, beside, lost, growth_mb, count = list[float](), list[float](), 0, 0.0, 0
    memory_mb = resident_mb(server.pid)
    for _ in range(rounds):
        before.append(buy(server, request, seconds).quantile_ms(0.99))
        held = list[socket.socket]()
        arrival = threading.Timer(ARRIVAL_S, _hold_all, (server, (b"", half_head, half_body), held))
        arrival.start()
        result = buy(server, request, seconds)
        arrival.join()
        beside.append(result.quantile_ms(0.99))
        lost, growth_mb, count = lost + result.lost, max(growth_mb, resident_mb(server.pid) - memory_mb), len(held)
        for connection in held:
            connection.close()
    return Held(count, growth_mb, median(before), median(beside), lost)


def run_chunks(server: RunningServer, shop: Shop, seconds: float, rounds: int) -> list[Chunked]:
    """Measure GET /healthz and purchases without and with one-byte chunks from an authenticated and an anonymous client."""
    known = post("/v3/users", b"", credentials_of(shop)).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    stranger = b"POST /sandbox/inbox/default/box HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    figures = []
    for name, request in (("GET /healthz", health), ("a purchase", purchase_request(shop))):
        repeat(server, request, 1)
        before, beside, sent_bytes, attempts = list[Result](), list[Result](), 0, 0
        for _ in range(rounds):
            before.append(repeat(server, request, seconds))
            attack = _Attack(server, (known, stranger))
            attack.start()
            beside.append(repeat(server, request, seconds))
            attack.stop()
            sent_bytes, attempts = sent_bytes + attack.sent_bytes, attempts + attack.attempts
        figures.append(Chunked(name, sent_bytes, attempts, *latencies(before), *latencies(beside)))
    return figures


class _Attack(threading.Thread):
    """A thread that sends requests of 10 MB in one-byte chunks, each on a new connection, until it is stopped."""

    def __init__(self, server: RunningServer, heads: Sequence[bytes]) -> None:
        super().__init__()
        self.sent_bytes = self.attempts = 0
        self._server, self._heads = server, heads
        self._is_stopped = False

    def run(self) -> None:
        """Send until ``stop``."""
        piece = b"1\r\nx\r\n" * 10_000
        while not self._is_stopped:
            self.attempts += 1
            with socket.create_connection((HOST, self._server.port), 30) as connection:
                connection.sendall(self._heads[self.attempts % len(self._heads)])
                left = CHUNKS_BYTES
                try:
                    while left > 0 and not self._is_stopped:
                        connection.sendall(piece)
                        left -= len(piece)
                        self.sent_bytes += len(piece)
                except OSError:
                    # The server answered 413 and closed the connection.
                    continue

    def stop(self) -> None:
        """End the attack and wait for its end."""
        self._is_stopped = True
        self.join()


def credentials_of(shop: Shop) -> tuple[str, str]:
    """Return the application token and the access token of a shop's program."""
    return shop.program["application_token"], shop.program["access_token"]


def purchase_request(shop: Shop) -> bytes:
    """Return a request for a purchase on the shop's JIT-funded card."""
    return post("/v3/simulate/authorization", purchase(b"jit"), credentials_of(shop))


def buy(server: RunningServer, request: bytes, seconds: float) -> Result:
    """Send 200 purchases a second from one client, at random instants."""
    phases = [(PURCHASES_PER_S, seconds)]
    return asyncio.run(open_loop(place_of(server), constant(request), phases, connections=PURCHASE_CONNECTIONS))


def repeat(server: RunningServer, request: bytes, seconds: float) -> Result:
    """Repeat a request on one connection."""
    return asyncio.run(closed_loop(place_of(server), constant(request), 1, seconds))


def constant(request: bytes) -> NextRequest:
    """Return a source that always gives the same request."""
    return lambda: request


def place_of(server: RunningServer) -> Place:
    """Return the address of a server."""
    return Place(HOST, server.port)


def latencies(results: Sequence[Result]) -> tuple[float, float]:
    """Return the p99 and the largest latency in milliseconds, each the median of the runs."""
    return median(result.quantile_ms(0.99) for result in results), median(max(result.latencies_ms()) for result in results)


def report(held: Held, chunked: Sequence[Chunked]) -> str:
    """Return the figures as lines of text."""
    lines = [
        f"{held.connections:,} connections that send nothing, half a head or half a body ({HALF_BODY_BYTES:,} bytes): "
        f"memory +{held.growth_mb:.0f} MB (at most {GROWTH_MAX_MB}); p99 of {PURCHASES_PER_S} purchases a second "
        f"{held.p99_before_ms:.1f} ms before, {held.p99_ms:.1f} ms beside them; {held.lost} without an answer"
    ]
    lines += [
        f"one-byte chunks, {figures.sent_bytes / 1e6:.0f} MB in {figures.attempts} requests, beside {figures.name}: "
        f"p99 {figures.p99_before_ms:.1f} ms before, {figures.p99_ms:.1f} ms; largest {figures.max_before_ms:.1f} ms before, "
        f"{figures.max_ms:.1f} ms (at most {DELAY_MAX_MS} more)"
        for figures in chunked
    ]
    return "\n".join(lines)


def run(db: str, seconds: float, rounds: int) -> tuple[Held, list[Chunked]]:
    """Run both parts against a new server. Raises AssertionError if the server has printed a traceback."""
    with RunningServer(db=db, env=ENVIRONMENT) as server:
        shop = Shop(server, frozen=False)
        figures = run_held(server, shop, seconds, rounds), run_chunks(server, shop, seconds, rounds)
        assert "Traceback" not in server.output(), server.output()[-4000:]
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures. Return 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.connections", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="duration of each measurement, in seconds (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the medians are printed (default: 3)")
    parser.add_argument("--db", help="file or DSN of the database (default: a new file)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cardwright-stress-") as folder:
        db = options.db or str(Path(folder, "cardwright.db"))
        held, chunked = run(db, options.seconds, options.rounds)
    print(report(held, chunked))
    return 0 if held.is_kept and all(figures.is_kept for figures in chunked) else 1


if __name__ == "__main__":
    sys.exit(main())
