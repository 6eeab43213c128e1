"""Webhooks: endpoints that events are posted to, with pings and resent events."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, func, select

from cardwright.core.problems import (
    EVENT_NOT_FOUND,
    WEBHOOK_FAILED,
    WEBHOOK_NOT_FOUND,
    Problem,
    bad_field,
    bad_parameter,
)
from cardwright.kit.canonical import reading
from cardwright.kit.clock import iso
from cardwright.kit.guard import OutgoingPolicy, check_headers, check_url
from cardwright.kit.vault import Vault
from cardwright.outbox.client import EndpointResponse
from cardwright.outbox.endpoint import DEFAULT_ALGORITHM, Endpoint, open_webhook, seal_webhook
from cardwright.outbox.events import CATEGORIES, Category
from cardwright.outbox.render import find_transitions, notification
from cardwright.outbox.signature import SIGNATURE_HEADER
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Paging, Reply, Route, Shape, get, post, put
from cardwright.resources.transactions.as_of import TransactionRenderer
from cardwright.resources.transactions.transactions import get_transaction
from cardwright.storage import history, records
from cardwright.storage.database import Row
from cardwright.storage.programs import get_program
from cardwright.storage.tables import programs, webhooks

# --- Shapes: what travels on the wire ------------------------------------------------

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Username = Annotated[str, Meta(min_length=1, max_length=50)]
Secret = Annotated[str, Meta(min_length=20, max_length=50)]
EventPattern = Annotated[str, Meta(min_length=1, max_length=100)]
Events = Annotated[tuple[EventPattern, ...], Meta(min_length=1, max_length=500)]
Headers = dict[str, str]
UNLESS_DEFAULT = reading(lambda algorithm: None if algorithm == DEFAULT_ALGORITHM else algorithm)


class ConfigBody(Shape, frozen=True, kw_only=True):
    """The URL of an endpoint, and the credentials for its requests."""

    url: Annotated[str, Meta(min_length=1, max_length=255)]
    basic_auth_username: Username
    basic_auth_password: Secret
    secret: Secret | None = None
    signature_algorithm: Annotated[Literal["HMAC_SHA_1", "HMAC_SHA_256"], UNLESS_DEFAULT] | None = None
    custom_header: Headers | None = msgspec.field(default_factory=dict)
    use_mtls: bool | None = False


class WebhookBody(Shape, frozen=True, kw_only=True):
    """A webhook, new or as it is after an update. Absent fields get their defaults."""

    name: Name
    events: Events
    config: ConfigBody
    active: bool | None = True
    token: Token | None = None


class CustomHeaders(Shape, frozen=True, kw_only=True):
    """Request headers to add or replace."""

    custom_header: Headers


class Config(Shape, frozen=True, kw_only=True):
    """The URL and the credentials of a webhook.

    User name, password and secret are masked unless the program's settings disable masking.
    """

    url: str
    basic_auth_username: str
    basic_auth_password: str
    secret: str | UnsetType = UNSET
    signature_algorithm: str | UnsetType = UNSET
    custom_header: Headers
    use_mtls: bool


class Webhook(Shape, frozen=True, kw_only=True):
    """A webhook."""

    token: str
    name: str
    active: bool
    events: tuple[str, ...]
    config: Config
    created_time: str
    last_modified_time: str


class WebhookFilter(Shape, frozen=True, kw_only=True):
    """The query selects all webhooks or only the active ones."""

    active: bool = False


# --- Rules: pure ---------------------------------------------------------------------

ACTIVE_MAX = 5
HEADERS_MAX = 3
HEADER_CHARS_MAX = 500
PING_TIMEOUT_MS = 5_000
PING = b'{"pings":[{"token":"marqeta","payload":"healthcheck"}]}'

# Reserved: they describe the body and authenticate the request. ``check_headers`` applies the other rules.
OUR_HEADERS = frozenset({"authorization", "content-type", SIGNATURE_HEADER.lower()})

# All events; all events of one base type; one event.
EVENT_PATTERN = re.compile(r"\*|[^.*\s]+\.\*|[^*\s]+")

# The symbols that the wire lists. No other character is allowed except letters and digits.
SYMBOLS = "@#$%!^&*()\\_+~-=[]{},;:'\"./<>?`"
KINDS = {"a digit": r"[0-9]", "a lower-case letter": r"[a-z]", "an upper-case letter": r"[A-Z]"}


def check_events(events: tuple[str, ...]) -> None:
    """Raise a problem for an invalid pattern. Unknown event names are accepted.

    A wildcard stands alone or directly after the base type (wire reference 9.4).
    """
    for event in events:
        if not EVENT_PATTERN.fullmatch(event):
            raise bad_field("events", f"must be *, <base>.* or an event's name, not {event}")


def check_config(config: ConfigBody, policy: OutgoingPolicy) -> None:
    """Raise a problem that names the first field that breaks a rule of the wire or the policy for outgoing requests."""
    if (reason := check_url(config.url, policy)) is not None:
        raise bad_field("config.url", f"is refused: {reason}")
    if ":" in config.basic_auth_username or not config.basic_auth_username.isprintable():
        raise bad_field("config.basic_auth_username", "may not have a colon or control characters")  # RFC 7617
    check_secret("config.basic_auth_password", config.basic_auth_password)
    if config.secret is not None:
        check_secret("config.secret", config.secret)
    check_custom_header("config.custom_header", config.custom_header or {})
    if config.use_mtls:
        raise bad_field("config.use_mtls", "is not supported: there is no client certificate")


def check_secret(field: str, secret: str) -> None:
    """Raise a problem unless a secret has a digit, a lower-case letter, an upper-case letter and a symbol, and nothing else.

    The problem does not quote the secret.
    """
    for kind, pattern in KINDS.items():
        if not re.search(pattern, secret):
            raise bad_field(field, f"must have {kind}")
    others = {character for character in secret if not (character.isascii() and character.isalnum())}
    if not others:
        raise bad_field(field, "must have a symbol")
    if not others <= set(SYMBOLS):
        raise bad_field(field, f"may only have ASCII letters, digits and these symbols: {SYMBOLS}")


def check_custom_header(field: str, headers: Mapping[str, str]) -> None:
    """Raise a problem for more than HEADERS_MAX headers, a reserved name, or a header that changes the framing of the request.

    See section 9.1 of the wire reference.
    """
    if len(headers) > HEADERS_MAX:
        raise bad_field(field, f"may have at most {HEADERS_MAX} name-value pairs")
    if any(not 0 < len(name) <= HEADER_CHARS_MAX or len(value) > HEADER_CHARS_MAX for name, value in headers.items()):
        raise bad_field(field, f"name and value may have at most {HEADER_CHARS_MAX} characters")
    if len({name.lower() for name in headers}) < len(headers):
        raise bad_field(field, "has the same name twice")
    if any(name.lower() in OUR_HEADERS for name in headers):
        raise bad_field(field, f"may not set {', '.join(sorted(OUR_HEADERS))}")
    if (reason := check_headers(headers)) is not None:
        raise bad_field(field, f"is refused: {reason}")


def mask_secret(secret: str) -> str:
    """Return the first character, ten asterisks and the last character: always twelve characters (observed)."""
    return f"{secret[0]}{'*' * 10}{secret[-1]}"


def endpoint_of(config: ConfigBody) -> Endpoint:
    """Return the URL and the secrets for delivery."""
    return Endpoint(
        url=config.url, username=config.basic_auth_username, password=config.basic_auth_password, secret=config.secret,
        algorithm=config.signature_algorithm or DEFAULT_ALGORITHM, custom_header=config.custom_header or {},
    )  # fmt: skip


def stored_config(url: str, algorithm: str | UnsetType) -> Config:
    """Return the configuration as ``webhooks.doc`` stores it. User name, secrets and headers are only in ``webhooks.sealed``."""
    return Config(
        url=url, basic_auth_username="", basic_auth_password="", signature_algorithm=algorithm, custom_header={}, use_mtls=False
    )


def shown(stored: Webhook, endpoint: Endpoint, *, masked: bool) -> str:
    """Return the JSON of a webhook as a response shows it."""
    show = mask_secret if masked else str
    config = msgspec.structs.replace(
        stored.config,
        basic_auth_username=show(endpoint.username),
        basic_auth_password=show(endpoint.password),
        secret=UNSET if endpoint.secret is None else show(endpoint.secret),
        custom_header=dict(endpoint.custom_header),
    )
    return records.text_of(msgspec.structs.replace(stored, config=config))


# --- Queries: this resource's SQL ----------------------------------------------------


def lock_program(db: Connection, program_id: int) -> None:
    """Lock the program's row, so that its webhooks change one at a time.

    Of two concurrent requests for the last place of an active webhook, the second counts the first. The lock is the one of an
    UPDATE. It does not block inserts of rows that refer to the program.
    """
    db.execute(select(programs.c.id).where(programs.c.id == program_id).with_for_update(key_share=True))


def count_active(db: Connection, program_id: int) -> int:
    """Return the number of active webhooks of the program."""
    query = select(func.count()).select_from(webhooks).where(webhooks.c.program_id == program_id, webhooks.c.active)
    return db.execute(query).scalar_one()


def find_webhook(call: EngineCall) -> Row:
    """Return the row with the path's token, outside of any action's transaction. Raises WEBHOOK_NOT_FOUND."""
    with call.app.database.read() as db:
        row = records.find(db, webhooks, call.program_id, call.path["token"])
    if row is None:
        raise Problem(WEBHOOK_NOT_FOUND)
    return row


def seal_old_webhooks(db: Connection, vault: Vault) -> None:
    """Remove the secrets and headers that an earlier version stored in ``doc``, and seal the headers."""
    for row_id in db.scalars(select(webhooks.c.id).order_by(webhooks.c.id)).all():
        row = db.execute(select(webhooks).where(webhooks.c.id == row_id)).one()
        webhook = msgspec.json.decode(row.doc, type=Webhook)
        if not webhook.config.basic_auth_username:
            continue
        endpoint = replace(open_webhook(vault, row), custom_header=webhook.config.custom_header)
        stored = msgspec.structs.replace(webhook, config=stored_config(webhook.config.url, webhook.config.signature_algorithm))
        sealed = seal_webhook(vault, row.program_id, row.token, endpoint)
        records.change(db, webhooks, row.id, doc=records.text_of(stored), sealed=sealed)


def load_event(call: EngineCall) -> bytes:
    """Return the notification of the path's event, with the object in its present state.

    Raises EVENT_NOT_FOUND, and a problem for an unknown event type.
    """
    kind, token = call.path["event_type"], call.path["event_token"]
    category = CATEGORIES.get(kind)
    if category is None:
        raise bad_parameter("event_type", f"must be one of {', '.join(CATEGORIES)}, not {kind[:60]}")
    with call.app.database.read() as db:
        if category is Category.TRANSACTION:
            return notification(category, [_transaction(db, call.program_id, token)])
        doc = find_transitions(db, call.program_id, category, [token]).get(token)
    if doc is None:
        raise Problem(EVENT_NOT_FOUND)
    return notification(category, [doc])


def _transaction(db: Connection, program_id: int, token: str) -> str:
    try:
        row, side = get_transaction(db, program_id, token)
    except Problem:
        raise Problem(EVENT_NOT_FOUND) from None
    masked = get_program(db, program_id).settings.mask_funding_source_tokens
    return TransactionRenderer(db, program_id, masked=masked).json(row, side)


# --- Actions: what a caller can do with it -------------------------------------------


def create_webhook(call: Call, body: WebhookBody) -> str:
    """Create a webhook. It receives all later events that match its subscriptions."""
    check_events(body.events)
    check_config(body.config, call.app.policy)
    lock_program(call.db, call.program.id)
    if (replay := crud.find_replay_row(call, webhooks, body)) is not None:
        return _shown_row(call, replay)
    webhook = _webhook(call, body, body.token or call.app.ids.token(), created_time=iso(call.now))
    _make_known(call, webhook.active)
    endpoint = endpoint_of(body.config)
    sealed = seal_webhook(call.app.vault, call.program.id, webhook.token, endpoint)
    crud.insert(call, webhooks, body, webhook, active=webhook.active, sealed=sealed)
    return _shown(call, webhook, endpoint)


def get_webhook(call: Call) -> str:
    """Return a webhook, active or inactive."""
    return _shown_row(call, crud.get_row(call, webhooks, WEBHOOK_NOT_FOUND))


def list_webhooks(call: Call) -> records.Listing:
    """List the program's webhooks."""
    query = select(webhooks).where(webhooks.c.program_id == call.program.id)
    if call.query.active:
        query = query.where(webhooks.c.active)
    page = call.list_page
    rows, is_more = records.read_page(call.db, query, records.order_of(webhooks, page.sort_by), page)
    return records.Listing([_shown_row(call, row) for row in rows], is_more)


