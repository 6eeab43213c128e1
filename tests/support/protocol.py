"""HTTP protocol without a platform: an application that echoes, a clock that the test moves, and raw requests."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import uvicorn
from prometheus_client import REGISTRY
from uvicorn.server import ServerState

from cardwright.core.problems import BAD_CREDENTIAL, NOT_FOUND, Problem
from cardwright.edges.http.api import HttpResponse, Request
from cardwright.edges.http.connections import ClientLimits, Connections
from cardwright.edges.http.protocol import ApiProtocol
from tests.support.server import HOST

SAFETY_S = 30
"""Maximum time of a conversation, in seconds. Only a hang takes as long."""

SWEEP_S = 0.01


class Echo:
    """An application that answers an API request with its path, query and size. ``/v3/wait`` waits for ``let_go``.

    The credential ``known`` and an absent one are valid at once. ``stored`` is valid after a look-up, a look-up of ``broken``
    raises OSError, and any other is invalid. ``/v3/nowhere`` is not a route.
    """

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        """Bodies that the general path has read."""
        self.looked_up: list[bytes | None] = []
        self.look_up_may_end = asyncio.Event()
        self.look_up_may_end.set()
        self._known: set[bytes | None] = {None, b"known"}

    def is_api(self, _verb: str, path: bytes) -> bool:
        """Return True for paths below /v3."""
        return path.startswith(b"/v3/")

    def check_head(self, _verb: str, path: bytes, authorization: bytes | None) -> bool:
        """Return True if the credential is known. Raises Problem for an unknown route."""
        if authorization not in self._known:
            return False
        if path == b"/v3/nowhere":
            raise Problem(NOT_FOUND, "no such path")
        return True

    async def look_up(self, authorization: bytes | None) -> None:
        """Look up a credential. Raises Problem if it is not ``stored``, and OSError for ``broken``."""
        self.looked_up.append(authorization)
        await self.look_up_may_end.wait()
        if authorization == b"broken":
            raise OSError("the database is away")
        if authorization != b"stored":
            raise Problem(BAD_CREDENTIAL)
        self._known.add(authorization)

    async def answer(self, request: Request) -> HttpResponse:
        """Return path, query and size of the body."""
        self.requests.append(request)
        if request.path == b"/v3/wait":
            await self.let_go.wait()
        if request.path == b"/v3/large":
            return HttpResponse(200, b"x" * 8_000_000)
        return HttpResponse(200, b"%s %s %d" % (request.path, request.query, len(request.body)))

    async def __call__(
        self,
        scope: dict[str, object],
        receive: Callable[[], Awaitable[dict[str, object]]],
        send: Callable[[dict[str, object]], Awaitable[None]],
    ) -> None:
        """Serve a page on the general path. ``/body`` reads the body first."""
        if scope["path"] == "/body":
            body, is_more = b"", True
            while is_more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += bytes(message.get("body", b""))  # type: ignore[call-overload]
                is_more = bool(message.get("more_body"))
            self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"page"})


@dataclass(slots=True)
class Running:
    """A listening protocol: its application, the state of uvicorn, its connections and its clock."""

    handler: Echo
    state: ServerState
    connections: Connections
    now: list[float] = field(default_factory=lambda: [1000.0])
    port: int = 0

    def pass_time(self, seconds: float) -> None:
        """Move the clock. The timer of the limits reads it every 10 ms."""
        self.now[0] += seconds

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a new connection after the server has accepted it."""
        accepted = len(self.state.connections) + 1
        pair = await asyncio.open_connection(HOST, self.port)
        await until(lambda: len(self.state.connections) >= accepted)
        return pair

    @property
    def protocols(self) -> list[ApiProtocol]:
        """The protocols of the open connections."""
        return [protocol for protocol in self.state.connections if isinstance(protocol, ApiProtocol)]


def run_protocol(say: Callable[[Running], Awaitable[None]], **limits: float) -> None:
    """Run a conversation with a listening protocol that has these limits."""

    async def run() -> None:
        loop, handler, state = asyncio.get_running_loop(), Echo(), ServerState()
        now = [1000.0]
        connections = Connections(ClientLimits(**limits), clock=lambda: now[0], sweep_s=SWEEP_S)  # type: ignore[arg-type]
        config = uvicorn.Config(handler, http=ApiProtocol, ws="none", log_config=None, proxy_headers=False)  # type: ignore[arg-type]
        config.load()
        server = await loop.create_server(lambda: ApiProtocol(config, state, {}, connections=connections), HOST, 0)
        running = Running(handler, state, connections, now, server.sockets[0].getsockname()[1])
        try:
            await asyncio.wait_for(say(running), SAFETY_S)
        finally:
            server.close()
            for protocol in running.protocols:
                protocol.transport.abort()

    asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    while not condition():
        await asyncio.sleep(0.001)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return status and body of an answer with a content-length."""
    status, _, body = await read_whole(reader)
    return status, body


async def read_whole(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Return status, header fields and body of an answer with a content-length."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), fields, await reader.readexactly(int(fields["content-length"]))


def refusals() -> Counter[str]:
    """Return the refusals that ``/metrics`` counts, by reason."""
    samples = [
        (sample.labels["reason"], int(sample.value))
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "cardwright_refused_connections_total"
    ]
    return Counter(dict(samples))
