"""Lifecycle of a transaction: advice, reversal, clearing and expiry, and credits, which follow no message.

None of them is declined for the state of card or holder, or by spend controls: they report past events. See "Rules for odd
sequences" and "Funds flow per lifecycle step" in the wire reference.

Worked example, in minor units. An authorization of 80 with a JIT load of 50 (the account had 30) holds 80: hold_left 80,
load_left 50. A clearing of 100 takes min(100, 80) = 80 from the hold, of which min(80, 50) = 50 is the load (``captured``). The
other 20 (``extra``) come from the account, and from a further JIT load if the account has less, here 20. The row shows moved 70
(50 captured and 20 new). The leg of the funding source is only the new load: program_funding −20, held −80, settlement +100.
Afterwards hold_left and load_left are 0 and cleared is 100. ``Chain.after`` sets the state CLEARED when hold_left reaches 0.
"""

import msgspec

from cardwright.core.decision import NO_USAGE_CHANGE, Decision, Legs, UsageChange, approved, declined
from cardwright.core.enums import State
from cardwright.core.holds import due_time, is_due
from cardwright.core.messages import Advice, Clearing, Refund, Reversal
from cardwright.core.responses import Reason
from cardwright.core.snapshot import Chain, Snapshot
from cardwright.core.transaction_types import (
    ANNOUNCED_REFUND,
    CARD_CREDITS,
    CLEARED_ONCE,
    CREDIT,
    CREDIT_CLEARINGS,
    FAMILIES,
    PENDING_CREDITS,
    PIN_REFUND,
    PIN_REVERSAL,
    SETTLED_AT_ONCE,
    Family,
)
from cardwright.kit.clock import DAY_MS, Instant

NO_CHAIN = Chain(State.CLEARED, 0, 0, 0, 0)
"""The chain of a forced clearing: no hold to use."""


def chain_of(snapshot: Snapshot) -> tuple[Chain, Family]:
    """Return the chain that a message names, and the transaction types of its follow-ups."""
    assert snapshot.chain is not None, "a message that follows another names its chain"
    return snapshot.chain, FAMILIES[snapshot.chain.type_id]


def reverse(snapshot: Snapshot, message: Reversal, now: Instant) -> Decision:
    """Release a part of the hold or all of it. JIT money goes back to the funding source first; the account keeps the rest.

    A message that was settled at once is undone instead. A reversal advice releases at most the open amount.
    """
    chain, family = chain_of(snapshot)
    at_once = chain.type_id in SETTLED_AT_ONCE
    left = abs(chain.cleared) if at_once else chain.hold_left
    amount = min(message.amount, left) if message.is_advice else message.amount
    if 0 < chain.increase == left - amount:
        # An MCC group may hold more than the request. A reversal of the whole request releases the excess too.
        amount = left
    if message.window_days is not None and now - chain.since_ms > message.window_days * DAY_MS:
        return declined(snapshot, family.reversal, Reason.ORIGINAL_NOT_FOUND, message.amount)
    if not message.is_advice and (refusal := _refusal(chain, amount, left)) is not None:
        return declined(snapshot, family.reversal, refusal, message.amount)
    if at_once:
        undo = _take_credit_back if chain.type_id in CARD_CREDITS else _undo
        return undo(snapshot, chain, amount)
    return _release(snapshot, chain, family.reversal, amount, closing=amount == left)


def _refusal(chain: Chain, amount: int, left: int) -> Reason | None:
    """Return the reason that ``amount`` cannot be released from ``left``, the open amount; None if it can.

    An authorization of zero never has an open amount, so it was neither completed nor reversed before.
    """
    if left == 0 and chain.requested:
        is_cleared = chain.cleared and chain.type_id not in SETTLED_AT_ONCE
        return Reason.PREVIOUSLY_COMPLETED if is_cleared else Reason.PREVIOUSLY_REVERSED
    return Reason.INVALID_AMOUNT if amount > left else None


def advise(snapshot: Snapshot, message: Advice) -> Decision:
    """Lower the total of an authorization, which may be partly cleared. A higher total needs an increment and is declined."""
    chain, family = chain_of(snapshot)
    assert family.advice is not None, "parsing lets an advice name only a hold or a pending credit"
    lowered_by = abs(chain.cleared) + chain.hold_left - message.amount
    if (refusal := _refusal(chain, lowered_by, chain.hold_left)) is not None or lowered_by < 0:
        return declined(snapshot, family.advice, refusal or Reason.INVALID_AMOUNT, message.amount)
    lowered = _release(snapshot, chain, family.advice, lowered_by, closing=lowered_by == chain.hold_left)
    # The amount of an advice is the new total. Its effect and its order have the difference (wire reference, 10.6).
    return msgspec.structs.replace(lowered, requested=message.amount, amount=message.amount)


