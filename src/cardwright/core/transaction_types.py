"""What each type of card message does: asks or tells, holds or settles, and what it is called when it follows another."""

from enum import StrEnum
from typing import NamedTuple

from cardwright.core.enums import TYPE_NUMBER


class RequestType(StrEnum):
    """What an issuer is asked for. Dual-message forms hold and are cleared later, single-message forms do both at once."""

    PURCHASE = "authorization"
    INCREMENT = "authorization.incremental"
    ATM_HOLD = "authorization.atm.withdrawal"
    QUASI_HOLD = "authorization.quasi.cash"
    FUNDING_HOLD = "account.funding.authorization"
    PIN_HOLD = "pindebit.authorization"
    PIN_PURCHASE = "pindebit"
    WITHDRAWAL = "pindebit.atm.withdrawal"
    BALANCE_INQUIRY = "pindebit.balanceinquiry"
    PIN_QUASI = "pindebit.quasi.cash"
    FUNDING = "account.funding.auth_plus_capture"
    ORIGINAL_CREDIT = "original.credit.auth_plus_capture"
    CREDIT_HOLD = "original.credit.authorization"


SINGLE_MESSAGE = frozenset({RequestType.PIN_PURCHASE, RequestType.WITHDRAWAL, RequestType.PIN_QUASI, RequestType.FUNDING})
"""Forms that hold and settle in one."""

CASH_MACHINE = frozenset({RequestType.WITHDRAWAL, RequestType.ATM_HOLD})
"""Forms that ask a machine for cash."""

QUASI_CASH = frozenset({RequestType.QUASI_HOLD, RequestType.PIN_QUASI})
"""Forms that buy what is as good as cash."""

CREDITS = frozenset({RequestType.ORIGINAL_CREDIT, RequestType.CREDIT_HOLD})
"""Forms that bring money: nothing is paid, so nobody has to find it, and there is no surcharge."""

WITH_CASH = {RequestType.PURCHASE: "authorization.cashback", RequestType.PIN_PURCHASE: "pindebit.cashback"}
"""The type of a form that also asks for cash at the till."""

TYPE_OF = {request_type: TYPE_NUMBER[request_type] for request_type in RequestType}
TYPE_WITH_CASH = {**TYPE_OF, **{request_type: TYPE_NUMBER[name] for request_type, name in WITH_CASH.items()}}
REQUEST_TYPE_OF = {type_id: request_type for types in (TYPE_OF, TYPE_WITH_CASH) for request_type, type_id in types.items()}
"""The form of the message that a stored type records."""


class Family(NamedTuple):
    """The types of what follows a message, None where nothing of the sort can follow."""

    reversal: int
    clearing: int | None = None
    advice: int | None = None
    expiry: int | None = None


def _family(**names: str) -> Family:
    return Family(**{part: TYPE_NUMBER[name] for part, name in names.items()})


_SIGNATURE = {
    "reversal": "authorization.reversal", "advice": "authorization.advice",
    "expiry": "authorization.reversal.issuerexpiration",
}  # fmt: skip

_FAMILIES = {
    "authorization": _family(**_SIGNATURE, clearing="authorization.clearing"),
    "authorization.cashback": _family(**_SIGNATURE, clearing="authorization.clearing.cashback"),
    "authorization.atm.withdrawal": _family(**_SIGNATURE, clearing="authorization.clearing.atm.withdrawal"),
    "authorization.quasi.cash": _family(**_SIGNATURE, clearing="authorization.clearing.quasi.cash"),
    "pindebit.authorization": _family(
        reversal="pindebit.authorization.reversal", clearing="pindebit.authorization.clearing",
        expiry="pindebit.authorization.reversal.issuerexpiration",
    ),
    # The wire knows no expiry of the families below by name: the general one for what holds money, else the reversal (choice).
    "account.funding.authorization": _family(
        reversal="account.funding.authorization.reversal", clearing="account.funding.authorization.clearing",
        expiry="authorization.reversal.issuerexpiration",
    ),
    "refund.authorization": _family(
        reversal="refund.authorization.reversal", clearing="refund.authorization.clearing",
        advice="refund.authorization.advice", expiry="refund.authorization.reversal",
    ),
    "original.credit.authorization": _family(
        reversal="original.credit.authorization.reversal", clearing="original.credit.authorization.clearing",
        expiry="original.credit.authorization.reversal",
    ),
    **dict.fromkeys(
        ("pindebit", "pindebit.cashback", "pindebit.atm.withdrawal", "pindebit.quasi.cash"),
        _family(reversal="pindebit.reversal"),
    ),
    "account.funding.auth_plus_capture": _family(reversal="account.funding.auth_plus_capture.reversal"),
    "pindebit.refund": _family(reversal="pindebit.refund.reversal"),
    "original.credit.auth_plus_capture": _family(reversal="original.credit.auth_plus_capture.reversal"),
}  # fmt: skip

