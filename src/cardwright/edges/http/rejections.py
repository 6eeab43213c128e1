"""Rejections: the problems of requests that exceed a limit or are not HTTP."""

from typing import NamedTuple

from cardwright.core.problems import (
    BAD_REQUEST,
    BUSY,
    HEAD_TOO_LARGE,
    MISDIRECTED,
    REQUEST_TIMEOUT,
    TOO_LARGE,
    UNAVAILABLE,
    URL_TOO_LONG,
    Problem,
)
from cardwright.edges.http.connections import ClientLimits
from cardwright.kit.origins import is_local_host


class Rejection(NamedTuple):
    """The problem for a refused client, and the label of the refusal in ``/metrics``."""

    problem: Problem
    reason: str


HOST_SHOWN_MAX = 100
"""Maximum number of bytes of a wrong ``Host`` that the message repeats."""

BAD_TARGET = Rejection(Problem(BAD_REQUEST, "the target must be a path or an http URL with a path, in ASCII"), "malformed")
TOO_BUSY = Rejection(Problem(BUSY, "too many requests are open, try again later"), "busy")
TOO_MANY_CONNECTIONS = Rejection(Problem(UNAVAILABLE, "too many connections are open, try again later"), "connections")


def head_rejection(limits: ClientLimits, url: bytes, headers: int, size: int) -> Rejection | None:
    """Return the rejection of a complete or incomplete head that exceeds a limit, or None."""
    if len(url) > limits.url_max_bytes:
        return Rejection(Problem(URL_TOO_LONG, f"the URL may have at most {limits.url_max_bytes} bytes"), "url_size")
    if headers > limits.headers_max:
        return Rejection(Problem(HEAD_TOO_LARGE, f"there may be at most {limits.headers_max} header lines"), "headers")
    if size > limits.head_max_bytes:
        return Rejection(Problem(HEAD_TOO_LARGE, f"the head may have at most {limits.head_max_bytes} bytes"), "head_size")
    return None


def host_rejection(names: frozenset[str] | None, headers: list[tuple[bytes, bytes]]) -> Rejection | None:
    """Return the rejection of a request whose ``Host`` is no name of a server on a loopback address, or None.

    A browser always sends ``Host``. A request without it is served. ``names`` is None for a server that has any name.
    """
    if names is not None:
        for name, value in headers:
            if name == b"host":
                return None if is_local_host(value, names) else _wrong_host(value)
    return None


def _wrong_host(host: bytes) -> Rejection:
    text = (
        f"the Host {host[:HOST_SHOWN_MAX].decode('latin-1')!r} is not this sandbox, which listens on a loopback address; use "
        "localhost or 127.0.0.1, or start the server with --host and this name; a proxy must send one of these names"
    )
    return Rejection(Problem(MISDIRECTED, text), "host")


def body_rejection(limits: ClientLimits) -> Rejection:
    """Return the rejection of a body that is too large."""
    return Rejection(Problem(TOO_LARGE, f"the body may have at most {limits.body_max_bytes} bytes"), "body_size")


def late_head(limits: ClientLimits) -> Rejection:
    """Return the rejection of a head that takes too long."""
    return Rejection(Problem(REQUEST_TIMEOUT, f"the head must arrive within {limits.head_timeout_s:g} s"), "head_time")


def late_body(limits: ClientLimits) -> Rejection:
    """Return the rejection of a body that takes too long."""
    return Rejection(Problem(REQUEST_TIMEOUT, f"the body must arrive within {limits.body_timeout_s:g} s"), "body_time")