def expire(snapshot: Snapshot, now: Instant) -> Decision:
    """Release the rest of a hold that is due. The caller has checked ``is_due``."""
    chain, family = chain_of(snapshot)
    assert is_due(chain, now), "a hold expires when it is due, once"
    assert family.expiry is not None, "only a hold expires"
    return _release(snapshot, chain, family.expiry, chain.hold_left, closing=True)


def clear(snapshot: Snapshot, message: Clearing) -> Decision:
    """Take the money from the hold first, then from the account (if ``allow_gpa_auth``), then by a JIT load.

    A clearing is declined only if its amount does not fit into an account. The clearing of a pending credit brings money instead.
    Without JIT Funding the account may fall below zero, or the program's overdraft account covers the shortage
    (``overdraft_destination``). The completions of PIN debit, cash and quasi-cash are final: the rest of the hold is released.
    Other clearings keep it for a further clearing, a reversal or its expiry. A forced clearing ignores the chain that it names.
    """
    chain = snapshot.chain if snapshot.chain is not None and not message.is_forced else NO_CHAIN
    type_id = FAMILIES[chain.type_id].clearing if chain is not NO_CHAIN else message.forced_as
    assert type_id is not None, "parsing lets a clearing name only a hold"
    if not snapshot.account.has_room(snapshot.currency, message.amount):
        return declined(snapshot, type_id, Reason.INVALID_AMOUNT, message.amount)
    if type_id in CREDIT_CLEARINGS:
        return _credit_announced(snapshot, type_id, message.amount, None if chain is NO_CHAIN else chain)
    from_hold = min(message.amount, chain.hold_left)
    captured = min(from_hold, chain.load_left)
    extra = message.amount - from_hold
    load = _jit_load_for(snapshot, extra)
    short = _overdraft_for(snapshot, extra)
    rest = chain.hold_left - from_hold if chain.type_id in CLEARED_ONCE else 0
    back = min(rest, chain.load_left - captured)
    after = chain.after(hold=-from_hold - rest, load=-captured - back, cleared=message.amount)
    legs = Legs(
        program_funding=back - load, available=load + short - extra + rest - back, held=-from_hold - rest,
        settlement=message.amount, overdraft=-short,
    )  # fmt: skip
    return approved(
        snapshot,
        type_id,
        State.COMPLETION,
        message.amount,
        impacted=-message.amount,
        moved=captured + load,
        legs=legs,
        cleared=message.amount if message.is_forced else 0,
        released=rest,
        chain=None if message.is_forced else after,
        use=UsageChange(extra - rest, 1 if message.is_forced else 0),
    )


def refund(snapshot: Snapshot, message: Refund, now: Instant) -> Decision:
    """Return money to the account, or directly to the funding source, by the product's ``refunds_destination``.

    A pending refund moves money when it is cleared. An amount that does not fit into an account is declined as invalid.
    """
    if not snapshot.account.has_room(snapshot.currency, message.amount):
        return declined(snapshot, message.type_id, Reason.INVALID_AMOUNT, message.amount)
    if message.type_id == ANNOUNCED_REFUND:
        return announce(snapshot, message.type_id, message.amount, due_time(snapshot, message.details, now))
    return _credit(snapshot, message.type_id, message.amount, use=UsageChange(-message.amount, 0))


def announce(snapshot: Snapshot, type_id: int, amount: int, due: Instant) -> Decision:
    """Record a pending credit. No balance changes, and the money cannot be spent before its clearing (wire reference, 9.5)."""
    unload = _refund_to_source(snapshot, amount)
    return approved(snapshot, type_id, State.PENDING, amount, impacted=0, hold_left=amount, due_ms=due, unload=unload)


def _credit_announced(snapshot: Snapshot, type_id: int, amount: int, chain: Chain | None) -> Decision:
    """Clear a credit, with or without its pending credit (``chain``). The money goes to the destination of refunds."""
    is_refund = type_id == FAMILIES[ANNOUNCED_REFUND].clearing
    excess = UsageChange(amount, 1) if chain is None else UsageChange(max(0, amount - chain.hold_left), 0)
    brought = _credit(snapshot, type_id, amount, use=UsageChange(-amount, 0) if is_refund else excess)
    if chain is None:
        return brought
    after = chain.after(hold=-min(amount, chain.hold_left), cleared=-amount)
    return msgspec.structs.replace(brought, cleared=0, chain=after)


def credit(snapshot: Snapshot, requested: int) -> Decision:
    """Decide an original credit: money from another sender, in one message. It goes to the destination of refunds."""
    return _credit(snapshot, CREDIT, requested, use=NO_USAGE_CHANGE)


