"""Fee charging: the shapes and rules for the fees that a movement charges."""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from cardwright.core.movement_steps import Charge
from cardwright.core.problems import (
    FEE_NOT_CHARGEABLE,
    FEE_UNKNOWN,
    Problem,
    bad_field,
)
from cardwright.engine.movement_rows import CHARGES_MAX
from cardwright.resources.common.fields import Token, parse_amount
from cardwright.resources.common.movements import Memo, Tags0
from cardwright.resources.common.route import Shape
from cardwright.resources.fees.fees import Category, Fee, FeeKind
from cardwright.storage import records
from cardwright.storage.programs import Program
from cardwright.storage.tables import fees


class FeeModel(Shape, frozen=True, kw_only=True):
    """A fee to charge, with an optional amount in place of the fee's own."""

    token: Token
    memo: Memo | None = None
    tags: Tags0 | None = None
    overrideAmount: Decimal | None = None


class ChargedFee(Shape, frozen=True, kw_only=True):
    """A fee as it was when it was charged."""

    token: str
    name: str
    amount: Decimal
    memo: str | UnsetType = UNSET
    tags: str | UnsetType = UNSET
    currency_code: str
    created_time: str
    last_modified_time: str


class FeeDetail(Shape, frozen=True, kw_only=True):
    """A charged fee, with the transaction that charged it."""

    token: str
    memo: str | UnsetType = UNSET
    tags: str | UnsetType = UNSET
    overrideAmount: Decimal | UnsetType = UNSET
    transaction_token: str
    fee: ChargedFee


def parse_fees(sent: Sequence[FeeModel] | None, currency: str) -> list[tuple[FeeModel, int | None]]:
    """Return each fee with its override amount in minor units, None without one. Raises a problem that names the field."""
    if sent is not None and len(sent) > CHARGES_MAX:
        raise bad_field("fees", f"may have at most {CHARGES_MAX} elements")
    return [
        (
            fee,
            None if fee.overrideAmount is None else parse_amount(f"fees[{index}].overrideAmount", fee.overrideAmount, currency),
        )
        for index, fee in enumerate(sent or ())
    ]


def charge_of(fee: Fee, sent: FeeModel, override: int | None, amount: int | None, currency: str) -> Charge:
    """Return the charge of a fee in its present state.

    ``amount`` is the base of a percentage, None if the movement has none. Raises FEE_NOT_CHARGEABLE if the fee is inactive, a
    real-time fee, in another currency, or a percentage without a base.
    """
    if not fee.active:
        raise Problem(FEE_NOT_CHARGEABLE, f"{fee.token} is not active")
    if fee.category is Category.REALTIME:
        raise Problem(FEE_NOT_CHARGEABLE, f"{fee.token} is a real-time fee")
    if fee.currency_code != currency:
        raise Problem(FEE_NOT_CHARGEABLE, f"{fee.token} is in {fee.currency_code}")
    if fee.type is FeeKind.FLAT:
        units = parse_amount("amount", fee.amount, currency)
    elif amount is None:
        raise Problem(FEE_NOT_CHARGEABLE, f"{fee.token} is a percentage, and the request has no amount that it applies to")
    else:
        units = int((fee.amount * amount / 100).to_integral_value(ROUND_HALF_UP))
    shown = ChargedFee(**{name: getattr(fee, name) for name in ChargedFee.__struct_fields__})
    return Charge(
        token=fee.token, amount=units if override is None else override, fee=records.text_of(shown),
        memo=sent.memo, tags=sent.tags, override=override,
    )  # fmt: skip


def find_charges(
    db: Connection, program: Program, sent: Sequence[tuple[FeeModel, int | None]], amount: int | None
) -> tuple[Charge, ...]:
    """Return the charges of the fees in their present state. Raises a problem for a fee that is unknown or not chargeable."""
    charges = []
    for model, override in sent:
        row = records.find(db, fees, program.id, model.token)
        if row is None:
            raise Problem(FEE_UNKNOWN, model.token)
        fee = msgspec.json.decode(row.doc, type=Fee)
        charges.append(charge_of(fee, model, override, amount, program.settings.currency))
    return tuple(charges)