def update_webhook(call: Call, body: WebhookBody) -> str:
    """Replace a webhook. Absent fields get their defaults."""
    lock_program(call.db, call.program.id)
    row = crud.get_row(call, webhooks, WEBHOOK_NOT_FOUND)
    crud.check_same_token(call, body)
    check_events(body.events)
    check_config(body.config, call.app.policy)
    before = msgspec.json.decode(row.doc, type=Webhook)
    after = _webhook(call, body, row.token, created_time=before.created_time)
    return _replace(call, row, before, after, endpoint_of(body.config))


def update_custom_headers(call: Call, body: CustomHeaders) -> str:
    """Add custom headers to a webhook, or replace the values of existing ones."""
    lock_program(call.db, call.program.id)
    row = crud.get_row(call, webhooks, WEBHOOK_NOT_FOUND)
    before = msgspec.json.decode(row.doc, type=Webhook)
    endpoint = open_webhook(call.app.vault, row)
    headers = {**endpoint.custom_header, **body.custom_header}
    check_custom_header("custom_header", headers)
    return _replace(call, row, before, before, replace(endpoint, custom_header=headers))


async def ping_webhook(call: EngineCall) -> Reply:
    """Post a test message to a webhook, active or inactive, and return the response of its endpoint."""
    row = await asyncio.to_thread(find_webhook, call)
    answer = await _post(call, row, PING)
    assert answer.status is not None
    return Reply(answer.status, answer.body.decode(errors="replace"))


