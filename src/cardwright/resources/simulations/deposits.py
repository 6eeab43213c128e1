"""Simulated direct deposits: the deposits of a bank, by the older path and by Simulations 2.0."""

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta
from sqlalchemy import Connection, select

from cardwright.core.movements import Deposit, MovementKind
from cardwright.core.problems import DEPOSIT_ACCOUNT_NOT_FOUND, DEPOSIT_ACCOUNT_UNKNOWN, Kind, Problem, bad_field
from cardwright.kit.canonical import reading
from cardwright.kit.clock import Instant, iso, parse_instant
from cardwright.resources.common.call import EngineCall
from cardwright.resources.common.fields import OR_NONE
from cardwright.resources.common.movements import PreparedMovement, echoed_fields, execute_movement, positive_amount
from cardwright.resources.common.route import Scope, Shape, post
from cardwright.resources.transfers.direct_deposits import DirectDeposit
from cardwright.storage.programs import Program
from cardwright.storage.tables import deposit_accounts, users

# --- Shapes: what travels on the wire ------------------------------------------------


class Entry(Shape, frozen=True, kw_only=True):
    """A direct deposit as a bank sends it. The texts appear unchanged in the response."""

    account_number: Annotated[str, Meta(min_length=1, max_length=40)]
    amount: Decimal
    settlement_date: Annotated[str, Meta(min_length=1, max_length=40), reading(parse_instant)]
    earlyPayEligible: bool | None = False
    standard_entry_class_code: Annotated[str, Meta(max_length=3)] | None = None
    company_name: Annotated[str, Meta(max_length=16)] | None = None
    company_discretionary_data: Annotated[str, Meta(max_length=20)] | None = None
    company_identification: Annotated[str, Meta(max_length=10)] | None = None
    company_entry_description: Annotated[str, Meta(max_length=10)] | None = None
    individual_identification_number: Annotated[str, Meta(max_length=22)] | None = None
    individual_name: Annotated[str, Meta(max_length=35)] | None = None


class DepositRequest(Entry, frozen=True, kw_only=True):
    """A direct deposit with its direction and, optionally, its token."""

    type: Literal["CREDIT", "DEBIT"]
    token: Annotated[str, Meta(max_length=36), OR_NONE] | None = None


# --- Rules: pure ---------------------------------------------------------------------

REPEATED = (
    "standard_entry_class_code", "company_name", "company_discretionary_data", "company_identification",
    "company_entry_description", "individual_identification_number", "individual_name",
)  # fmt: skip


def settlement_ms(text: str) -> Instant:
    """Return the instant at which a deposit takes effect. Raises a problem that names the field."""
    try:
        return parse_instant(text)
    except ValueError:
        raise bad_field("settlement_date", "must be a date-time, yyyy-MM-ddTHH:mm:ssZ") from None


# --- Actions: what a caller can do with it -------------------------------------------


async def _announce(call: EngineCall, body: Entry, *, is_credit: bool, missing: Kind) -> bytes:
    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        amount, settles_ms = positive_amount(body.amount, program.settings.currency), settlement_ms(body.settlement_date)
        columns = deposit_accounts.c
        query = select(columns.id, columns.token, columns.immediate, users.c.token.label("user"))
        query = query.join(users, users.c.id == columns.user_id)
        where = columns.program_id == program.id, columns.account_number == body.account_number
        account = db.execute(query.where(*where)).one_or_none()
        if account is None:
            raise Problem(missing)
        repeated = {
            "user_token": account.user, "direct_deposit_account_token": account.token, "settlement_date": iso(settles_ms),
            **echoed_fields(body, *REPEATED),
        }  # fmt: skip
        at_once = is_credit and (body.earlyPayEligible is True or account.immediate)
        deposit = Deposit(
            token=token, amount=amount, echoed=repeated, is_credit=is_credit, settles_ms=settles_ms, at_once=at_once
        )
        return PreparedMovement((account.user,), deposit, ref_id=account.id)

    return await execute_movement(call, MovementKind.DEPOSIT, body, prepare)


async def simulate_deposit(call: EngineCall, body: DepositRequest) -> bytes:
    """Simulate a direct deposit.

    It takes effect on its settlement date. A credit takes effect immediately if the request or the deposit account asks for it.
    """
    return await _announce(call, body, is_credit=body.type == "CREDIT", missing=DEPOSIT_ACCOUNT_UNKNOWN)


async def simulate_deposit_credit(call: EngineCall, body: Entry) -> bytes:
    """Simulate a direct deposit that credits the account."""
    return await _announce(call, body, is_credit=True, missing=DEPOSIT_ACCOUNT_NOT_FOUND)


async def simulate_deposit_debit(call: EngineCall, body: Entry) -> bytes:
    """Simulate a direct deposit that debits the account."""
    return await _announce(call, body, is_credit=False, missing=DEPOSIT_ACCOUNT_NOT_FOUND)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Simulate deposits"

routes = [
    post("/simulate/directdeposits", DepositRequest, simulate_deposit, DirectDeposit, status=200, scope=Scope.SIMULATION),
    post("/simulations/directdeposits/credit", Entry, simulate_deposit_credit, DirectDeposit, scope=Scope.SIMULATION),
    post("/simulations/directdeposits/debit", Entry, simulate_deposit_debit, DirectDeposit, scope=Scope.SIMULATION),
]
