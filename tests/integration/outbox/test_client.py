"""Guarded client in a sandbox: its results for correct, slow, invalid and broken servers."""

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from aiohttp import ThreadedResolver, web
from aiohttp.abc import ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cardwright.kit.guard import OutgoingPolicy
from cardwright.outbox.client import EndpointResponse, GuardedClient
from tests.support.held_time import HeldLoop, run_held

SANDBOX = OutgoingPolicy.sandbox()
PATIENT_MS = 60_000
"""The time limit of posts that are answered. It is only a safety limit."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def monotonic_ms() -> int:
    """Return the time of the monotonic clock, in milliseconds."""
    return time.monotonic_ns() // 1_000_000


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yield the port of an aiohttp server that answers every path with `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_raw(handler: RawHandler) -> AsyncIterator[int]:
    """Yield the port of a bare TCP server, for responses that no HTTP library would send."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def a_client(
    policy: OutgoingPolicy = SANDBOX, connections_max: int = 64, trusted_ca_pem: str | None = None
) -> AsyncIterator[GuardedClient]:
    """Yield a client and close it afterwards."""
    client = GuardedClient(policy, monotonic_ms, connections_max=connections_max, trusted_ca_pem=trusted_ca_pem)
    try:
        yield client
    finally:
        await client.close()


async def post_once(
    url: str, *, headers: Mapping[str, str] | None = None, timeout_ms: int = PATIENT_MS, trusted_ca_pem: str | None = None
) -> EndpointResponse:
    """Send one post of `{}` with a new sandbox client."""
    async with a_client(trusted_ca_pem=trusted_ca_pem) as client:
        return await client.post(url, b"{}", headers or {}, timeout_ms)


def answering(raw: bytes) -> RawHandler:
    """Return a handler that reads the head of a request, sends `raw` and closes the connection."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return handler


class Silent:
    """A handler that reads requests and never answers. It releases `arrived` once for each request."""

    def __init__(self) -> None:
        self.arrived = asyncio.Semaphore(0)

    async def __call__(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.arrived.release()
        await asyncio.Event().wait()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_is_posted_arrives_and_what_is_answered_returns(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Method, path, body and headers arrive as given, and status and body come back, on both kinds of event loop."""
    requests: list[tuple[str, str, bytes, dict[str, str]]] = []

    async def handler(request: web.Request) -> web.Response:
        requests.append((request.method, request.raw_path, await request.read(), dict(request.headers)))
        return web.Response(status=201, body=b'{"ok": true}')

    async def story() -> EndpointResponse:
        async with serving(handler) as port:
            url = f"http://127.0.0.1:{port}/hook/%2Fx?a=1&b=%20"
            return await post_once(url, headers={"Content-Type": "application/json", "X-City": "Ávila"})

    with asyncio.Runner(loop_factory=new_loop) as runner:
        answer = runner.run(story())
    assert (answer.status, answer.body, answer.error) == (201, b'{"ok": true}', None)
    method, path, body, headers = requests[0]
    assert (method, path, body) == ("POST", "/hook/%2Fx?a=1&b=%20", b"{}")
    assert (headers["Content-Type"], headers["X-City"], headers["Content-Length"]) == ("application/json", "Ávila", "2")
    assert (headers["User-Agent"], headers["Accept-Encoding"]) == ("Cardwright", "identity")