async def resend_event(call: EngineCall) -> Reply:
    """Post a transaction or a transition to a webhook again, and return the posted notification."""
    row = await asyncio.to_thread(find_webhook, call)
    body = await asyncio.to_thread(load_event, call)
    answer = await _post(call, row, body)
    if answer.status != 200:
        raise Problem(WEBHOOK_FAILED, f"the endpoint answered {answer.status}")
    return Reply(200, body.decode())


def _webhook(call: Call, body: WebhookBody, token: str, *, created_time: str) -> Webhook:
    return Webhook(
        token=token,
        name=body.name,
        active=body.active is not False,
        events=body.events,
        config=stored_config(body.config.url, body.config.signature_algorithm or UNSET),
        created_time=created_time,
        last_modified_time=iso(call.now),
    )


def _shown(call: Call, stored: Webhook, endpoint: Endpoint) -> str:
    return shown(stored, endpoint, masked=call.program.settings.mask_webhook_secrets)


def _shown_row(call: Call, row: Row) -> str:
    return _shown(call, msgspec.json.decode(row.doc, type=Webhook), open_webhook(call.app.vault, row))


def _replace(call: Call, row: Row, before: Webhook, after: Webhook, endpoint: Endpoint) -> str:
    """Store the changes of a webhook, if there are any, and return it as a response shows it."""
    stored = open_webhook(call.app.vault, row)
    sealed = row.sealed if endpoint == stored else seal_webhook(call.app.vault, call.program.id, row.token, endpoint)
    after = msgspec.structs.replace(after, last_modified_time=before.last_modified_time)
    if after != before or endpoint != stored:
        _make_known(call, after.active and not before.active)
    doc, _ = crud.update(call, webhooks, row, before, after, active=after.active, sealed=sealed)
    return _shown(call, msgspec.json.decode(doc, type=Webhook), stored if endpoint == stored else endpoint)


