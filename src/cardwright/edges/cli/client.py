"""A small HTTP client for the commands: the standard library's, without proxies, since it talks to this machine."""

import base64
import json
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from cardwright.edges.cli.say import Failure

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer; ``body`` is text when it is no JSON."""

    status: int
    body: Any


class Client:
    """Requests with one program's credentials, each on a connection of its own. ``ca`` is a certificate to trust."""

    def __init__(self, root_url: str, application_token: str = "", access_token: str = "", ca: str | None = None) -> None:
        self.root_url = root_url
        self._ca = ca
        pair = base64.b64encode(f"{application_token}:{access_token}".encode()).decode()
        self._headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}

    def request(self, verb: str, path: str, body: object = None) -> Answer:
        """An answer, whatever its status. Raises Failure when nobody answers."""
        connection = self._connect()
        try:
            connection.request(verb, path, None if body is None else json.dumps(body), self._headers)
            answer = connection.getresponse()
            return Answer(answer.status, _content(answer.read()))
        except (OSError, HTTPException) as error:
            raise Failure(f"nobody answers at {self.root_url}: {error}", "cardwright serve") from None
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        parts = urlsplit(self.root_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure(f"{self.root_url} is no address like http://127.0.0.1:8181/v3", code=2)
        if parts.scheme == "http":
            return HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            raise Failure(f"the certificate {self._ca} cannot be read: {error}") from None
        return HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT_S, context=context)


def _content(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
