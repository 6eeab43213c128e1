"""Limits for clients: a request beyond a limit gets a JSON error, its connection is closed, and other clients are served."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from cardwright.edges.http import connections, protocol
from cardwright.edges.http.connections import LINGER_S, ClientLimits
from cardwright.edges.http.protocol import PIECE_BYTES
from cardwright.settings import Settings
from tests.support.databases import migrated_file
from tests.support.protocol import Running, read_answer, read_whole, refusals, run_protocol, until
from tests.support.server import HOST, RunningServer

GET = b"GET /v3/a HTTP/1.1\r\nhost: x\r\n\r\n"
HALF_HEAD = b"POST /v3/a HTTP/1.1\r\nhost: x\r\n"
CHUNK = b"1\r\nx\r\n"

API_OR_PAGE = pytest.mark.parametrize("path", [b"/v3/a", b"/body"])


async def check_refused(running: Running, reader: asyncio.StreamReader, status: int) -> str:
    """Check status and form of an error, the end of the connection, and that another client is served. Return the message."""
    answered, fields, body = await read_whole(reader)
    error = json.loads(body)
    assert (answered, error["error_code"][:3]) == (status, str(status))
    assert set(error) == {"error_code", "error_message"}
    assert fields["content-type"].startswith("application/json")
    assert fields["connection"] == "close"
    assert await reader.read() == b""
    other, writer = await asyncio.open_connection(HOST, running.port)
    writer.write(GET)
    assert (await read_answer(other))[0] == 200
    writer.close()
    return str(error["error_message"])


def check_refusal(sent: bytes, status: int, reason: str, **limits: float) -> None:
    """Check that these bytes are refused with this status, and that ``/metrics`` counts the reason."""
    before = refusals()

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(sent)
        await check_refused(running, reader, status)
        assert refusals() - before == {reason: 1}
        writer.close()

    run_protocol(say, **limits)


# --- Sizes --------------------------------------------------------------------------------


def test_the_settings_have_the_documented_defaults() -> None:
    """The limits without settings equal the defaults of the settings."""
    assert ClientLimits.of(Settings(_env_file=None)) == ClientLimits()  # type: ignore[call-arg]


@API_OR_PAGE
@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["half", "whole"])
@pytest.mark.parametrize("line", [b"a: %s\r\n" % (b"x" * 100_000), b"a: %s\r\n" % (b"x" * 1_100) * 90], ids=["line", "lines"])
def test_a_head_has_a_size(path: bytes, end: bytes, line: bytes) -> None:
    """A head of more than 64 KiB in one line or in many gets 431, even if it never ends."""
    check_refusal(b"GET %s HTTP/1.1\r\nhost: x\r\n%s%s" % (path, line, end), 431, "head_size")


def test_the_size_of_a_small_head_is_exact() -> None:
    """A head of the maximum size is accepted, and one more byte is refused."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(GET)
        assert (await read_answer(reader))[0] == 200
        writer.write(b"GET /v3/ab HTTP/1.1\r\nhost: x\r\n\r\n")
        await check_refused_alone(reader, 431)
        writer.close()

    run_protocol(say, head_max_bytes=len(GET) - 2)


async def check_refused_alone(reader: asyncio.StreamReader, status: int) -> None:
    """Check that the response has this status and that the connection ends."""
    assert (await read_answer(reader))[0] == status
    assert await reader.read() == b""


@API_OR_PAGE
@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["half", "whole"])
def test_header_lines_are_counted(path: bytes, end: bytes) -> None:
    """More than 100 header lines get 431. 100 lines are accepted."""
    lines = b"".join(b"a%d: b\r\n" % number for number in range(99))
    check_refusal(b"GET %s HTTP/1.1\r\nhost: x\r\n%sb: c\r\nd: e\r\n%s" % (path, lines, end), 431, "headers")

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"GET %s HTTP/1.1\r\nhost: x\r\n%s\r\n" % (path, lines))
        assert (await read_answer(reader))[0] == 200
        writer.close()

    run_protocol(say)


@pytest.mark.parametrize("rest", [b"", b" HTTP/1.1\r\nhost: x\r\n\r\n"], ids=["half", "whole"])
@pytest.mark.parametrize("size", [8_193, 60_000, 1_000_000])
def test_a_url_has_a_length(rest: bytes, size: int) -> None:
    """A URL of more than 8 KiB gets 414, for any length, and even if it never ends."""
    check_refusal(b"GET /v3/%s%s" % (b"a" * (size - 4), rest), 414, "url_size")


