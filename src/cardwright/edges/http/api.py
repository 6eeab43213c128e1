"""API: the processing of a request in five steps: credential, route, body, action, answer."""

import asyncio
import inspect
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from hashlib import blake2b
from time import monotonic
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import msgspec
import structlog
from prometheus_client import Counter
from sqlalchemy.exc import IntegrityError

from cardwright.core.problems import FORBIDDEN, METHOD_NOT_ALLOWED, NOT_FOUND, UNAVAILABLE, Problem
from cardwright.edges.http.credentials import Credentials
from cardwright.edges.http.metrics import count_answer
from cardwright.edges.http.parse import parse_body, parse_page, parse_pairs, parse_query
from cardwright.edges.http.problems import (
    CROSS_ORIGIN,
    INTERNAL_BODY,
    LATE,
    MAYBE_DONE,
    NOT_BOOKED,
    NOT_CHANGED,
    STOPPING,
    TRY_AGAIN,
    database_problem,
    problem_body,
    unavailable,
)
from cardwright.edges.http.router import RouteMatch, Router
from cardwright.kit.bookmarks import Bookmarks
from cardwright.kit.limits import deadline
from cardwright.kit.origins import is_cross_origin
from cardwright.kit.page import Page, only_fields
from cardwright.resources.common.call import App, Call, EngineCall
from cardwright.resources.common.route import Reply, Route, Scope
from cardwright.storage.failures import Unavailable
from cardwright.storage.programs import get_program
from cardwright.storage.records import Listing, encoder

SWEEP_S = 0.1
"""Seconds between two searches of the open requests for those that have reached their limit."""

PROXY_FIELDS = frozenset({b"via", b"forwarded", b"x-real-ip"})
"""Header fields, besides ``X-Forwarded-…``, that a proxy adds."""

