"""Webhook inbox of the sandbox: boxes that receive webhooks in place of a user's server, and their messages."""

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, func, or_, select

from cardwright.core.problems import bad_parameter
from cardwright.kit.clock import RealClock, iso_ms, monotonic_ms
from cardwright.kit.failpoints import async_failpoint
from cardwright.kit.vault import Vault
from cardwright.outbox.endpoint import open_target, open_webhook
from cardwright.outbox.signature import SIGNATURE_ALGORITHMS, SIGNATURE_HEADER, verify
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import parse_duration
from cardwright.resources.common.route import Paging, Route, Scope, Shape, get
from cardwright.storage.database import Database, Row
from cardwright.storage.envelopes import headers_context
from cardwright.storage.programs import find_program_token, get_program
from cardwright.storage.records import Listing, SortOrder, read_page, text_of
from cardwright.storage.tables import inbox_messages, outbox, webhooks

# --- Shapes: what travels on the wire ------------------------------------------------

PAGING = Paging(count=25, sort_by="-createdTime")
BOX = re.compile(r"[A-Za-z0-9._-]{1,64}")
MESSAGES_MAX = 10_000
BYTES_MAX = 64_000_000
"""Limits of all boxes of a program together, with the headers. The oldest messages are removed first; the newest always stays.

A limit for each box would be none, because a sender chooses the name of the box."""

WAIT_MAX_MS = 30_000
POLL_S = 0.05


class InboxQuery(Shape, frozen=True, kw_only=True):
    """The query filters messages. ``wait`` is the time to wait for the first one, such as ``wait=5s``.

    ``after`` is the id of the last known message. ``type`` and ``token`` are those of a transaction or transition in the
    message. The type of a user transition is its status, and that of a deposit account transition its state, in lower case.
    """

    type: str | None = None
    token: str | None = None
    after: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    wait: str | None = None


class Signature(Shape, frozen=True, kw_only=True):
    """The result of a signature check. ``valid`` is null if no secret is known."""

    present: bool
    algorithm: str | None = None
    valid: bool | None = None


class InboxMessage(Shape, frozen=True, kw_only=True):
    """A received message. Header names are in lower case. ``body`` is parsed if it is JSON, and text otherwise."""

    id: int
    received_time: str
    headers: dict[str, str]
    body: Any
    signature: Signature


# --- Rules: pure ---------------------------------------------------------------------

DIGITS = {"HMAC_SHA_1": 40, "HMAC_SHA_256": 64}


def kept_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers to store: names in lower case, repeated headers joined by commas, passwords masked."""
    kept: dict[str, str] = {}
    for name, value in headers:
        shown = shown_authorization(value) if name.lower() == "authorization" else value
        kept[name.lower()] = f"{kept[name.lower()]}, {shown}" if name.lower() in kept else shown
    return kept


def shown_authorization(value: str) -> str:
    """Return the scheme and user name of an Authorization header. The rest is masked with asterisks."""
    scheme, _, credentials = value.strip().partition(" ")
    if scheme.lower() != "basic":
        return f"{scheme} **********"
    try:
        username, colon, _ = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return f"{scheme} **********"
    return f"{scheme} {username}:**********" if colon else f"{scheme} **********"


def parse_content(body: bytes) -> Any:
    """Return the body as JSON with its original digits, or as text if it is not JSON."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return body.decode(errors="replace")
    return msgspec.Raw(body)


def elements_of(body: bytes) -> list[dict[str, Any]]:
    """Return the objects in the array of a notification, none if the body is something else."""
    try:
        arrays = msgspec.json.decode(body, type=dict[str, list[dict[str, Any]]])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return []
    return [element for array in arrays.values() for element in array]


def does_fit(body: bytes, type_: str | None, token: str | None) -> bool:
    """Return True if an object of the message has this type and token. Without both, every message fits."""
    if type_ is None and token is None:
        return True
    return any(
        (token is None or element.get("token") == token) and (type_ is None or type_of(element) == type_)
        for element in elements_of(body)
    )


def type_of(element: dict[str, Any]) -> str:
    """Return the type of an object in a notification, which is the end of its event's name."""
    return str(element["type"]) if "type" in element else str(element.get("status", element.get("state", ""))).lower()


def check_signature(signature: str | None, body: bytes, secrets: Sequence[str]) -> Signature:
    """Return the result of checking a signature with the secrets. The length of the signature determines the algorithm."""
    if signature is None:
        return Signature(present=False)
    algorithm = next((name for name in SIGNATURE_ALGORITHMS if DIGITS[name] == len(signature)), None)
    if not secrets:
        return Signature(present=True, algorithm=algorithm)
    is_valid = algorithm is not None and any(verify(secret, body, signature, algorithm) for secret in secrets)
    return Signature(present=True, algorithm=algorithm, valid=is_valid)