def _credit(snapshot: Snapshot, type_id: int, amount: int, use: UsageChange) -> Decision:
    back = _refund_to_source(snapshot, amount)
    kept = amount - back
    return approved(
        snapshot,
        type_id,
        State.COMPLETION,
        amount,
        impacted=amount,
        moved=-back,
        legs=Legs(program_funding=back, available=kept, settlement=-amount),
        # The reversal of a credit needs the amount that went to the funding source.
        load_left=-back if type_id in CARD_CREDITS else 0,
        cleared=-amount,
        use=use,
    )


def _refund_to_source(snapshot: Snapshot, amount: int) -> int:
    """Return the part of a credit that goes to the funding source, in minor units."""
    funding = snapshot.product.config.jit_funding.program_funding_source
    # WATERFALL also repays the JIT source first, because its loads covered what the account lacked (choice).
    return amount if snapshot.source is not None and funding.refunds_destination != "GPA" else 0


def _jit_load_for(snapshot: Snapshot, extra: int) -> int:
    """Return the JIT load for the part of a clearing that no hold covers. An inactive source cannot decline it."""
    if snapshot.source is None or extra == 0:
        return 0
    ledger, held = snapshot.account.money(snapshot.currency)
    usable = max(0, ledger - held) if snapshot.product.config.transaction_controls.allow_gpa_auth else 0
    return max(0, extra - usable)


def _overdraft_for(snapshot: Snapshot, extra: int) -> int:
    """Return the amount that the program's overdraft account gives for the part that neither hold nor account covers.

    Merchant-specific accounts do not exist here, so every destination other than ``GPA`` is this account (choice).
    """
    if (
        snapshot.source is not None
        or extra == 0
        or snapshot.product.config.clearing_and_settlement.overdraft_destination == "GPA"
    ):
        return 0
    ledger, held = snapshot.account.money(snapshot.currency)
    return max(0, extra - max(0, ledger - held))


def _release(snapshot: Snapshot, chain: Chain, type_id: int, amount: int, *, closing: bool) -> Decision:
    state, left = State.CLEARED if closing else State.PENDING, chain.hold_left - amount
    # With increments, a release can exceed the first request.
    requested, use = max(chain.requested, amount), _released_use(chain, amount, closing=closing)
    if chain.type_id in PENDING_CREDITS:
        after, unload = chain.after(hold=-amount), _refund_to_source(snapshot, amount)
        return approved(
            snapshot, type_id, state, amount, requested=requested, impacted=0, chain=after, left=left, unload=unload, use=use
        )
    back = min(amount, chain.load_left)
    return approved(
        snapshot,
        type_id,
        state,
        amount,
        requested=requested,
        impacted=amount,
        moved=-back,
        legs=Legs(program_funding=back, available=amount - back, held=-amount),
        chain=chain.after(hold=-amount, load=-back),
        left=left,
        use=use,
    )


def _released_use(chain: Chain, amount: int, *, closing: bool) -> UsageChange:
    """Return the change of velocity usage by a release.

    A release of the whole hold before any clearing takes back the use too: the purchase no longer counts. A partial release
    keeps the use.
    """
    return UsageChange(-amount, -1 if closing and amount and not chain.cleared else 0)


def _undo(snapshot: Snapshot, chain: Chain, amount: int) -> Decision:
    """Reverse a purchase or withdrawal that was settled at once: the network returns the money."""
    back, type_id = min(amount, chain.load_left), FAMILIES[chain.type_id].reversal
    return approved(
        snapshot,
        type_id,
        State.CLEARED if type_id == PIN_REVERSAL else State.COMPLETION,
        amount,
        requested=chain.requested,
        impacted=amount,
        moved=-back,
        legs=Legs(program_funding=back, available=amount - back, settlement=-amount),
        chain=chain.after(load=-back, cleared=-amount),
        left=chain.cleared - amount,
        use=UsageChange(-amount, -1 if amount and amount == chain.cleared else 0),
    )


def _take_credit_back(snapshot: Snapshot, chain: Chain, amount: int) -> Decision:
    """Reverse an original credit or a PIN refund. The funding source returns the part that it got, the account the rest."""
    gone_on = max(0, min(amount, -chain.load_left))
    load = gone_on + _jit_load_for(snapshot, amount - gone_on)
    short = _overdraft_for(snapshot, amount - gone_on)
    is_refund = chain.type_id == PIN_REFUND
    return approved(
        snapshot,
        FAMILIES[chain.type_id].reversal,
        State.CLEARED if is_refund else State.COMPLETION,
        amount,
        requested=chain.requested,
        impacted=-amount,
        moved=load,
        legs=Legs(program_funding=-load, available=load + short - amount, settlement=amount, overdraft=-short),
        chain=chain.after(load=load, cleared=amount),
        left=-chain.cleared - amount,
        # The reversal of a refund counts the refund's give-back again. The reversal of a credit removes the credit's own usage.
        use=UsageChange(amount, 0) if is_refund else UsageChange(-amount, -1 if amount == -chain.cleared else 0),
    )
