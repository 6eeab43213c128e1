"""ASGI application: the API, the webhook inbox, the explorer, health and metrics."""

import asyncio
import gc
import sys

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route as Path

from cardwright import __version__
from cardwright.core.problems import METHOD_NOT_ALLOWED, NOT_FOUND, Problem
from cardwright.edges.http.api import Api, HttpResponse
from cardwright.edges.http.api import Request as ApiRequest
from cardwright.edges.http.explorer import explorer_paths
from cardwright.edges.http.parent_watch import end_with_parent
from cardwright.edges.http.problems import problem_body
from cardwright.edges.http.stop_guard import guard_stop
from cardwright.edges.http.webhook_inbox import ASGIScope, InboxReceiver, Receive, Send
from cardwright.kit import logs
from cardwright.resources.catalog import ROUTES
from cardwright.settings import Settings
from cardwright.storage.migrate import newest
from cardwright.wiring import Platform


class Application:
    """The ASGI application. It dispatches requests by path, and starts and stops the platform with the server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._platform: Platform | None = None
        self._api: Api | None = None
        self._inbox: InboxReceiver | None = None
        self._pages = Starlette(
            routes=[
                Path("/", lambda _request: RedirectResponse("/docs")),
                Path("/healthz", self._healthz),
                Path("/readyz", self._readyz),
                Path("/metrics", self._metrics),
                *explorer_paths(),
            ],
            exception_handlers={HTTPException: _page_problem},
        )

    def is_api(self, verb: str, path: bytes) -> bool:
        """Return True for requests to ``/v3`` and ``/sandbox``, except webhooks that are posted to the inbox."""
        return path.startswith((b"/v3/", b"/sandbox/")) and not (verb == "POST" and path.startswith(b"/sandbox/inbox/"))

    def check_head(self, verb: str, path: bytes, authorization: bytes | None) -> bool:
        """Check an API request before its body is read, see ``Api.check_head``."""
        assert self._api is not None
        return self._api.check_head(verb, path, authorization)

    async def look_up(self, authorization: bytes | None) -> None:
        """Look up an API credential, see ``Api.look_up``."""
        assert self._api is not None
        await self._api.look_up(authorization)

    async def answer(self, request: ApiRequest) -> HttpResponse:
        """Return the answer to an API request."""
        assert self._api is not None
        return await self._api.answer(request)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve the lifespan of the server, or one request that is not for the API."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            is_inbox = scope["method"] == "POST" and scope["path"].startswith("/sandbox/inbox/")
            await (self._inbox if is_inbox and self._inbox is not None else self._pages)(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._platform = Platform(self._settings)
            await self._platform.start()
        except Exception as error:
            # The server prints any reason of a failed start, and ends.
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        app = self._platform.app
        self._api = Api(app, ROUTES)
        sweeper = asyncio.create_task(self._api.sweep())
        self._inbox = InboxReceiver(app)
        # Loaded objects stay in memory, and requests create almost no reference cycles. So garbage collection runs rarely
        # (decision 14).
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        sweeper.cancel()
        await self._platform.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _healthz(self, _request: Request) -> Response:
        """Return 200: the process answers."""
        return JSONResponse({"status": "ok", "version": __version__})

    async def _readyz(self, _request: Request) -> Response:
        """Return 200 if the database commits and has the schema of this version, else 503 with the reason."""
        assert self._platform is not None
        if (reason := await self._platform.monitor.unreadiness()) is not None:
            return JSONResponse({"status": "unavailable", "reason": reason}, 503)
        return JSONResponse({"status": "ready", "mode": self._settings.mode, "schema": newest()})

    async def _metrics(self, _request: Request) -> Response:
        return PlainTextResponse(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _page_problem(request: Request, error: Exception) -> Response:
    """Return a 404 or 405 of a page in the error shape of the API."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == METHOD_NOT_ALLOWED.status:
        problem = Problem(METHOD_NOT_ALLOWED, headers.get("Allow", "GET"))
    else:
        problem = Problem(NOT_FOUND, f"no such path: {request.url.path}")
    return Response(problem_body(problem), problem.kind.status, headers, "application/json;charset=UTF-8")


def from_environment() -> Application:
    """Return the application for a worker of the server, with settings from the environment."""
    settings = Settings()
    # A worker is a separate process, so configure the log here too; otherwise its log lines would not be redacted.
    logs.configure(settings.log_level, settings.log_json, sys.stderr)
    end_with_parent()
    guard_stop()
    return Application(settings)