FAMILIES = {TYPE_NUMBER[name]: family for name, family in _FAMILIES.items()}
"""What may follow the message that begins a chain, by its type."""

PENDING_CREDITS = frozenset({TYPE_NUMBER["refund.authorization"], TYPE_NUMBER["original.credit.authorization"]})
"""Kinds that announce money: no balance changes before it is cleared, and ``hold_left`` is what is still to come."""

REQUEST_TYPES = frozenset(REQUEST_TYPE_OF)
"""Kinds that ask for something and may be refused by the checks."""

SETTLED_AT_ONCE = frozenset(
    TYPE_NUMBER[name]
    for name in (
        "pindebit", "pindebit.cashback", "pindebit.atm.withdrawal", "pindebit.quasi.cash", "pindebit.refund",
        "account.funding.auth_plus_capture", "original.credit.auth_plus_capture",
    )
)  # fmt: skip
"""Kinds that move money for good in one message, which can be undone."""

INQUIRY = TYPE_OF[RequestType.BALANCE_INQUIRY]
INCREMENT = TYPE_OF[RequestType.INCREMENT]
WITHDRAWAL = TYPE_OF[RequestType.WITHDRAWAL]
CREDIT = TYPE_OF[RequestType.ORIGINAL_CREDIT]
REFUND = TYPE_NUMBER["refund"]
ANNOUNCED_REFUND = TYPE_NUMBER["refund.authorization"]
PIN_REFUND = TYPE_NUMBER["pindebit.refund"]
PIN_HOLD = TYPE_OF[RequestType.PIN_HOLD]
PIN_REVERSAL = TYPE_NUMBER["pindebit.reversal"]
FORCED_CLEARING = TYPE_NUMBER["authorization.clearing"]

CARD_CREDITS = frozenset({CREDIT, PIN_REFUND})
"""Kinds that bring money for good in one message, which can be taken back."""

CREDIT_REVERSALS = frozenset(FAMILIES[type_id].reversal for type_id in CARD_CREDITS)
"""Kinds that take such money back."""

PURCHASE_REVERSALS = frozenset(FAMILIES[type_id].reversal for type_id in SETTLED_AT_ONCE - CARD_CREDITS)
"""Kinds that undo what was paid at once."""

CLEARED_ONCE = frozenset({PIN_HOLD, TYPE_OF[RequestType.ATM_HOLD], TYPE_OF[RequestType.QUASI_HOLD]})
"""Kinds whose clearing is final: the rest of the hold goes back with it."""

COMPLETIONS = frozenset(clearing for type_id in CLEARED_ONCE if (clearing := FAMILIES[type_id].clearing) is not None)
"""The clearings of those."""

EXPIRIES = frozenset(family.expiry for family in FAMILIES.values() if family.expiry is not None)

CREDIT_CLEARINGS = frozenset(clearing for type_id in PENDING_CREDITS if (clearing := FAMILIES[type_id].clearing) is not None)
"""Kinds that bring money which was announced."""

REFUNDS = frozenset(
    {REFUND, PIN_REFUND, FAMILIES[ANNOUNCED_REFUND].clearing, FAMILIES[PIN_REFUND].reversal}
)  # fmt: skip
"""Kinds that give a purchase back without being a message of its chain, and the one that undoes this."""

CLEARINGS = frozenset(family.clearing for family in FAMILIES.values() if family.clearing is not None) - CREDIT_CLEARINGS
"""Kinds that take money which was held."""

ADVICES = frozenset(family.advice for family in FAMILIES.values() if family.advice is not None)
"""Kinds that lower a total."""

REVERSALS = frozenset(family.reversal for family in FAMILIES.values()) | EXPIRIES
"""Kinds that let go of a hold or undo what was settled at once; only they have no settlement date."""

RELEASE_TYPES = REVERSALS | ADVICES
"""Kinds that give back, in part or in full, what a hold took or what was settled at once."""

SETTLEMENT_TYPES = CLEARINGS | CREDIT_CLEARINGS | {REFUND}
"""Kinds that move money for good, after another message or by themselves."""

UNLOAD_TYPES = CARD_CREDITS | CREDIT_CLEARINGS | {REFUND}
"""Kinds whose money goes back to the funding source: they carry ``gpa_order_unload``."""

LOAD_TYPES = {
    **dict.fromkeys(REQUEST_TYPES | SETTLEMENT_TYPES, TYPE_NUMBER["gpa.credit.authorization"]),
    **dict.fromkeys(RELEASE_TYPES, TYPE_NUMBER["gpa.credit.authorization.reversal"]),
    **dict.fromkeys(UNLOAD_TYPES, TYPE_NUMBER["gpa.debit.authorization"]),
    **dict.fromkeys(CREDIT_REVERSALS, TYPE_NUMBER["gpa.credit.authorization"]),
}
"""The type of a row's load side, by the type of its card side."""
