"""Real-time fee groups: the fee that a member of a group pays for each type of transaction.

See "Real-time fee groups" in the wire reference. Of ``fee_attributes`` only ``transaction_type`` has an effect (choice).
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from cardwright.core.enums import TYPES
from cardwright.core.money import BadAmount, minor_units
from cardwright.core.transaction_types import CREDITS, TYPE_OF, TYPE_WITH_CASH, RequestType

_exact = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")

_ASSESSED_REQUESTS = set(RequestType) - {RequestType.INCREMENT, RequestType.BALANCE_INQUIRY} - CREDITS

ASSESSED = frozenset(types[request_type] for request_type in _ASSESSED_REQUESTS for types in (TYPE_OF, TYPE_WITH_CASH))
"""Types that a fee can be for: requests for money that begin a chain (choice)."""

ASSESSED_TYPES = tuple(sorted(TYPES[type_id] for type_id in ASSESSED))
"""The same types by their names on the wire."""

SHOWN = ("token", "name", "amount", "memo", "tags", "currency_code", "created_time", "last_modified_time")
"""Fields of a fee that a transaction shows."""


class RealTimeFee(msgspec.Struct, frozen=True, kw_only=True):
    """Fee of a group for one type of transaction. ``amount`` is in minor units, or in hundredths of a percent.

    ``fee`` and ``group`` are the JSON of both in transactions.
    """

    token: str
    type_id: int
    amount: int
    is_percentage: bool
    fee: str
    group: str

    def of(self, amount: int) -> int:
        """Return the fee for a transaction of ``amount`` minor units, rounded half up."""
        return (amount * self.amount + 5_000) // 10_000 if self.is_percentage else self.amount


NO_FEES: tuple[RealTimeFee, ...] = ()


def group_from(doc: str, fees: dict[str, str], currency: str) -> tuple[RealTimeFee, ...]:
    """Return the fees that a group assesses, from the JSON of the group and of fees by token.

    Fees that cannot apply are left out.

    An inactive group assesses none. If several fees are for one type, the first applies; this can happen because a fee may
    change after the creation of its group.
    """
    group: dict[str, Any] = _exact.decode(doc)
    if not group["active"]:
        return NO_FEES
    docs = (fees[token] for token in group.get("fee_tokens", ()) if token in fees)
    return tuple(fee for text in docs if (fee := _fee_from(_exact.decode(text), doc, currency)) is not None)


def _fee_from(fee: dict[str, Any], group: str, currency: str) -> RealTimeFee | None:
    type_id = next((type_id for type_id in ASSESSED if TYPES[type_id] == type_of(fee)), None)
    if type_id is None or not fee["active"] or fee["category"] != "REALTIME" or fee["currency_code"] != currency:
        return None
    is_percentage = fee["type"] == "PERCENTAGE"
    try:
        amount = minor_units(Decimal(fee["amount"]), "USD" if is_percentage else currency)
    except BadAmount:
        return None
    shown = _encoder.encode({name: fee[name] for name in SHOWN if name in fee}).decode()
    return RealTimeFee(token=fee["token"], type_id=type_id, amount=amount, is_percentage=is_percentage, fee=shown, group=group)


def type_of(fee: dict[str, Any]) -> str | None:
    """Return the type of transaction that a fee is for, in lower case; None if its document names none."""
    named = (fee.get("fee_attributes") or {}).get("transaction_type")
    return None if named is None else str(named).lower()


def fee_for(fees: Iterable[RealTimeFee], type_id: int) -> RealTimeFee | None:
    """Return the first fee for a type of transaction; None if there is none."""
    return next((fee for fee in fees if fee.type_id == type_id), None)


class HolderGroup(msgspec.Struct, frozen=True):
    """Fields of an account holder group's document that lead to its fees."""

    token: str
    config: "HolderGroupConfig"


class HolderGroupConfig(msgspec.Struct, frozen=True):
    """Field ``config`` of an account holder group."""

    real_time_fee_group_token: str = ""


def by_token(docs: Iterable[str]) -> dict[str, str]:
    """Return documents by their tokens."""
    return {msgspec.json.decode(doc, type=_Tokened).token: doc for doc in docs}


class _Tokened(msgspec.Struct, frozen=True):
    token: str


def fees_by_holder_group(
    holder_groups: Iterable[str], groups: dict[str, str], fees: dict[str, str], currency: str
) -> dict[str, tuple[RealTimeFee, ...]]:
    """Return the fees that members pay, by the token of their account holder group. Groups without fees are left out.

    All arguments are JSON documents; those of fee groups and fees are by token.
    """
    fees_by_group = {}
    for doc in holder_groups:
        holder_group = msgspec.json.decode(doc, type=HolderGroup)
        named = holder_group.config.real_time_fee_group_token
        if named in groups and (assessed := group_from(groups[named], fees, currency)):
            fees_by_group[holder_group.token] = assessed
    return fees_by_group
