"""Direct deposits: credits and debits of an account by a bank, and their transitions."""

from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, select
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.banking_days import REASON_CODES, REFUSED_CREDIT, return_ends_ms
from cardwright.core.enums import State
from cardwright.core.movements import DEPOSIT_STATES, DepositTransition, MovementKind
from cardwright.core.problems import (
    BAD_DEPOSIT_TRANSITION,
    DEPOSIT_NOT_FOUND,
    DEPOSIT_UNKNOWN,
    TRANSITION_NOT_FOUND,
    Problem,
    bad_field,
    bad_parameter,
)
from cardwright.kit.clock import parse_instant
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import Token
from cardwright.resources.common.movements import (
    PreparedMovement,
    execute_movement,
    find_movement,
    get_movement,
    list_movements,
    of_holder,
)
from cardwright.resources.common.route import Paging, Shape, get, post
from cardwright.storage import records
from cardwright.storage.programs import Program
from cardwright.storage.tables import movements, transactions

# --- Shapes: what travels on the wire ------------------------------------------------

DepositState = Literal["PENDING", "APPLIED", "REVERSED", "REJECTED"]
ReasonCode = Literal[REASON_CODES]  # type: ignore[valid-type]


class DirectDeposit(Shape, frozen=True, kw_only=True):
    """A direct deposit. A CREDIT adds money to the account, a DEBIT takes money from it."""

    token: str
    type: Literal["CREDIT", "DEBIT"]
    state: DepositState
    state_reason: str
    state_reason_code: str | UnsetType = UNSET
    amount: Decimal
    user_token: str
    direct_deposit_account_token: str
    settlement_date: str
    standard_entry_class_code: str | UnsetType = UNSET
    company_name: str | UnsetType = UNSET
    company_discretionary_data: str | UnsetType = UNSET
    company_identification: str | UnsetType = UNSET
    company_entry_description: str | UnsetType = UNSET
    individual_identification_number: str | UnsetType = UNSET
    individual_name: str | UnsetType = UNSET
    created_time: str
    last_modified_time: str


class DepositTransitionCreate(Shape, frozen=True, kw_only=True):
    """A new state for a direct deposit."""

    direct_deposit_token: Token
    state: DepositState
    channel: Literal["API", "SYSTEM", "PROD_SUPPORT"]
    reason: Annotated[str, Meta(max_length=255)]
    reason_code: ReasonCode | None = None
    token: Token | None = None


class DepositTransitionDone(Shape, frozen=True, kw_only=True):
    """A transition of a direct deposit.

    Its state can differ from the requested one if the account cannot pay.
    """

    token: str
    channel: str
    reason: str
    reason_code: str | UnsetType = UNSET
    type: str
    state: DepositState
    direct_deposit_token: str
    direct_deposit_account_token: str
    transaction_token: str
    created_time: str


class DepositQuery(Shape, frozen=True, kw_only=True):
    """The query filters direct deposits by user, business or state."""

    user_token: str | None = None
    business_token: str | None = None
    direct_deposit_state: DepositState | None = None


class DepositTransitionQuery(Shape, frozen=True, kw_only=True):
    """The query filters transitions by user, business, deposit or states. ``states`` is a comma-separated list."""

    user_token: str | None = None
    business_token: str | None = None
    direct_deposit_token: str | None = None
    states: str | None = None


# --- Rules: pure ---------------------------------------------------------------------

STATE_OF = {name: state for state, name in DEPOSIT_STATES.items()}


def check_reason(body: DepositTransitionCreate, kind: str) -> None:
    """Raise a problem if the state is PENDING, or if the reason code is missing or invalid for this kind of deposit."""
    if body.state == "PENDING":
        raise Problem(BAD_DEPOSIT_TRANSITION, "state must not be PENDING, which is only the first state of a deposit")
    if body.state == "REVERSED" and body.reason_code is None:
        raise bad_field("reason_code", "may not be null if state is REVERSED")
    if body.reason_code == REFUSED_CREDIT and kind == "DEBIT":
        raise bad_field("reason_code", f"{REFUSED_CREDIT} can only be used when returning a credit")


def states_of(text: str) -> list[str]:
    """Return the states in a comma-separated list. Raises a problem for an unknown state."""
    states = [name.strip() for name in text.split(",")]
    if wrong := [name for name in states if name not in STATE_OF]:
        raise bad_parameter("states", f"must be a list of {', '.join(STATE_OF)}, not {wrong[0][:20]}")
    return states


