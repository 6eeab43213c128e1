"""The short way of an API request through HTTP/1.1: what RFC 9112 asks of a connection still holds on it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from uvicorn.server import ServerState

from cardwright.core.problems import BUSY
from cardwright.edges.http import protocol
from cardwright.edges.http.api import Answer, Request
from cardwright.edges.http.parse import BODY_MAX
from cardwright.edges.http.protocol import ApiProtocol
from tests.support.server import HOST

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Echo:
    """A door that answers a path with what it was sent; ``/v3/wait`` only when it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.asked: list[Request] = []

    def is_api(self, _verb: str, path: bytes) -> bool:
        """Everything below /v3."""
        return path.startswith(b"/v3/")

    async def answer(self, request: Request) -> Answer:
        """Path, query and size of the body."""
        self.asked.append(request)
        if request.path == b"/v3/wait":
            await self.let_go.wait()
        return Answer(200, b"%s %s %d" % (request.path, request.query, len(request.body)))

    async def __call__(self, _scope: object, _receive: object, send: Callable[[dict[str, object]], Awaitable[None]]) -> None:
        """The general way: a page."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"page"})


def talk(say: Callable[[Echo, int], Awaitable[None]], idle_s: float = 5) -> None:
    """Runs a conversation with a listening protocol; it is told the door and the port."""

    async def run() -> None:
        door, loop, state = Echo(), asyncio.get_running_loop(), ServerState()
        config = uvicorn.Config(door, http=ApiProtocol, ws="none", log_config=None, proxy_headers=False)  # type: ignore[arg-type]
        config.timeout_keep_alive = idle_s  # type: ignore[assignment]
        config.load()
        server = await loop.create_server(lambda: ApiProtocol(config, state, {}), HOST, 0)
        async with server:
            await asyncio.wait_for(say(door, server.sockets[0].getsockname()[1]), 20)

    asyncio.run(run())


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer with a content-length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length"))
    return int(head.split()[1]), await reader.readexactly(length)


def test_requests_sent_together_are_answered_in_their_order() -> None:
    """A slow request holds back the answers of those behind it on its connection, API and pages alike."""

    async def say(door: Echo, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        paths = ("/v3/wait", "/v3/b?x=1", "/page", "/v3/d")
        writer.write(b"".join(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode() for path in paths))
        second, second_writer = await asyncio.open_connection(HOST, port)
        second_writer.write(b"GET /v3/other HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await read_answer(second))[0] == 200
        assert [request.path for request in door.asked] == [b"/v3/wait", b"/v3/other"]
        door.let_go.set()
        answers = [await read_answer(reader) for _ in paths]
        assert [body for _, body in answers] == [b"/v3/wait  0", b"/v3/b x=1 0", b"page", b"/v3/d  0"]
        writer.close()
        second_writer.close()

    talk(say)


@pytest.mark.parametrize(
    ("request_bytes", "body"),
    [
        (b"POST /v3/a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", b"/v3/a  5"),
        (b"POST /v3/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"/v3/a  5"),
        (b"GET http://x/v3/a?b=c HTTP/1.1\r\nhost: x\r\n\r\n", b"/v3/a b=c 0"),
    ],
)
def test_bodies_and_targets_of_all_forms_are_read(request_bytes: bytes, body: bytes) -> None:
    """With a length, in chunks, sent byte by byte; and a target that is a whole URL (RFC 9112, 3.2.2)."""

    async def say(_door: Echo, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for part in (request_bytes, *(bytes([byte]) for byte in request_bytes)):
            writer.write(part)
            await writer.drain()
        assert await read_answer(reader) == (200, body)
        assert await read_answer(reader) == (200, body)
        writer.close()

    talk(say)


def test_who_waits_to_be_told_to_go_on_is_told() -> None:
    """``Expect: 100-continue``: the body is asked for, then the request is answered (RFC 9110, 10.1.1)."""

    async def say(_door: Echo, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"POST /v3/a HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ab")
        assert await read_answer(reader) == (200, b"/v3/a  2")
        writer.close()

    talk(say)


@pytest.mark.parametrize("head", ["GET /v3/a HTTP/1.0\r\n", "GET /v3/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"])
def test_a_connection_that_shall_end_ends(head: str) -> None:
    """HTTP/1.0 and ``Connection: close``: the answer says so and nothing follows it."""

    async def say(_door: Echo, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(f"{head}\r\n".encode())
        answer = await reader.read()
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b"\r\n\r\n/v3/a  0")
        writer.close()

    talk(say)


def test_an_answer_to_head_has_no_body() -> None:
    """The head tells the length that GET's answer would have, and the next answer follows at once (RFC 9110, 9.3.2)."""

    async def say(_door: Echo, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"HEAD /v3/a HTTP/1.1\r\nhost: x\r\n\r\nGET /v3/b HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"content-length: 8\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert await read_answer(reader) == (200, b"/v3/b  0")
        writer.close()

    talk(say)


def test_of_an_endless_body_little_is_kept() -> None:
    """What goes beyond the largest body is read and dropped; the door sees that it is too large."""

    async def say(door: Echo, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        size = BODY_MAX * 8
        writer.write(b"POST /v3/a HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(8):
            writer.write(b"x" * BODY_MAX)
            await writer.drain()
        assert (await read_answer(reader))[0] == 200
        assert BODY_MAX < len(door.asked[0].body) < 2 * BODY_MAX
        writer.close()

    talk(say)


def test_too_many_requests_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than can be under way is told so while the others still wait, and all is as before when they are done."""
    monkeypatch.setattr(protocol, "UNDER_WAY_MAX", 4)

    async def say(door: Echo, port: int) -> None:
        waiting = [await asyncio.open_connection(HOST, port) for _ in range(4)]
        for _, writer in waiting:
            writer.write(b"GET /v3/wait HTTP/1.1\r\nhost: x\r\n\r\n")
        while len(door.asked) < len(waiting):
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(HOST, port)
        for _ in range(3):
            writer.write(b"GET /v3/a HTTP/1.1\r\nhost: x\r\n\r\n" * 50)
            for _ in range(50):
                status, body = await read_answer(reader)
                assert status == BUSY.status
                assert b'"error_code":"429001"' in body
        door.let_go.set()
        assert [(await read_answer(one))[0] for one, _ in waiting] == [200] * 4
        writer.write(b"GET /v3/a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await read_answer(reader) == (200, b"/v3/a  0")
        for _, one in (*waiting, (reader, writer)):
            one.close()

    talk(say)


@pytest.mark.parametrize("path", [b"/v3/a", b"/page"])
def test_an_idle_connection_is_ended_and_a_used_one_is_not(path: bytes) -> None:
    """The time that a connection may be idle begins with each answer, and does not run while a request is under way."""

    async def say(door: Echo, port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        loop = asyncio.get_running_loop()
        for _ in range(4):
            writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            assert (await read_answer(reader))[0] == 200
            await asyncio.sleep(0.3)
        writer.write(b"GET /v3/wait HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(0.8)
        door.let_go.set()
        assert (await read_answer(reader))[0] == 200
        answered = loop.time()
        assert await reader.read() == b""
        assert 0.4 < loop.time() - answered < 3
        writer.close()

    talk(say, idle_s=0.5)
