"""The decision: a pure function from a snapshot and a message to an outcome and the account afterwards."""

from collections.abc import Iterator, Sequence
from typing import assert_never

from msgspec.structs import replace

from cardwright.core.checks import first_refusal
from cardwright.core.decision import Decision, Legs, approved, declined
from cardwright.core.enums import State
from cardwright.core.funding import Funding, fund
from cardwright.core.holds import due_time, raised
from cardwright.core.lifecycle import advise, announce, clear, credit, expire, refund, reverse
from cardwright.core.messages import Advice, Authorization, Clearing, Expiry, Message, Refund, Reversal
from cardwright.core.real_time_fees import fee_of, with_fee, with_fee_of_chain
from cardwright.core.responses import APPROVALS, Reason
from cardwright.core.snapshot import Snapshot
from cardwright.core.transaction_types import SINGLE_MESSAGE, TYPE_OF, TYPE_WITH_CASH, RequestType
from cardwright.core.velocity import Control, LimitResult, event_if_approved, judge, usage_keys, windows_at
from cardwright.kit.clock import Instant


def decide(snapshot: Snapshot, message: Message, now: Instant) -> Decision:
    """Decide one message. The function has no side effects: equal snapshot, message and instant give an equal decision."""
    match message:
        case Authorization():
            return decide_authorization(snapshot, message, now)
        case Refund():
            return refund(snapshot, message, now)
        case _:
            decision = _follow(snapshot, message, now)
    if message.details.assessed is None or snapshot.chain is None:
        return decision
    return with_fee_of_chain(snapshot.chain, message.details.assessed, decision)


def _follow(snapshot: Snapshot, message: Clearing | Reversal | Advice | Expiry, now: Instant) -> Decision:
    match message:
        case Clearing():
            return clear(snapshot, message)
        case Reversal():
            return reverse(snapshot, message, now)
        case Advice():
            return advise(snapshot, message)
        case Expiry():
            return expire(snapshot, now)
        case _:
            assert_never(message)


def limit_results(snapshot: Snapshot, message: Authorization, now: Instant) -> Iterator[LimitResult]:
    """Yield the result of each velocity control that applies: user's, card product's, program's, oldest first."""
    return _limit_results(snapshot.velocity_limits, snapshot, message, now)


def _limit_results(
    controls: Sequence[Control], snapshot: Snapshot, message: Authorization, now: Instant
) -> Iterator[LimitResult]:
    event = event_if_approved(message, snapshot.currency)
    if event is None:
        return
    usages, windows = snapshot.account.usages, windows_at(now)
    keys = usage_keys(controls, snapshot.user.token, snapshot.owner.token)
    for control, key in zip(controls, keys, strict=True):
        if (verdict := judge(control, usages.get(key), event, windows)) is not None:
            yield verdict


def first_limit(snapshot: Snapshot, message: Authorization, now: Instant) -> LimitResult | None:
    """Return the result of the first velocity control without room for the purchase; None if all have room."""
    if snapshot.strictest_limits is not None and _first_limit(snapshot.strictest_limits, snapshot, message, now) is None:
        return None
    return _first_limit(snapshot.velocity_limits, snapshot, message, now)


def _first_limit(controls: Sequence[Control], snapshot: Snapshot, message: Authorization, now: Instant) -> LimitResult | None:
    for verdict in _limit_results(controls, snapshot, message, now):
        if verdict.reason is not None:
            return verdict
    return None


def would_refuse(snapshot: Snapshot, message: Message, decision: Decision, now: Instant) -> list[Control]:
    """Return the controls of the snapshot that would have declined a purchase that was approved without them."""
    if not isinstance(message, Authorization) or not decision.is_approved:
        return []
    results = limit_results(snapshot, raised(snapshot, message), now)
    return [result.control for result in results if result.reason is not None]


