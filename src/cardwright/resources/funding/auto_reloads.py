"""Auto reloads: orders that fill up an account when spending reduces its available balance below a threshold."""

from decimal import Decimal
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType, structs
from sqlalchemy import select

from cardwright.core.movements import AutoReload
from cardwright.core.problems import BUSINESS_UNKNOWN, PRODUCT_UNKNOWN, RELOAD_NOT_FOUND, USER_UNKNOWN, Problem, bad_field
from cardwright.kit.clock import iso
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import CurrencyCode, Token, parse_amount
from cardwright.resources.common.movements import check_currency, find_source
from cardwright.resources.common.route import Blank, Paging, Shape, get, post, put
from cardwright.storage import history, records
from cardwright.storage.tables import auto_reloads, card_products, users

# --- Shapes: what travels on the wire ------------------------------------------------


class ReloadAssociation(Shape, frozen=True, kw_only=True):
    """The accounts of an auto reload.

    These are the account of one user, or the accounts behind the cards of one card product. Without a token, they are all
    accounts.
    """

    blank: ClassVar[Blank | None] = Blank.NOTHING

    user_token: Token | UnsetType | None = UNSET
    business_token: Token | UnsetType | None = UNSET
    card_product_token: Token | UnsetType | None = UNSET


class GpaScope(Shape, frozen=True, kw_only=True):
    """The threshold and the goal: below ``trigger_amount``, the available balance is filled up to ``reload_amount``."""

    trigger_amount: Decimal
    reload_amount: Decimal


class OrderScope(Shape, frozen=True, kw_only=True):
    """The scope of an auto reload: the general purpose account. Merchant-specific accounts are not supported."""

    gpa: GpaScope


class ReloadCreate(Shape, frozen=True, kw_only=True):
    """A new auto reload."""

    order_scope: OrderScope
    currency_code: CurrencyCode
    funding_source_token: Token
    token: Token | None = None
    active: bool | None = True
    association: ReloadAssociation | None = ReloadAssociation()


class ReloadUpdate(Shape, frozen=True, kw_only=True):
    """Changes of an auto reload. Absent fields stay unchanged."""

    order_scope: OrderScope | None = None
    currency_code: CurrencyCode | None = None
    funding_source_token: Token | None = None
    token: Token | None = None
    active: bool | None = None
    association: ReloadAssociation | None = None


class Reload(Shape, frozen=True, kw_only=True):
    """An auto reload."""

    token: str
    active: bool = True
    funding_source_token: str
    association: ReloadAssociation
    order_scope: OrderScope
    currency_code: str
    created_time: str
    last_modified_time: str


class ReloadQuery(Shape, frozen=True, kw_only=True):
    """The query filters auto reloads by user, business or card product."""

    card_product: str | None = None
    user_token: str | None = None
    business_token: str | None = None


# --- Rules: pure ---------------------------------------------------------------------


def without_nulls(association: ReloadAssociation) -> ReloadAssociation:
    """Return the association with UNSET in place of null."""
    nulls = {name: UNSET for name, value in structs.asdict(association).items() if value is None}
    return structs.replace(association, **nulls)


def amounts_of(reload: Reload) -> tuple[int, int]:
    """Return the trigger and the goal in minor units. Raises a problem that names the field."""
    scope = reload.order_scope.gpa
    trigger = parse_amount("order_scope.gpa.trigger_amount", scope.trigger_amount, reload.currency_code)
    goal = parse_amount("order_scope.gpa.reload_amount", scope.reload_amount, reload.currency_code)
    if not trigger:
        raise bad_field("order_scope.gpa.trigger_amount", "must be greater than 0")
    if goal < trigger:
        raise bad_field("order_scope.gpa.reload_amount", "must be greater than or equal to trigger_amount")
    return trigger, goal


# --- Queries: this resource's SQL ----------------------------------------------------


