"""A small HTTP client for the commands: the standard library's, without proxies, since it talks to this machine."""

import base64
import json
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from cardwright.edges.cli.output import Failure

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """Status and body of an answer; ``body`` is text when it is no JSON."""

    status: int
    body: Any


class Client:
    """Requests with one program's credentials, each on a connection of its own. ``ca`` is a certificate to trust."""

    def __init__(self, root_url: str, application_token: str = "", access_token: str = "", ca: str | None = None) -> None:
        self.root_url = root_url
        self.ca = ca
        pair = base64.b64encode(f"{application_token}:{access_token}".encode()).decode()
        self._headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}

    def request(self, verb: str, path: str, body: object = None) -> ApiResponse:
        """An answer, whatever its status. Raises Failure when nobody answers."""
        connection = self._connect()
        try:
            connection.request(verb, path, None if body is None else json.dumps(body), self._headers)
            answer = connection.getresponse()
            return ApiResponse(answer.status, _content(answer.read()))
        except (OSError, HTTPException) as error:
            raise Failure(f"nobody answers at {self.root_url}: {error}", "cardwright serve") from None
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        scheme, host, port = _place(self.root_url)
        if scheme == "http":
            return HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise Failure(f"CARDWRIGHT_CA {self.ca} cannot be read: {error}", "cardwright status -o env") from None
        return HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)


def _place(root_url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address. Raises Failure for what is none."""
    try:
        parts = urlsplit(root_url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.scheme, parts.hostname, parts.port
    except ValueError:
        # A port that is no number.
        pass
    raise Failure(f"--base-url {root_url} is no address", "cardwright explain TOKEN --base-url http://127.0.0.1:8181/v3", 2)


def _content(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
