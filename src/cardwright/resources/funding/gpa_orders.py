"""GPA orders: loads of an account from a program funding source, and unloads that return the money."""

from decimal import Decimal

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from cardwright.core.movements import GpaLoad, MovementKind, Unload
from cardwright.core.problems import ORDER_NOT_FOUND, UNLOAD_NOT_FOUND, Problem
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import CurrencyCode, Token
from cardwright.resources.common.movements import (
    FundedMovement,
    Memo,
    PreparedMovement,
    Tags,
    Tags0,
    check_currency,
    echoed_fields,
    execute_movement,
    find_movement,
    find_source,
    get_movement,
    list_movements,
    of_holder,
    one_holder,
    payer_and_source,
    positive_amount,
)
from cardwright.resources.common.route import Paging, Shape, get, post
from cardwright.resources.fees.charging import FeeDetail, FeeModel, find_charges, parse_fees
from cardwright.storage import records
from cardwright.storage.programs import Program
from cardwright.storage.tables import movements

# --- Shapes: what travels on the wire ------------------------------------------------


class OrderCreate(Shape, frozen=True, kw_only=True):
    """A new GPA order. Funding source addresses belong to payment cards and are ignored."""

    amount: Decimal
    currency_code: CurrencyCode
    funding_source_token: Token
    token: Token | None = None
    user_token: Token | None = None
    business_token: Token | None = None
    memo: Memo | None = None
    tags: Tags | None = None
    fees: tuple[FeeModel, ...] | None = None


class GpaOrder(FundedMovement, frozen=True, kw_only=True):
    """A GPA order. ``funding.amount`` is the amount that the source paid: the amount of the order plus the fees."""

    user_token: str
    currency_code: str
    fees: tuple[FeeDetail, ...] | UnsetType = UNSET


class UnloadCreate(Shape, frozen=True, kw_only=True):
    """A new unload of a GPA order, at most of the amount that is left of the order."""

    original_order_token: Token
    amount: Decimal
    token: Token | None = None
    memo: Tags0 | None = None
    tags: Tags0 | None = None


class GpaUnload(FundedMovement, frozen=True, kw_only=True):
    """An unload of a GPA order."""

    original_order_token: str


class UnloadQuery(Shape, frozen=True, kw_only=True):
    """The query filters unloads by user, business or GPA order."""

    user_token: str | None = None
    business_token: str | None = None
    original_order_token: str | None = None


# --- Actions: what a caller can do with it -------------------------------------------


async def create_order(call: EngineCall, body: OrderCreate) -> bytes:
    """Load an account from a program funding source. The source also pays the fees of the order."""

    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        user, currency = one_holder(body.user_token, body.business_token), program.settings.currency
        check_currency(body.currency_code, program)
        amount, sent = positive_amount(body.amount, currency), parse_fees(body.fees, currency)
        source_id = find_source(db, program, body.funding_source_token)
        repeated = echoed_fields(body, "user_token", "memo", "tags")
        charges = find_charges(db, program, sent, amount)
        return PreparedMovement((user,), GpaLoad(token=token, amount=amount, echoed=repeated, charges=charges), source_id)

    return await execute_movement(call, MovementKind.ORDER, body, prepare)


async def create_unload(call: EngineCall, body: UnloadCreate) -> bytes:
    """Return money of an order to its funding source, at most the amount that is left of the order."""

    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        amount = positive_amount(body.amount, program.settings.currency)
        order = find_movement(db, program.id, MovementKind.ORDER, body.original_order_token)
        if order is None:
            raise Problem(ORDER_NOT_FOUND)
        repeated = echoed_fields(body, "original_order_token", "memo", "tags")
        user, source_id = payer_and_source(db, order.id)
        return PreparedMovement((user,), Unload(token=token, amount=amount, echoed=repeated), source_id, order.id, order.id)

    return await execute_movement(call, MovementKind.UNLOAD, body, prepare)


def get_order(call: Call) -> str:
    """Return a GPA order."""
    return get_movement(call, MovementKind.ORDER, ORDER_NOT_FOUND)


def get_unload(call: Call) -> str:
    """Return an unload."""
    return get_movement(call, MovementKind.UNLOAD, UNLOAD_NOT_FOUND)


def list_unloads(call: Call) -> records.Listing:
    """List unloads, all or those of one user or GPA order."""
    query, conditions = call.query, []
    if query.original_order_token is not None:
        order = find_movement(call.db, call.program.id, MovementKind.ORDER, query.original_order_token)
        conditions.append(movements.c.ref_id == (order.id if order is not None else -1))
    return list_movements(call, MovementKind.UNLOAD, *conditions, *of_holder(call, query.user_token, query.business_token))


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Gpa orders"

routes = [
    post("/gpaorders", OrderCreate, create_order, GpaOrder),
    get("/gpaorders/unloads", list_unloads, GpaUnload, query=UnloadQuery, paging=Paging()),
    post("/gpaorders/unloads", UnloadCreate, create_unload, GpaUnload),
    get("/gpaorders/unloads/{token}", get_unload, GpaUnload),
    get("/gpaorders/{token}", get_order, GpaOrder, fields=False),
]