@API_OR_PAGE
@pytest.mark.parametrize(
    "body",
    [
        b"content-length: 1000001\r\n\r\n",
        b"content-length: 1000001\r\n\r\nhello",
        b"expect: 100-continue\r\ncontent-length: 1000001\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\nF4241\r\n%s" % (b"x" * 1_000_001),
    ],
    ids=["head only", "some body", "expect", "one chunk"],
)
def test_a_body_has_a_size(path: bytes, body: bytes) -> None:
    """A Content-Length beyond the limit is refused after the head. A body in chunks is refused when it exceeds the limit."""
    check_refusal(b"POST %s HTTP/1.1\r\nhost: x\r\n%s" % (path, body), 413, "body_size", body_max_bytes=1_000_000)


@API_OR_PAGE
@pytest.mark.parametrize(
    "framing",
    [CHUNK * 100_000, b"1;%s\r\nx\r\n" % (b"e" * 5_000) * 100, b"0\r\n" + b"trailer: x\r\n" * 50_000],
    ids=["one-byte chunks", "extensions", "trailers"],
)
def test_the_framing_of_a_body_has_a_size(path: bytes, framing: bytes) -> None:
    """A small body with large framing is refused: the received bytes have a limit of twice the largest body."""
    head = b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path
    check_refusal(head + framing, 413, "body_size", body_max_bytes=200_000)


@API_OR_PAGE
def test_the_largest_body_is_taken(path: bytes) -> None:
    """The largest body is accepted with a Content-Length and in chunks of 4 KiB."""
    size = 1_048_576
    chunks = b"1000\r\n%s\r\n" % (b"x" * 4096) * 256 + b"0\r\n\r\n"

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        for body in (b"content-length: %d\r\n\r\n%s" % (size, b"x" * size), b"transfer-encoding: chunked\r\n\r\n" + chunks):
            writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\n%s" % (path, body))
            assert await read_answer(reader) == ((200, b"/v3/a  %d" % size) if path == b"/v3/a" else (200, b"page"))
        assert running.handler.bodies in ([], [b"x" * size] * 2)
        writer.close()

    run_protocol(say)


def test_fields_behind_a_body_are_no_header_fields() -> None:
    """Trailer fields neither add nor replace header fields such as credentials (RFC 9110, 6.5.1)."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        head = b"POST /v3/a HTTP/1.1\r\nhost: x\r\nauthorization: known\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + CHUNK + b"0\r\nauthorization: other\r\nx: y\r\n\r\n")
        assert (await read_answer(reader))[0] == 200
        assert dict(running.handler.requests[0].headers)[b"authorization"] == b"known"
        assert b"x" not in running.handler.requests[0].headers
        writer.close()

    run_protocol(say)


# --- Fairness between clients -------------------------------------------------------------


@API_OR_PAGE
def test_bytes_are_parsed_in_pieces(path: bytes) -> None:
    """At most 16 KiB of a large read are parsed in one turn of the event loop, and the body is not copied."""
    head = b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path
    count = 40_000

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        server, turns, largest, bodies = running.protocols[0], 0, 0, set()
        server.data_received(head + CHUNK)
        server.data_received(CHUNK * count)
        before = server._body_bytes
        while server._body_bytes <= count:
            await asyncio.sleep(0)
            largest, before = max(largest, server._body_bytes - before), server._body_bytes
            bodies.add(id(getattr(server.cycle, "body", None)))
            turns += 1
        assert largest <= PIECE_BYTES // len(CHUNK) + 1
        assert turns >= count * len(CHUNK) // PIECE_BYTES
        if path == b"/v3/a":
            assert len(bodies) <= 2, "the body is one array that grows in place"
        server.data_received(b"0\r\n\r\n")
        assert (await read_answer(reader))[0] == 200
        writer.close()

    run_protocol(say)


def test_one_piece_is_parsed_in_a_turn_for_all_connections_together() -> None:
    """Twenty clients that send large bodies at once cost a turn of the event loop as much as one client."""

    async def say(running: Running) -> None:
        head = b"POST /v3/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        pairs = [await running.connect() for _ in range(20)]
        servers = running.protocols
        for server in servers:
            server.data_received(head + CHUNK)
            server.data_received(CHUNK * 10_000 + b"0\r\n\r\n")
        before = sum(server._body_bytes for server in servers)
        while before < 20 * 10_001:
            await asyncio.sleep(0)
            after = sum(server._body_bytes for server in servers)
            assert after - before <= PIECE_BYTES // len(CHUNK) + 1
            before = after
        for reader, writer in pairs:
            assert await read_answer(reader) == (200, b"/v3/a  10001")
            writer.close()

    run_protocol(say)


def test_requests_of_a_large_piece_are_answered_in_their_order() -> None:
    """3,000 requests that are sent together are answered in their order, slow ones and pages included."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        running.handler.let_go.set()
        paths = [path for number in range(750) for path in (b"/v3/%d" % number, b"/page", b"/v3/wait", b"/body")]
        server = running.protocols[0]
        sent = b"".join(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in paths)
        for start in range(0, len(sent), 30_000):
            server.data_received(sent[start : start + 30_000])
        for path in paths:
            expected = b"%s  0" % path if path.startswith(b"/v3") else b"page"
            assert await read_answer(reader) == (200, expected)
        assert not server._backlog
        writer.write(GET)
        assert (await read_answer(reader))[0] == 200
        writer.close()

    run_protocol(say)


