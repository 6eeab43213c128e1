"""Rejections: the problems of requests that exceed a limit or are not HTTP."""

from typing import NamedTuple

from cardwright.core.problems import (
    BAD_REQUEST,
    BUSY,
    HEAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    TOO_LARGE,
    UNAVAILABLE,
    URL_TOO_LONG,
    Problem,
)
from cardwright.edges.http.connections import ClientLimits


class Rejection(NamedTuple):
    """The problem for a refused client, and the label of the refusal in ``/metrics``."""

    problem: Problem
    reason: str


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


def body_rejection(limits: ClientLimits) -> Rejection:
    """Return the rejection of a body that is too large."""
    return Rejection(Problem(TOO_LARGE, f"the body may have at most {limits.body_max_bytes} bytes"), "body_size")


def late_head(limits: ClientLimits) -> Rejection:
    """Return the rejection of a head that takes too long."""
    return Rejection(Problem(REQUEST_TIMEOUT, f"the head must arrive within {limits.head_timeout_s:g} s"), "head_time")


def late_body(limits: ClientLimits) -> Rejection:
    """Return the rejection of a body that takes too long."""
    return Rejection(Problem(REQUEST_TIMEOUT, f"the body must arrive within {limits.body_timeout_s:g} s"), "body_time")
