"""The API door as an ASGI application: credential, route, body, action, answer; in that order, for every route alike."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError

from cardwright.core.problems import FORBIDDEN, METHOD_NOT_ALLOWED, NOT_FOUND, TOO_LARGE, Problem
from cardwright.edges.http.credentials import Credentials
from cardwright.edges.http.metrics import count_answer
from cardwright.edges.http.parse import BODY_MAX, parse_body, parse_page, parse_pairs, parse_query
from cardwright.edges.http.problems import INTERNAL_BODY, problem_body
from cardwright.edges.http.router import Router
from cardwright.kit.page import only_fields
from cardwright.resources.app import App, Call, EngineCall
from cardwright.resources.route import Reply, Route, Scope
from cardwright.storage.programs import get_program
from cardwright.storage.records import Listing, encoder

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIScope = MutableMapping[str, Any]

JSON_HEADER = (b"content-type", b"application/json;charset=UTF-8")
log = structlog.get_logger()

# Amounts keep their decimals on the way through a `fields` filter.
_exact = msgspec.json.Decoder(float_hook=Decimal)


class Api:
    """Serves the route table. Plain actions run in a thread with a transaction; ``async`` ones are the heart's."""

    def __init__(self, app: App, routes: Iterable[Route], threads: int = 8) -> None:
        self._app = app
        wire, sandbox = list[Route](), list[Route]()
        for route in routes:
            (sandbox if route.scope in (Scope.SANDBOX, Scope.SANDBOX_ONLY) else wire).append(route)
        self._routers = {"v3": Router(wire), "sandbox": Router(sandbox)}
        self._is_async = {route: inspect.iscoroutinefunction(route.action) for route in (*wire, *sandbox)}
        self._credentials = Credentials(app)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="action")

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """One request, from its credential to its answer. Nothing but the answer's status is logged or counted."""
        headers: list[tuple[bytes, bytes]] = []
        try:
            status, body = await self._serve(scope, receive)
        except Problem as problem:
            status, body = problem.kind.status, problem_body(problem)
            if problem.kind is METHOD_NOT_ALLOWED:
                # RFC 9110, 15.5.6: who is told that a method is not allowed is told which are.
                headers.append((b"allow", problem.detail.encode()))
        except Exception:
            # A bug: the caller learns nothing of it, the log everything.
            log.exception("unhandled error", path=scope["path"], verb=scope["method"])
            status, body = 500, INTERNAL_BODY
        headers.append((b"content-length", b"%d" % len(body)))
        if body:
            headers.append(JSON_HEADER)
        count_answer(scope["method"], status)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _serve(self, scope: ASGIScope, receive: Receive) -> tuple[int, bytes]:
        headers = dict(scope["headers"])
        prefix, *segments = segments_of(scope["raw_path"])
        program_id = await self._credentials.program_of(headers.get(b"authorization"), self._threads)
        found = self._routers[prefix].find(segments)
        if found is None:
            raise Problem(NOT_FOUND, f"no such path: {scope['path']}")
        if scope["method"] not in found.routes:
            raise Problem(METHOD_NOT_ALLOWED, ", ".join(found.routes))
        route, names = found.routes[scope["method"]]
        self._check_mode(route)
        pairs = parse_pairs(scope["query_string"]) if scope["query_string"] else {}
        arguments: list[Any] = []
        if route.body is not None:
            raw = await read_body(receive)
            arguments.append(parse_body(raw, headers.get(b"content-type", b"").decode("latin-1"), route.body))
        parameters = dict(zip(names, found.values, strict=True))
        if self._is_async[route]:
            query = parse_query(pairs, route.query) if route.query is not None else None
            result = await route.action(EngineCall(self._app, program_id, parameters, query), *arguments)
        else:
            loop = asyncio.get_running_loop()
            result, published = await loop.run_in_executor(
                self._threads, self._act, route, program_id, parameters, pairs, arguments
            )
            if published:
                self._app.wake_outbox()
        return _answer(route, result, pairs)

    def _check_mode(self, route: Route) -> None:
        if self._app.sandbox or route.scope in (Scope.WIRE, Scope.SANDBOX):
            return
        if route.scope is Scope.SIMULATION and self._app.allow_simulate:
            return
        raise Problem(FORBIDDEN, "not available in production mode")

    def _act(
        self, route: Route, program_id: int, parameters: dict[str, str], pairs: dict[str, str], arguments: list[Any]
    ) -> tuple[Any, bool]:
        """Runs a plain action in one transaction, in a thread."""
        try:
            return self._act_once(route, program_id, parameters, pairs, arguments)
        except IntegrityError:
            # Somebody inserted the same token between our look and our insert: now the look finds it.
            return self._act_once(route, program_id, parameters, pairs, arguments)

    def _act_once(
        self, route: Route, program_id: int, parameters: dict[str, str], pairs: dict[str, str], arguments: list[Any]
    ) -> tuple[Any, bool]:
        database = self._app.database
        page = parse_page(pairs, route.paging) if route.paging is not None else None
        query = parse_query(pairs, route.query) if route.query is not None else None
        with (database.write() if route.writes else database.read()) as db:
            program = get_program(db, program_id)
            now = program.clock.at(self._app.real_clock())
            call = Call(self._app, db, program, now, parameters, query, page)
            return route.action(call, *arguments), call.published


def segments_of(raw_path: bytes) -> list[str]:
    """The path's segments, each decoded by itself: a token may hold a slash, which then comes as ``%2F``."""
    path = raw_path.decode("ascii").strip("/")
    return [unquote(segment) for segment in path.split("/")] if "%" in path else path.split("/")


async def read_body(receive: Receive) -> bytes:
    """The request's whole body. Raises a problem beyond BODY_MAX, without reading on."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= BODY_MAX:
        return body
    chunks, size = [body], len(body)
    while message.get("more_body", False) and size <= BODY_MAX:
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if size > BODY_MAX:
        raise Problem(TOO_LARGE, f"the body may have at most {BODY_MAX} bytes")
    return b"".join(chunks)


def _answer(route: Route, result: Any, pairs: dict[str, str]) -> tuple[int, bytes]:
    """Status and bytes of what an action returned: ready JSON, a list page, a reply with its own status, a shape, nothing."""
    match result:
        case Reply():
            return result.status, result.body.encode()
        case None:
            return 204, b""
        case str():
            text = result
        case bytes():
            return route.status, result
        case Listing():
            return route.status, _list_body(route, result, pairs)
        case _:
            text = encoder.encode(result).decode()
    if route.fields and "fields" in pairs:
        text = _filtered(text, pairs["fields"])
    return route.status, text.encode()


def _list_body(route: Route, listing: Listing, pairs: dict[str, str]) -> bytes:
    start = int(pairs.get("start_index", 0)) if route.paging is not None else 0
    count = len(listing.docs)
    docs: Iterable[str] = listing.docs
    if route.fields and "fields" in pairs:
        docs = [_filtered(doc, pairs["fields"]) for doc in docs]
    more = "true" if listing.is_more else "false"
    # An empty list ends where it begins: the wire's examples have end_index 0 there.
    end = max(start + count - 1, 0) if count else start
    envelope = f'{{"count":{count},"start_index":{start},"end_index":{end},"is_more":{more},"data":[{",".join(docs)}]}}'
    return envelope.encode()


def _filtered(text: str, fields: str) -> str:
    return encoder.encode(only_fields(_exact.decode(text), frozenset(fields.split(",")))).decode()