def _make_known(call: Call, becomes_active: bool) -> None:
    """Raise the program's revision, so that all processes see the change. Raises a problem beyond ACTIVE_MAX active webhooks."""
    history.raise_program_revision(call.db, call.program.id)
    if becomes_active and count_active(call.db, call.program.id) >= ACTIVE_MAX:
        raise bad_field("active", f"may be true for at most {ACTIVE_MAX} webhooks")


async def _post(call: EngineCall, row: Row, body: bytes) -> EndpointResponse:
    """Return the endpoint's response. Raises WEBHOOK_FAILED without a response within five seconds."""
    endpoint = open_webhook(call.app.vault, row)
    answer = await call.app.client.post(endpoint.url, body, endpoint.headers(body), PING_TIMEOUT_MS)
    if answer.error is not None:
        raise Problem(WEBHOOK_FAILED, answer.error)
    return answer


POST_S = 15.0
"""Time limit in seconds of requests that wait for the response of an endpoint."""

# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Webhooks"

routes = [
    post("/webhooks", WebhookBody, create_webhook, Webhook),
    get("/webhooks", list_webhooks, Webhook, query=WebhookFilter, paging=Paging(sort_by="-createdTime")),
    get("/webhooks/{token}", get_webhook, Webhook),
    put("/webhooks/{token}", WebhookBody, update_webhook, Webhook),
    put("/webhooks/customheaders/{token}", CustomHeaders, update_custom_headers, Webhook),
    # Both routes ignore the body, because the wire's examples have either no body or {}.
    Route("POST", "/webhooks/{token}/ping", ping_webhook, fields=False, limit_s=POST_S),
    Route("POST", "/webhooks/{token}/{event_type}/{event_token}", resend_event, fields=False, limit_s=POST_S),
]