# --- Times --------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", GET], ids=["first request", "later request"])
@pytest.mark.parametrize(
    ("sent", "reason", "seconds"),
    [
        (b"GET /v3/", "head_time", 10),
        (HALF_HEAD, "head_time", 10),
        (b"POST /v3/a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe", "body_time", 30),
        (b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe", "body_time", 30),
        (b"POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n", "body_time", 30),
    ],
)
def test_head_and_body_must_arrive_in_time(first: bytes, sent: bytes, reason: str, seconds: int) -> None:
    """A head gets 408 after 10 s and a body after 30 s. Single bytes in between do not extend the time."""
    before = refusals()

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        server = running.protocols[0]
        if first:
            writer.write(first)
            assert (await read_answer(reader))[0] == 200
            running.pass_time(20)
        server.data_received(sent)
        running.pass_time(seconds - 1)
        await asyncio.sleep(0.05)
        server.data_received(b"1" if reason == "body_time" else b"a")
        await asyncio.sleep(0.05)
        assert refusals() == before
        running.pass_time(2)
        await check_refused(running, reader, 408)
        assert refusals() - before == {reason: 1}
        assert len(running.handler.bodies) == 0
        writer.close()

    run_protocol(say)


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_silent_connection_is_closed(sent: bytes) -> None:
    """A client that sends nothing, or only line ends, within the time limit of a head is disconnected without a response."""
    before = refusals()

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(sent)
        running.pass_time(9)
        await asyncio.sleep(0.05)
        assert running.protocols
        running.pass_time(2)
        assert await reader.read() == b""
        assert refusals() - before == {"head_time": 1}
        writer.close()

    run_protocol(say)


@pytest.mark.parametrize("extra_headers", [b"", b"connection: close\r\n"])
def test_a_client_that_does_not_take_its_answers_is_disconnected(extra_headers: bytes) -> None:
    """A client that reads no responses is disconnected after 30 s. No task waits for it, and its requests are dropped."""
    before = refusals()

    async def say(running: Running) -> None:
        _, writer = await running.connect()
        reader_transport = writer.transport
        reader_transport.pause_reading()  # type: ignore[attr-defined]
        server = running.protocols[0]
        writer.write(b"GET /v3/large HTTP/1.1\r\nhost: x\r\n%s\r\n" % extra_headers * 3)
        await until(lambda: server.flow.write_paused)
        running.pass_time(29)
        await asyncio.sleep(0.05)
        assert running.protocols
        running.pass_time(2)
        await until(lambda: not running.protocols and not running.state.tasks)
        assert refusals() - before == {"write_time": 1}
        writer.close()

    run_protocol(say)


def test_a_refused_client_that_goes_on_sending_is_disconnected() -> None:
    """A refused client may read the response for two seconds while its bytes are dropped. Then the connection ends."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        server = running.protocols[0]
        writer.write(b"nonsense\r\n\r\n")
        assert (await read_answer(reader))[0] == 400
        for _ in range(10):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
        assert running.protocols == [server]
        assert not server._backlog
        running.pass_time(LINGER_S)
        await until(lambda: not running.protocols)
        writer.close()

    run_protocol(say)


def test_time_that_the_server_takes_does_not_count() -> None:
    """A pipelined partial request does not time out while the server answers an earlier one, because reading is paused."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"GET /v3/wait HTTP/1.1\r\nhost: x\r\n\r\n" + GET + HALF_HEAD)
        await until(lambda: running.handler.requests)
        running.pass_time(60)
        await asyncio.sleep(0.05)
        running.handler.let_go.set()
        assert (await read_answer(reader))[0] == 200
        assert (await read_answer(reader))[0] == 200
        writer.write(b"\r\n")
        assert (await read_answer(reader))[0] == 200
        writer.close()

    run_protocol(say)


# --- Numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"connections_max": 3}, {"connections_per_address_max": 3}])
def test_connections_are_counted(limits: dict[str, float]) -> None:
    """The fourth connection gets 503 and the first three are served. When one ends, another one is accepted."""
    before = refusals()

    async def say(running: Running) -> None:
        pairs = [await running.connect() for _ in range(3)]
        for _ in range(2):
            reader, writer = await asyncio.open_connection(HOST, running.port)
            writer.write(GET)
            await check_refused_alone(reader, 503)
            writer.close()
        assert refusals() - before == {"connections": 2}
        for reader, writer in pairs:
            writer.write(GET)
            assert (await read_answer(reader))[0] == 200
        pairs.pop()[1].close()
        await until(lambda: len(running.state.connections) == 2)
        pairs.append(await running.connect())
        reader, writer = pairs[-1]
        writer.write(GET)
        assert (await read_answer(reader))[0] == 200
        for _, writer in pairs:
            writer.close()

    run_protocol(say, **limits)


def test_refused_connections_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above REFUSED_MAX, refused connections are closed at once."""
    monkeypatch.setattr(connections, "REFUSED_MAX", 2)

    async def say(running: Running) -> None:
        pairs = [await asyncio.open_connection(HOST, running.port) for _ in range(20)]
        for reader, _ in pairs:
            assert (await read_answer(reader))[0] == 503
        await until(lambda: len(running.protocols) <= 2)
        for _, writer in pairs:
            writer.close()

    run_protocol(say, connections_max=0)


@pytest.mark.parametrize("path", [b"/page", b"/body"])
def test_pages_are_answered_while_the_api_is_busy(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maximum of API requests in progress does not delay ``/healthz`` and other pages."""
    monkeypatch.setattr(protocol, "UNDER_WAY_MAX", 2)

    async def say(running: Running) -> None:
        pairs = [await running.connect() for _ in range(2)]
        for _, writer in pairs:
            writer.write(b"GET /v3/wait HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: len(running.state.tasks) == 2)
        pairs.append(await running.connect())
        reader, writer = pairs[-1]
        writer.write(GET)
        assert (await read_answer(reader))[0] == 429
        writer.write(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
        assert (await read_answer(reader))[0] == 200
        for _, writer in pairs:
            writer.close()

    run_protocol(say)


# --- The credential before the body -------------------------------------------------------

HALF_BODY = b"POST %s HTTP/1.1\r\nhost: x\r\nauthorization: %s\r\nexpect: 100-continue\r\ncontent-length: 400000\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "credential", "status", "reason"),
    [(b"/v3/a", b"bad", 401, "credential"), (b"/v3/nowhere", b"known", 404, "route"), (b"/v3/nowhere", b"stored", 404, "route")],
)
def test_a_head_that_is_refused_needs_no_body(path: bytes, credential: bytes, status: int, reason: str) -> None:
    """A request with an unknown credential or path is refused after its head. The API is not called, and no body is requested."""
    before = refusals()

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(HALF_BODY % (path, credential) + b"x" * 100)
        await check_refused(running, reader, status)
        assert [request.path for request in running.handler.requests] == [b"/v3/a"], "only the other client's request"
        assert refusals() - before == {reason: 1}
        writer.close()

    run_protocol(say)


@pytest.mark.parametrize("credential", [b"stored", b"broken"])
def test_little_of_a_body_is_kept_until_the_credential_is_found(credential: bytes) -> None:
    """During the lookup of a credential the socket is not read. After a failed lookup the API answers."""

    async def say(running: Running) -> None:
        running.handler.look_up_may_end.clear()
        reader, writer = await running.connect()
        server = running.protocols[0]
        writer.write(HALF_BODY % (b"/v3/a", credential))
        await until(lambda: running.handler.looked_up)
        writer.write(b"x" * 400_000)
        running.pass_time(60)
        await asyncio.sleep(0.05)
        assert len(server._backlog) + server._body_bytes <= 262_144, "at most one read of the transport"
        running.handler.look_up_may_end.set()
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert await read_answer(reader) == (200, b"/v3/a  400000")
        writer.write(HALF_BODY % (b"/v3/a", b"stored") + b"x" * 400_000)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        assert await read_answer(reader) == (200, b"/v3/a  400000")
        assert running.handler.looked_up == ([b"stored"] if credential == b"stored" else [b"broken", b"stored"])
        writer.close()

    run_protocol(say)


# --- Bytes that are not HTTP --------------------------------------------------------------


@pytest.mark.parametrize("path", [b"/v3/a", b"/page"])
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT /v3/users HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT http://x/healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"BREW %s HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET %s HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET %s\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET %s\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET %s HTTP/1.1\r\nho st: x\r\n\r\n",
        b"GET %s HTTP/1.1\r\nhost: x\x00\r\n\r\n",
        b"GET %s HTTP/1.1\r\n: x\r\n\r\n",
        b"POST %s HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST %s HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
        b"POST %s HTTP/1.1\r\ncontent-length: 1e3\r\n\r\n",
        b"POST %s HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST %s HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST %s HTTP/1.1\r\ncontent-length: 1, 2\r\n\r\n",
        b"POST %s HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST %s HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\nx",
        b"POST %s HTTP/1.1\r\ntransfer-encoding: chunked, identity\r\n\r\nx",
        b"POST %s HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"POST %s HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nx\r\n",
        b"POST %s HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"POST %s HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxyz\r\n",
    ],
)
def test_what_is_not_http_is_refused(request_bytes: bytes, path: bytes) -> None:
    """Bytes that are not HTTP get 400 with a JSON error, and the connection ends."""
    sent = request_bytes.replace(b"%s", path)

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(GET + sent)
        assert (await read_answer(reader))[0] == 200
        await check_refused(running, reader, 400)
        writer.close()

    run_protocol(say)