def decide_authorization(snapshot: Snapshot, message: Authorization, now: Instant) -> Decision:
    """Decide a request of the network.

    It is declined by the first check that fails, then by the first velocity control without room, then for lack of funds.
    Otherwise its amount is held, or settled at once.
    """
    request_type, requested = message.request_type, message.requested
    type_id = TYPE_WITH_CASH[request_type] if message.details.cash_back else TYPE_OF[request_type]
    if request_type is RequestType.INCREMENT and (closed := closed_reason(snapshot)) is not None:
        return declined(snapshot, type_id, closed, requested)
    refusal = first_refusal(snapshot, message, now)
    if refusal is not None:
        return declined(snapshot, type_id, refusal, requested, limited_by=_name_of_control(snapshot, message, now, refusal))
    if snapshot.spend.categories.increases:
        message = raised(snapshot, message)
    if snapshot.velocity_limits and (limit := first_limit(snapshot, message, now)) is not None:
        name = limit.control.name or limit.control.token
        return declined(snapshot, type_id, limit.reason or Reason.AMOUNT_LIMIT, requested, limited_by=name)
    if request_type is RequestType.ORIGINAL_CREDIT or request_type is RequestType.CREDIT_HOLD:
        if not snapshot.account.has_room(snapshot.currency, requested):
            return declined(snapshot, type_id, Reason.NOT_SUFFICIENT_FUNDS, requested)
        if request_type is RequestType.ORIGINAL_CREDIT:
            return credit(snapshot, requested)
        return announce(snapshot, type_id, requested, due_time(snapshot, message.details, now))
    fee = fee_of(snapshot, type_id, message) if snapshot.fees else None
    funding = fund(snapshot, message, fee[1] if fee is not None else 0)
    if funding.reason not in APPROVALS:
        return declined(snapshot, type_id, funding.reason, requested, order_refused=funding.order_refused)
    if request_type in SINGLE_MESSAGE:
        settled = _settled(snapshot, type_id, requested, funding)
        return settled if fee is None else with_fee(snapshot, settled, *fee)
    amount, load = funding.amount, funding.load
    due = due_time(snapshot, message.details, now) if amount else 0
    chain, begins = None, True
    if request_type is RequestType.INCREMENT and snapshot.chain is not None:
        chain, begins = replace(snapshot.chain.after(hold=amount, load=load), due_ms=max(due, snapshot.chain.due_ms)), False
    held = approved(
        snapshot,
        type_id,
        # An amount of zero is an account verification or a balance inquiry: it holds nothing, so no message will follow.
        State.PENDING if amount else State.CLEARED,
        amount,
        reason=funding.reason,
        requested=requested,
        impacted=-amount,
        moved=load,
        legs=Legs(program_funding=-load, available=load - amount, held=amount),
        hold_left=amount if begins else 0,
        load_left=load if begins else 0,
        due_ms=due if begins else 0,
        chain=chain,
    )
    return held if fee is None else with_fee(snapshot, held, *fee)


def closed_reason(snapshot: Snapshot) -> Reason | None:
    """Return the reason that an authorization cannot grow; None while it has an open hold."""
    assert snapshot.chain is not None, "an increment names an authorization"
    if snapshot.chain.hold_left:
        return None
    return Reason.PREVIOUSLY_COMPLETED if snapshot.chain.cleared else Reason.PREVIOUSLY_REVERSED


def _settled(snapshot: Snapshot, type_id: int, requested: int, funding: Funding) -> Decision:
    """Return the decision on a purchase or withdrawal that is held and cleared in one message."""
    amount, load = funding.amount, funding.load
    return approved(
        snapshot,
        type_id,
        State.COMPLETION if amount else State.CLEARED,
        amount,
        reason=funding.reason,
        requested=requested,
        impacted=-amount,
        moved=load,
        legs=Legs(program_funding=-load, available=load - amount, settlement=amount),
        load_left=load,
        cleared=amount,
    )


def _name_of_control(snapshot: Snapshot, message: Authorization, now: Instant, refusal: Reason) -> str | None:
    """Return the name of the authorization control that declined the purchase, for the response; None if another check did."""
    if refusal is not Reason.MERCHANT_NOT_ALLOWED:
        return None
    control = snapshot.spend.blocking(message.details.mid, message.details.merchant.mcc, now)
    return None if control is None else control.name or control.token
