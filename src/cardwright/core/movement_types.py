"""What each type of transaction that no card made is: orders, unloads, fees, transfers and direct deposits."""

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
    """The types of a direct deposit's transactions, by what they do."""

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
"""The state that a direct deposit enters with each type of its transactions."""

ANNOUNCED = frozenset({CREDITED.pending, DEBITED.pending})
"""Kinds that begin the chain of a deposit; such a row is PENDING, and has an end, until the deposit takes effect or is off."""

NEWS = ANNOUNCED | {CREDITED.rejected, DEBITED.rejected, CREDITED.pending_reversal, DEBITED.pending_reversal}
"""Kinds of a deposit's transactions that move nothing."""

CARDLESS = frozenset(
    {GPA_CREDIT, GPA_DEBIT, FEE_CHARGE, FEE_REFUND, FEE_PENDING, FEE_REVERSAL, PEER, PROGRAM, *CREDITED, *DEBITED}
)
"""Kinds of transactions that no card made; such a row has no load side."""

LOADS = frozenset({GPA_CREDIT, PEER, CREDITED.applied})
"""Kinds that load an account, where they bring it money."""
