"""The decision: a pure function from what is seen and asked to an outcome and the account as it is afterwards."""

from collections.abc import Iterator, Sequence
from typing import assert_never

from msgspec.structs import replace

from cardwright.core.checks import first_refusal
from cardwright.core.decision import Decision, Legs, declined
from cardwright.core.enums import State
from cardwright.core.funding import Funding, fund
from cardwright.core.holds import due_time, raised
from cardwright.core.lifecycle import advise, announce, clear, credit, expire, refund, reverse
from cardwright.core.messages import Advice, Authorization, Clearing, Expiry, Message, Refund, Reversal
from cardwright.core.real_time_fees import fee_of, with_fee, with_fee_of_chain
from cardwright.core.responses import APPROVALS, Reason
from cardwright.core.snapshot import Snapshot
from cardwright.core.transaction_types import KIND_OF, KIND_WITH_CASH, SINGLE_MESSAGE, RequestType
from cardwright.core.velocity import Control, LimitResult, event_if_approved, judge, usage_keys, windows_at
from cardwright.kit.clock import Instant


def decide(seen: Snapshot, message: Message, now: Instant) -> Decision:
    """Decides one message. Touches nothing: the same snapshot, message and instant always give the same decision."""
    match message:
        case Authorization():
            return decide_authorization(seen, message, now)
        case Refund():
            return refund(seen, message, now)
        case _:
            decision = _follow(seen, message, now)
    if message.details.assessed is None or seen.chain is None:
        return decision
    return with_fee_of_chain(seen.chain, message.details.assessed, decision)


def _follow(seen: Snapshot, message: Clearing | Reversal | Advice | Expiry, now: Instant) -> Decision:
    match message:
        case Clearing():
            return clear(seen, message)
        case Reversal():
            return reverse(seen, message, now)
        case Advice():
            return advise(seen, message)
        case Expiry():
            return expire(seen, now)
        case _:
            assert_never(message)


def limit_results(seen: Snapshot, asked: Authorization, now: Instant) -> Iterator[LimitResult]:
    """What each velocity control that applies says, in order: user's, card product's, program's, oldest first."""
    return _limit_results(seen.velocity_limits, seen, asked, now)


def _limit_results(controls: Sequence[Control], seen: Snapshot, asked: Authorization, now: Instant) -> Iterator[LimitResult]:
    event = event_if_approved(asked, seen.currency)
    if event is None:
        return
    usages, windows = seen.account.usages, windows_at(now)
    keys = usage_keys(controls, seen.user.token, seen.owner.token)
    for control, key in zip(controls, keys, strict=True):
        if (verdict := judge(control, usages.get(key), event, windows)) is not None:
            yield verdict


def first_limit(seen: Snapshot, asked: Authorization, now: Instant) -> LimitResult | None:
    """The first velocity control that has no room for the purchase."""
    if seen.strictest_limits is not None and _first_limit(seen.strictest_limits, seen, asked, now) is None:
        return None
    return _first_limit(seen.velocity_limits, seen, asked, now)


def _first_limit(controls: Sequence[Control], seen: Snapshot, asked: Authorization, now: Instant) -> LimitResult | None:
    for verdict in _limit_results(controls, seen, asked, now):
        if verdict.reason is not None:
            return verdict
    return None


def would_refuse(seen: Snapshot, asked: Message, decision: Decision, now: Instant) -> list[Control]:
    """Those of the snapshot's controls that would have refused a purchase that was approved without them."""
    if not isinstance(asked, Authorization) or not decision.is_approved:
        return []
    said = limit_results(seen, raised(seen, asked), now)
    return [verdict.control for verdict in said if verdict.reason is not None]


