"""Velocity controls: limits of the amount and the number of uses of cards within a window."""

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs
from sqlalchemy import or_, select

from cardwright.core.money import BadAmount, decimal_text, exponent_of, minor_units
from cardwright.core.problems import CONTROL_NOT_FOUND, TOKEN_TAKEN, USER_NOT_FOUND, Problem, bad_field
from cardwright.core.snapshot import Account
from cardwright.core.spend_controls import Groups
from cardwright.core.velocity import Control, Window, recounted, standing, usage_keys, window_end, windows_at
from cardwright.core.velocity_events import changes_for
from cardwright.kit.canonical import reading
from cardwright.kit.clock import DAY_MS
from cardwright.resources.account_holders.balances import account_decoder
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Blank, Paging, Route, Shape, get, post, put
from cardwright.resources.controls.control_rows import change_control, fields_of, insert_control, updated
from cardwright.resources.controls.scope import (
    Association,
    Mcc,
    Mid,
    Name,
    check_count,
    check_parts,
    check_references,
    whose,
)
from cardwright.resources.transactions.as_of import owner_id_of
from cardwright.storage import history, records
from cardwright.storage.controls import SHADOW, control_from, load_mcc_groups, load_past, product_token_of
from cardwright.storage.database import Row
from cardwright.storage.tables import cards, holders, programs, users, velocity_controls

# --- Shapes: what travels on the wire ------------------------------------------------

Limit = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
UNLESS_UNLIMITED = reading(lambda limit: None if limit == -1 else limit)


class MerchantScope(Shape, frozen=True, kw_only=True):
    """The merchants of a control: one merchant, one category, or an MCC group. An empty scope means all merchants."""

    blank: ClassVar[Blank | None] = Blank.NOTHING

    mid: Mid | UnsetType | None = UNSET
    mcc: Mcc | UnsetType | None = UNSET
    mcc_group: Token | UnsetType | None = UNSET