@pytest.mark.parametrize("path", [b"/v3/a", b"/page"])
def test_a_folded_header_line_is_read_or_refused(path: bytes) -> None:
    """A value that continues on the next line (obs-fold; RFC 9112, 5.2) gets a status of 200 or 400."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"GET %s HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n" % path)
        assert (await read_answer(reader))[0] in (200, 400)
        writer.close()

    run_protocol(say)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /v3/a HTTP/1.1\r\ncontent-length: 1001\r\n\r\n", 413),
        (b"POST /body HTTP/1.1\r\ncontent-length: 1001\r\n\r\n", 413),
        (b"POST /v3/a HTTP/1.1\r\nauthorization: bad\r\ncontent-length: 900\r\n\r\n", 401),
        (b"POST /v3/a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\nZ\r\n", 400),
        (b"POST /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\nZ\r\n", 400),
    ],
)
def test_a_refusal_comes_after_earlier_answers(sent: bytes, status: int) -> None:
    """Earlier requests on the connection are answered first, in their order. Bytes after a refused request are dropped."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"GET /v3/wait HTTP/1.1\r\nhost: x\r\n\r\n" + b"GET /page HTTP/1.1\r\nhost: x\r\n\r\n" + GET + sent + GET)
        await until(lambda: running.protocols[0]._stage == protocol.REFUSED)
        running.handler.let_go.set()
        assert [await read_answer(reader) for _ in range(3)] == [(200, b"/v3/wait  0"), (200, b"page"), (200, b"/v3/a  0")]
        await check_refused(running, reader, status)
        writer.close()

    run_protocol(say, body_max_bytes=1000)


