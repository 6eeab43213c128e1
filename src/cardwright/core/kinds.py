"""What each type of card message does: asks or tells, holds or settles, and what it is called when it follows another."""

from enum import StrEnum
from typing import NamedTuple

from cardwright.core.words import TYPE_NUMBER


class Form(StrEnum):
    """What an issuer is asked for. Dual-message forms hold and are cleared later, single-message forms do both at once."""

    PURCHASE = "authorization"
    INCREMENT = "authorization.incremental"
    PIN_HOLD = "pindebit.authorization"
    PIN_PURCHASE = "pindebit"
    WITHDRAWAL = "pindebit.atm.withdrawal"
    BALANCE_INQUIRY = "pindebit.balanceinquiry"
    ORIGINAL_CREDIT = "original.credit.auth_plus_capture"


SINGLE_MESSAGE = frozenset({Form.PIN_PURCHASE, Form.WITHDRAWAL})
"""Forms that hold and settle in one."""

WITH_CASH = {Form.PURCHASE: "authorization.cashback", Form.PIN_PURCHASE: "pindebit.cashback"}
"""The type of a form that also asks for cash at the till."""

KIND_OF = {form: TYPE_NUMBER[form] for form in Form}
KIND_WITH_CASH = {**KIND_OF, **{form: TYPE_NUMBER[name] for form, name in WITH_CASH.items()}}
FORM_OF = {kind: form for kinds in (KIND_OF, KIND_WITH_CASH) for form, kind in kinds.items()}
"""The form of the message that a stored type records."""


class Family(NamedTuple):
    """The types of what follows a message, None where nothing of the sort can follow."""

    reversal: int
    clearing: int | None = None
    advice: int | None = None
    expiry: int | None = None


def _family(reversal: str, *others: str) -> Family:
    return Family(TYPE_NUMBER[reversal], *(TYPE_NUMBER[name] for name in others))


_SIGNATURE = ("authorization.advice", "authorization.reversal.issuerexpiration")

FAMILIES = {
    TYPE_NUMBER["authorization"]: _family("authorization.reversal", "authorization.clearing", *_SIGNATURE),
    TYPE_NUMBER["authorization.cashback"]: _family(
        "authorization.reversal", "authorization.clearing.cashback", *_SIGNATURE
    ),
    TYPE_NUMBER["pindebit.authorization"]: Family(
        TYPE_NUMBER["pindebit.authorization.reversal"], TYPE_NUMBER["pindebit.authorization.clearing"],
        expiry=TYPE_NUMBER["pindebit.authorization.reversal.issuerexpiration"],
    ),
    **dict.fromkeys(
        (TYPE_NUMBER["pindebit"], TYPE_NUMBER["pindebit.cashback"], TYPE_NUMBER["pindebit.atm.withdrawal"]),
        _family("pindebit.reversal"),
    ),
    TYPE_NUMBER["original.credit.auth_plus_capture"]: _family("original.credit.auth_plus_capture.reversal"),
}  # fmt: skip
"""What may follow the message that begins a chain, by its type."""

ASKS = frozenset(FORM_OF)
"""Kinds that ask for something and may be refused by the checks."""

SETTLED_AT_ONCE = frozenset(
    TYPE_NUMBER[name]
    for name in ("pindebit", "pindebit.cashback", "pindebit.atm.withdrawal", "original.credit.auth_plus_capture")
)
"""Kinds that ask and move money for good in one message."""

INQUIRY = KIND_OF[Form.BALANCE_INQUIRY]
INCREMENT = KIND_OF[Form.INCREMENT]
WITHDRAWAL = KIND_OF[Form.WITHDRAWAL]
CREDIT = KIND_OF[Form.ORIGINAL_CREDIT]
CREDIT_REVERSAL = FAMILIES[CREDIT].reversal
REFUND = TYPE_NUMBER["refund"]
PIN_HOLD = KIND_OF[Form.PIN_HOLD]
PIN_REVERSAL = TYPE_NUMBER["pindebit.reversal"]
PIN_COMPLETION = TYPE_NUMBER["pindebit.authorization.clearing"]
FORCED_CLEARING = TYPE_NUMBER["authorization.clearing"]

EXPIRIES = frozenset(family.expiry for family in FAMILIES.values() if family.expiry is not None)

CLEARINGS = frozenset(family.clearing for family in FAMILIES.values() if family.clearing is not None)

RELEASES = frozenset(
    {family.reversal for family in FAMILIES.values()} | EXPIRIES
    | {family.advice for family in FAMILIES.values() if family.advice is not None}
)  # fmt: skip
"""Kinds that let go of a hold, or undo what was settled at once."""

SETTLES = CLEARINGS | {REFUND}
"""Kinds that move money for good, after another message or by themselves."""

UNLOADS = frozenset({REFUND, CREDIT})
"""Kinds whose money goes back to the funding source: they carry ``gpa_order_unload``."""

LOAD_KINDS = {
    **dict.fromkeys(ASKS | SETTLES, TYPE_NUMBER["gpa.credit.authorization"]),
    **dict.fromkeys(RELEASES, TYPE_NUMBER["gpa.credit.authorization.reversal"]),
    **dict.fromkeys(UNLOADS, TYPE_NUMBER["gpa.debit.authorization"]),
    CREDIT_REVERSAL: TYPE_NUMBER["gpa.credit.authorization"],
}
"""The type of a row's load side, by the type of its card side."""
