"""Fee charges and refunds: fees charged to an account, all or none, and refunds of single fees."""

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
    """A charge of one or more fees to an account."""

    fees: tuple[FeeModel, ...]
    token: Token | None = None
    user_token: Token | None = None
    business_token: Token | None = None
    tags: Tags0 | None = None


class FeeCharged(Shape, frozen=True, kw_only=True):
    """A fee charge. Each fee has its own transaction."""

    token: str
    user_token: str
    tags: str | UnsetType = UNSET
    fees: tuple[FeeDetail, ...]
    created_time: str


class FeeRefundCreate(Shape, frozen=True, kw_only=True):
    """A refund of a fee. The transaction that charged the fee identifies it."""

    original_fee_transaction_token: Annotated[str, Meta(min_length=1, max_length=36)]
    tags: Tags0 | None = None


class FeeRefunded(Shape, frozen=True, kw_only=True):
    """A refunded fee."""

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
    """Return the JSON of the fee that a transaction charged, as it was at that time."""
    shown = f"{{{details_decoder.decode(row.details).movement}}}"
    return bytes(msgspec.json.decode(shown, type=_Shown).fee).decode()


class _Shown(msgspec.Struct):
    fee: msgspec.Raw


# --- Queries: this resource's SQL ----------------------------------------------------


def get_fee_transaction(db: Connection, program_id: int, token: str) -> TransactionRow:
    """Return the transaction of a fee. Raises FEE_CHARGE_UNKNOWN for an unknown token and for a transaction of another type."""
    try:
        row, _side = get_transaction(db, program_id, token)
    except Problem:
        raise Problem(FEE_CHARGE_UNKNOWN) from None
    if row.type_id != FEE_CHARGE:
        raise Problem(FEE_CHARGE_UNKNOWN)
    return row


# --- Actions: what a caller can do with it -------------------------------------------


async def charge_fees(call: EngineCall, body: FeeChargeCreate) -> bytes:
    """Charge fees to an account: all of them, or none if its balance is too low."""

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
    """Refund a fee in full to the account that paid it. A fee is refunded at most once."""

    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        row = get_fee_transaction(db, program.id, body.original_fee_transaction_token)
        repeated = echoed_fields(body, "tags", "original_fee_transaction_token")
        charge = Charge(token="", amount=0, fee=fee_in(row))
        user = details_decoder.decode(row.details).user_token or ""
        refund = FeeRefund(token=token, amount=row.amount, echoed=repeated, charges=(charge,))
        # The root of a chain stores its open amounts. The root of a purchase's fee can be an earlier row, which held the money.
        return PreparedMovement((user,), refund, root_id=row.root_id or row.id, ref_id=row.id)

    return await execute_movement(call, MovementKind.FEE_REFUND, body, prepare)


def get_charge(call: Call) -> str:
    """Return a fee charge."""
    return get_movement(call, MovementKind.FEE_CHARGE, FEE_CHARGE_NOT_FOUND)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Fee charges"

routes = [
    post("/feecharges", FeeChargeCreate, charge_fees, FeeCharged),
    get("/feecharges/{token}", get_charge, FeeCharged, fields=False),
    post("/feerefunds", FeeRefundCreate, refund_fee, FeeRefunded),
    # The former path of fee charges, for older clients.
    post("/feetransfers", FeeChargeCreate, charge_fees, FeeCharged, operation_id="charge_fees_feetransfers"),
    get("/feetransfers/{token}", get_charge, FeeCharged, fields=False, operation_id="get_charge_feetransfers"),
]
