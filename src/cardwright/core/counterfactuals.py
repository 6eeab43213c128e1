"""Counterfactuals: single changes that would approve a purchase that a control declined. ``decide`` verifies each of them."""

from typing import Any

import msgspec

from cardwright.core.checks import first_refusal
from cardwright.core.decide import decide, limit_results
from cardwright.core.holds import raised
from cardwright.core.messages import Authorization
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.snapshot import Snapshot
from cardwright.core.velocity import Control, LimitResult, window_end
from cardwright.kit.clock import Instant, iso_ms


def smallest_changes(snapshot: Snapshot, message: Authorization, now: Instant) -> dict[str, Any]:
    """Return the changes that would each suffice: a smaller amount, higher limits, a later time.

    Empty if no control declines the purchase, or if an earlier check does: then no change of a control helps. ``not_before``
    assumes that no other purchase happens until then.
    """
    refusing = [result for result in limit_results(snapshot, raised(snapshot, message), now) if result.reason is not None]
    if not refusing or first_refusal(snapshot, message, now) is not None:
        return {}
    changes = {
        "request_amount_at_most": _amount(snapshot, message, now),
        "limits_at_least": _limits(snapshot, message, now, refusing),
        "not_before": _time(snapshot, message, now, refusing),
    }
    return {name: value for name, value in changes.items() if value is not None}


def _amount(snapshot: Snapshot, message: Authorization, now: Instant) -> str | None:
    """Return the largest amount that would be approved, found by bisection: a declined amount stays declined when it grows."""
    low, high = 0, message.amount
    while high - low > 1:
        middle = (low + high) // 2
        fits = decide(snapshot, msgspec.structs.replace(message, amount=middle), now).is_approved
        low, high = (middle, high) if fits else (low, middle)
    most = msgspec.structs.replace(message, amount=low)
    return decimal_text(most.requested, exponent_of(snapshot.currency) or 0) if low else None


def _limits(snapshot: Snapshot, message: Authorization, now: Instant, refusing: list[LimitResult]) -> list[dict[str, Any]] | None:
    """Return the lowest limits at which all declining controls would have room."""
    raised = {result.control.id: _with_room(result) for result in refusing}
    roomy = msgspec.structs.replace(
        snapshot, velocity_limits=tuple(raised.get(limit.id, limit) for limit in snapshot.velocity_limits), strictest_limits=None
    )
    if not decide(roomy, message, now).is_approved:
        return None
    places = exponent_of(snapshot.currency) or 0
    return [_raise(result.control, raised[result.control.id], places) for result in refusing]


def _with_room(result: LimitResult) -> Control:
    control, uses = result.control, result.control.usage_limit
    return msgspec.structs.replace(
        control,
        amount_limit=max(control.amount_limit, result.used_amount + result.amount),
        usage_limit=None if uses is None else max(uses, result.used_count + 1),
    )


def _raise(before: Control, after: Control, places: int) -> dict[str, Any]:
    change: dict[str, Any] = {"control": before.token}
    if after.amount_limit != before.amount_limit:
        change["amount_limit"] = decimal_text(after.amount_limit, places)
    if after.usage_limit != before.usage_limit:
        change["usage_limit"] = after.usage_limit
    return change


def _time(snapshot: Snapshot, message: Authorization, now: Instant, refusing: list[LimitResult]) -> str | None:
    """Return the first instant at which the windows of all declining controls have ended; None if that does not suffice."""
    ends = [window_end(result.control.window, now) for result in refusing]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends) or not decide(snapshot, message, max(known)).is_approved:
        return None
    return iso_ms(max(known))
