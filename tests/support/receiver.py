"""Receiver: a webhook endpoint for tests, an HTTP server that records requests, and hangs, fails or echoes on demand."""

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Receiver:
    """An endpoint that records requests. ``answers`` are the statuses of the next answers; later answers have status 200.

    With ``holds`` it answers only after ``over`` is set. With ``echo`` it answers with the headers of the request. It calls
    ``on_request`` before each answer.
    """

    port: int
    answers: list[int] = field(default_factory=list)
    holds: bool = False
    echo: bool = False
    says: bytes = b"thanks"
    on_request: Callable[[], object] = lambda: None
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def json(self) -> list[Any]:
        """Return the decoded bodies."""
        return [json.loads(body) for body in self.bodies]

    def receive(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            status = self.answers.pop(0) if self.answers else 200
        self.on_request()
        if self.holds:
            self.over.wait()
        with self.lock:
            self.under_way -= 1
        return status, repr(headers).encode() if self.echo else self.says


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256
    receiver: Receiver

    def handle_error(self, *_: object) -> None:
        """Ignore errors, because clients of these tests close connections early."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = self.server.receiver.receive(body, dict(self.headers.items()))
        self.send_response(status)
        if status in (301, 302, 307):
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0" if status == 204 else str(len(answer)))
        self.end_headers()
        self.wfile.write(b"" if status == 204 else answer)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def a_receiver(**behaviour: Any) -> Iterator[Receiver]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.receiver = Receiver(server.server_address[1], **behaviour)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.receiver
        finally:
            server.receiver.over.set()
            server.shutdown()
