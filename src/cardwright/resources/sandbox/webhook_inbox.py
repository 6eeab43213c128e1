"""Webhook inbox of the sandbox: it receives webhooks in place of a server of the user's, and lists them."""

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, select

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
from cardwright.storage.programs import find_program_token, get_program
from cardwright.storage.records import Listing, SortOrder, read_page, text_of
from cardwright.storage.tables import inbox_messages, outbox, webhooks

# --- Shapes: what travels on the wire ------------------------------------------------

PAGING = Paging(count=25, sort_by="-createdTime")
BOX = re.compile(r"[A-Za-z0-9._-]{1,64}")
BOX_MAX = 10_000
"""Messages kept in a box; the oldest go first."""

WAIT_MAX_MS = 30_000
POLL_S = 0.05


class InboxQuery(Shape, frozen=True, kw_only=True):
    """Which messages, and how long to wait for one: ``wait=5s``; ``after`` is the id of the last one known.

    ``type`` and ``token`` are those of a transaction or transition in the message. The type of a user transition is its
    status, and that of a deposit account transition its state, in lower case.
    """

    type: str | None = None
    token: str | None = None
    after: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    wait: str | None = None


class Signature(Shape, frozen=True, kw_only=True):
    """What became of checking a message's signature. ``valid`` is null when no secret is known to check it with."""

    present: bool
    algorithm: str | None = None
    valid: bool | None = None


class InboxMessage(Shape, frozen=True, kw_only=True):
    """A message that arrived. Header names are in lower case; ``body`` is JSON when it is JSON, else text."""

    id: int
    received_time: str
    headers: dict[str, str]
    body: Any
    signature: Signature


# --- Rules: pure ---------------------------------------------------------------------

DIGITS = {"HMAC_SHA_1": 40, "HMAC_SHA_256": 64}


def kept_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers as they are kept: lower-case names, a repeated one joined by commas, and no password."""
    kept: dict[str, str] = {}
    for name, value in headers:
        shown = shown_authorization(value) if name.lower() == "authorization" else value
        kept[name.lower()] = f"{kept[name.lower()]}, {shown}" if name.lower() in kept else shown
    return kept


def shown_authorization(value: str) -> str:
    """Scheme and user name of an Authorization header; the rest is asterisks."""
    scheme, _, credentials = value.strip().partition(" ")
    if scheme.lower() != "basic":
        return f"{scheme} **********"
    try:
        username, colon, _ = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return f"{scheme} **********"
    return f"{scheme} {username}:**********" if colon else f"{scheme} **********"


def parse_content(body: bytes) -> Any:
    """JSON with every digit as it was sent, else text."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return body.decode(errors="replace")
    return msgspec.Raw(body)


def elements_of(body: bytes) -> list[dict[str, Any]]:
    """The objects in a notification's one array; none when the body is something else."""
    try:
        arrays = msgspec.json.decode(body, type=dict[str, list[dict[str, Any]]])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return []
    return [element for array in arrays.values() for element in array]


def does_fit(body: bytes, type_: str | None, token: str | None) -> bool:
    """Whether one of the message's objects has this type and token; without either every message fits."""
    if type_ is None and token is None:
        return True
    return any(
        (token is None or element.get("token") == token) and (type_ is None or type_of(element) == type_)
        for element in elements_of(body)
    )


def type_of(element: dict[str, Any]) -> str:
    """The type of an object in a notification, which is the end of its event's name."""
    return str(element["type"]) if "type" in element else str(element.get("status", element.get("state", ""))).lower()


def check_signature(signature: str | None, body: bytes, secrets: Sequence[str]) -> Signature:
    """Whether one of the secrets made the signature; its length tells the algorithm."""
    if signature is None:
        return Signature(present=False)
    algorithm = next((name for name in SIGNATURE_ALGORITHMS if DIGITS[name] == len(signature)), None)
    if not secrets:
        return Signature(present=True, algorithm=algorithm)
    is_valid = algorithm is not None and any(verify(secret, body, signature, algorithm) for secret in secrets)
    return Signature(present=True, algorithm=algorithm, valid=is_valid)


def path_of(program_token: str, box: str) -> str:
    """Where a box receives."""
    return f"/sandbox/inbox/{program_token}/{box}"


# --- Queries: this resource's SQL ----------------------------------------------------

ORDER_LOCK = 1_768_843_640
"""PostgreSQL's advisory lock ("inbx") under which a program's messages get their ids."""


