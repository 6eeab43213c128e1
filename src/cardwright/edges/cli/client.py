"""HTTP client of the commands: the standard library's, without proxies."""

import base64
import json
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from cardwright.edges.cli.output import Failure, Hint

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """Response of the API: status and body. ``body`` is text if it is not JSON."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHints:
    """Hints for a client's failures: no connection, a certificate authority that cannot be read, a wrong address."""

    connect: Hint
    ca: Hint
    address: Hint


TEMPORARY = ClientHints(
    connect=Hint(text="the output of that server names the cause"),
    ca=Hint(text="start the server again"),
    address=Hint(text="use an address such as http://127.0.0.1:8181/v3"),
)
"""Hints for an instance that the command itself started."""


class Client:
    """HTTP client with one program's credentials.

    Each request uses a new connection. ``ca`` is the file of a certificate authority to trust.
    """

    def __init__(
        self,
        root_url: str,
        application_token: str = "",
        access_token: str = "",
        ca: str | None = None,
        hints: ClientHints = TEMPORARY,
    ) -> None:
        self.root_url = root_url
        self.ca = ca
        self._hints = hints
        pair = base64.b64encode(f"{application_token}:{access_token}".encode()).decode()
        self._headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}

    def request(self, verb: str, path: str, body: object = None) -> ApiResponse:
        """Return the response, whatever its status. Raises Failure if the server cannot be reached."""
        connection = self._connect()
        try:
            connection.request(verb, path, None if body is None else json.dumps(body), self._headers)
            response = connection.getresponse()
            return ApiResponse(response.status, _content(response.read()))
        except (OSError, HTTPException) as error:
            raise Failure(f"cannot connect to {self.root_url}: {error}", self._hints.connect) from None
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        scheme, host, port = self._address()
        if scheme == "http":
            return HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise Failure(f"the certificate authority {self.ca} cannot be read: {error}", self._hints.ca) from None
        return HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)

    def _address(self) -> tuple[str, str, int | None]:
        """Return scheme, host and port. Raises Failure if the address is malformed."""
        try:
            parts = urlsplit(self.root_url)
            if parts.scheme in ("http", "https") and parts.hostname:
                return parts.scheme, parts.hostname, parts.port
        except ValueError:
            # The port is not a number from 0 to 65535.
            pass
        raise Failure(f"--base-url {self.root_url} is not an http:// or https:// address", self._hints.address, 2)


def _content(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