def path_of(program_token: str, box: str) -> str:
    """Return the path at which a box receives messages."""
    return f"/sandbox/inbox/{program_token}/{box}"


# --- Queries: this resource's SQL ----------------------------------------------------

ORDER_LOCK = 1_768_843_640
"""PostgreSQL's advisory lock ("inbx") of the inbox of a program."""

SEALED_AT_ONCE = 500
"""Maximum number of old messages in memory while they are sealed."""


def accept(
    database: Database,
    vault: Vault,
    real_clock: RealClock,
    program_token: str,
    box: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
) -> bool:
    """Store a message in a program's box. Returns False if the program does not exist.

    The program loses its oldest messages beyond the limits, in any box.
    """
    with database.read(database.limits.read_s) as db:
        program_id = find_program_token(db, program_token)
    if program_id is None:
        return False
    kept = seal_headers(vault, program_id, msgspec.json.encode(kept_headers(headers)).decode())
    with database.write(database.limits.read_s) as db:
        lock_inbox(db, program_id)
        real_ms = real_clock()
        now = get_program(db, program_id).clock.time_at(real_ms)
        newest = db.execute(_NEWEST, {"program": program_id}).first()
        last_number, begin_bytes = (0, 0) if newest is None else newest
        number, end_bytes = last_number + 1, begin_bytes + len(kept) + len(body)
        row = {
            "program_id": program_id, "box": box, "received_ms": now, "stored_ms": real_ms, "headers_sealed": kept,
            "body": body, "number": number, "begin_bytes": begin_bytes, "end_bytes": end_bytes,
        }  # fmt: skip
        db.execute(inbox_messages.insert().values(row))
        remove_oldest(db, program_id, number, end_bytes)
    return True


def seal_headers(vault: Vault, program_id: int, headers: str) -> bytes:
    """Return the value of ``inbox_messages.headers_sealed``: the headers may include custom headers of webhooks."""
    return vault.seal(headers, headers_context(program_id))


def seal_old_headers(db: Connection, vault: Vault) -> None:
    """Seal the headers of messages that an earlier version stored in clear."""
    query = select(inbox_messages.c.id, inbox_messages.c.program_id, inbox_messages.c.headers_sealed).order_by(
        inbox_messages.c.id
    )
    change = (
        inbox_messages.update().where(inbox_messages.c.id == bindparam("row_id")).values(headers_sealed=bindparam("envelope"))
    )
    last_id = 0
    while rows := db.execute(query.where(inbox_messages.c.id > last_id).limit(500)).all():
        # Headers in clear are a JSON object. An envelope begins with the number of its key.
        old = [row for row in rows if bytes(row.headers_sealed).startswith(b"{")]
        changes = [
            {"row_id": row.id, "envelope": seal_headers(vault, row.program_id, bytes(row.headers_sealed).decode())} for row in old
        ]
        if changes:
            db.execute(change, changes)
        last_id = rows[-1].id


def lock_inbox(db: Connection, program_id: int) -> None:
    """Lock a program's inbox until the commit. On SQLite every write transaction has a lock of the whole database.

    Ids then follow the order of commits. Otherwise, a reader that asks for messages after an id could miss a late commit.
    """
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(ORDER_LOCK, program_id)))


_kept = inbox_messages.alias("kept")
_NEWEST = (
    select(_kept.c.number, _kept.c.end_bytes)
    .where(_kept.c.program_id == bindparam("program"))
    .order_by(_kept.c.number.desc())
    .limit(1)
)
_FIRST_KEPT = (
    select(_kept.c.number)
    .where(
        _kept.c.program_id == bindparam("program"),
        _kept.c.number >= bindparam("first_number"),
        or_(_kept.c.number == bindparam("newest"), _kept.c.begin_bytes >= bindparam("first_byte")),
    )
    .order_by(_kept.c.number)
    .limit(1)
)
_REMOVE_OLDEST = delete(inbox_messages).where(
    inbox_messages.c.program_id == bindparam("program"), inbox_messages.c.number < _FIRST_KEPT.scalar_subquery()
)


def remove_oldest(db: Connection, program_id: int, number: int, end_bytes: int) -> None:
    """Remove the messages beyond the limits, given the figures of the newest message.

    The figures include messages that were deleted in between, so the limits can be lower after an emptied box, never higher.
    """
    limits = {"newest": number, "first_number": number - MESSAGES_MAX + 1, "first_byte": end_bytes - BYTES_MAX}
    db.execute(_REMOVE_OLDEST, {"program": program_id, **limits})


