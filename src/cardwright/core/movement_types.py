"""Transaction types without a card: orders, unloads, fees, transfers and direct deposits."""

from typing import NamedTuple

from cardwright.core.enums import TYPE_NUMBER, State

GPA_CREDIT = TYPE_NUMBER["gpa.credit"]
GPA_DEBIT = TYPE_NUMBER["gpa.debit"]
FEE_CHARGE = TYPE_NUMBER["fee.charge"]
FEE_REFUND = TYPE_NUMBER["fee.charge.refund"]
FEE_PENDING = TYPE_NUMBER["fee.charge.pending"]
FEE_REVERSAL = TYPE_NUMBER["fee.charge.reversal"]
PEER = TYPE_NUMBER["transfer.peer"]
PROGRAM = TYPE_NUMBER["transfer.program"]


class DepositTypes(NamedTuple):
    """Types of a direct deposit's transactions, by their effect."""

    pending: int
    applied: int
    rejected: int
    pending_reversal: int
    reversal: int


_ENDS = (".pending", "", ".reject", ".pending.reversal", ".reversal")
CREDITED = DepositTypes(*(TYPE_NUMBER[f"directdeposit.credit{end}"] for end in _ENDS))
DEBITED = DepositTypes(*(TYPE_NUMBER[f"directdeposit.debit{end}"] for end in _ENDS))

_STATES = (State.PENDING, State.COMPLETION, State.DECLINED, State.CLEARED, State.CLEARED)
STATE_BY_TYPE: dict[int, State] = {
    type_id: state for types in (CREDITED, DEBITED) for type_id, state in zip(types, _STATES, strict=True)
}
"""The state of a direct deposit after a transaction of each type."""

ANNOUNCED = frozenset({CREDITED.pending, DEBITED.pending})
"""Types that begin the chain of a deposit.

Such a row is PENDING and has a due time until the deposit is applied, rejected or reversed.
"""

DEPOSITS_WITHOUT_ENTRY = ANNOUNCED | {CREDITED.rejected, DEBITED.rejected, CREDITED.pending_reversal, DEBITED.pending_reversal}
"""Types of a deposit's transactions that move no money, so they have no journal entry."""

CARDLESS = frozenset(
    {GPA_CREDIT, GPA_DEBIT, FEE_CHARGE, FEE_REFUND, FEE_PENDING, FEE_REVERSAL, PEER, PROGRAM, *CREDITED, *DEBITED}
)
"""Types of transactions without a card. Such a row has no load side."""

LOADS = frozenset({GPA_CREDIT, PEER, CREDITED.applied})
"""Types that load an account, if they bring it money."""
