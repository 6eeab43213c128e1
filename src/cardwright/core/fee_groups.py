"""Real-time fee groups as decisions see them: which fee a member of the group pays for which type of transaction.

See "Real-time fee groups" in the wire reference. Of a fee's ``fee_attributes`` only ``transaction_type`` decides (choice).
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
"""Kinds that a fee can be for: what asks for money and begins a chain (choice)."""

ASSESSED_TYPES = tuple(sorted(TYPES[type_id] for type_id in ASSESSED))
"""The same by their names on the wire."""

SHOWN = ("token", "name", "amount", "memo", "tags", "currency_code", "created_time", "last_modified_time")
"""What a transaction shows of its fee."""


class RealTimeFee(msgspec.Struct, frozen=True, kw_only=True):
    """A fee of a group: for which type of transaction, and what it takes: minor units, or hundredths of a percent.

    ``fee`` and ``group`` are what transactions show of both, as JSON.
    """

    token: str
    type_id: int
    amount: int
    is_percentage: bool
    fee: str
    group: str

    def of(self, amount: int) -> int:
        """What is taken for a transaction of ``amount`` minor units; half a unit is rounded up."""
        return (amount * self.amount + 5_000) // 10_000 if self.is_percentage else self.amount


NO_FEES: tuple[RealTimeFee, ...] = ()


def group_from(doc: str, fees: dict[str, str], currency: str) -> tuple[RealTimeFee, ...]:
    """The fees that a group assesses, from the JSON of the group and of fees by token; those that cannot be, it does not.

    A group that is not active assesses none. Of several fees for one type the first counts: a fee may be changed after the
    group was made.
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
    """The type of transaction that a fee is for, as its document says it."""
    named = (fee.get("fee_attributes") or {}).get("transaction_type")
    return None if named is None else str(named).lower()


def fee_for(fees: Iterable[RealTimeFee], type_id: int) -> RealTimeFee | None:
    """The fee for a type of transaction."""
    return next((fee for fee in fees if fee.type_id == type_id), None)


class HolderGroup(msgspec.Struct, frozen=True):
    """Of an account holder group, whose document it is decoded from, what leads to its fees."""

    token: str
    config: "HolderGroupConfig"


class HolderGroupConfig(msgspec.Struct, frozen=True):
    """Its ``config``."""

    real_time_fee_group_token: str = ""


def by_token(docs: Iterable[str]) -> dict[str, str]:
    """Documents by the tokens in them."""
    return {msgspec.json.decode(doc, type=_Tokened).token: doc for doc in docs}


class _Tokened(msgspec.Struct, frozen=True):
    token: str


def fees_by_holder_group(
    holder_groups: Iterable[str], groups: dict[str, str], fees: dict[str, str], currency: str
) -> dict[str, tuple[RealTimeFee, ...]]:
    """The fees that members pay by the token of their account holder group; only of groups that have some.

    All arguments are documents, those of fee groups and fees by token.
    """
    fees_by_group = {}
    for doc in holder_groups:
        holder_group = msgspec.json.decode(doc, type=HolderGroup)
        named = holder_group.config.real_time_fee_group_token
        if named in groups and (assessed := group_from(groups[named], fees, currency)):
            fees_by_group[holder_group.token] = assessed
    return fees_by_group