@pytest.mark.parametrize("status", [200, 204, 400, 404, 429, 500, 503])
def test_every_status_is_an_answer(status: int) -> None:
    """Every status is a response without an error, also a refusal."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async def story() -> EndpointResponse:
        async with serving(handler) as port:
            return await post_once(f"http://localhost:{port}/")

    answer = asyncio.run(story())
    assert (answer.status, answer.error) == (status, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """A redirect is returned as the response and is not followed."""
    paths: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async def story() -> EndpointResponse:
        async with serving(handler) as port:
            return await post_once(f"http://127.0.0.1:{port}/hook")

    answer = asyncio.run(story())
    assert (answer.status, answer.error, paths) == (status, None, ["/hook"])


def test_a_hanging_server_costs_the_timeout_and_no_more() -> None:
    """A server that never answers causes an error exactly at the timeout, also for a fraction of a second."""

    async def story(loop: HeldLoop) -> EndpointResponse:
        silent = Silent()
        async with serving_raw(silent) as port:
            client = GuardedClient(SANDBOX, loop.time_ms)
            post = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/", b"{}", {}, 250))
            await silent.arrived.acquire()
            await loop.advance(0.249)
            assert not post.done()
            await loop.advance(0.001)
            answer = await post
            await client.close()
            return answer

    answer = run_held(story)
    assert (answer.status, answer.body, answer.error) == (None, b"", "no answer within 250 ms")
    assert answer.duration_ms == 250


def test_a_dripping_server_cannot_hold_the_line() -> None:
    """The timeout includes the body: one byte every 10 ms does not extend it."""

    async def story(loop: HeldLoop) -> EndpointResponse:
        drips = asyncio.Semaphore(0)

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                drips.release()
                await asyncio.sleep(0.01)

        async with serving_raw(drip) as port:
            post = asyncio.create_task(post_once(f"http://127.0.0.1:{port}/", timeout_ms=200))
            for _ in range(20):
                await drips.acquire()
                assert not post.done()
                await loop.advance(0.01)
            return await post

    answer = run_held(story)
    assert (answer.status, answer.error) == (None, "no answer within 200 ms")


def test_a_name_server_that_hangs_is_a_timeout() -> None:
    """The timeout includes the name resolution."""

    class Hanging(ThreadedResolver):
        def __init__(self) -> None:
            super().__init__()
            self.is_called = asyncio.Event()

        async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
            self.is_called.set()
            await asyncio.Event().wait()
            return await super().resolve(host, port, family)

    async def story(loop: HeldLoop) -> EndpointResponse:
        resolver = Hanging()
        client = GuardedClient(SANDBOX, loop.time_ms, resolver=resolver)
        try:
            post = asyncio.create_task(client.post("http://hooks.example.com/", b"{}", {}, 100))
            await resolver.is_called.wait()
            await loop.advance(0.1)
            return await post
        finally:
            await client.close()

    assert run_held(story).error == "no answer within 100 ms"


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", "connection closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "the answer is not valid HTTP"),
        (b"\x16\x03\x01\x00\x05garbage\r\n\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000 + b"\r\n\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 200 + b"\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1", "connection closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "the answer is incomplete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "the answer is incomplete"),
    ],
)
def test_a_garbled_answer_is_no_answer(raw: bytes, error: str) -> None:
    """Any response that is not one complete HTTP message is an error with a description, never an exception."""

    async def story() -> EndpointResponse:
        async with serving_raw(answering(raw)) as port:
            return await post_once(f"http://127.0.0.1:{port}/")

    answer = asyncio.run(story())
    assert (answer.status, answer.body, answer.error) == (None, b"", error)


def test_a_reset_is_an_error() -> None:
    """A connection that is reset during the request is an error with a description."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async def story() -> EndpointResponse:
        async with serving_raw(reset) as port:
            return await post_once(f"http://127.0.0.1:{port}/")

    assert asyncio.run(story()).error == "connection closed without an answer"


def test_a_closed_port_is_refused() -> None:
    """A closed port gives the error "connection refused"."""

    async def story() -> EndpointResponse:
        async with serving_raw(answering(b"")) as port:
            pass
        return await post_once(f"http://127.0.0.1:{port}/")

    answer = asyncio.run(story())
    assert (answer.status, answer.error) == (None, "connection refused")


def test_an_unknown_host_is_an_error() -> None:
    """A name under .invalid (RFC 6761) gives an error about the name. Without a name server it is the second one."""
    answer = asyncio.run(post_once("http://nobody.invalid/"))
    assert answer.status is None
    assert answer.error in ("the name does not exist", "the name could not be resolved")