def columns_of(call: Call, reload: Reload, row_id: int | None = None) -> dict[str, Any]:
    """Return the values of the columns beside the document.

    Raises a problem if the auto reload is invalid, or if the same accounts already have an active one.
    """
    association = reload.association
    user, product = association.user_token or None, association.card_product_token or None
    if sum(1 for token in (user, product, association.business_token) if token) > 1:
        raise bad_field("association", "may have at most one of user_token, business_token and card_product_token")
    check_currency(reload.currency_code, call.program)
    trigger, goal = amounts_of(reload)
    if association.business_token:
        raise Problem(BUSINESS_UNKNOWN)
    if user is not None and records.find(call.db, users, call.program.id, user) is None:
        raise Problem(USER_UNKNOWN)
    if product is not None and records.find(call.db, card_products, call.program.id, product) is None:
        raise Problem(PRODUCT_UNKNOWN)
    source_id = find_source(call.db, call.program, reload.funding_source_token)
    if reload.active:
        check_alone(call, user, product, row_id)
    fact = AutoReload(
        token=reload.token, source_id=source_id, trigger=trigger, goal=goal, user_token=user, card_product_token=product,
        doc=records.text_of(reload),
    )  # fmt: skip
    text = msgspec.json.encode(fact).decode()
    return {"active": reload.active, "user_token": user, "card_product_token": product, "fact": text}


def check_alone(call: Call, user: str | None, product: str | None, row_id: int | None) -> None:
    """Raise a problem if the same accounts already have another active auto reload."""
    columns = auto_reloads.c
    query = select(columns.id).where(columns.program_id == call.program.id, columns.active, columns.id != (row_id or -1))
    query = query.where(columns.user_token.is_not_distinct_from(user), columns.card_product_token.is_not_distinct_from(product))
    if call.db.execute(query).first() is not None:
        raise bad_field("association", "already has an active auto reload")


# --- Actions: what a caller can do with it -------------------------------------------


def create_reload(call: Call, body: ReloadCreate) -> str:
    """Create an auto reload.

    It fills up an account only after a later transaction spends money.
    """
    if (replay := crud.find_replay(call, auto_reloads, body)) is not None:
        return replay
    # The increase of the revision locks the program: of two concurrent requests, the second sees the row of the first.
    history.raise_program_revision(call.db, call.program.id)
    now, token = iso(call.now), body.token or call.app.ids.token()
    association = without_nulls(body.association or ReloadAssociation())
    fields = {**crud.changes_of(body), "association": association}
    reload = Reload(**fields, token=token, created_time=now, last_modified_time=now)
    return crud.insert(call, auto_reloads, body, reload, **columns_of(call, reload))[1]


def get_reload(call: Call) -> str:
    """Return an auto reload."""
    return str(crud.get_row(call, auto_reloads, RELOAD_NOT_FOUND).doc)


def list_reloads(call: Call) -> records.Listing:
    """List auto reloads, all or those of one user or card product."""
    query, columns, conditions = call.query, auto_reloads.c, []
    if query.user_token is not None:
        conditions.append(columns.user_token == query.user_token)
    if query.card_product is not None:
        conditions.append(columns.card_product_token == query.card_product)
    if query.business_token is not None:
        conditions.append(columns.id == -1)
    return crud.list_resources(call, auto_reloads, *conditions)


def update_reload(call: Call, body: ReloadUpdate) -> str:
    """Change an auto reload."""
    history.raise_program_revision(call.db, call.program.id)
    row = crud.lock_row(call, auto_reloads, RELOAD_NOT_FOUND)
    crud.check_same_token(call, body)
    changes = crud.changes_of(body)
    if body.association is not None:
        changes["association"] = without_nulls(body.association)
    before = msgspec.json.decode(row.doc, type=Reload)
    after = structs.replace(before, **changes)
    # Checked before the comparison: an amount that is not a number cannot be compared.
    columns_of(call, after, row.id)
    if after == before:
        return str(row.doc)
    after = structs.replace(after, last_modified_time=iso(call.now))
    return crud.update(call, auto_reloads, row, before, after, **columns_of(call, after, row.id))[0]


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Auto reloads"

routes = [
    post("/autoreloads", ReloadCreate, create_reload, Reload),
    get("/autoreloads", list_reloads, Reload, query=ReloadQuery, paging=Paging(count=10, count_max=10)),
    get("/autoreloads/{token}", get_reload, Reload),
    put("/autoreloads/{token}", ReloadUpdate, update_reload, Reload),
]
