"""Life of a transaction: advice, reversal, clearing and expiry, which follow a message; refunds and other credits, which do not.

None of them is declined for the state of card, holder or spend control: they report what has happened (wire reference,
"Rules for odd sequences" and "Funds flow per lifecycle step").

Worked example, in minor units. An authorization of 80 with a JIT load of 50 (the account had 30) holds 80: hold_left 80,
load_left 50. A clearing of 100 takes min(100, 80) = 80 from the hold, of which min(80, 50) = 50 is the load (``captured``).
The other 20 (``extra``) come from the account, and from a further JIT load if the account has less: say 20. The row shows
moved 70 (50 captured and 20 new); the leg of the funding source is only the new load: program_funding −20, held −80,
settlement +100. Afterwards hold_left and load_left are 0 and cleared is 100. ``Chain.after`` sets the state CLEARED when
hold_left reaches 0.
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
"""What a forced clearing finds: no hold to use."""


def chain_of(snapshot: Snapshot) -> tuple[Chain, Family]:
    """The chain that a message names, and the types of what may follow it."""
    assert snapshot.chain is not None, "a message that follows another names its chain"
    return snapshot.chain, FAMILIES[snapshot.chain.type_id]


def reverse(snapshot: Snapshot, message: Reversal, now: Instant) -> Decision:
    """Release a part of the hold or all of it. JIT money goes back to the funding source first; the account keeps the rest.

    What was settled at once is undone instead. A reversal that is an advice takes what there is.
    """
    chain, family = chain_of(snapshot)
    at_once = chain.type_id in SETTLED_AT_ONCE
    left = abs(chain.cleared) if at_once else chain.hold_left
    amount = min(message.amount, left) if message.is_advice else message.amount
    if 0 < chain.increase == left - amount:
        # An MCC group may hold more than the merchant asked for. A reversal of all that was asked for releases that excess too.
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
    """Return why ``amount`` cannot be released of what is ``left``; None when it can. An authorization of zero has nothing left
    from its beginning, so it was neither completed nor reversed before."""
    if left == 0 and chain.requested:
        is_cleared = chain.cleared and chain.type_id not in SETTLED_AT_ONCE
        return Reason.PREVIOUSLY_COMPLETED if is_cleared else Reason.PREVIOUSLY_REVERSED
    return Reason.INVALID_AMOUNT if amount > left else None


def advise(snapshot: Snapshot, message: Advice) -> Decision:
    """Lowers the authorization's total, of which a part may be cleared already; a higher total needs an increment instead."""
    chain, family = chain_of(snapshot)
    assert family.advice is not None, "parsing lets an advice name only a hold or an announcement"
    lowered_by = abs(chain.cleared) + chain.hold_left - message.amount
    if (refusal := _refusal(chain, lowered_by, chain.hold_left)) is not None or lowered_by < 0:
        return declined(snapshot, family.advice, refusal or Reason.INVALID_AMOUNT, message.amount)
    lowered = _release(snapshot, chain, family.advice, lowered_by, closing=lowered_by == chain.hold_left)
    # The amount of an advice is the new total; effect and order are the difference (wire reference, 10.6).
    return msgspec.structs.replace(lowered, requested=message.amount, amount=message.amount)


def expire(snapshot: Snapshot, now: Instant) -> Decision:
    """Releases what is left of a hold whose time is up, which the caller has made sure of (``is_due``)."""
    chain, family = chain_of(snapshot)
    assert is_due(chain, now), "a hold expires when it is due, once"
    assert family.expiry is not None, "only a hold expires"
    return _release(snapshot, chain, family.expiry, chain.hold_left, closing=True)