@pytest.mark.parametrize("length", [65_535, 65_536, 65_537, 1_000_000])
def test_a_long_body_is_cut(length: int) -> None:
    """At most 65,536 bytes of a response are kept, and the client stays usable."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * length)

    async def story() -> None:
        async with serving(handler) as port, a_client() as client:
            for _ in range(2):
                answer = await client.post(f"http://127.0.0.1:{port}/", b"{}", {}, PATIENT_MS)
                assert (answer.status, answer.error, len(answer.body)) == (200, None, min(length, 65_536))

    asyncio.run(story())


def test_an_endless_body_is_cut() -> None:
    """A response that never ends is returned after its first 65,536 bytes."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 10_000)
            await writer.drain()

    async def story() -> EndpointResponse:
        async with serving_raw(endless) as port:
            return await post_once(f"http://127.0.0.1:{port}/")

    answer = asyncio.run(story())
    assert (answer.status, answer.error, answer.body) == (200, None, b"x" * 65_536)


def test_a_packed_body_is_not_unpacked() -> None:
    """A compressed body of 10 MB is returned compressed."""
    bomb = gzip.compress(b"0" * 10_000_000)

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async def story() -> EndpointResponse:
        async with serving(handler) as port:
            return await post_once(f"http://127.0.0.1:{port}/")

    assert asyncio.run(story()).body == bomb


def test_cookies_are_not_sent_again() -> None:
    """A cookie of one response is not sent with the next request."""
    cookies: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "who=you"})

    async def story() -> None:
        async with serving(handler) as port, a_client() as client:
            for _ in range(2):
                await client.post(f"http://localhost:{port}/", b"{}", {}, PATIENT_MS)

    asyncio.run(story())
    assert cookies == [None, None]


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy settings of the environment are ignored, because a proxy would connect without the guard."""
    proxied: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxied.append(await reader.readline())

    async def story() -> EndpointResponse:
        async with serving_raw(proxy) as proxy_port, serving_raw(answering(b"")) as port:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy_port}")
            monkeypatch.delenv("no_proxy", raising=False)
            return await post_once(f"http://127.0.0.1:{port}/")

    assert asyncio.run(story()).error == "connection closed without an answer"
    assert proxied == []


def test_connections_have_a_limit() -> None:
    """Of ten posts at once, at most three are in progress. All of them are answered."""
    under_way: list[int] = [0]
    most: list[int] = [0]

    async def story() -> list[EndpointResponse]:
        arrived, let_go = asyncio.Semaphore(0), asyncio.Event()

        async def handler(request: web.Request) -> web.Response:
            if request.path != "/last":
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
                arrived.release()
                await let_go.wait()
                under_way[0] -= 1
            return web.Response()

        async with serving(handler) as port, a_client(connections_max=3) as client, a_client() as other:
            url = f"http://127.0.0.1:{port}"
            posts = [asyncio.create_task(client.post(f"{url}/", b"{}", {}, PATIENT_MS)) for _ in range(10)]
            for _ in range(3):
                await arrived.acquire()
            # Connections are accepted in their order: a fourth one of the first client would have arrived before this.
            assert (await other.post(f"{url}/last", b"{}", {}, PATIENT_MS)).status == 200
            assert under_way == [3]
            let_go.set()
            return list(await asyncio.gather(*posts))

    assert [answer.status for answer in asyncio.run(story())] == [200] * 10
    assert most == [3]


def test_wait_for_a_free_connection_is_reported() -> None:
    """While all connections hang, the next post reports that no connection was free, not that its server was silent."""

    async def story(loop: HeldLoop) -> list[str | None]:
        silent = Silent()
        async with serving_raw(silent) as port, a_client(connections_max=1) as client:
            url = f"http://127.0.0.1:{port}/"
            first = asyncio.create_task(client.post(url, b"{}", {}, 400))
            await silent.arrived.acquire()
            second = asyncio.create_task(client.post(url, b"{}", {}, 200))
            await loop.advance(0)
            await loop.advance(0.2)
            errors = [(await second).error]
            await loop.advance(0.2)
            return [*errors, (await first).error]

    assert run_held(story) == ["no free connection within 200 ms", "no answer within 400 ms"]


def test_timeout_after_a_late_connection_names_the_server() -> None:
    """After the wait for a connection has ended, a missing response is reported as the server's."""

    async def story(loop: HeldLoop) -> list[str | None]:
        silent = Silent()
        async with serving_raw(silent) as port, a_client(connections_max=1) as client:
            url = f"http://127.0.0.1:{port}/"
            first = asyncio.create_task(client.post(url, b"{}", {}, 100))
            await silent.arrived.acquire()
            second = asyncio.create_task(client.post(url, b"{}", {}, 400))
            await loop.advance(0)
            await loop.advance(0.1)
            errors = [(await first).error]
            await silent.arrived.acquire()
            await loop.advance(0.3)
            return [*errors, (await second).error]

    assert run_held(story) == ["no answer within 100 ms", "no answer within 400 ms"]