SAFE_VERBS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110, 9.2.1)."""

TIMEOUTS = Counter("cardwright_http_timeouts_total", "API requests that reached their time limit")

log = structlog.get_logger()

# A decoder for the `fields` filter. Amounts keep their decimals.
_exact = msgspec.json.Decoder(float_hook=Decimal)


class Request(NamedTuple):
    """An API request: the path is still percent-encoded, and header names are in lower case.

    ``bookmarks`` are those of its connection.
    """

    verb: str
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    bookmarks: Bookmarks


class HttpResponse(NamedTuple):
    """The answer to an API request: status and JSON. For a 405, ``allow`` lists the verbs of the path."""

    status: int
    body: bytes
    allow: str = ""


class RequestHandler(Protocol):
    """The application as the protocol uses it for API requests."""

    def is_api(self, verb: str, path: bytes) -> bool:
        """Return True if the request is for the API."""
        ...

    def check_head(self, verb: str, path: bytes, authorization: bytes | None) -> bool:
        """Check a request before its body is read. Return False if its credential must be looked up first.

        Raises the problem that refuses the request.
        """
        ...

    async def look_up(self, authorization: bytes | None) -> None:
        """Look up a credential for ``check_head``. Raises BAD_CREDENTIAL if it is missing or wrong."""
        ...

    async def answer(self, request: Request) -> HttpResponse:
        """Return the answer to a request. Raises nothing except on cancellation."""
        ...


class Api:
    """The server of the route table. Plain actions run in a thread with a transaction, ``async`` actions in the event loop."""

    def __init__(self, app: App, routes: Iterable[Route], threads: int = 8) -> None:
        self._app = app
        self._limits = app.database.limits
        wire, sandbox = list[Route](), list[Route]()
        for route in routes:
            (sandbox if route.scope in (Scope.SANDBOX, Scope.SANDBOX_ONLY) else wire).append(route)
        self._routers = {"v3": Router(wire), "sandbox": Router(sandbox)}
        # Paths without parameters are found by one lookup. The most frequent requests, simulated purchases, have such a path.
        self._literal = {
            f"/{prefix}{route.path}".encode(): router.find(route.path.strip("/").split("/"))
            for (prefix, router), of_prefix in zip(self._routers.items(), (wire, sandbox), strict=True)
            for route in of_prefix
            if "{" not in route.path
        }
        self._is_async = {route: inspect.iscoroutinefunction(route.action) for route in (*wire, *sandbox)}
        longer_s = {route: route.longer_s for route in (*wire, *sandbox)}
        self._longer_s = {route: limit_s for route, limit_s in longer_s.items() if limit_s and limit_s > self._limits.answer_s}
        self._credentials = Credentials(app)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="action")
        self._under_way: dict[asyncio.Task[Any], float] = {}

    async def answer(self, request: Request) -> HttpResponse:
        """Return the answer to one request. Metrics count its verb and status; only bugs are logged."""
        allow = ""
        task = asyncio.current_task()
        assert task is not None
        until = monotonic() + self._limits.answer_s
        deadline.set(until)
        self._under_way[task] = until
        try:
            status, body = await self._serve(request, task)
        except Problem as problem:
            status, body = problem.kind.status, problem_body(problem)
            allow = problem.detail if problem.kind is METHOD_NOT_ALLOWED else ""
        except Unavailable as error:
            # The lookup of the credential failed. Nothing else was done yet.
            status, body = UNAVAILABLE.status, problem_body(database_problem(error, TRY_AGAIN))
        except asyncio.CancelledError:
            status, body = UNAVAILABLE.status, problem_body(unavailable(self._reason_given_up(task), TRY_AGAIN))
        except Exception:
            # A bug: the details go to the log, not to the caller.
            log.exception("unhandled error", path=request.path, verb=request.verb)
            status, body = 500, INTERNAL_BODY
        self._under_way.pop(task, None)
        count_answer(request.verb, status)
        return HttpResponse(status, body, allow)

    async def sweep(self) -> None:
        """Cancel requests that have reached their limit, until cancelled itself.

        One loop for all requests costs less than a timer for each.
        """
        while True:
            await asyncio.sleep(SWEEP_S)
            now = monotonic()
            for task in [task for task, until in self._under_way.items() if until <= now]:
                del self._under_way[task]
                TIMEOUTS.inc()
                task.cancel()

    def check_head(self, verb: str, path: bytes, authorization: bytes | None) -> bool:
        """Check a request before its body is read. Return False if its credential must be looked up first.

        Raises the problem that refuses the request with any body.
        """
        if not self._credentials.is_known(authorization):
            return False
        self._route_of(verb, path)
        return True

    async def look_up(self, authorization: bytes | None) -> None:
        """Look up a credential in the database for ``check_head``. Raises BAD_CREDENTIAL if it is missing or wrong."""
        await self._credentials.program_of(authorization, self._threads)

    async def _serve(self, request: Request, task: "asyncio.Task[Any]") -> tuple[int, bytes]:
        if request.verb not in SAFE_VERBS and is_cross_origin(request.headers):
            raise Problem(FORBIDDEN, CROSS_ORIGIN)
        program_id = await self._credentials.program_of(request.headers.get(b"authorization"), self._threads)
        route, parameters = self._route_of(request.verb, request.path)
        if (limit_s := self._longer_s.get(route)) is not None:
            self._under_way[task] = until = monotonic() + limit_s
            deadline.set(until)
        pairs = parse_pairs(request.query) if request.query else {}
        arguments: list[Any] = []
        if route.body is not None:
            arguments.append(parse_body(request.body, request.headers.get(b"content-type", b"").decode("latin-1"), route.body))
        page = self._page(request, route, program_id, pairs) if route.paging is not None else None
        try:
            result = await self._result(route, program_id, parameters, pairs, page, arguments)
        except Unavailable as error:
            raise database_problem(error, self._effect_refused(route)) from error
        except asyncio.CancelledError:
            raise unavailable(self._reason_given_up(task), self._effect_given_up(route)) from None
        return _answer(route, result, pairs)

    async def _result(
        self, route: Route, program_id: int, parameters: dict[str, str], pairs: dict[str, str], page: Page | None,
        arguments: list[Any],
    ) -> Any:  # fmt: skip
        """Run the route's action and return its result."""
        if self._is_async[route]:
            query = parse_query(pairs, route.query) if route.query is not None else None
            return await route.action(EngineCall(self._app, program_id, parameters, query, page), *arguments)
        until = deadline.get() - self._limits.margin_s
        result, published = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._act, route, program_id, parameters, pairs, page, arguments, until
        )
        if published:
            self._app.wake_outbox()
        return result

    # --- Cancelled and failed requests ----------------------------------------------------

    def _reason_given_up(self, task: "asyncio.Task[Any]") -> str:
        """Return the reason of a cancellation.

        The sweeper removes a late request from the list first; a stopping server does not.
        """
        task.uncancel()
        return STOPPING if task in self._under_way else LATE

    def _is_message(self, route: Route) -> bool:
        """Return True if the route's action submits exactly one message to the engine."""
        return self._is_async[route] and route.longer_s is None

    def _effect_refused(self, route: Route) -> str:
        """Return the effect of a request after a failure of the database before a commit."""
        if not route.writes:
            return TRY_AGAIN
        if self._is_message(route):
            return NOT_BOOKED
        # An ``async`` action may have completed some of its steps.
        return MAYBE_DONE if self._is_async[route] else NOT_CHANGED

    def _effect_given_up(self, route: Route) -> str:
        """Return the effect of a cancelled request. A thread that has begun to write continues."""
        if not route.writes:
            return TRY_AGAIN
        # The engine answers each message that it has accepted. So this message was not submitted yet.
        return NOT_BOOKED if self._is_message(route) else MAYBE_DONE

    def _route_of(self, verb: str, path: bytes) -> tuple[Route, dict[str, str]]:
        """Return the route of a request and the path's parameters.

        Raises NOT_FOUND for an unknown path. Raises METHOD_NOT_ALLOWED if the path lacks the method. Raises FORBIDDEN if
        production mode disables the route.
        """
        match = self._literal.get(path) or self._find(path)
        if verb not in match.routes:
            raise Problem(METHOD_NOT_ALLOWED, ", ".join(match.routes))
        route, names = match.routes[verb]
        self._check_mode(route)
        return route, dict(zip(names, match.values, strict=True))

    def _page(self, request: Request, route: Route, program_id: int, pairs: dict[str, str]) -> Page:
        """Return the requested page of a list, with the bookmarks of its connection unless a proxy shares the connection.

        The key of a list is made of path, body, credential and all parameters except ``count`` and ``start_index``.
        """
        assert route.paging is not None
        page = parse_page(pairs, route.paging)
        if is_forwarded(request.headers):
            return page
        of_list = sorted(pair for pair in pairs.items() if pair[0] not in ("count", "start_index"))
        credential = self._credentials.key_of(request.headers.get(b"authorization"))
        name = (request.verb, request.path, request.body, of_list, credential, self._app.resets[program_id])
        key = blake2b(msgspec.msgpack.encode(name), digest_size=16).digest()
        return replace(page, bookmarks=request.bookmarks, key=key)

    def _find(self, path: bytes) -> RouteMatch:
        """Return the routes of a path. Raises NOT_FOUND if there are none."""
        prefix, *segments = segments_of(path)
        match = self._routers[prefix].find(segments)
        if match is None:
            raise Problem(NOT_FOUND, f"no such path: {unquote(path)}")
        return match

    def _check_mode(self, route: Route) -> None:
        if self._app.sandbox or route.scope in (Scope.WIRE, Scope.SANDBOX):
            return
        if route.scope is Scope.SIMULATION and self._app.allow_simulate:
            return
        raise Problem(FORBIDDEN, "not available in production mode")

    def _act(
        self, route: Route, program_id: int, parameters: dict[str, str], pairs: dict[str, str], page: Page | None,
        arguments: list[Any], until: float,
    ) -> tuple[Any, bool]:  # fmt: skip
        """Run a plain action in one transaction. A thread calls this method."""
        try:
            return self._act_once(route, program_id, parameters, pairs, page, arguments, until)
        except IntegrityError:
            # Another request inserted the same token between the lookup and the insert. The second run finds it.
            return self._act_once(route, program_id, parameters, pairs, page, arguments, until)

    def _act_once(
        self, route: Route, program_id: int, parameters: dict[str, str], pairs: dict[str, str], page: Page | None,
        arguments: list[Any], until: float,
    ) -> tuple[Any, bool]:  # fmt: skip
        database = self._app.database
        query = parse_query(pairs, route.query) if route.query is not None else None
        limit_s = until - monotonic()
        with database.write(limit_s) if route.writes else database.read(limit_s) as db:
            program = get_program(db, program_id)
            now = program.clock.time_at(self._app.real_clock())
            call = Call(self._app, db, program, now, parameters, query, page)
            return route.action(call, *arguments), call.published


