"""HTTP/1.1 protocol: uvicorn's protocol with a short path for API requests and with limits for clients.

A general ASGI answer is sent in two messages through a cycle object, which costs more than the decision of a purchase. For an API
request the parser's callbacks fill an ``Exchange``, and head and body of the answer are written in one system call. Pages, the
inbox and all other requests use uvicorn's cycle.

A request beyond a limit, or malformed bytes, get a JSON error after the answers to earlier requests. Then the connection closes.
"""

from math import inf
from typing import Any, NoReturn, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cardwright.core.problems import BAD_CREDENTIAL, BAD_REQUEST, BUSY, METHOD_NOT_ALLOWED, Problem
from cardwright.edges.http import rejections
from cardwright.edges.http.api import HttpResponse, RequestHandler
from cardwright.edges.http.connections import FRAMING_MAX, LINGER_S, Connections
from cardwright.edges.http.exchange import Exchange, Flow, answer_head, content_length, head_size, head_without_upgrade
from cardwright.edges.http.metrics import count_answer, count_refusal
from cardwright.edges.http.problems import problem_body
from cardwright.edges.http.rejections import Rejection
from cardwright.kit.bookmarks import Bookmarks

UNDER_WAY_MAX = 2_048
"""Maximum number of open requests in a process. At its peak rate a process answers so many within half a second."""

PIECE_BYTES = 16_384
"""Maximum number of bytes of a connection that one turn of the event loop parses. One-byte chunks take about a millisecond."""

# Stages of a connection.
IDLE, HEAD, BODY, CONNECTED, REFUSED, LINGERING, CLOSING = range(7)
"""Stages: between two messages; in a head; in a body; before the first message. Refused, with open earlier requests; refused and
answered; closed by the server, with bytes left to send. From REFUSED on nothing is parsed."""

TOO_BUSY_ANSWER = HttpResponse(BUSY.status, problem_body(rejections.TOO_BUSY.problem))


class _StoppedError(Exception):
    """A signal from a callback that stops the parser."""


