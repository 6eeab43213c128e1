"""Fee charges and refunds: fees taken from an account, all of them or none, and one given back."""

from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from cardwright.core.movement_steps import Charge
from cardwright.core.movement_types import FEE_CHARGE
from cardwright.core.movements import FeeCharge, FeeRefund, MovementKind
from cardwright.core.problems import FEE_CHARGE_NOT_FOUND, FEE_CHARGE_UNKNOWN, Problem, bad_field
from cardwright.core.render import details_decoder
from cardwright.core.transaction_row import TransactionRow
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import Token
from cardwright.resources.common.movements import (
    PreparedMovement,
    Tags0,
    echoed_fields,
    execute_movement,
    get_movement,
    one_holder,
)
from cardwright.resources.common.route import Shape, get, post
from cardwright.resources.fees.charging import ChargedFee, FeeDetail, FeeModel, find_charges, parse_fees
from cardwright.resources.transactions.transactions import get_transaction
from cardwright.storage.programs import Program

# --- Shapes: what travels on the wire ------------------------------------------------


class FeeChargeCreate(Shape, frozen=True, kw_only=True):
    """Fees to take from an account."""

    fees: tuple[FeeModel, ...]
    token: Token | None = None
    user_token: Token | None = None
    business_token: Token | None = None
    tags: Tags0 | None = None


class FeeCharged(Shape, frozen=True, kw_only=True):
    """Fees that were taken from an account, a transaction each."""

    token: str
    user_token: str
    tags: str | UnsetType = UNSET
    fees: tuple[FeeDetail, ...]
    created_time: str


class FeeRefundCreate(Shape, frozen=True, kw_only=True):
    """The transaction of a fee to give back."""

    original_fee_transaction_token: Annotated[str, Meta(min_length=1, max_length=36)]
    tags: Tags0 | None = None


class FeeRefunded(Shape, frozen=True, kw_only=True):
    """A fee that was given back."""

    token: str
    state: str
    fee: ChargedFee
    memo: str | UnsetType = UNSET
    tags: str | UnsetType = UNSET
    overrideAmount: Decimal | UnsetType = UNSET
    original_fee_transaction_token: str
    transaction_token: str
    created_time: str


# --- Rules: pure ---------------------------------------------------------------------


def fee_in(row: TransactionRow) -> str:
    """The JSON of the fee that a transaction charged, as it was then."""
    shown = f"{{{details_decoder.decode(row.details).movement}}}"
    return bytes(msgspec.json.decode(shown, type=_Shown).fee).decode()


class _Shown(msgspec.Struct):
    fee: msgspec.Raw


# --- Queries: this resource's SQL ----------------------------------------------------


def get_fee_transaction(db: Connection, program_id: int, token: str) -> TransactionRow:
    """The transaction of a fee. Raises a problem when the token names none, or another kind of transaction."""
    try:
        row, _side = get_transaction(db, program_id, token)
    except Problem:
        raise Problem(FEE_CHARGE_UNKNOWN) from None
    if row.type_id != FEE_CHARGE:
        raise Problem(FEE_CHARGE_UNKNOWN)
    return row


# --- Actions: what a caller can do with it -------------------------------------------


async def charge_fees(call: EngineCall, body: FeeChargeCreate) -> bytes:
    """Takes fees from an account: all of them, or none when it has too little."""

    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        user, currency = one_holder(body.user_token, body.business_token), program.settings.currency
        if not body.fees:
            raise bad_field("fees", "must have at least one element")
        charges = find_charges(db, program, parse_fees(body.fees, currency), None)
        return PreparedMovement(
            (user,), FeeCharge(token=token, amount=0, echoed=echoed_fields(body, "user_token", "tags"), charges=charges)
        )

    return await execute_movement(call, MovementKind.FEE_CHARGE, body, prepare)


async def refund_fee(call: EngineCall, body: FeeRefundCreate) -> bytes:
    """Gives a fee back to the account that it was taken from, whole and once."""

    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        row = get_fee_transaction(db, program.id, body.original_fee_transaction_token)
        repeated = echoed_fields(body, "tags", "original_fee_transaction_token")
        charge = Charge(token="", amount=0, fee=fee_in(row))
        user = details_decoder.decode(row.details).user_token or ""
        refund = FeeRefund(token=token, amount=row.amount, echoed=repeated, charges=(charge,))
        # What a purchase's fee still owes is kept with its first transaction, which held the money.
        return PreparedMovement((user,), refund, root_id=row.root_id or row.id, ref_id=row.id)

    return await execute_movement(call, MovementKind.FEE_REFUND, body, prepare)


def get_charge(call: Call) -> str:
    """Returns a fee charge."""
    return get_movement(call, MovementKind.FEE_CHARGE, FEE_CHARGE_NOT_FOUND)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Fee charges"

routes = [
    post("/feecharges", FeeChargeCreate, charge_fees, FeeCharged),
    get("/feecharges/{token}", get_charge, FeeCharged, fields=False),
    post("/feerefunds", FeeRefundCreate, refund_fee, FeeRefunded),
    # What fee charges were called before; old clients still do.
    post("/feetransfers", FeeChargeCreate, charge_fees, FeeCharged, operation_id="charge_fees_feetransfers"),
    get("/feetransfers/{token}", get_charge, FeeCharged, fields=False, operation_id="get_charge_feetransfers"),
]
