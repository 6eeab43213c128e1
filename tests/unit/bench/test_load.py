"""Load generator: its counts and latencies are correct against a toy server with scripted answers, delays and refusals."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle

from bench.load import NS, Place, Result, closed_loop, normal_after_ms, one_each, open_loop, post, purchase, split

REQUEST = post("/toy", purchase(b"?" * 36), ("application", "access"))

Script = Iterator[tuple[int, bytes, float]]
"""Status, body and delay in seconds of each answer in turn. Status 0 closes the connection."""


async def nothing() -> None:
    """Return at once."""


async def with_toy(
    script: Script, use: Callable[[Place], Awaitable[Result]], wait: Callable[[], Awaitable[None]] = nothing
) -> tuple[Result, list[bytes]]:
    """Run a load against a server that sends the scripted answers; return its result and the requests that arrived.

    The server awaits ``wait`` before each answer.
    """
    requests = list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65_536):
            requests.append(head)
            status, body, delay = next(script)
            await asyncio.sleep(delay)
            await wait()
            if status == 0:
                break
            answer = b"HTTP/1.1 %d Whatever\r\nContent-Type: text/plain\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
            # In two pieces, because a network may split an answer.
            writer.write(answer + body[:3])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(body[3:])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        result = await use(Place(*server.sockets[0].getsockname()[:2]))
    return result, requests


def always(status: int = 201, body: bytes = b"approved", delay: float = 0.0) -> Script:
    return cycle([(status, body, delay)])


def test_closed_loop_counts_every_answer() -> None:
    """Each answer counts once under its status. A 2xx answer without the expected text counts as declined."""
    script = cycle([(201, b"approved", 0.0), (201, b"refused!", 0.0), (503, b"busy", 0.0)])
    requests = one_each([b"%036d" % number for number in range(300)], REQUEST)
    result, arrived = asyncio.run(with_toy(script, lambda place: closed_loop(place, requests, 4, check=b"approved")))
    assert result.statuses == {201: 200, 503: 100}
    assert (result.succeeded, result.declined, result.lost) == (200, 100, 0)
    assert len(arrived) == 300
    assert len({request[-68:] for request in arrived}) == 300


def test_closed_loop_keeps_no_more_in_flight() -> None:
    """Four requests are in flight at any time, because the server answers only when four wait."""
    barrier, waiting, most = asyncio.Barrier(4), [0], [0]

    async def wait() -> None:
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        await barrier.wait()
        waiting[0] -= 1

    requests = one_each([b"%036d" % number for number in range(40)], REQUEST)
    result, _ = asyncio.run(with_toy(always(), lambda place: closed_loop(place, requests, 4), wait))
    assert result.statuses == {201: 40}
    assert most == [4]


def test_warm_up_does_not_count() -> None:
    """Answers before the window do not count. ``edge`` is called at both ends of the window."""
    edges = list[float]()

    def script() -> Script:
        while True:
            yield (201 if edges else 503, b"approved", 0.001)

    result, _ = asyncio.run(
        with_toy(
            script(),
            lambda place: closed_loop(place, lambda: REQUEST, 2, 0.3, warm_s=0.2, edge=lambda: edges.append(time.monotonic())),
        )
    )
    # A request in flight at the end of the warm-up counts: at most one on each connection.
    assert result.statuses.get(503, 0) <= 2
    assert len(edges) == 2
    assert edges[1] - edges[0] >= 0.29


def test_open_loop_counts_from_the_appointed_time() -> None:
    """A single stall of 300 ms delays every request that is due meanwhile, not only the stalled one."""
    script = iter([(201, b"approved", 0.0)] * 20 + [(201, b"approved", 0.3)] + [(201, b"approved", 0.0)] * 10_000)

    def load(place: Place) -> Awaitable[Result]:
        return open_loop(place, lambda: REQUEST, [(200.0, 1.0)], connections=1, connections_max=1)

    result, _ = asyncio.run(with_toy(script, load))
    assert 120 < len(result.latency) < 280
    waited = sum(latency > 50e6 for latency in result.latency)
    assert waited > 25, "requests due during the stall waited, and their wait is counted"
    assert result.lost == 0


def test_open_loop_opens_connections_when_it_needs_them() -> None:
    """Requests do not queue behind slow answers while the limit allows another connection: ten arrive before the first answer."""
    arrived, enough = [0], asyncio.Event()

    async def wait() -> None:
        arrived[0] += 1
        if arrived[0] == 10:
            enough.set()
        await enough.wait()

    def load(place: Place) -> Awaitable[Result]:
        return open_loop(place, lambda: REQUEST, [(100.0, 0.5)], connections=1, connections_max=100)

    result, _ = asyncio.run(with_toy(always(), load, wait))
    assert result.statuses == {201: len(result.latency)}
    assert result.lost == 0


def test_request_without_an_answer_is_lost() -> None:
    """If the server closes a connection instead of answering, the request counts as lost in both loops."""
    script = iter([(201, b"approved", 0.0), (0, b"", 0.0)] + [(201, b"approved", 0.0)] * 10_000)
    requests = one_each([b"%036d" % number for number in range(10)], REQUEST)
    result, _ = asyncio.run(with_toy(script, lambda place: closed_loop(place, requests, 2)))
    assert result.lost == 1
    assert result.succeeded == 9
    script = iter([(201, b"approved", 0.0), (0, b"", 0.0)] + [(201, b"approved", 0.0)] * 10_000)
    result, arrived = asyncio.run(with_toy(script, lambda place: open_loop(place, lambda: REQUEST, [(100.0, 0.3)])))
    assert result.lost == 1
    assert result.succeeded == len(arrived) - 1


def test_recovery_is_the_end_of_the_last_bad_window() -> None:
    """The recovery time ends with the last quarter second whose p99 is above the limit."""
    result = Result()
    for number in range(100):
        due = number * NS // 100
        result.add(due, due + (NS if number < 40 else NS // 1000), 201)
    assert normal_after_ms(result, 0, 25.0) == 500.0
    assert normal_after_ms(result, NS // 2, 25.0) == 0.0
    assert normal_after_ms(result, 0, 0.1) == float("inf")


def test_tokens_are_split() -> None:
    """Tokens stored without a separator are split into a list."""
    tokens = [b"%036d" % number for number in range(5)]
    assert split(b"".join(tokens)) == tokens
    assert split(b"".join(tokens), 2) == tokens[:2]
