"""Types of card messages: their effect (request, hold, settlement, release), and the types of their follow-ups."""

from enum import StrEnum
from typing import NamedTuple

from cardwright.core.enums import TYPE_NUMBER


class RequestType(StrEnum):
    """Type of a request to the issuer. Dual-message types hold and are cleared later; single-message types do both at once."""

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
"""Request types that hold and settle in one message."""

CASH_MACHINE = frozenset({RequestType.WITHDRAWAL, RequestType.ATM_HOLD})
"""Request types for cash from a machine."""

QUASI_CASH = frozenset({RequestType.QUASI_HOLD, RequestType.PIN_QUASI})
"""Request types for goods that are equivalent to cash."""

CREDITS = frozenset({RequestType.ORIGINAL_CREDIT, RequestType.CREDIT_HOLD})
"""Request types that bring money: they need no funding and have no surcharge."""

WITH_CASH = {RequestType.PURCHASE: "authorization.cashback", RequestType.PIN_PURCHASE: "pindebit.cashback"}
"""The transaction type of a request that also asks for cash at the till."""

TYPE_OF = {request_type: TYPE_NUMBER[request_type] for request_type in RequestType}
TYPE_WITH_CASH = {**TYPE_OF, **{request_type: TYPE_NUMBER[name] for request_type, name in WITH_CASH.items()}}
REQUEST_TYPE_OF = {type_id: request_type for types in (TYPE_OF, TYPE_WITH_CASH) for request_type, type_id in types.items()}
"""The request type of a stored transaction type."""


class Family(NamedTuple):
    """Types of the follow-ups of a message; None if a follow-up does not exist."""

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
    # The wire has no expiry type for the families below: a hold gets the general one, other types the reversal (choice).
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
"""The follow-ups of a chain, by the type of its root."""

PENDING_CREDITS = frozenset({TYPE_NUMBER["refund.authorization"], TYPE_NUMBER["original.credit.authorization"]})
"""Types of pending credits. No balance changes before the clearing, and ``hold_left`` is the amount that is still pending."""

REQUEST_TYPES = frozenset(REQUEST_TYPE_OF)
"""Types of requests, which checks may decline."""

SETTLED_AT_ONCE = frozenset(
    TYPE_NUMBER[name]
    for name in (
        "pindebit", "pindebit.cashback", "pindebit.atm.withdrawal", "pindebit.quasi.cash", "pindebit.refund",
        "account.funding.auth_plus_capture", "original.credit.auth_plus_capture",
    )
)  # fmt: skip
"""Types that settle in one message and can be reversed."""

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
"""Types that bring money in one message and can be reversed."""

CREDIT_REVERSALS = frozenset(FAMILIES[type_id].reversal for type_id in CARD_CREDITS)
"""Types that reverse those credits."""

PURCHASE_REVERSALS = frozenset(FAMILIES[type_id].reversal for type_id in SETTLED_AT_ONCE - CARD_CREDITS)
"""Types that reverse a purchase that was settled at once."""

CLEARED_ONCE = frozenset({PIN_HOLD, TYPE_OF[RequestType.ATM_HOLD], TYPE_OF[RequestType.QUASI_HOLD]})
"""Types whose clearing is final: it releases the rest of the hold."""

COMPLETIONS = frozenset(clearing for type_id in CLEARED_ONCE if (clearing := FAMILIES[type_id].clearing) is not None)
"""The clearings of those types."""

EXPIRIES = frozenset(family.expiry for family in FAMILIES.values() if family.expiry is not None)

CREDIT_CLEARINGS = frozenset(clearing for type_id in PENDING_CREDITS if (clearing := FAMILIES[type_id].clearing) is not None)
"""Types of the clearings of pending credits."""

REFUNDS = frozenset(
    {REFUND, PIN_REFUND, FAMILIES[ANNOUNCED_REFUND].clearing, FAMILIES[PIN_REFUND].reversal}
)  # fmt: skip
"""Types that refund a purchase outside of its chain, and the reversal of such a refund."""

CLEARINGS = frozenset(family.clearing for family in FAMILIES.values() if family.clearing is not None) - CREDIT_CLEARINGS
"""Types that take held money."""

ADVICES = frozenset(family.advice for family in FAMILIES.values() if family.advice is not None)
"""Types that lower the total of an authorization."""

REVERSALS = frozenset(family.reversal for family in FAMILIES.values()) | EXPIRIES
"""Types that release a hold or reverse a settlement. Only they have no settlement date."""

RELEASE_TYPES = REVERSALS | ADVICES
"""Types that return, in part or in full, the money of a hold or a settlement."""

SETTLEMENT_TYPES = CLEARINGS | CREDIT_CLEARINGS | {REFUND}
"""Types that settle money, after another message or alone."""

UNLOAD_TYPES = CARD_CREDITS | CREDIT_CLEARINGS | {REFUND}
"""Types whose money goes back to the funding source. They have ``gpa_order_unload``."""

LOAD_TYPES = {
    **dict.fromkeys(REQUEST_TYPES | SETTLEMENT_TYPES, TYPE_NUMBER["gpa.credit.authorization"]),
    **dict.fromkeys(RELEASE_TYPES, TYPE_NUMBER["gpa.credit.authorization.reversal"]),
    **dict.fromkeys(UNLOAD_TYPES, TYPE_NUMBER["gpa.debit.authorization"]),
    **dict.fromkeys(CREDIT_REVERSALS, TYPE_NUMBER["gpa.credit.authorization"]),
}
"""The type of a row's load side, by the type of its card side."""
