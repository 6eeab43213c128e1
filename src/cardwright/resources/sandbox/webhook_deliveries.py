"""Webhook deliveries of the sandbox: every notification, its state and its attempts."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, Connection, func, select

from cardwright.core.problems import Problem, bad_parameter
from cardwright.core.render import details_decoder
from cardwright.core.transaction_row import TransactionRow, token_of
from cardwright.kit.clock import Instant, iso
from cardwright.outbox.endpoint import open_target
from cardwright.outbox.events import Category, Delivery
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import Paging, Scope, Shape, get
from cardwright.resources.transactions.transactions import get_transaction
from cardwright.storage.database import Row
from cardwright.storage.records import Listing, SortOrder, find, read_page, text_of
from cardwright.storage.tables import outbox, transactions, webhooks

# --- Shapes: what travels on the wire ------------------------------------------------

PAGING = Paging(count=25, sort_by="-createdTime")


class DeliveryFilter(Shape, frozen=True, kw_only=True):
    """The query filters notifications by state, webhook or transaction."""

    state: str | None = None
    webhook_token: str | None = None
    transaction_token: str | None = None


class DeliveryShown(Shape, frozen=True, kw_only=True):
    """A notification, with its state and its delivery attempts.

    Times are those of the program's clock. ``tokens`` are those of the objects in the notification.
    """

    id: int
    state: str
    category: str
    tokens: list[str]
    webhook_token: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    created_time: str
    due_time: str | UnsetType = UNSET
    tries: int
    attempts: list[dict[str, Any]]


# --- Rules: pure ---------------------------------------------------------------------

STATES = {state.name: int(state) for state in Delivery}

STATE_NAMES = {number: name for name, number in STATES.items()}


# --- Queries: this resource's SQL ----------------------------------------------------


def load_deliveries(call: Call, *conditions: ColumnElement[bool]) -> tuple[list[Row], bool]:
    """Return the page's rows of the outbox with their webhooks, and True if more follow.

    Raises a problem for an unknown sort name.
    """
    page = call.list_page
    if page.sort_by.removeprefix("-") != "createdTime":
        raise bad_parameter("sort_by", "must be createdTime or -createdTime")
    query = select(outbox, webhooks.c.token.label("webhook_token"), webhooks.c.doc)
    query = query.outerjoin(webhooks, webhooks.c.id == outbox.c.webhook_id)
    query = query.where(outbox.c.program_id == call.program.id, *conditions)
    return read_page(call.db, query, SortOrder((outbox.c.id,), page.sort_by.startswith("-")), page)


def load_tokens(db: Connection, rows: Sequence[Row]) -> dict[int, str]:
    """Return the tokens of the transactions that outbox rows refer to, by id."""
    ids = {ref for row in rows if row.category == Category.TRANSACTION for ref in msgspec.json.decode(row.refs)}
    transaction_rows = map(TransactionRow.from_row, db.execute(select(transactions).where(transactions.c.id.in_(ids))))
    return {row.id: details_decoder.decode(row.details).chosen_token or token_of(row) for row in transaction_rows}


# --- Actions: what a caller can do with it -------------------------------------------


def list_deliveries(call: Call) -> Listing:
    """List notifications with their states and all delivery attempts."""
    conditions = _delivery_conditions(call, call.query)
    rows, is_more = load_deliveries(call, *conditions) if conditions is not None else ([], False)
    tokens = load_tokens(call.db, rows)
    return Listing([text_of(_delivery(call, row, tokens)) for row in rows], is_more)


def _delivery_conditions(call: Call, query: DeliveryFilter) -> list[ColumnElement[bool]] | None:
    """Return the conditions of the filter, None if no row can match because a token in the filter is unknown."""
    conditions: list[ColumnElement[bool]] = []
    if query.state is not None:
        if query.state not in STATES:
            raise bad_parameter("state", f"must be one of {', '.join(STATES)}")
        conditions.append(outbox.c.state == STATES[query.state])
    if query.webhook_token is not None:
        if (hook := find(call.db, webhooks, call.program.id, query.webhook_token)) is None:
            return None
        conditions.append(outbox.c.webhook_id == hook.id)
    if query.transaction_token is not None:
        try:
            row, _ = get_transaction(call.db, call.program.id, query.transaction_token)
        except Problem:
            return None
        commas = func.replace(func.replace(outbox.c.refs, "[", ","), "]", ",")
        conditions += [outbox.c.category == int(Category.TRANSACTION), commas.contains(f",{row.id},")]
    return conditions


def _delivery(call: Call, row: Row, tokens: dict[int, str]) -> DeliveryShown:
    refs = msgspec.json.decode(row.refs)
    url = open_target(call.app.vault, row.target).url if row.target is not None else _url_of(row.doc)
    return DeliveryShown(
        id=row.id,
        state=STATE_NAMES[row.state],
        category=Category(row.category).base,
        tokens=[tokens[ref] for ref in refs] if row.category == Category.TRANSACTION else refs,
        webhook_token=row.webhook_token or UNSET,
        url=UNSET if url is None else re.sub(r"//[^/@]*@", "//", url),
        created_time=iso(row.created_ms),
        due_time=_due_time(row.state, row.due_ms),
        tries=row.tries,
        attempts=msgspec.json.decode(row.attempts),
    )


def _url_of(doc: str | None) -> str | None:
    return None if doc is None else str(msgspec.json.decode(doc)["config"]["url"])


def _due_time(state: int, due_ms: Instant) -> str | UnsetType:
    """Return the due time of a row in the state DUE. While a row is being sent, its ``due_ms`` has another meaning."""
    return iso(due_ms) if state == Delivery.DUE else UNSET


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Inbox"

routes = [
    get("/deliveries", list_deliveries, DeliveryShown, query=DeliveryFilter, paging=PAGING, scope=Scope.SANDBOX),
]