def clear(snapshot: Snapshot, message: Clearing) -> Decision:
    """Take the money: from the hold as far as it reaches, then from the account (if ``allow_gpa_auth``), then by a JIT load.

    A clearing is declined only if its amount does not fit into an account. One of what was announced brings money instead.
    Without JIT Funding the account may go below zero, or the program's overdraft account gives what is missing
    (``overdraft_destination``). The completions of PIN debit, cash and quasi-cash are final: the rest of the hold goes back. The
    others leave it for a further clearing, a reversal or its expiry. A forced clearing ignores the chain that it names.
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
    """Money comes back, to the account or at once on to the funding source, as the product's ``refunds_destination`` says.

    One that is only announced does so when it is cleared. An amount that no account can hold is declined as invalid.
    """
    if not snapshot.account.has_room(snapshot.currency, message.amount):
        return declined(snapshot, message.type_id, Reason.INVALID_AMOUNT, message.amount)
    if message.type_id == ANNOUNCED_REFUND:
        return announce(snapshot, message.type_id, message.amount, due_time(snapshot, message.details, now))
    return _credit(snapshot, message.type_id, message.amount, use=UsageChange(-message.amount, 0))


def announce(snapshot: Snapshot, type_id: int, amount: int, due: Instant) -> Decision:
    """Money is said to be on its way. No balance changes and nobody may spend it before it is there (wire reference, 9.5)."""
    unload = _refund_to_source(snapshot, amount)
    return approved(snapshot, type_id, State.PENDING, amount, impacted=0, hold_left=amount, due_ms=due, unload=unload)


def _credit_announced(snapshot: Snapshot, type_id: int, amount: int, chain: Chain | None) -> Decision:
    """The clearing of what was announced, or of what never was: it goes where a refund goes."""
    is_refund = type_id == FAMILIES[ANNOUNCED_REFUND].clearing
    excess = UsageChange(amount, 1) if chain is None else UsageChange(max(0, amount - chain.hold_left), 0)
    brought = _credit(snapshot, type_id, amount, use=UsageChange(-amount, 0) if is_refund else excess)
    if chain is None:
        return brought
    after = chain.after(hold=-min(amount, chain.hold_left), cleared=-amount)
    return msgspec.structs.replace(brought, cleared=0, chain=after)


def credit(snapshot: Snapshot, requested: int) -> Decision:
    """An original credit: money for the cardholder from somebody else, in one message; it goes where a refund goes."""
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
        # What can be undone needs to know what of it has gone on to the funding source.
        load_left=-back if type_id in CARD_CREDITS else 0,
        cleared=-amount,
        use=use,
    )


def _refund_to_source(snapshot: Snapshot, amount: int) -> int:
    """What of a credit goes on to the funding source."""
    funding = snapshot.product.config.jit_funding.program_funding_source
    # WATERFALL repays the JIT source first too: what it lent is what the account does not have (choice).
    return amount if snapshot.source is not None and funding.refunds_destination != "GPA" else 0


def _jit_load_for(snapshot: Snapshot, extra: int) -> int:
    """What JIT Funding brings for the part of a clearing that no hold covers; an inactive source cannot refuse it either."""
    if snapshot.source is None or extra == 0:
        return 0
    ledger, held = snapshot.account.money(snapshot.currency)
    usable = max(0, ledger - held) if snapshot.product.config.transaction_controls.allow_gpa_auth else 0
    return max(0, extra - usable)


def _overdraft_for(snapshot: Snapshot, extra: int) -> int:
    """What the program's overdraft account gives for the part that neither hold nor account covers.

    There are no merchant-specific accounts here, so every destination but the account itself is this one (choice).
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
    # With increments, more can be released than was requested at first.
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
    """Return what a release gives back to velocity usage.

    A purchase that is undone before anything of it was cleared does not count as a use, so its use is taken back; a partial
    release keeps it.
    """
    return UsageChange(-amount, -1 if closing and amount and not chain.cleared else 0)


def _undo(snapshot: Snapshot, chain: Chain, amount: int) -> Decision:
    """The reversal of a purchase or withdrawal that was settled at once: the network gives the money back."""
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
    """The reversal of an original credit or a PIN refund: the funding source returns what went on to it, the account the rest."""
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
        # What a refund gave back counts again; a credit that is undone gives its own use back.
        use=UsageChange(amount, 0) if is_refund else UsageChange(-amount, -1 if amount == -chain.cleared else 0),
    )
