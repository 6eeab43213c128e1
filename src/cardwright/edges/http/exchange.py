"""Exchange: an API request and its answer on a connection, with helpers of the protocol."""

from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from cardwright.edges.http.api import HttpResponse, Request
from cardwright.kit.bookmarks import Bookmarks

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

CONTENT_TYPE = b"content-type: application/json;charset=UTF-8\r\n"

CHALLENGE = b'Basic realm="Cardwright", charset="UTF-8"'
"""The value of ``WWW-Authenticate``, which every 401 must have (RFC 9110, 11.6.1; RFC 7617)."""


class _NullEvent:
    """A replacement for the event of uvicorn's cycle that signals more body. An exchange has no reader that waits for it."""

    def set(self) -> None:
        """Do nothing."""


class Exchange:
    """One API request and its answer, with the attributes that uvicorn's protocol expects of a cycle."""

    __slots__ = ("body", "disconnected", "headers", "keep_alive", "path", "query", "response_complete", "task", "verb")

    message_event = _NullEvent()

    def __init__(self, verb: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> None:
        self.verb, self.path, self.query, self.headers = verb, path, query, headers
        self.keep_alive = keep_alive
        self.body: bytes | bytearray = b""
        self.disconnected = self.response_complete = False
        self.task: Any = None

    def request(self, bookmarks: Bookmarks) -> Request:
        """Return the request for the API, with the bookmarks of its connection."""
        return Request(self.verb, self.path, self.query, dict(self.headers), bytes(self.body), bookmarks)


class Flow(FlowControl):
    """A flow control that does not resume reading while the protocol has unparsed bytes."""

    is_held = False

    def hold(self) -> None:
        """Pause reading until ``release``."""
        self.is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Resume reading."""
        self.is_held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Resume reading, unless ``hold`` is in effect."""
        if not self.is_held:
            super().resume_reading()


def answer_head(answer: HttpResponse, *, keep_alive: bool) -> bytes:
    """Return the status line and the header lines of an answer."""
    status, body, allow = answer
    content_type = CONTENT_TYPE if body else b""
    # RFC 9110, 15.5.6: an answer 405 must have the field Allow.
    extra_lines = b"allow: %s\r\n" % allow.encode() if allow else b""
    if status == 401:
        extra_lines += b"www-authenticate: %s\r\n" % CHALLENGE
    if not keep_alive:
        extra_lines += b"connection: close\r\n"
    # Answers can contain card numbers, security codes and credentials, so no cache may store any of them.
    return b"%scontent-length: %d\r\ncache-control: no-store\r\n%s%s\r\n" % (
        STATUS_LINES[status], len(body), content_type, extra_lines,
    )  # fmt: skip


def content_length(headers: list[tuple[bytes, bytes]]) -> int:
    """Return the Content-Length of a request in bytes, 0 without the header. The parser has checked that it is a number."""
    return int(dict(headers).get(b"content-length", b"0"))


def head_size(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Return the size of the request line and the header lines in bytes, with one space after each colon."""
    request_line = len(method) + len(url) + len(b"  HTTP/1.1\r\n")
    return request_line + sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)


def head_without_upgrade(method: bytes, url: bytes, version: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the bytes of a request's head without its field ``Upgrade``."""
    lines = [b"%s %s HTTP/%s" % (method, url, version), *(b"%s: %s" % field for field in headers if field[0] != b"upgrade")]
    return b"\r\n".join([*lines, b"\r\n"])
