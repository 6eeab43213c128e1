"""What follows an authorization: advice, reversal, clearing; and the refund, which follows nothing.

None of them is refused for the state of card, holder or spend controls: they tell what has happened (wire reference,
"Rules for odd sequences" and "Funds flow per lifecycle step").
"""

from cardwright.core.messages import Advice, Clearing, Refund, Reversal
from cardwright.core.outcome import Decision, Legs, declined
from cardwright.core.responses import Reason
from cardwright.core.snapshot import Chain, Snapshot
from cardwright.core.words import TYPE_NUMBER, State

ADVICE = TYPE_NUMBER["authorization.advice"]
REVERSAL = TYPE_NUMBER["authorization.reversal"]
CLEARING = TYPE_NUMBER["authorization.clearing"]
REFUND = TYPE_NUMBER["refund"]

NO_CHAIN = Chain(State.CLEARED, 0, 0, 0, 0)
"""What a forced clearing finds: no hold to use."""


def reverse(seen: Snapshot, asked: Reversal) -> Decision:
    """Releases a part of the hold or all of it; what JIT Funding had brought goes back to where it came from first."""
    chain = seen.chain
    assert chain is not None, "a reversal names an authorization"
    if chain.hold_left == 0:
        done = Reason.PREVIOUSLY_COMPLETED if chain.cleared else Reason.PREVIOUSLY_REVERSED
        return declined(seen, REVERSAL, done, asked.amount)
    if asked.amount > chain.hold_left:
        return declined(seen, REVERSAL, Reason.INVALID_AMOUNT, asked.amount)
    # Who takes back all that he asked for takes back what an MCC group held beyond it too: he does not know of that.
    amount = chain.hold_left if 0 < chain.increase == chain.hold_left - asked.amount else asked.amount
    return _release(seen, chain, REVERSAL, amount, closing=amount == chain.hold_left)


def advise(seen: Snapshot, asked: Advice) -> Decision:
    """Lowers the authorization's total, which leaves it open; a higher total needs an increment instead."""
    chain = seen.chain
    assert chain is not None, "an advice names an authorization"
    if asked.amount > chain.hold_left:
        return declined(seen, ADVICE, Reason.INVALID_AMOUNT, asked.amount)
    return _release(seen, chain, ADVICE, chain.hold_left - asked.amount, closing=False)


def clear(seen: Snapshot, asked: Clearing) -> Decision:
    """Money leaves: from the hold as far as it reaches, the rest from the account and JIT Funding at this moment.

    A clearing cannot be refused. Without JIT Funding the account may go below zero (``overdraft_destination`` ``GPA``).
    """
    chain = seen.chain if seen.chain is not None and not asked.is_forced else NO_CHAIN
    from_hold = min(asked.amount, chain.hold_left)
    captured = min(from_hold, chain.load_left)
    extra = asked.amount - from_hold
    load = _load_for(seen, extra)
    after = Chain(
        State.CLEARED if from_hold == chain.hold_left else State.PENDING,
        chain.requested, chain.hold_left - from_hold, chain.load_left - captured, chain.cleared + asked.amount,
    )  # fmt: skip
    return Decision(
        kind=CLEARING,
        state=State.COMPLETION,
        reason=Reason.APPROVED,
        currency=seen.currency,
        requested=asked.amount,
        amount=asked.amount,
        impacted=-asked.amount,
        moved=captured + load,
        legs=Legs(program_funding=-load, available=load - extra, held=-from_hold, settlement=asked.amount),
        account=seen.account.moved(seen.currency, load - asked.amount, -from_hold),
        chain=None if asked.is_forced else after,
        use=(extra, 1 if asked.is_forced else 0),
    )


def refund(seen: Snapshot, asked: Refund) -> Decision:
    """Money comes back, to the account or at once on to the funding source, as the product's ``refunds_destination`` says."""
    funding = seen.product.config.jit_funding.program_funding_source
    # WATERFALL repays the JIT source first too: what it lent is what the account does not have (choice).
    back = asked.amount if seen.source is not None and funding.refunds_destination != "GPA" else 0
    kept = asked.amount - back
    return Decision(
        kind=REFUND,
        state=State.COMPLETION,
        reason=Reason.APPROVED,
        currency=seen.currency,
        requested=asked.amount,
        amount=asked.amount,
        impacted=asked.amount,
        moved=-back,
        legs=Legs(program_funding=back, available=kept, settlement=-asked.amount),
        account=seen.account.moved(seen.currency, kept, 0),
        use=(-asked.amount, 0),
    )


def _load_for(seen: Snapshot, extra: int) -> int:
    """What JIT Funding brings for the part of a clearing that no hold covers; an inactive source cannot refuse it either."""
    if seen.source is None or extra == 0:
        return 0
    ledger, held = seen.account.money(seen.currency)
    usable = max(0, ledger - held) if seen.product.config.transaction_controls.allow_gpa_auth else 0
    return max(0, extra - usable)


def _release(seen: Snapshot, chain: Chain, kind: int, amount: int, *, closing: bool) -> Decision:
    back = min(amount, chain.load_left)
    hold_left = chain.hold_left - amount
    return Decision(
        kind=kind,
        state=State.CLEARED if closing else State.PENDING,
        reason=Reason.APPROVED,
        currency=seen.currency,
        requested=chain.requested,
        amount=amount,
        impacted=amount,
        moved=-back,
        legs=Legs(program_funding=back, available=amount - back, held=-amount),
        account=seen.account.moved(seen.currency, -back, -amount),
        chain=Chain(
            chain.state if hold_left else State.CLEARED, chain.requested, hold_left, chain.load_left - back, chain.cleared
        ),
        # A purchase that is undone before anything of it was cleared was no use of the card.
        use=(-amount, -1 if closing and not chain.cleared else 0),
    )
