"""Guarded HTTP client: the only way in which Cardwright posts to an address that a user chose."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from cardwright.kit.guard import OutgoingPolicy, check_address, check_headers, check_url
from cardwright.outbox.resolver import NameResolver, NameTrouble

# Shorter than the five seconds after which common servers close idle connections, so that posts rarely meet a closing one.
KEEP_ALIVE_S: Final = 4.0
ANSWER_HEADER_CHARS_MAX: Final = 8_190
ANSWER_HEADERS_MAX: Final = 128


@dataclass(frozen=True, kw_only=True)
class EndpointResponse:
    """Outcome of one post: a status and a body, or an error and neither.

    The body is cut at the client's `body_max`. It is not in the repr, because responses of gateways may hold secrets.
    """

    status: int | None
    body: bytes = field(repr=False)
    duration_ms: int
    error: str | None


@dataclass
class _Attempt:
    """Post in progress: the policy for its addresses, the reason of a refusal, and whether it waits for a free connection."""

    rules: OutgoingPolicy
    refusal: str | None = None
    queued: bool = False


# The socket factory gets only an address; this variable gives it the attempt. Tasks that open connections (happy eyeballs)
# inherit it.
_attempt: ContextVar[_Attempt] = ContextVar("attempt")


class GuardedClient:
    """Client that posts to URLs allowed by the policy. It follows no redirects and stores no cookies.

    It has one session with a pool of `connections_max` connections, opened by the first post in the running loop.
    `monotonic_ms` measures durations. `trusted_ca_pem` is the path of a certificate file to trust in addition to the system's;
    the constructor raises OSError if it cannot be read. `resolver` replaces the default one.
    """

    def __init__(
        self,
        policy: OutgoingPolicy,
        monotonic_ms: Callable[[], int],
        *,
        connections_max: int = 256,
        body_max: int = 65_536,
        trusted_ca_pem: str | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._policy = policy
        self._monotonic_ms = monotonic_ms
        self._connections_max = connections_max
        self._body_max = body_max
        self._tls = _tls_context(trusted_ca_pem)
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> EndpointResponse:
        """Post once and wait at most `timeout_ms` for the whole response.

        Network errors are returned in the response, not raised.
        """
        assert not self._closed, "post after close"
        began_ms = self._monotonic_ms()
        outcome = await self._guarded(url, body, headers, timeout_ms)
        duration_ms = self._monotonic_ms() - began_ms
        if isinstance(outcome, str):
            return EndpointResponse(status=None, body=b"", duration_ms=duration_ms, error=outcome)
        status, answer_body = outcome
        return EndpointResponse(status=status, body=answer_body, duration_ms=duration_ms, error=None)

    async def close(self) -> None:
        """Close all connections. Posts in progress end with an error. Later posts fail an assertion."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _guarded(self, url: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> tuple[int, bytes] | str:
        """Return status and body, or the text of the error."""
        if reason := check_url(url, self._policy) or check_headers(headers):
            return _refused(reason)
        attempt = _Attempt(self._policy.towards(url))
        token = _attempt.set(attempt)
        try:
            # One limit for everything, including name resolution and the wait for a free connection: aiohttp rounds its own
            # timeouts up to whole seconds.
            async with asyncio.timeout(timeout_ms / 1000):
                return await self._exchange(url, body, headers)
        except TimeoutError:
            return f"no {'free connection' if attempt.queued else 'answer'} within {timeout_ms} ms"
        except (aiohttp.ClientError, OSError, ValueError) as trouble:
            return _sentence(trouble, attempt.refusal)
        finally:
            _attempt.reset(token)

    async def _exchange(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        session = self._open_session()
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, await _read_at_most(response.content, self._body_max)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "Cardwright", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(),
                trust_env=False,
                auto_decompress=False,  # A few kilobytes may decompress to gigabytes.
                max_line_size=ANSWER_HEADER_CHARS_MAX,
                max_field_size=ANSWER_HEADER_CHARS_MAX,
                max_headers=ANSWER_HEADERS_MAX,
                trace_configs=[_queue_watch()],
            )
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            socket_factory=_open_socket,
            resolver=self._resolver or NameResolver(),
            ssl=self._tls,
            limit=self._connections_max,
            keepalive_timeout=KEEP_ALIVE_S,
        )


def _open_socket(dialled: aiohttp.AddrInfoType) -> socket.socket:
    """Open the socket of a connection after a check of its address. Every connection begins here, after name resolution."""
    family, kind, protocol, _, address = dialled
    attempt = _attempt.get()
    if reason := check_address(str(address[0]), attempt.rules):
        attempt.refusal = reason
        raise PermissionError(errno.EACCES, "refused by the outgoing guard")
    return socket.socket(family, kind, protocol)


async def _read_at_most(content: aiohttp.StreamReader, body_max: int) -> bytes:
    """Return the first `body_max` bytes. If bytes are left unread, aiohttp closes the connection and does not reuse it."""
    body = bytearray()
    while chunk := await content.read(body_max - len(body)):
        body += chunk
    return bytes(body)


def _tls_context(trusted_ca_pem: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if trusted_ca_pem is not None:
        context.load_verify_locations(trusted_ca_pem)
    return context


def _queue_watch() -> aiohttp.TraceConfig:
    """Return a trace that records whether a post waits for a free connection.

    The error of a post that timed out then names the pool and not the endpoint.
    """

    async def enter(_session: aiohttp.ClientSession, _context: SimpleNamespace, _: object) -> None:
        _attempt.get().queued = True

    async def leave(_session: aiohttp.ClientSession, _context: SimpleNamespace, _: object) -> None:
        _attempt.get().queued = False

    watch = aiohttp.TraceConfig()
    watch.on_connection_queued_start.append(enter)
    watch.on_connection_queued_end.append(leave)
    return watch


def _refused(reason: str) -> str:
    return f"refused by the outgoing guard: {reason}"


def _sentence(trouble: Exception, refusal: str | None) -> str:
    """Return the text of an error. It has no text of the exception, which may hold URLs and headers with secrets."""
    match trouble:
        case aiohttp.ClientConnectorCertificateError():
            return _CERTIFICATE_TROUBLE.get(getattr(trouble.certificate_error, "verify_code", 0), "certificate not trusted")
        case aiohttp.ClientConnectorSSLError():
            return "TLS handshake failed"
        case aiohttp.ClientConnectorDNSError(os_error=NameTrouble() as reason):
            return str(reason)
        case aiohttp.ClientConnectorDNSError():
            return "the name could not be resolved"
        case aiohttp.ClientConnectorError() if refusal is not None:
            return _refused(refusal)  # No address of the name gave a connection, and the guard refused this one.
        case aiohttp.ClientConnectorError():
            return _CONNECTION_TROUBLE.get(trouble.errno or 0, "connection failed")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return _HUNG_UP  # The timing decides which of these errors a closed connection raises.
        case aiohttp.ClientPayloadError():
            return "the answer is incomplete"
        case aiohttp.ClientResponseError():
            return "the answer is not valid HTTP"
        case _:
            return "the request could not be sent"


# OpenSSL's X509_V_ERR codes with a more precise reason than "not trusted".
_CERTIFICATE_TROUBLE: Final = {
    10: "certificate has expired",
    62: "certificate is for another host",
    64: "certificate is for another host",
}

_HUNG_UP: Final = "connection closed without an answer"

_CONNECTION_TROUBLE: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: _HUNG_UP,
    errno.EPIPE: _HUNG_UP,
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "host unreachable",
    errno.ETIMEDOUT: "host does not answer",
}