def accept(
    database: Database, real_clock: RealClock, program_token: str, box: str, headers: Iterable[tuple[str, str]], body: bytes
) -> bool:
    """Keeps a message in a program's box, in place of the oldest when it is full; False when there is no such program."""
    with database.read(database.limits.read_s) as db:
        program_id = find_program_token(db, program_token)
    if program_id is None:
        return False
    with database.write(database.limits.read_s) as db:
        if db.dialect.name == "postgresql":
            # Ids in the order of commits: a reader that asks for what came after an id must not miss a late commit.
            db.execute(select(func.pg_advisory_xact_lock(ORDER_LOCK, program_id)))
        real_ms = real_clock()
        now = get_program(db, program_id).clock.time_at(real_ms)
        kept = msgspec.json.encode(kept_headers(headers)).decode()
        row = {
            "program_id": program_id, "box": box, "received_ms": now, "stored_ms": real_ms, "headers": kept, "body": body,
        }  # fmt: skip
        db.execute(inbox_messages.insert().values(row))
        newest = select(inbox_messages.c.id).where(_is_in(program_id, box)).order_by(inbox_messages.c.id.desc())
        oldest_kept = newest.offset(BOX_MAX - 1).limit(1).scalar_subquery()
        db.execute(delete(inbox_messages).where(_is_in(program_id, box), inbox_messages.c.id < oldest_kept))
    return True


def _is_in(program_id: int, box: str) -> ColumnElement[bool]:
    return and_(inbox_messages.c.program_id == program_id, inbox_messages.c.box == box)


def messages_after(program_id: int, box: str, message_id: int) -> Select[Any]:
    """The query for a box's messages with a higher id, a few at a time."""
    query = select(inbox_messages).where(_is_in(program_id, box), inbox_messages.c.id > message_id)
    return query.execution_options(yield_per=50)


def look_for_news(database: Database, program_id: int, box: str, query: InboxQuery, last_id: int) -> tuple[bool, int]:
    """Whether a message after ``last_id`` fits, and the newest id that was looked at."""
    news = messages_after(program_id, box, last_id).order_by(inbox_messages.c.id.desc())
    with database.read() as db:
        for row in db.execute(news):
            if does_fit(row.body, query.type, query.token):
                return True, last_id
            last_id = max(last_id, row.id)
    return False, last_id


def load_secrets(db: Connection, vault: Vault, program_id: int, path: str) -> list[str]:
    """The signing secrets of whoever may have posted to a path of ours: webhooks, and the latest simulations."""
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
    """Lists what arrived in a box, newest first; with ``wait`` the answer comes with the first message that fits."""
    query: InboxQuery = call.query
    if query.wait is not None:
        await _wait(call, query, parse_duration("wait", query.wait))
    return await asyncio.to_thread(read_inbox, call, query)


async def _wait(call: EngineCall, query: InboxQuery, wait_ms: int) -> None:
    """Returns when a message fits, or after the wait. Another process may be who takes the message: the database is asked."""
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
    """A page of a box."""
    messages = messages_after(call.program_id, call.path["box"], query.after)
    with call.app.database.read() as db:
        path = path_of(get_program(db, call.program_id).token, call.path["box"])
        secrets = load_secrets(db, call.app.vault, call.program_id, path)
        order = SortOrder((inbox_messages.c.id,), descending=True)
        rows, is_more = read_page(db, messages, order, call.list_page, lambda row: does_fit(row.body, query.type, query.token))
    return Listing([text_of(_message(row, secrets)) for row in rows], is_more)


def _message(row: Row, secrets: Sequence[str]) -> InboxMessage:
    headers = msgspec.json.decode(row.headers, type=dict[str, str])
    signature = check_signature(headers.get(SIGNATURE_HEADER.lower()), row.body, secrets)
    return InboxMessage(
        id=row.id, received_time=iso_ms(row.received_ms), headers=headers, body=parse_content(row.body), signature=signature
    )


def empty_box(call: Call) -> None:
    """Empties a box."""
    call.db.execute(delete(inbox_messages).where(_is_in(call.program.id, call.path["box"])))


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Inbox"

routes = [
    get("/inbox/{box}", list_inbox, InboxMessage, query=InboxQuery, paging=PAGING, scope=Scope.SANDBOX_ONLY, limit_s=35.0),
    Route("DELETE", "/inbox/{box}", empty_box, status=204, scope=Scope.SANDBOX_ONLY, fields=False),
]
