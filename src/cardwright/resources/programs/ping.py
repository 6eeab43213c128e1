"""Ping: the health check of the server and the credentials."""

from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta

from cardwright import __version__
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import Shape, get, post

# --- Shapes: what travels on the wire ------------------------------------------------


class PingRequest(Shape, frozen=True, kw_only=True):
    """A token and a payload to echo."""

    token: Annotated[str, Meta(max_length=36)] | None = None
    payload: Annotated[str, Meta(max_length=255)] | None = None


# --- Actions: what a caller can do with it -------------------------------------------


def get_ping(call: Call) -> dict[str, Any]:
    """Check the health of the server and the credentials. No other response has this timestamp format (observed)."""
    time = datetime.fromtimestamp(call.now // 1000, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")
    return {"success": True, "version": __version__, "revision": "cardwright", "timestamp": time}


def post_ping(_call: Call, body: PingRequest) -> dict[str, Any]:
    """Echo the token and the payload."""
    fields = {"id": body.token, "payload": body.payload}
    return {"success": True, **{name: value for name, value in fields.items() if value is not None}}


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Ping"

routes = [
    get("/ping", get_ping, dict[str, Any]),
    post("/ping", PingRequest, post_ping, dict[str, Any], status=200),
]
