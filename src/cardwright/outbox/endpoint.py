"""Endpoints of notifications: address, credentials, headers and signing secret, sealed in the database."""

import base64
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import unquote

import msgspec

from cardwright.kit.guard import origin_of
from cardwright.kit.masks import REDACTED, redact_mapping
from cardwright.kit.vault import Vault
from cardwright.outbox.signature import SIGNATURE_HEADER, basic_auth, sign
from cardwright.storage.database import Row
from cardwright.storage.envelopes import TARGET_CONTEXT, webhook_context

DEFAULT_ALGORITHM = "HMAC_SHA_1"
"""The signature algorithm of a webhook that names none (wire reference 9.1)."""

SECRET_MIN = 8
"""Minimum number of characters of a secret that texts are searched for. Shorter ones, such as ``1``, occur by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Address of a webhook, and the credentials and headers of its posts. Only the address is in the ``repr``.

    Without a user name there is no Authorization header; without a secret there is no signature.
    """

    url: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    secret: str | None = field(default=None, repr=False)
    algorithm: str = DEFAULT_ALGORITHM
    custom_header: Mapping[str, str] = field(default_factory=dict, repr=False)

    def headers(self, body: bytes) -> dict[str, str]:
        """Return the request's headers. The platform's own come last, so that custom headers cannot replace them."""
        headers = {**self.custom_header, "Content-Type": "application/json"}
        if self.username:
            headers["Authorization"] = basic_auth(self.username, self.password)
        if self.secret is not None:
            headers[SIGNATURE_HEADER] = sign(self.secret, body, self.algorithm)
        return headers

    def secrets(self) -> list[tuple[str, str]]:
        """Return the kind and the text of each secret of the endpoint."""
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        headers = [("a custom header", value) for value in self.custom_header.values()]
        password = [("a webhook password", self.password), ("a webhook password in Base64", pair)] if self.password else []
        return [*password, *([("a signing secret", self.secret)] if self.secret else []), *headers]

    def shown(self, text: str) -> str:
        """Return a text from the endpoint without secrets: an endpoint may echo the credentials of the request.

        A text with a secret in another notation is replaced as a whole. Header values of fewer than ``SECRET_MIN`` characters
        stay, because they also occur by chance.
        """
        short = {value for value in self.custom_header.values() if len(value) < SECRET_MIN}
        secrets = [secret for _, secret in self.secrets() if secret not in short]
        # The longest first: one secret can be the beginning of another.
        for form in sorted({form for secret in secrets for form in written_forms(secret)}, key=len, reverse=True):
            text = text.replace(form, REDACTED)
        plain = _without_escapes(text)
        if any(_without_escapes(secret) in plain for secret in secrets if len(secret) >= SECRET_MIN):
            return REDACTED
        return str(redact_mapping(text))


def _without_escapes(text: str) -> str:
    """Return a text without the escapes of JSON, programming languages, URLs and HTML, and without backslashes."""
    text = _UNICODE_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
    return html.unescape(unquote(text)).replace("\\", "")


_UNICODE_ESCAPE = re.compile(r"\\u00([0-9a-fA-F]{2})")


class _Sealed(msgspec.Struct, omit_defaults=True):
    """Sealed JSON. ``endpoint`` is set only if the address belongs to a single notification."""

    endpoint: str = ""
    username: str | None = None
    password: str | None = None
    secret: str | None = None
    custom_header: dict[str, str] | None = None


class _Config(msgspec.Struct):
    url: str
    signature_algorithm: str = DEFAULT_ALGORITHM


class _Doc(msgspec.Struct):
    config: _Config


@lru_cache(maxsize=4_096)
def endpoint_id_of(program_id: int, url: str) -> int:
    """Return the id of an endpoint: a hash of its program, and of scheme, host and port of the URL.

    It has 62 bits and is negative, because the ids of webhooks are positive. With the program in it, no program waits for the
    deliveries of another, and all rows of a queue have the same clock.
    """
    digest = blake2b(f"{program_id} {origin_of(url)}".encode(), digest_size=8).digest()
    return -1 - (int.from_bytes(digest) >> 2)


def url_of(doc: str) -> str:
    """Return the URL in the document of a registered webhook."""
    return msgspec.json.decode(doc, type=_Doc).config.url


def written_forms(secret: str) -> set[str]:
    """Return the secret as it is, and as it stands in a JSON text, with and without escaped slashes."""
    escaped = msgspec.json.encode(secret).decode()[1:-1]
    return {secret, escaped, escaped.replace("/", "\\/")}


def seal_webhook(vault: Vault, program_id: int, token: str, endpoint: Endpoint) -> bytes:
    """Return the value of ``webhooks.sealed``: user name, password, signing secret and headers of a registered webhook."""
    sealed = _Sealed(
        username=endpoint.username, password=endpoint.password, secret=endpoint.secret,
        custom_header=dict(endpoint.custom_header) or None,
    )  # fmt: skip
    return vault.seal(msgspec.json.encode(sealed).decode(), webhook_context(program_id, token))


def open_webhook(vault: Vault, row: Row) -> Endpoint:
    """Return the endpoint of a row of ``webhooks``. Raises VaultError if the row was sealed for another webhook."""
    sealed = _open(vault, row.sealed, webhook_context(row.program_id, row.token))
    config = msgspec.json.decode(row.doc, type=_Doc).config
    return _endpoint(config.url, sealed, config.signature_algorithm)


def open_target(vault: Vault, target: bytes) -> Endpoint:
    """Return the endpoint that a simulation named for its own notification. Raises VaultError for any other envelope."""
    sealed = _open(vault, target, TARGET_CONTEXT)
    return _endpoint(sealed.endpoint, sealed, DEFAULT_ALGORITHM)


def _endpoint(url: str, sealed: _Sealed, algorithm: str) -> Endpoint:
    return Endpoint(
        url=url, username=sealed.username or "", password=sealed.password or "", secret=sealed.secret or None,
        algorithm=algorithm, custom_header=sealed.custom_header or {},
    )  # fmt: skip


def _open(vault: Vault, envelope: bytes, context: str) -> _Sealed:
    return msgspec.json.decode(vault.open(bytes(envelope), context), type=_Sealed)