# --- Queries: this resource's SQL ----------------------------------------------------


def in_states(columns: Any, states: list[str]) -> ColumnElement[bool]:
    """Return the condition that the deposit with the id in ``columns`` is in one of these states now."""
    numbers = [int(STATE_OF[name]) for name in states]
    query = select(transactions.c.id).where(transactions.c.id == columns, transactions.c.state.in_(numbers))
    return query.exists()


def said_in_transition(states: list[str]) -> ColumnElement[bool]:
    """Return the condition that a transition is to one of these states. A document has this text only as its type."""
    either: ColumnElement[bool] = movements.c.doc.contains(f'"type":"state.{states[0].lower()}"', autoescape=True)
    for name in states[1:]:
        either = either | movements.c.doc.contains(f'"type":"state.{name.lower()}"', autoescape=True)
    return either


# --- Actions: what a caller can do with it -------------------------------------------


def get_deposit(call: Call) -> str:
    """Return a direct deposit."""
    return get_movement(call, MovementKind.DEPOSIT, DEPOSIT_NOT_FOUND)


def list_deposits(call: Call) -> records.Listing:
    """List direct deposits."""
    query = call.query
    conditions = of_holder(call, query.user_token, query.business_token)
    if query.direct_deposit_state is not None:
        conditions.append(in_states(movements.c.id, [query.direct_deposit_state]))
    return list_movements(call, MovementKind.DEPOSIT, *conditions)


async def create_transition(call: EngineCall, body: DepositTransitionCreate) -> bytes:
    """Apply, return or reject a direct deposit."""

    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        row = find_movement(db, program.id, MovementKind.DEPOSIT, body.direct_deposit_token)
        if row is None:
            raise Problem(DEPOSIT_UNKNOWN)
        deposit = msgspec.json.decode(row.doc, type=DirectDeposit)
        check_reason(body, deposit.type)
        to = STATE_OF[body.state]
        assert to in (State.COMPLETION, State.CLEARED, State.DECLINED), "PENDING is refused above"
        ends_ms = None
        if to is State.CLEARED and body.reason_code is not None:
            ends_ms = return_ends_ms(parse_instant(deposit.settlement_date), body.reason_code)
        change = DepositTransition(
            token=token, amount=0, to=to, channel=body.channel, reason=body.reason, reason_code=body.reason_code, ends_ms=ends_ms
        )
        return PreparedMovement((deposit.user_token,), change, root_id=row.id, ref_id=row.id)

    return await execute_movement(call, MovementKind.DEPOSIT_TRANSITION, body, prepare)


def get_transition(call: Call) -> str:
    """Return a direct deposit transition."""
    return get_movement(call, MovementKind.DEPOSIT_TRANSITION, TRANSITION_NOT_FOUND)


def list_transitions(call: Call) -> records.Listing:
    """List transitions of direct deposits, including those that the platform created."""
    query = call.query
    conditions = of_holder(call, query.user_token, query.business_token)
    if query.direct_deposit_token is not None:
        row = find_movement(call.db, call.program.id, MovementKind.DEPOSIT, query.direct_deposit_token)
        conditions.append(movements.c.ref_id == (-1 if row is None else row.id))
    if query.states is not None:
        conditions.append(said_in_transition(states_of(query.states)))
    return list_movements(call, MovementKind.DEPOSIT_TRANSITION, *conditions)


# --- Routes: parse, act, render ------------------------------------------------------

BY_CREATION = Paging(sort_by="-createdTime")

TAG = "Direct deposits"

routes = [
    get("/directdeposits", list_deposits, DirectDeposit, query=DepositQuery, paging=Paging()),
    get("/directdeposits/{token}", get_deposit, DirectDeposit, fields=False),
    post(
        "/directdeposits/transitions",
        DepositTransitionCreate,
        create_transition,
        DepositTransitionDone,
        status=200,
        operation_id="direct_deposits_create_transition",
    ),
    get(
        "/directdeposits/transitions",
        list_transitions,
        DepositTransitionDone,
        query=DepositTransitionQuery,
        paging=BY_CREATION,
        operation_id="direct_deposits_list_transitions",
    ),
    get(
        "/directdeposits/transitions/{token}",
        get_transition,
        DepositTransitionDone,
        fields=False,
        operation_id="direct_deposits_get_transition",
    ),
]