def test_a_connection_serves_more_than_one_post() -> None:
    """Consecutive posts to one address share a connection."""
    peers: set[object] = set()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=b"x")

    async def story() -> None:
        async with serving(handler) as port, a_client() as client:
            for _ in range(5):
                await client.post(f"http://127.0.0.1:{port}/", b"{}", {}, PATIENT_MS)

    asyncio.run(story())
    assert len(peers) == 1


def test_the_duration_is_measured_with_the_clock_we_are_given() -> None:
    """Durations come from the given clock, for responses and refusals."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    async def story() -> None:
        readings = iter([1_000, 1_250, 5_000, 5_007])
        client = GuardedClient(SANDBOX, lambda: next(readings))
        async with serving(handler) as port:
            assert (await client.post(f"http://127.0.0.1:{port}/", b"", {}, PATIENT_MS)).duration_ms == 250
            assert (await client.post("ftp://127.0.0.1/", b"", {}, PATIENT_MS)).duration_ms == 7
        await client.close()

    asyncio.run(story())


def test_an_allowed_host_is_reached_in_production() -> None:
    """A host and port that the operator allows is reached over plain HTTP in production. Other addresses are refused."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    async def story() -> None:
        async with serving(handler) as port, serving(handler) as other:
            policy = OutgoingPolicy.production([f"localhost:{port}"])
            async with a_client(policy) as client:
                assert (await client.post(f"http://localhost:{port}/", b"{}", {}, PATIENT_MS)).status == 200
                assert (await client.post(f"http://127.0.0.1:{port}/", b"{}", {}, PATIENT_MS)).status is None
                refused = await client.post(f"https://localhost:{other}/", b"{}", {}, PATIENT_MS)
                assert refused.error == "refused by the outgoing guard: loopback address"

    asyncio.run(story())


def test_headers_that_bend_the_request_are_not_sent() -> None:
    """A header value with a line break is refused, and nothing is sent."""

    async def handler(_: web.Request) -> web.Response:
        raise AssertionError("nothing should arrive")

    async def story() -> EndpointResponse:
        async with serving(handler) as port:
            return await post_once(f"http://127.0.0.1:{port}/", headers={"X-A": "b\r\nTransfer-Encoding: chunked"})

    answer = asyncio.run(story())
    assert answer.error == "refused by the outgoing guard: a header value has a character that is not allowed"


