"""Short path of API requests through HTTP/1.1: it keeps the rules of RFC 9112 for a connection."""

import asyncio

import pytest

from cardwright.core.problems import BUSY
from cardwright.edges.http import protocol
from tests.support.protocol import Running, read_answer, run_protocol, until
from tests.support.server import HOST


def test_requests_sent_together_are_answered_in_their_order() -> None:
    """A slow request delays the responses of later requests on its connection, of the API and of pages alike."""

    async def say(running: Running) -> None:
        handler, port = running.handler, running.port
        reader, writer = await asyncio.open_connection(HOST, port)
        paths = ("/v3/wait", "/v3/b?x=1", "/page", "/v3/d")
        writer.write(b"".join(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode() for path in paths))
        second, second_writer = await asyncio.open_connection(HOST, port)
        second_writer.write(b"GET /v3/other HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await read_answer(second))[0] == 200
        assert [request.path for request in handler.requests] == [b"/v3/wait", b"/v3/other"]
        handler.let_go.set()
        answers = [await read_answer(reader) for _ in paths]
        assert [body for _, body in answers] == [b"/v3/wait  0", b"/v3/b x=1 0", b"page", b"/v3/d  0"]
        writer.close()
        second_writer.close()

    run_protocol(say)


@pytest.mark.parametrize(
    ("request_bytes", "body"),
    [
        (b"POST /v3/a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", b"/v3/a  5"),
        (b"POST /v3/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"/v3/a  5"),
        (b"GET http://x/v3/a?b=c HTTP/1.1\r\nhost: x\r\n\r\n", b"/v3/a b=c 0"),
    ],
)
def test_bodies_and_targets_of_all_forms_are_read(request_bytes: bytes, body: bytes) -> None:
    """A body is read with a Content-Length, in chunks, and byte by byte. A target may be a complete URL (RFC 9112, 3.2.2)."""

    async def say(running: Running) -> None:
        port = running.port
        reader, writer = await asyncio.open_connection(HOST, port)
        for part in (request_bytes, *(bytes([byte]) for byte in request_bytes)):
            writer.write(part)
            await writer.drain()
        assert await read_answer(reader) == (200, body)
        assert await read_answer(reader) == (200, body)
        writer.close()

    run_protocol(say)


def test_expect_100_continue_is_answered() -> None:
    """With ``Expect: 100-continue`` the server requests the body and then answers (RFC 9110, 10.1.1)."""

    async def say(running: Running) -> None:
        port = running.port
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"POST /v3/a HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ab")
        assert await read_answer(reader) == (200, b"/v3/a  2")
        writer.close()

    run_protocol(say)


@pytest.mark.parametrize("head", ["GET /v3/a HTTP/1.0\r\n", "GET /v3/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"])
def test_a_connection_that_shall_end_ends(head: str) -> None:
    """With HTTP/1.0 or ``Connection: close`` the response has ``connection: close``, and nothing follows it."""

    async def say(running: Running) -> None:
        port = running.port
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(f"{head}\r\n".encode())
        answer = await reader.read()
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b"\r\n\r\n/v3/a  0")
        writer.close()

    run_protocol(say)


def test_an_answer_to_head_has_no_body() -> None:
    """The response to HEAD has the Content-Length of GET, and the next response follows at once (RFC 9110, 9.3.2)."""

    async def say(running: Running) -> None:
        port = running.port
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"HEAD /v3/a HTTP/1.1\r\nhost: x\r\n\r\nGET /v3/b HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"content-length: 8\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert await read_answer(reader) == (200, b"/v3/b  0")
        writer.close()

    run_protocol(say)


def test_too_many_requests_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request beyond the maximum in progress gets 429 at once. When the others are done, requests succeed again."""
    monkeypatch.setattr(protocol, "UNDER_WAY_MAX", 4)

    async def say(running: Running) -> None:
        handler, port = running.handler, running.port
        waiting = [await asyncio.open_connection(HOST, port) for _ in range(4)]
        for _, writer in waiting:
            writer.write(b"GET /v3/wait HTTP/1.1\r\nhost: x\r\n\r\n")
        while len(handler.requests) < len(waiting):
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(HOST, port)
        for _ in range(3):
            writer.write(b"GET /v3/a HTTP/1.1\r\nhost: x\r\n\r\n" * 50)
            for _ in range(50):
                status, body = await read_answer(reader)
                assert status == BUSY.status
                assert b'"error_code":"429001"' in body
        handler.let_go.set()
        assert [(await read_answer(waiting_reader))[0] for waiting_reader, _ in waiting] == [200] * 4
        writer.write(b"GET /v3/a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await read_answer(reader) == (200, b"/v3/a  0")
        for _, open_writer in (*waiting, (reader, writer)):
            open_writer.close()

    run_protocol(say)


@pytest.mark.parametrize("path", [b"/v3/a", b"/page"])
def test_an_idle_connection_is_ended_and_a_used_one_is_not(path: bytes) -> None:
    """The idle time begins with each response and does not run during a request. Line ends alone do not extend it."""

    async def say(running: Running) -> None:
        reader, writer = await running.connect()
        for _ in range(4):
            writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            assert (await read_answer(reader))[0] == 200
            running.pass_time(60)
            await asyncio.sleep(0.05)
        writer.write(b"GET /v3/wait HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: running.handler.requests[-1:] and running.handler.requests[-1].path == b"/v3/wait")
        running.pass_time(1000)
        await asyncio.sleep(0.05)
        running.handler.let_go.set()
        assert (await read_answer(reader))[0] == 200
        running.pass_time(74)
        writer.write(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        assert running.protocols
        running.pass_time(2)
        assert await reader.read() == b""
        writer.close()

    run_protocol(say, idle_timeout_s=75)