def is_forwarded(headers: dict[bytes, bytes]) -> bool:
    """Return True if a proxy forwarded the request (RFC 9110, 7.6.3; RFC 7239). Its connections may serve many clients."""
    return any(name in PROXY_FIELDS or name.startswith(b"x-forwarded-") for name in headers)


def segments_of(raw_path: bytes) -> list[str]:
    """Return the path's segments. They are decoded after the split, because a token may contain a slash as ``%2F``."""
    path = raw_path.decode("ascii").strip("/")
    return [unquote(segment) for segment in path.split("/")] if "%" in path else path.split("/")


def _answer(route: Route, result: Any, pairs: dict[str, str]) -> tuple[int, bytes]:
    """Return status and body for the result of an action: JSON, a list page, a reply with a status, a shape, or None."""
    match result:
        case bytes():
            return route.status, result
        case Reply():
            return result.status, result.body.encode()
        case None:
            return 204, b""
        case str():
            text = result
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
    is_more = "true" if listing.is_more else "false"
    # For an empty page end_index equals start_index: the wire's examples have end_index 0.
    end = max(start + count - 1, 0) if count else start
    envelope = f'{{"count":{count},"start_index":{start},"end_index":{end},"is_more":{is_more},"data":[{",".join(docs)}]}}'
    return envelope.encode()


def _filtered(text: str, fields: str) -> str:
    return encoder.encode(only_fields(_exact.decode(text), frozenset(fields.split(",")))).decode()
