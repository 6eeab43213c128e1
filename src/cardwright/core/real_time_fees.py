"""Real-time fees in a decision: assessed with a purchase, charged at its clearing, returned at its full reversal.

The fee of a purchase is a separate transaction: ``fee.charge.pending`` holds the money. ``fee.charge`` takes it with the first
clearing. ``fee.charge.reversal`` releases it if the hold ends before a clearing. A purchase that is settled at once is charged
at once. Partial clearings and reversals do not change the assessed fee (wire reference, "Real-time fee groups"; the timing and
this rule are choices).
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
    """Return the fee of a purchase of this type and its amount in minor units; None if there is none or the amount is 0.

    A percentage applies to the requested amount, without the increase by an MCC group.
    """
    fee = fee_for(snapshot.fees, type_id)
    amount = fee.of(message.requested) if fee is not None and message.requested else 0
    return (fee, amount) if fee is not None and amount else None


def with_fee(snapshot: Snapshot, decision: Decision, fee: RealTimeFee, amount: int) -> Decision:
    """Return an approved purchase with its fee. JIT Funding loads the part of the fee that the account lacks."""
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
    """Return the decision on a follow-up, with its effect on the fee of the purchase."""
    after = decision.chain
    if after is None:
        return decision
    if before.type_id in SETTLED_AT_ONCE:
        step = _given_back(assessed) if before.cleared and not after.cleared else None
    elif not before.hold_left or before.cleared:
        # A charged fee stays charged, and a released fee is not charged again.
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