def _is_in(program_id: int, box: str) -> ColumnElement[bool]:
    return and_(inbox_messages.c.program_id == program_id, inbox_messages.c.box == box)


def messages_after(program_id: int, box: str, message_id: int) -> Select[Any]:
    """Return the query for a box's messages with a higher id. It yields 50 rows at a time."""
    query = select(inbox_messages).where(_is_in(program_id, box), inbox_messages.c.id > message_id)
    return query.execution_options(yield_per=50)


def look_for_news(database: Database, program_id: int, box: str, query: InboxQuery, last_id: int) -> tuple[bool, int]:
    """Return True if a message after ``last_id`` fits, and the id after which the next search starts."""
    news = messages_after(program_id, box, last_id).order_by(inbox_messages.c.id.desc())
    with database.read() as db:
        for row in db.execute(news):
            if does_fit(row.body, query.type, query.token):
                return True, last_id
            last_id = max(last_id, row.id)
    return False, last_id


def load_secrets(db: Connection, vault: Vault, program_id: int, path: str) -> list[str]:
    """Return the signing secrets of all possible senders to a path.

    These are the latest 100 webhooks and the targets of the latest 100 simulations with a webhook.
    """
    hooks = select(webhooks).where(webhooks.c.program_id == program_id).order_by(webhooks.c.id.desc()).limit(100)
    query = select(outbox.c.target).where(outbox.c.program_id == program_id, outbox.c.target.is_not(None))
    targets = query.order_by(outbox.c.id.desc()).limit(100)
    endpoints = [open_webhook(vault, row) for row in db.execute(hooks)]
    endpoints += [open_target(vault, target) for target in db.scalars(targets)]
    return [
        endpoint.secret for endpoint in endpoints if endpoint.secret is not None and endpoint.url.partition("?")[0].endswith(path)
    ]


# --- Actions: what a caller can do with it -------------------------------------------


async def list_inbox(call: EngineCall) -> Listing:
    """List the messages of a box, newest first. With ``wait``, the response comes with the first message that fits."""
    query: InboxQuery = call.query
    if query.wait is not None:
        await _wait(call, query, parse_duration("wait", query.wait))
    return await asyncio.to_thread(read_inbox, call, query)


async def _wait(call: EngineCall, query: InboxQuery, wait_ms: int) -> None:
    """Wait until a message fits, or until the time is over. Raises a problem if ``wait_ms`` is too large.

    Another process can receive the message, so the database is polled.
    """
    if wait_ms > WAIT_MAX_MS:
        raise bad_parameter("wait", f"may be at most {WAIT_MAX_MS // 1000}s")
    deadline, last_id, has_news = monotonic_ms() + wait_ms, query.after, False
    place = (call.app.database, call.program_id, call.path["box"], query)
    while not has_news and monotonic_ms() < deadline:
        has_news, last_id = await asyncio.to_thread(look_for_news, *place, last_id)
        if not has_news:
            await async_failpoint("inbox.wait.found_nothing")
            await asyncio.sleep(POLL_S)


def read_inbox(call: EngineCall, query: InboxQuery) -> Listing:
    """Return a page of a box."""
    messages = messages_after(call.program_id, call.path["box"], query.after)
    with call.app.database.read() as db:
        path = path_of(get_program(db, call.program_id).token, call.path["box"])
        secrets = load_secrets(db, call.app.vault, call.program_id, path)
        order = SortOrder((inbox_messages.c.id,), descending=True)
        rows, is_more = read_page(db, messages, order, call.list_page, lambda row: does_fit(row.body, query.type, query.token))
    return Listing([text_of(_message(call.app.vault, row, secrets)) for row in rows], is_more)


def _message(vault: Vault, row: Row, secrets: Sequence[str]) -> InboxMessage:
    opened = vault.open(bytes(row.headers_sealed), headers_context(row.program_id))
    headers = msgspec.json.decode(opened, type=dict[str, str])
    signature = check_signature(headers.get(SIGNATURE_HEADER.lower()), row.body, secrets)
    return InboxMessage(
        id=row.id, received_time=iso_ms(row.received_ms), headers=headers, body=parse_content(row.body), signature=signature
    )


def empty_box(call: Call) -> None:
    """Empty a box."""
    lock_inbox(call.db, call.program.id)
    call.db.execute(delete(inbox_messages).where(_is_in(call.program.id, call.path["box"])))


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Inbox"

routes = [
    get("/inbox/{box}", list_inbox, InboxMessage, query=InboxQuery, paging=PAGING, scope=Scope.SANDBOX_ONLY, limit_s=35.0),
    Route("DELETE", "/inbox/{box}", empty_box, status=204, scope=Scope.SANDBOX_ONLY, fields=False),
]
