"""Webhook inbox receiver: an endpoint that accepts any webhook without a credential, and can simulate failures."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from cardwright.core.problems import BAD_REQUEST, FORBIDDEN, NOT_FOUND, Problem, bad_parameter
from cardwright.edges.http.exchange import CHALLENGE
from cardwright.edges.http.parse import parse_pairs
from cardwright.edges.http.problems import (
    CROSS_ORIGIN,
    MAYBE_DONE,
    NOT_CHANGED,
    STOPPING,
    database_problem,
    problem_body,
    unavailable,
)
from cardwright.kit.failpoints import async_failpoint
from cardwright.kit.origins import is_cross_origin
from cardwright.resources.common.call import App
from cardwright.resources.common.fields import parse_duration
from cardwright.resources.sandbox.webhook_inbox import BOX, accept
from cardwright.storage.failures import InDoubt, Unavailable

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIScope = MutableMapping[str, Any]

JSON_HEADER = (b"content-type", b"application/json;charset=UTF-8")
DELAY_MAX_MS = 30_000


class InboxReceiver:
    """The endpoint ``POST /sandbox/inbox/{program}/{box}``, which stores the message and answers 200.

    ``?status=500`` sets the status, and ``?delay=2s`` delays the answer; the message is stored in any case. In production mode
    the endpoint answers 404, because it needs no credential.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            status, body = await self._served(scope, receive)
        except Problem as problem:
            status, body = problem.kind.status, problem_body(problem)
        headers = [(b"content-length", b"%d" % len(body)), JSON_HEADER]
        if status == 401:
            headers.append((b"www-authenticate", CHALLENGE))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _served(self, scope: ASGIScope, receive: Receive) -> tuple[int, bytes]:
        """Store a message and return status and body. Raises Problem, also if the database fails or the server stops."""
        try:
            return await self._serve(scope, receive)
        except Unavailable as error:
            raise database_problem(error, NOT_CHANGED) from error
        except asyncio.CancelledError:
            # The server stops and cancels open requests.
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            raise unavailable(STOPPING, MAYBE_DONE) from None

    async def _serve(self, scope: ASGIScope, receive: Receive) -> tuple[int, bytes]:
        program_token, box = self._place(scope["path"])
        pairs = parse_pairs(scope["query_string"])
        status, delay_ms = _status(pairs), _delay_ms(pairs)
        if is_cross_origin(dict(scope["headers"])):
            # Senders of webhooks are not browsers. Without this check any page in a developer's browser could fill the inbox.
            raise Problem(FORBIDDEN, CROSS_ORIGIN)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        body = await read_body(receive)
        app = self._app
        limits = app.database.limits
        try:
            async with asyncio.timeout(limits.answer_s - limits.margin_s):
                kept = await asyncio.to_thread(accept, app.database, app.vault, app.real_clock, program_token, box, headers, body)
        except TimeoutError:
            # The thread continues, and may still commit.
            raise InDoubt("the message could not be stored in time") from None
        if not kept:
            raise Problem(NOT_FOUND, "no such program")
        await asyncio.sleep(delay_ms / 1000)
        await async_failpoint("inbox.answer.before")
        return status, b"" if status in (204, 304) else b"{}"

    def _place(self, path: str) -> tuple[str, str]:
        """Return the program token and the box of a path. Raises NOT_FOUND."""
        parts = path.removeprefix("/sandbox/inbox/").split("/")
        if not self._app.sandbox or len(parts) != 2 or not BOX.fullmatch(parts[1]) or "\x00" in parts[0]:
            raise Problem(NOT_FOUND, "no such inbox; the path is /sandbox/inbox/{program}/{box}")
        return parts[0], parts[1]


async def read_body(receive: Receive) -> bytes:
    """Return the request's body, whose size the protocol limits. Raises BAD_REQUEST if the connection ends early."""
    chunks, is_whole = list[bytes](), False
    while not is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(BAD_REQUEST, "the connection ended before the body")
        chunks.append(message.get("body", b""))
        is_whole = not message.get("more_body", False)
    return b"".join(chunks)


def _status(pairs: Mapping[str, str]) -> int:
    text = pairs.get("status", "200")
    if not re.fullmatch(r"[2-5][0-9]{2}", text):
        raise bad_parameter("status", "must be between 200 and 599")
    return int(text)


def _delay_ms(pairs: Mapping[str, str]) -> int:
    delay_ms = parse_duration("delay", pairs.get("delay", "0ms"))
    if delay_ms > DELAY_MAX_MS:
        raise bad_parameter("delay", f"may be at most {DELAY_MAX_MS // 1000}s")
    return delay_ms