class MoneyIn(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """The credits that a control counts.

    It is a finer choice than ``include_credits``, and the two cannot be combined.
    """

    include_credits_types: tuple[Literal["CASH_DEPOSIT", "ALL", "NONE"], ...] | None = None
    include_network_load_types: tuple[Literal["ALL", "NONE"], ...] | None = None


class VelocityCreate(Shape, frozen=True, kw_only=True):
    """A new velocity control."""

    amount_limit: Decimal
    velocity_window: Window
    currency_code: Annotated[str, Meta(min_length=3, max_length=3)]
    token: Token | None = None
    name: Name | None = None
    association: Association | None = Association()
    merchant_scope: MerchantScope | None = MerchantScope()
    usage_limit: Annotated[Limit, UNLESS_UNLIMITED] | None = None
    approvals_only: bool | None = True
    include_purchases: bool | None = True
    include_withdrawals: bool | None = True
    include_transfers: bool | None = True
    include_cashback: bool | None = True
    include_credits: bool | None = False
    money_in_transaction: MoneyIn | None = None
    active: bool | None = True


class VelocityUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a velocity control.

    Absent fields stay unchanged. ``association`` and ``merchant_scope`` are replaced as a whole.
    """

    amount_limit: Decimal | None = None
    velocity_window: Window | None = None
    currency_code: Annotated[str, Meta(min_length=3, max_length=3)] | None = None
    token: str | None = None
    name: Name | None = None
    association: Association | None = None
    merchant_scope: MerchantScope | None = None
    usage_limit: Limit | None = None
    approvals_only: bool | None = None
    include_purchases: bool | None = None
    include_withdrawals: bool | None = None
    include_transfers: bool | None = None
    include_cashback: bool | None = None
    include_credits: bool | None = None
    money_in_transaction: MoneyIn | None = None
    active: bool | None = None


class VelocityControl(Shape, frozen=True, kw_only=True):
    """A velocity control."""

    token: str
    name: str | UnsetType = UNSET
    association: Association
    merchant_scope: MerchantScope
    usage_limit: int | UnsetType = UNSET
    approvals_only: bool = True
    include_purchases: bool = True
    include_withdrawals: bool = True
    include_transfers: bool = True
    include_cashback: bool = True
    include_credits: bool = False
    money_in_transaction: MoneyIn | UnsetType = UNSET
    currency_code: str
    amount_limit: Decimal
    velocity_window: Window
    active: bool = True


class ControlQuery(Shape, frozen=True, kw_only=True):
    """The query filters controls by user or card product.

    The literal ``null`` selects controls that name no user, or no card product.
    """

    user: str | None = None
    card_product: str | None = None


# --- Rules: pure ---------------------------------------------------------------------


def control_of(body: VelocityCreate, token: str) -> VelocityControl:
    """Return the control that a request describes."""
    return VelocityControl(**fields_of(body, token, MerchantScope))


def changed(control: VelocityControl, body: VelocityUpdate) -> VelocityControl:
    """Return the control after a partial update."""
    after: VelocityControl = updated(control, body)
    return after


def checked(control: VelocityControl) -> VelocityControl:
    """Return the control. Raises a problem that names the field if it is invalid."""
    check_parts(control.association, control.merchant_scope)
    if control.velocity_window is Window.TRANSACTION and control.usage_limit is not UNSET:
        raise bad_field("usage_limit", "must be absent when velocity_window is TRANSACTION")
    if control.include_credits and control.money_in_transaction is not UNSET:
        raise bad_field("money_in_transaction", "may not be combined with include_credits")
    amount_of(control)
    return control


def amount_of(control: VelocityControl) -> int:
    """Return the amount limit in minor units. Raises a problem that names the field."""
    if exponent_of(control.currency_code) is None:
        raise bad_field("currency_code", "must be an ISO 4217 alphabetic code")
    try:
        return minor_units(control.amount_limit, control.currency_code)
    except BadAmount as error:
        raise bad_field("amount_limit", str(error)) from None


def counts_credits(money_in: MoneyIn | UnsetType) -> bool:
    """Return True if ``money_in_transaction`` includes all original credits.

    CASH_DEPOSIT counts none, because no message says which credits are cash deposits.
    """
    return money_in is not UNSET and "ALL" in (money_in.include_credits_types or ())


def fact_of(control: VelocityControl, since_ms: int, counting_revision: int = 0, *, shadow: bool = False) -> str:
    """Return the JSON of the control's data that decisions use."""
    scope = control.merchant_scope
    fact = Control(
        id=0,
        token=control.token,
        name=control.name or None,
        amount_limit=amount_of(control),
        usage_limit=None if control.usage_limit in (UNSET, -1) else int(control.usage_limit),
        window=control.velocity_window,
        currency=control.currency_code,
        since_ms=since_ms,
        user_token=control.association.user_token or None,
        card_product_token=control.association.card_product_token or None,
        mid=scope.mid or None,
        mccs=(scope.mcc.zfill(4),) if scope.mcc else None,
        mcc_group=scope.mcc_group or None,
        approvals_only=control.approvals_only,
        include_purchases=control.include_purchases,
        include_cashback=control.include_cashback,
        include_withdrawals=control.include_withdrawals,
        include_credits=control.include_credits or counts_credits(control.money_in_transaction),
        include_transfers=control.include_transfers,
        shadow=shadow,
        counting_revision=counting_revision,
    )
    return msgspec.json.encode(fact).decode()


# --- Queries: this resource's SQL ----------------------------------------------------


def check_place(call: Call, control: VelocityControl) -> None:
    """Raise a problem for an unknown reference of the control, and for one program-level control too many."""
    check_references(call, control.association, control.merchant_scope)
    check_count(call, velocity_controls, control.token, control.association, active=control.active)


def no_shadow(row: Row) -> Row:
    """Return the row. Raises CONTROL_NOT_FOUND for a shadow control, which is not yet a velocity control."""
    if row.shadow == SHADOW:
        raise Problem(CONTROL_NOT_FOUND)
    return row


def counted_anew(call: Call, fact: str, control_id: int = 0) -> str:
    """Return a control's fact with the revision at which its count starts.

    A control with the counting settings of an active control shares the usage of that control, which is complete. Any other
    starts at a new revision: the usage that an earlier control with these settings left lacks all messages since its
    deactivation.
    """
    # This lock serializes changes of controls, so an active control that the query finds stays active until the commit.
    query = select(programs.c.revision).where(programs.c.id == call.program.id).with_for_update()
    revision = call.db.execute(query).scalar_one() + 1
    control, columns = control_from(control_id, fact), velocity_controls.c
    others = select(columns.fact).where(
        columns.program_id == call.program.id, columns.active, columns.id != control_id,
        columns.user_token == control.user_token if control.user_token else columns.user_token.is_(None),
        columns.card_product_token == control.card_product_token
        if control.card_product_token
        else columns.card_product_token.is_(None),
    )  # fmt: skip
    for other in (control_from(0, text) for text in call.db.scalars(others)):
        if other.counting_settings == control.counting_settings:
            revision = other.counting_revision
    return msgspec.json.encode(structs.replace(msgspec.json.decode(fact, type=Control), counting_revision=revision)).decode()


def save_control(call: Call, row: Row, control: VelocityControl, shadow: int) -> None:
    """Store a changed control.

    If it is activated again or its counting settings change, its usage in the current window is recounted.
    """
    before = control_from(row.id, row.fact)
    fact = fact_of(control, row.created_ms, before.counting_revision, shadow=shadow == SHADOW)
    is_resumed = control.active and not row.active
    if is_resumed or control_from(row.id, fact).counting_settings != before.counting_settings:
        fact = counted_anew(call, fact, row.id)
    change_control(call, velocity_controls, history.Kind.VELOCITY_CONTROL, row, control, fact, shadow=shadow)


# --- Actions: what a caller can do with it -------------------------------------------


def create_control(call: Call, body: VelocityCreate) -> str:
    """Create a velocity control.

    The control counts the transactions of its current window that precede its creation, unless the window is ``LIFETIME``.
    """
    if (replay := crud.find_replay_row(call, velocity_controls, body)) is not None:
        if replay.shadow == SHADOW:
            raise Problem(TOKEN_TAKEN)
        return str(replay.doc)
    control = control_of(body, body.token or call.app.ids.token())
    checked(control)
    check_place(call, control)
    fact = counted_anew(call, fact_of(control, call.now))
    _, doc = insert_control(call, velocity_controls, history.Kind.VELOCITY_CONTROL, body, control, fact)
    return doc


def get_control(call: Call) -> str:
    """Return a velocity control."""
    return str(no_shadow(crud.get_row(call, velocity_controls, CONTROL_NOT_FOUND)).doc)


def list_controls(call: Call) -> records.Listing:
    """List velocity controls, all or those for one user or card product."""
    query: ControlQuery = call.query
    conditions = whose(velocity_controls, query.user, query.card_product)
    return crud.list_resources(call, velocity_controls, velocity_controls.c.shadow != SHADOW, *conditions)


def update_control(call: Call, body: VelocityUpdate) -> str:
    """Change a velocity control.

    The usage is not reset: if the settings that define what counts change, it is recounted under the new settings.
    """
    row = no_shadow(crud.lock_row(call, velocity_controls, CONTROL_NOT_FOUND))
    crud.check_same_token(call, body)
    return _save(call, row, changed(msgspec.json.decode(row.doc, type=VelocityControl), body))


def delete_control(call: Call) -> str:
    """Deactivate a velocity control."""
    row = no_shadow(crud.lock_row(call, velocity_controls, CONTROL_NOT_FOUND))
    return _save(call, row, structs.replace(msgspec.json.decode(row.doc, type=VelocityControl), active=False))


def _save(call: Call, row: Row, control: VelocityControl) -> str:
    checked(control)
    check_place(call, control)
    doc = records.text_of(control)
    if doc == row.doc:
        return doc
    save_control(call, row, control, row.shadow)
    return doc


def list_available(call: Call) -> records.Listing:
    """List the remaining amount and uses of each velocity control that applies to a user.

    Controls with the window ``TRANSACTION`` are omitted.
    """
    user = records.find(call.db, users, call.program.id, call.path["user_token"])
    if user is None:
        raise Problem(USER_NOT_FOUND)
    products = {product_token_of(doc) for doc in call.db.scalars(select(cards.c.doc).where(cards.c.user_id == user.id))}
    columns = velocity_controls.c
    applies = or_(
        columns.user_token == user.token,
        columns.card_product_token.in_(products),
        columns.user_token.is_(None) & columns.card_product_token.is_(None),
    )
    query = select(velocity_controls).where(
        columns.program_id == call.program.id, columns.active, columns.shadow != SHADOW, applies
    )
    groups, page = Groups(load_mcc_groups(call.db, call.program.id)), call.list_page

    def lasts(row: Row) -> bool:
        return control_from(row.id, row.fact, groups).window is not Window.TRANSACTION

    rows, is_more = records.read_page(call.db, query, records.order_of(velocity_controls, page.sort_by), page, lasts)
    account: Account = account_decoder.decode(
        call.db.execute(select(holders.c.state).where(holders.c.id == user.holder_id)).scalar_one()
    )
    owner = call.db.execute(select(users.c.token).where(users.c.id == owner_id_of(call.db, user.holder_id))).scalar_one()
    docs = [_available(call, row, control_from(row.id, row.fact, groups), account, user, owner) for row in rows]
    return records.Listing(docs, is_more)


def _available(call: Call, row: Row, control: Control, account: Account, user: Row, owner: str) -> str:
    """Return the JSON of a control with its remaining amount, uses and days."""
    now = max(call.now, account.last_ms)
    (key,) = usage_keys([control], user.token, owner)
    usage = account.usages.get(key)
    if account.has_history and usage is None:
        usage = recounted(control, changes_for(control, load_past(call.db, user.holder_id, user.token)), now)
    stands = standing(control, usage, windows_at(now))
    places = exponent_of(control.currency) or 0
    left = max(0, control.amount_limit - stands.amount)
    uses = -1 if control.usage_limit is None else max(0, control.usage_limit - stands.count)
    end = window_end(control.window, now)
    days = "" if end is None else f',"days_remaining":{-(-(end - now) // DAY_MS)}'
    available = f'"available":{{"amount":{decimal_text(left, places)},"uses":{uses}{days}}}'
    return f"{str(row.doc)[:-1]},{available}}}"


# --- Routes: parse, act, render ------------------------------------------------------

PAGING = Paging(count_max=100)

TAG = "Velocity controls"

routes = [
    post("/velocitycontrols", VelocityCreate, create_control, VelocityControl),
    get("/velocitycontrols", list_controls, VelocityControl, query=ControlQuery, paging=PAGING),
    get("/velocitycontrols/{token}", get_control, VelocityControl),
    put("/velocitycontrols/{token}", VelocityUpdate, update_control, VelocityControl),
    Route("DELETE", "/velocitycontrols/{token}", delete_control, answer=VelocityControl, fields=False),
    get("/velocitycontrols/user/{user_token}/available", list_available, dict[str, Any], paging=PAGING),
]
