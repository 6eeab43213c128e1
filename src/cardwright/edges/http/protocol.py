"""uvicorn's HTTP/1.1 protocol with a short way for API requests: one task, one call, one write for each.

A general ASGI answer comes in two messages through a cycle object, and each header of it is checked; that costs more than
the decision it carries. Here the parser's callbacks fill an ``Exchange``, the API answers it, and head and body leave in
one system call. Pages, the inbox's door and everything else that is no API request go the general way. What takes its time
is told apart too: when more requests are under way than can be answered in time, the next one is refused at once, before
its body is looked at.
"""

from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cardwright.core.problems import BUSY, Problem
from cardwright.edges.http.api import Answer, Request
from cardwright.edges.http.metrics import count_answer
from cardwright.edges.http.parse import BODY_MAX
from cardwright.edges.http.problems import problem_body

UNDER_WAY_MAX = 2_048
"""Requests that may be under way in a process: at the rates that one reaches they are answered within half a second."""

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

CONTENT_TYPE = b"content-type: application/json;charset=UTF-8\r\n"
REFUSED = problem_body(Problem(BUSY, "too many requests are under way, try again later"))


class Door(Protocol):
    """What answers API requests."""

    def is_api(self, verb: str, path: bytes) -> bool:
        """Whether the request is the API's."""
        ...

    async def answer(self, request: Request) -> Answer:
        """Answers it; never raises but for cancellation."""
        ...


class _Nothing:
    """In the place of the event that tells a general cycle of more body: here nobody waits for that."""

    def set(self) -> None:
        """Nobody waits."""


class Exchange:
    """One API request and its answer, with the names by which uvicorn's protocol knows a cycle."""

    __slots__ = (
        "body", "disconnected", "headers", "is_turn", "keep_alive", "more_body", "path", "query", "response_complete", "task",
        "verb",
    )  # fmt: skip

    message_event = _Nothing()

    def __init__(self, verb: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> None:
        self.verb, self.path, self.query, self.headers = verb, path, query, headers
        self.keep_alive = keep_alive
        self.body = b""
        self.more_body = True
        self.disconnected = self.response_complete = False
        self.is_turn = False
        """Whether the answers to all earlier requests of the connection have left."""
        self.task: Any = None


class ApiProtocol(HttpToolsProtocol):
    """One connection."""

    _idle_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it what was to happen if nobody used it."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def on_response_complete(self) -> None:
        """Goes on to what was sent meanwhile, or waits for more, but not for ever.

        The timer that ends an idle connection stays armed while the connection is in use, and looks at the time when it goes
        off: to cancel it and set it anew for each request costs more than deciding a purchase.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_idle(self.timeout_keep_alive)

    def _wait_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Ends the connection if nothing has come for too long."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            # A request is under way; its answer sets the timer again.
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._wait_idle(left)
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        """A request begins; what the general way describes it by is not made before it goes there."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Begins an exchange, or hands over to the general way."""
        verb = self.parser.get_method().decode("ascii")
        url = httptools.parse_url(self.url)
        door = cast(Door, self.app)
        if not door.is_api(verb, url.path):
            address, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = address, expects
            self.headers += headers
            super().on_headers_complete()
            return
        keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        exchange = Exchange(verb, url.path, url.query or b"", self.headers, keep_alive=keep_alive)
        if self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        earlier, self.cycle = cast(Any, self.cycle), cast(Any, exchange)
        if earlier is None or earlier.response_complete:
            exchange.is_turn = True
        else:
            # Requests that were sent without waiting are answered in their order.
            self.flow.pause_reading()
            self.pipeline.appendleft((cast(Any, exchange), self.app))

    def on_body(self, body: bytes) -> None:
        """Keeps the body, but not more of it than will be looked at."""
        cycle = cast(Any, self.cycle)
        if type(cycle) is not Exchange:
            super().on_body(body)
        elif len(cycle.body) <= BODY_MAX:
            cycle.body += body

    def on_message_complete(self) -> None:
        """The request is whole: answers it, if it is its turn."""
        super().on_message_complete()
        exchange = cast(Any, self.cycle)
        if type(exchange) is Exchange and exchange.is_turn:
            self._begin(exchange)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if type(cycle) is not Exchange:
            super()._start_asgi_task(cycle, app)
            return
        cycle.is_turn = True
        if not cycle.more_body:
            self._begin(cycle)

    def _begin(self, exchange: Exchange) -> None:
        if len(self.tasks) >= UNDER_WAY_MAX:
            count_answer(exchange.verb, BUSY.status)
            # Not within the parser's callback: the next of many requests sent together would be refused inside this one.
            self.loop.call_soon(self._write, exchange, Answer(BUSY.status, REFUSED))
            return
        exchange.task = self.loop.create_task(self._answer(exchange))
        self.tasks.add(exchange.task)

    async def _answer(self, exchange: Exchange) -> None:
        door = cast(Door, self.app)
        try:
            request = Request(exchange.verb, exchange.path, exchange.query, dict(exchange.headers), exchange.body)
            answer = await door.answer(request)
            if self.flow.write_paused:
                await self.flow.drain()
            self._write(exchange, answer)
        finally:
            # Not by a callback, which is a turn of the loop for each request.
            self.tasks.discard(exchange.task)

    def _write(self, exchange: Exchange, answer: Answer) -> None:
        exchange.response_complete = True
        if exchange.disconnected:
            return
        status, body, allow = answer
        content_type = CONTENT_TYPE if body else b""
        # RFC 9110, 15.5.6: who is told that a method is not allowed is told which are.
        more = b"allow: %s\r\n" % allow.encode() if allow else b""
        if not exchange.keep_alive:
            more += b"connection: close\r\n"
        head = b"%scontent-length: %d\r\n%s%s\r\n" % (STATUS_LINES[status], len(body), content_type, more)
        # An answer to HEAD has the head of the answer to GET alone (RFC 9110, 9.3.2).
        self.transport.write(head if exchange.verb == "HEAD" else head + body)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()