def test_errors_and_reprs_contain_no_secrets() -> None:
    """No result of a post shows the path of the URL, a header value or the body of the response in its repr."""

    async def story(loop: HeldLoop) -> list[EndpointResponse]:
        headers, silent = {"Authorization": "Basic hush"}, Silent()

        async def end_the_silence() -> None:
            await silent.arrived.acquire()
            await loop.advance(0.3)

        async with (
            serving_raw(answering(b"hush\r\n\r\n")) as garbled,
            serving_raw(silent) as hanging,
            serving_raw(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhush")) as fine,
        ):
            impatience = asyncio.create_task(end_the_silence())
            targets = [f"http://127.0.0.1:{port}/hush?key=hush" for port in (garbled, hanging, fine, 1)]
            targets += ["http://hush.invalid/hush", "http://169.254.169.254/hush", "http://u:hush@localhost/", "hush"]
            answers = [await post_once(url, headers=headers, timeout_ms=300) for url in targets]
            await impatience
            return answers

    answers = run_held(story)
    assert [answer.status for answer in answers] == [None, None, 200, None, None, None, None, None]
    assert "hush" not in repr(answers)


def test_closing_ends_what_is_under_way() -> None:
    """A post in progress returns an error when the client closes. A later post raises AssertionError."""

    async def story() -> None:
        silent = Silent()
        async with serving_raw(silent) as port:
            client = GuardedClient(SANDBOX, monotonic_ms)
            post = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/", b"{}", {}, PATIENT_MS))
            await silent.arrived.acquire()
            await client.close()
            assert (await post).error is not None
            with pytest.raises(AssertionError, match="post after close"):
                await client.post(f"http://127.0.0.1:{port}/", b"{}", {}, PATIENT_MS)

    asyncio.run(story())


def test_cancelling_a_post_is_not_swallowed() -> None:
    """A cancelled post raises CancelledError instead of returning a response."""

    async def story() -> None:
        silent = Silent()
        async with serving_raw(silent) as port, a_client() as client:
            post = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/", b"{}", {}, PATIENT_MS))
            await silent.arrived.acquire()
            post.cancel()
            with pytest.raises(asyncio.CancelledError):
                await post

    asyncio.run(story())


# --- TLS -----------------------------------------------------------------------------------------------------------


def write_certificate(folder: Path, *, address: str, valid_days: tuple[int, int]) -> tuple[Path, ssl.SSLContext]:
    """Create a self-signed certificate for an IP address and a server context. Its validity is in days from today."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cardwright test")])
    today = datetime.datetime.now(datetime.UTC)
    begin, end = (today + datetime.timedelta(days=days) for days in valid_days)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key_pem)
    return pem, context


@pytest.mark.parametrize(
    ("address", "valid_days", "is_trusted", "error"),
    [
        ("127.0.0.1", (-1, 1), True, None),
        ("127.0.0.1", (-1, 1), False, "certificate not trusted"),
        ("127.0.0.2", (-1, 1), True, "certificate is for another host"),
        ("127.0.0.1", (-9, -1), True, "certificate has expired"),
        ("127.0.0.1", (1, 9), True, "certificate not trusted"),
    ],
)
def test_certificates_are_checked(
    tmp_path: Path, address: str, valid_days: tuple[int, int], is_trusted: bool, error: str | None
) -> None:
    """A given certificate is accepted only for its own host and within its validity."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    async def story() -> EndpointResponse:
        pem, tls = write_certificate(tmp_path, address=address, valid_days=valid_days)
        async with serving(handler, tls) as port:
            return await post_once(f"https://127.0.0.1:{port}/", trusted_ca_pem=str(pem) if is_trusted else None)

    answer = asyncio.run(story())
    assert (answer.status, answer.error) == (200 if error is None else None, error)


def test_a_server_without_tls_is_an_error() -> None:
    """An https request to a server without TLS fails in the handshake."""

    async def bad_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async def story() -> EndpointResponse:
        async with serving_raw(bad_request) as port:
            return await post_once(f"https://127.0.0.1:{port}/")

    answer = asyncio.run(story())
    assert (answer.status, answer.error) == (None, "TLS handshake failed")


def test_a_missing_certificate_file_is_found_at_the_start() -> None:
    """A missing certificate file raises OSError when the client is created, not at the first post."""
    with pytest.raises(OSError, match="No such file"):
        GuardedClient(SANDBOX, monotonic_ms, trusted_ca_pem="/nowhere/ca.pem")
