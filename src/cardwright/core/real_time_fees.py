"""Real-time fees in a decision: assessed with a purchase, charged when it is cleared, given back when nothing of it is left.

The fee of a purchase is a transaction of its own beside it: ``fee.charge.pending`` holds the money, ``fee.charge`` takes it
with the first clearing, ``fee.charge.reversal`` lets go of it when the hold is gone before. A purchase that is settled at
once is charged at once. The fee is what was assessed, whatever is cleared or reversed in part (wire reference, "Real-time
fee groups"; the timing and this rule are choices).
"""

import msgspec

from cardwright.core.decision import Decision, FeeStep, Legs
from cardwright.core.enums import State
from cardwright.core.fee_groups import RealTimeFee, fee_for
from cardwright.core.messages import Assessed, Authorization
from cardwright.core.movement_types import FEE_CHARGE, FEE_PENDING, FEE_REVERSAL
from cardwright.core.snapshot import Chain, Snapshot
from cardwright.core.transaction_types import SETTLED_AT_ONCE


def fee_of(snapshot: Snapshot, type_id: int, message: Authorization) -> tuple[RealTimeFee, int] | None:
    """The fee that a purchase of this type is assessed, and how much it is; None when there is none, or it is nothing.

    A percentage is of what the merchant asks for; what an MCC group holds beyond that costs nothing.
    """
    fee = fee_for(snapshot.fees, type_id)
    amount = fee.of(message.requested) if fee is not None and message.requested else 0
    return (fee, amount) if fee is not None and amount else None


def with_fee(snapshot: Snapshot, decision: Decision, fee: RealTimeFee, amount: int) -> Decision:
    """An approved purchase with its fee, for which JIT Funding brings what is not on the account."""
    usable = 0
    if snapshot.product.config.transaction_controls.allow_gpa_auth:
        ledger, held = decision.account.money(snapshot.currency)
        usable = max(0, ledger - held)
    load = max(0, amount - usable) if snapshot.source is not None else 0
    funded = Legs(program_funding=-load, available=load - amount)
    if decision.type_id in SETTLED_AT_ONCE:
        step = FeeStep(
            type_id=FEE_CHARGE, state=State.COMPLETION, amount=amount, impacted=-amount, moved=load, load_left=load,
            legs=funded._replace(fees=amount), fee=fee.fee, group=fee.group,
        )  # fmt: skip
    else:
        step = FeeStep(
            type_id=FEE_PENDING, state=State.PENDING, amount=amount, impacted=-amount, moved=load, hold_left=amount,
            load_left=load, legs=funded._replace(held=amount), fee=fee.fee, group=fee.group,
        )  # fmt: skip
    return msgspec.structs.replace(decision, fee=step)


def with_fee_of_chain(before: Chain, assessed: Assessed, decision: Decision) -> Decision:
    """What follows a purchase, with what becomes of the purchase's fee."""
    after = decision.chain
    if after is None:
        return decision
    if before.type_id in SETTLED_AT_ONCE:
        step = _given_back(assessed) if before.cleared and not after.cleared else None
    elif not before.hold_left or before.cleared:
        # What was charged stays charged, and what was let go of is not charged again.
        step = None
    elif after.cleared:
        step = _taken(assessed)
    else:
        step = None if after.hold_left else _let_go(assessed)
    return decision if step is None else msgspec.structs.replace(decision, fee=step)


def _taken(assessed: Assessed) -> FeeStep:
    amount = assessed.amount
    return FeeStep(
        type_id=FEE_CHARGE, state=State.COMPLETION, amount=amount, impacted=-amount, legs=Legs(held=-amount, fees=amount),
        fee=assessed.fee, group=assessed.group, root=Chain(State.CLEARED, amount, 0, assessed.load, 0),
    )  # fmt: skip


def _let_go(assessed: Assessed) -> FeeStep:
    amount, load = assessed.amount, assessed.load
    return FeeStep(
        type_id=FEE_REVERSAL, state=State.CLEARED, amount=amount, impacted=amount, moved=-load,
        legs=Legs(program_funding=load, available=amount - load, held=-amount),
        fee=assessed.fee, group=assessed.group, root=Chain(State.CLEARED, amount, 0, 0, 0),
    )  # fmt: skip


def _given_back(assessed: Assessed) -> FeeStep:
    amount, load = assessed.amount, assessed.load
    return FeeStep(
        type_id=FEE_REVERSAL, state=State.CLEARED, amount=amount, impacted=amount, moved=-load,
        legs=Legs(program_funding=load, available=amount - load, fees=-amount),
        fee=assessed.fee, group=assessed.group, root=Chain(State.COMPLETION, amount, 0, 0, amount),
    )  # fmt: skip