# --- The end ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HALF_HEAD,
        b"POST /v3/a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe",
        b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe",
        b"POST /v3/a HTTP/1.1\r\nhost: x\r\nauthorization: bad\r\ncontent-length: 5\r\n\r\nhe",
        b"nonsense\r\n\r\n",
    ],
    ids=["silent", "half a head", "half a body", "half a general body", "look-up under way", "refused"],
)
@pytest.mark.parametrize("first", [b"", GET])
def test_a_stop_does_not_wait_for_clients(sent: bytes, first: bytes) -> None:
    """When the server stops, a connection without a complete request is closed at once."""

    async def say(running: Running) -> None:
        if b"bad" in sent:
            running.handler.look_up_may_end.clear()
        reader, writer = await running.connect()
        server = running.protocols[0]
        if first:
            writer.write(first)
            assert (await read_answer(reader))[0] == 200
        if sent:
            server.data_received(sent)
            await asyncio.sleep(0)
        server.shutdown()
        await until(lambda: not running.protocols)
        await reader.read()
        running.handler.look_up_may_end.set()
        await until(lambda: not running.state.tasks)
        assert running.handler.bodies == []
        writer.close()

    run_protocol(say)


@pytest.mark.parametrize("behind", [b"", HALF_HEAD, b"POST /body HTTP/1.1\r\ncontent-length: 5\r\n\r\nhe", b"nonsense\r\n\r\n"])
def test_a_stop_waits_for_requests_under_way(behind: bytes) -> None:
    """After a stop complete requests are answered, the last one with ``connection: close``. Partial ones are dropped."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        server = running.protocols[0]
        server.data_received(b"GET /v3/wait HTTP/1.1\r\nhost: x\r\n\r\n" + GET + behind)
        await until(lambda: running.handler.requests)
        server.shutdown()
        running.handler.let_go.set()
        assert await read_answer(reader) == (200, b"/v3/wait  0")
        status, fields, _ = await read_whole(reader)
        assert (status, fields["connection"]) == (200, "close")
        assert await reader.read() == b""
        writer.close()

    run_protocol(say)


# --- A complete server --------------------------------------------------------------------


def exchange(server: RunningServer, sent: bytes) -> bytes:
    """Return all bytes that the server sends until it closes the connection."""
    with socket.create_connection((HOST, server.port), 30) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_server_has_the_limits_of_its_settings(tmp_path: Path) -> None:
    """Limits come from the settings, and refusals are in ``/metrics``. A partial inbox message is not kept and delays no stop."""
    env = {"CARDWRIGHT_BODY_MAX_BYTES": "2000", "CARDWRIGHT_URL_MAX_BYTES": "300", "CARDWRIGHT_HEAD_TIMEOUT_S": "0.1"}
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db"), env=env) as server, server.client() as client:
        credential = b"authorization: Basic dGVzdF9hcHBsaWNhdGlvbjp0ZXN0X2FjY2Vzc190b2tlbg==\r\n"
        head = b"POST /v3/users HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n%s\r\n"
        assert exchange(server, head % (100, b"")).startswith(b"HTTP/1.1 401 ")
        assert exchange(server, head % (2001, credential)).startswith(b"HTTP/1.1 413 ")
        assert exchange(server, head.replace(b"/users", b"/nowhere") % (100, credential)).startswith(b"HTTP/1.1 404 ")
        wrong_verb = exchange(server, head.replace(b"POST", b"DELETE") % (100, credential))
        assert wrong_verb.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nallow: POST, GET\r\n" in wrong_verb
        assert exchange(server, b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 300)).startswith(b"HTTP/1.1 414 ")
        assert exchange(server, b"GET / HTTP/1.1\r\n").startswith(b"HTTP/1.1 408 ")
        inbox = b"POST /sandbox/inbox/default/box HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
        assert exchange(server, inbox % 2001).startswith(b"HTTP/1.1 413 ")
        metrics = client.get("/metrics").text
        for reason, count in {"credential": 1, "body_size": 2, "route": 2, "url_size": 1, "head_time": 1}.items():
            assert f'cardwright_refused_connections_total{{reason="{reason}"}} {count}.0' in metrics
        with socket.create_connection((HOST, server.port), 30) as half:
            half.sendall(inbox % 5 + b"he")
        assert client.get("/sandbox/inbox/box").json["count"] == 0
        assert client.get("/healthz").status == 200
        with socket.create_connection((HOST, server.port), 30) as half:
            half.sendall(inbox % 5 + b"he")
            assert server.stop() == 0
        assert "Traceback" not in server.output()