def decide_authorization(seen: Snapshot, asked: Authorization, now: Instant) -> Decision:
    """What asks for something: refused by the first check that fails, else funded, and held or settled at once."""
    request_type, requested = asked.request_type, asked.requested
    kind = KIND_WITH_CASH[request_type] if asked.details.cash_back else KIND_OF[request_type]
    if request_type is RequestType.INCREMENT and (closed := closed_reason(seen)) is not None:
        return declined(seen, kind, closed, requested)
    refusal = first_refusal(seen, asked, now)
    if refusal is not None:
        return declined(seen, kind, refusal, requested, limited_by=_name_of_control(seen, asked, now, refusal))
    if seen.spend.categories.increases:
        asked = raised(seen, asked)
    if seen.velocity_limits and (limit := first_limit(seen, asked, now)) is not None:
        name = limit.control.name or limit.control.token
        return declined(seen, kind, limit.reason or Reason.AMOUNT_LIMIT, requested, limited_by=name)
    if request_type is RequestType.ORIGINAL_CREDIT or request_type is RequestType.CREDIT_HOLD:
        if not seen.account.has_room(seen.currency, requested):
            return declined(seen, kind, Reason.NOT_SUFFICIENT_FUNDS, requested)
        if request_type is RequestType.ORIGINAL_CREDIT:
            return credit(seen, requested)
        return announce(seen, kind, requested, due_time(seen, asked.details, now))
    fee = fee_of(seen, kind, asked) if seen.fees else None
    funding = fund(seen, asked, fee[1] if fee is not None else 0)
    if funding.reason not in APPROVALS:
        return declined(seen, kind, funding.reason, requested, order_refused=funding.order_refused)
    if request_type in SINGLE_MESSAGE:
        settled = _settled(seen, kind, requested, funding)
        return settled if fee is None else with_fee(seen, settled, *fee)
    amount, load = funding.amount, funding.load
    due = due_time(seen, asked.details, now) if amount else 0
    chain, begins = None, True
    if request_type is RequestType.INCREMENT and seen.chain is not None:
        chain, begins = replace(seen.chain.after(hold=amount, load=load), due_ms=max(due, seen.chain.due_ms)), False
    held = Decision(
        kind=kind,
        # An amount of zero is an account verification or a balance inquiry: nothing is held, so nothing will follow.
        state=State.PENDING if amount else State.CLEARED,
        reason=funding.reason,
        currency=seen.currency,
        requested=requested,
        amount=amount,
        impacted=-amount,
        moved=load,
        legs=Legs(program_funding=-load, available=load - amount, held=amount),
        account=seen.account.moved(seen.currency, load, amount),
        hold_left=amount if begins else 0,
        load_left=load if begins else 0,
        due_ms=due if begins else 0,
        chain=chain,
    )
    return held if fee is None else with_fee(seen, held, *fee)


def closed_reason(seen: Snapshot) -> Reason | None:
    """Why an authorization cannot grow any more; None while it holds something."""
    assert seen.chain is not None, "an increment names an authorization"
    if seen.chain.hold_left:
        return None
    return Reason.PREVIOUSLY_COMPLETED if seen.chain.cleared else Reason.PREVIOUSLY_REVERSED


def _settled(seen: Snapshot, kind: int, requested: int, funding: Funding) -> Decision:
    """A purchase or withdrawal that is held and cleared in one message."""
    amount, load = funding.amount, funding.load
    return Decision(
        kind=kind,
        state=State.COMPLETION if amount else State.CLEARED,
        reason=funding.reason,
        currency=seen.currency,
        requested=requested,
        amount=amount,
        impacted=-amount,
        moved=load,
        legs=Legs(program_funding=-load, available=load - amount, settlement=amount),
        account=seen.account.moved(seen.currency, load - amount, 0),
        load_left=load,
        cleared=amount,
    )


def _name_of_control(seen: Snapshot, asked: Authorization, now: Instant, refusal: Reason) -> str | None:
    """Which authorization control it was, where it was one: the cardholder is told its name."""
    if refusal is not Reason.MERCHANT_NOT_ALLOWED:
        return None
    control = seen.spend.blocking(asked.details.mid, asked.details.merchant.mcc, now)
    return None if control is None else control.name or control.token