class ApiProtocol(HttpToolsProtocol):
    """The protocol of one connection."""

    flow: Flow
    cycle: Any
    pipeline: Any

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._registry, self._limits, self._clock = connections, connections.limits, connections.clock
        self._handler, self._bookmarks = cast(RequestHandler, self.app), Bookmarks(connections.clock)
        # The exact size of a head is computed only if its earlier pieces have at least this many bytes.
        self._head_sum_from = self._limits.head_max_bytes - PIECE_BYTES
        self._stage = CONNECTED
        self._deadline = self._write_deadline = inf
        self._stage_bytes = self._body_bytes = 0
        self._current: Any = None
        """The cycle whose answer is sent next, or was sent last."""
        self._backlog = bytearray()
        self._is_queued = self._is_checking = False
        """The connection is queued for parsing its backlog; a credential lookup is running."""
        self._rejection: Rejection | None = None
        self._refusal = b""
        """The answer of a refusal, to be sent after the answers to earlier requests."""

    # --- The connection -------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Register the connection, or refuse it."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._deadline = self._clock() + self._limits.head_timeout_s
        if not self._registry.add(self, self.client[0] if self.client else ""):
            self._refuse(rejections.TOO_MANY_CONNECTIONS)
            if not self._registry.has_room_for_refused():
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the registry, and notify an open request."""
        super().connection_lost(exc)
        self._registry.remove(self)
        self._backlog.clear()
        if self._is_answering():
            self._current.disconnected = True
            self._current.message_event.set()

    def shutdown(self) -> None:
        """Close the connection after the answers to all complete requests. The stopping server calls this method."""
        if self._stage == BODY:
            self._drop_incomplete()
        last = self.pipeline[0][0] if self.pipeline else self._current
        self._stop_parsing(REFUSED)
        if last is None or last.response_complete:
            self.transport.close()
        else:
            last.keep_alive = False

    def pause_writing(self) -> None:
        """Start the write timeout, because the send buffer is full."""
        super().pause_writing()
        self._write_deadline = self._clock() + self._limits.write_timeout_s

    def resume_writing(self) -> None:
        """End the write timeout, because the client has received enough."""
        super().resume_writing()
        self._write_deadline = inf

    def _unset_keepalive_if_required(self) -> None:
        """Do nothing: the registry's timer ends idle connections."""

    def _is_answering(self) -> bool:
        return self._current is not None and not self._current.response_complete

    # --- Limits in time -------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """Enforce the time limits. The registry's timer calls this method."""
        if now >= self._write_deadline:
            count_refusal("write_time")
            self.transport.abort()
        elif self.transport.is_closing() and self._stage != CLOSING:
            # The transport still sends its buffer. Limit the time, so that a client that does not read cannot keep the
            # connection.
            self._stop_parsing(CLOSING)
            self._deadline = now + self._limits.write_timeout_s
        elif now >= self._deadline:
            self._end(now)

    def _end(self, now: float) -> None:
        limits = self._limits
        if self._stage in (HEAD, BODY) and self.flow.read_paused:
            # The server has paused reading, so the client is not late.
            self._deadline = now + (limits.head_timeout_s if self._stage == HEAD else limits.body_timeout_s)
        elif self._stage == HEAD:
            self._refuse(rejections.late_head(limits))
        elif self._stage == BODY:
            self._refuse(rejections.late_body(limits))
        elif self._stage == CONNECTED:
            count_refusal("head_time")
            self.transport.close()
        elif self._stage == IDLE:
            self.transport.close()
        else:
            self.transport.abort()

    # --- Parsing --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, or store them for a later turn of the event loop."""
        if self.flow.is_held or len(data) > PIECE_BYTES or self._stage >= REFUSED:
            self._keep(data)
            return
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._recover(error, data)
        if self._stage:
            self._check_incomplete(len(data))

    def _keep(self, data: bytes) -> None:
        if self._stage >= REFUSED:
            return
        self._backlog += data
        self._go_on()

    def parse_backlog(self) -> None:
        """Parse one piece of the stored bytes. The registry calls this method."""
        self._is_queued = False
        if self._is_checking or self.pipeline or self._stage >= REFUSED or self.transport.is_closing():
            return
        piece = bytes(self._backlog[:PIECE_BYTES])
        del self._backlog[:PIECE_BYTES]
        self.flow.is_held = False
        self.data_received(piece)
        self._go_on()

    def _go_on(self) -> None:
        """Queue the connection if bytes are stored. Else resume reading, unless the next request must wait."""
        if self._backlog:
            self.flow.hold()
        if self._is_checking or self.pipeline or self._is_queued or self._stage >= REFUSED:
            return
        if self._backlog:
            self._is_queued = True
            self._registry.parse_later(self)
        else:
            self.flow.release()

    def _recover(self, error: Exception, data: bytes) -> None:
        """Continue after a request to upgrade. Refuse malformed bytes and requests that a callback has rejected."""
        try:
            while isinstance(error, httptools.HttpParserUpgrade):
                data = data[error.args[0] :]
                self._parse_head_without_upgrade()
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    error = upgrade
        except httptools.HttpParserError as malformed:
            error = malformed
        if self._rejection is not None:
            self._refuse(self._rejection)
        elif isinstance(error, httptools.HttpParserCallbackError):
            raise error
        else:
            self._refuse(Rejection(Problem(BAD_REQUEST, str(error) or "not HTTP/1.1"), "malformed"))

    def _parse_head_without_upgrade(self) -> None:
        """Parse the head again without its field ``Upgrade``, which a server may ignore (RFC 9110, 7.8).

        The parser stops at a request to upgrade, and would not treat the following bytes, such as a body, as HTTP.
        """
        version = self.parser.get_http_version().encode()
        head = head_without_upgrade(self.parser.get_method(), self.url, version, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(head)

    def _check_incomplete(self, size: int) -> None:
        """Enforce the limits on an incomplete request after the arrival of ``size`` more bytes."""
        is_first = self._deadline == inf
        if not is_first:
            self._stage_bytes += size
        if self._stage == HEAD:
            if is_first:
                self._deadline = self._clock() + self._limits.head_timeout_s
            if (rejection := rejections.head_rejection(self._limits, self.url, len(self.headers), self._stage_bytes)) is not None:
                self._refuse(rejection)
        elif self._stage == BODY:
            if is_first:
                self._deadline = self._clock() + self._limits.body_timeout_s
                self._stage_bytes = 0
                self._check_head(self.cycle)
            elif self._stage_bytes > FRAMING_MAX * self._limits.body_max_bytes:
                self._refuse(rejections.body_rejection(self._limits))

    def _reject(self, rejection: Rejection) -> NoReturn:
        """Stop the parser from within a callback. The request is refused after the parser has returned."""
        self._rejection = rejection
        raise _StoppedError

    # --- The parser's callbacks -----------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request. The scope for ASGI is created only if the request uses uvicorn's cycle."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._stage = HEAD
        self._deadline = inf
        self._stage_bytes = self._body_bytes = 0

    def on_headers_complete(self) -> None:
        """Begin an exchange, or a cycle of uvicorn."""
        if self.parser.get_method() == b"CONNECT":
            # The server is no proxy, and the parser would treat all following bytes as a tunnel.
            self._reject(rejections.BAD_TARGET)
        if self.parser.should_upgrade():
            # ``_recover`` parses the head again, without the field Upgrade.
            return
        if (rejection := rejections.host_rejection(self._registry.names, self.headers)) is not None:
            self._reject(rejection)
        limits = self._limits
        if (
            len(self.url) > limits.url_max_bytes
            or len(self.headers) > limits.headers_max
            or self._stage_bytes >= self._head_sum_from
        ):
            size = head_size(self.parser.get_method(), self.url, self.headers)
            if (rejection := rejections.head_rejection(limits, self.url, len(self.headers), size)) is not None:
                self._reject(rejection)
        verb = self.parser.get_method().decode("ascii")
        try:
            url = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            self._reject(rejections.BAD_TARGET)
        path = url.path or b""
        if not self.url.isascii():
            self._reject(rejections.BAD_TARGET)
        if not self._handler.is_api(verb, path):
            self._begin_general(path)
            return
        self._stage, self._deadline = BODY, inf
        keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        exchange = Exchange(verb, path, url.query or b"", self.headers, keep_alive=keep_alive)
        # Trailer fields after a chunked body do not belong to the head.
        self.headers = []
        earlier, self.cycle = self.cycle, exchange
        if earlier is None or earlier.response_complete:
            self._current = exchange
        else:
            # Pipelined requests are answered in their order.
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _begin_general(self, path: bytes) -> None:
        if not path.startswith(b"/"):
            self._reject(rejections.BAD_TARGET)
        if content_length(self.headers) > self._limits.body_max_bytes:
            self._reject(rejections.body_rejection(self._limits))
        self._stage = BODY
        address, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = address, expects
        self.headers += headers
        super().on_headers_complete()
        self._deadline = inf
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Collect the body. A ``bytearray`` grows in place, so the cost is linear in the number of bytes."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_max_bytes:
            self._reject(rejections.body_rejection(self._limits))
        cycle = self.cycle
        if type(cycle) is not Exchange:
            super().on_body(body)
        elif not cycle.body:
            cycle.body = body
        else:
            if type(cycle.body) is bytes:
                cycle.body = bytearray(cycle.body)
            cycle.body += body

    def on_message_complete(self) -> None:
        """End a request, and answer it unless earlier requests are open."""
        if self._stage == HEAD:
            # This is a request to upgrade, whose head is parsed again.
            return
        self._stage, self._deadline = IDLE, inf
        cycle = self.cycle
        if type(cycle) is Exchange:
            if cycle is self._current:
                self._begin(cycle)
        elif cycle.response_complete:
            # The application answered without waiting for the body.
            self._deadline = self._clock() + self._limits.idle_timeout_s
        else:
            super().on_message_complete()

    # --- Check of the head ----------------------------------------------------------------

    def _check_head(self, exchange: Any) -> None:
        """Check an API request before its body arrives. Reading pauses during the lookup of an unknown credential."""
        if type(exchange) is not Exchange:
            return
        authorization = dict(exchange.headers).get(b"authorization")
        if content_length(exchange.headers) > self._limits.body_max_bytes:
            self._refuse(rejections.body_rejection(self._limits))
            return
        if len(self.tasks) >= UNDER_WAY_MAX:
            self._refuse(rejections.TOO_BUSY)
            return
        try:
            is_admitted = self._handler.check_head(exchange.verb, exchange.path, authorization)
        except Problem as problem:
            self._refuse(Rejection(problem, "route"))
            return
        if is_admitted:
            self._ask_for_body()
        else:
            self._is_checking = True
            self.flow.hold()
            exchange.task = self.loop.create_task(self._admit(exchange, authorization))
            self.tasks.add(exchange.task)

    async def _admit(self, exchange: Exchange, authorization: bytes | None) -> None:
        refusal: Problem | None = None
        try:
            await self._handler.look_up(authorization)
            self._handler.check_head(exchange.verb, exchange.path, authorization)
        except Problem as problem:
            refusal = problem
        except Exception:
            # A failed lookup does not refuse the request. The API looks up again, and answers, after the body has arrived.
            refusal = None
        finally:
            self.tasks.discard(exchange.task)
            self._is_checking = False
        if self.transport.is_closing() or self._stage != BODY:
            return
        if refusal is not None:
            self._refuse(Rejection(refusal, "credential" if refusal.kind is BAD_CREDENTIAL else "route"))
        else:
            self._ask_for_body()
            self._go_on()

    def _ask_for_body(self) -> None:
        """Send the interim answer 100, if the client waits for it before it sends the body (RFC 9110, 10.1.1)."""
        if self.expect_100_continue and self.cycle is self._current:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- Refusals -------------------------------------------------------------------------

    def _refuse(self, rejection: Rejection) -> None:
        """Answer with a problem after the answers to earlier requests, then close the connection."""
        problem, reason = rejection
        count_refusal(reason)
        can_answer = True
        if self._stage == BODY:
            cycle = self.cycle
            if type(cycle) is Exchange:
                count_answer(cycle.verb, problem.kind.status)
            can_answer = self._drop_incomplete()
        self._stop_parsing(REFUSED)
        allow = problem.detail if problem.kind is METHOD_NOT_ALLOWED else ""
        answer = HttpResponse(problem.kind.status, problem_body(problem), allow)
        self._refusal = answer_head(answer, keep_alive=False) + answer.body if can_answer else b""
        if not self._is_answering():
            self._send_refusal()

    def _drop_incomplete(self) -> bool:
        """Drop the request whose body is incomplete. Return True if it can still be answered."""
        cycle = self.cycle
        if cycle is not self._current:
            self.pipeline.popleft()
            return True
        is_begun = type(cycle) is not Exchange and cycle.response_started
        self._current = None
        cycle.disconnected = True
        cycle.message_event.set()
        return not is_begun

    def _stop_parsing(self, stage: int) -> None:
        self._stage = stage
        self._deadline = inf
        self._backlog.clear()
        self.flow.hold()

    def _send_refusal(self) -> None:
        if self.transport.is_closing():
            return
        if self._refusal:
            self.transport.write(self._refusal)
        self._stage = LINGERING
        self._deadline = self._clock() + LINGER_S
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.release()

    # --- Answers --------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Begin the next request of the connection, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._stage == REFUSED:
            self._send_refusal()
            return
        elif self._stage == IDLE:
            self._deadline = self._clock() + self._limits.idle_timeout_s
        if self.flow.read_paused:
            self._go_on()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._current = cycle
        if type(cycle) is not Exchange:
            super()._start_asgi_task(cycle, app)
        elif cycle is not self.cycle or self._stage != BODY:
            self._begin(cycle)
        elif not self._is_checking:
            self._ask_for_body()

    def _begin(self, exchange: Exchange) -> None:
        if len(self.tasks) >= UNDER_WAY_MAX:
            count_answer(exchange.verb, BUSY.status)
            # Answer after the parser's callback has returned. Otherwise the refusals of pipelined requests would be nested.
            self.loop.call_soon(self._write, exchange, TOO_BUSY_ANSWER)
            return
        exchange.task = self.loop.create_task(self._answer(exchange))
        self.tasks.add(exchange.task)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            answer = await self._handler.answer(exchange.request(self._bookmarks))
            if self.flow.write_paused:
                await self.flow.drain()
            self._write(exchange, answer)
        finally:
            # A done callback would cost one more turn of the event loop for each request.
            self.tasks.discard(exchange.task)

    def _write(self, exchange: Exchange, answer: HttpResponse) -> None:
        exchange.response_complete = True
        if exchange.disconnected:
            return
        head = answer_head(answer, keep_alive=exchange.keep_alive)
        # An answer to HEAD has only the head of the answer to GET (RFC 9110, 9.3.2).
        self.transport.write(head if exchange.verb == "HEAD" else head + answer.body)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()
