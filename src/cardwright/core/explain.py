"""Explanations of decisions: every check in order, with its inputs, its verdict, and the condition under which it would pass."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cardwright.core.checks import CHECKS
from cardwright.core.decide import decide, limit_results
from cardwright.core.decision import Decision
from cardwright.core.funding import fund
from cardwright.core.holds import raised
from cardwright.core.messages import Authorization
from cardwright.core.money import LARGEST, decimal_text, exponent_of
from cardwright.core.real_time_fees import fee_of
from cardwright.core.responses import REASON_OF, Reason
from cardwright.core.snapshot import Snapshot
from cardwright.core.transaction_row import TransactionRow, cash_back_of
from cardwright.core.transaction_types import RELEASE_TYPES
from cardwright.core.velocity import Control, LimitResult, window_end, window_start
from cardwright.kit.clock import Instant, iso_ms


def explain(
    snapshot: Snapshot, message: Authorization, now: Instant, shadows: Sequence[Control] = ()
) -> tuple[Decision, list[dict[str, Any]]]:
    """Decide again, and return the decision and its steps in order.

    After the first refusal the verdict of a step is ``not_reached``.

    Shadow controls are evaluated last. Their result is reported and does not affect the decision.
    """
    decision = decide(snapshot, message, now)
    steps, refused = [], False
    for check in CHECKS:
        reason = check.refusal(snapshot, message, now)
        verdict = "not_reached" if refused else "pass" if reason is None else "refuse"
        step: dict[str, Any] = {"check": check.name, "verdict": verdict, "inputs": check.inputs(snapshot, message, now)}
        if verdict == "refuse" and reason is not None:
            step |= {"response": {"code": reason.code, "memo": reason.memo}, "would_pass_if": check.remedy}
            refused = True
        steps.append(step)
    unrefused_by_checks = not refused
    message = raised(snapshot, message)
    if message.increase:
        steps.append(_increase_step(snapshot, message, refused))
    for result in limit_results(snapshot, message, now):
        steps.append(
            _control_step(snapshot, result, now, "not_reached" if refused else "pass" if result.reason is None else "refuse")
        )
        refused = refused or result.reason is not None
    for result in (
        limit_results(msgspec.structs.replace(snapshot, velocity_limits=tuple(shadows), strictest_limits=None), message, now)
        if shadows
        else ()
    ):
        would = "not_reached" if not unrefused_by_checks else "pass" if result.reason is None else "would_refuse"
        steps.append({**_control_step(snapshot, result, now, would), "check": "shadow_control_has_room"})
    steps.append(_funding_step(snapshot, message, decision, refused))
    return decision, steps


def _increase_step(snapshot: Snapshot, message: Authorization, refused: bool) -> dict[str, Any]:
    """Return the step that increases the hold by the merchant's MCC groups.

    It is not a check, but later checks use its amount.
    """
    places, categories = exponent_of(snapshot.currency) or 0, snapshot.spend.categories
    return {
        "check": "hold_is_raised",
        "verdict": "not_reached" if refused else "pass",
        "inputs": {
            "mcc": message.details.merchant.mcc,
            "mcc_groups": list(categories.names),
            "requested": decimal_text(message.requested, places),
            "held": decimal_text(message.wanted, places),
        },
    }


def _control_step(snapshot: Snapshot, result: LimitResult, now: Instant, verdict: str) -> dict[str, Any]:
    control, places = result.control, exponent_of(snapshot.currency) or 0
    left = max(0, control.amount_limit - result.used_amount)
    step: dict[str, Any] = {
        "check": "velocity_has_room",
        "verdict": verdict,
        "inputs": {
            "control": control.token,
            "name": control.name,
            **_scope(control),
            "velocity_window": control.window,
            **_window(control, now),
            "amount_limit": decimal_text(control.amount_limit, places),
            "used_before": decimal_text(result.used_amount, places),
            "this_purchase": decimal_text(result.amount, places),
            "left": decimal_text(left, places),
            "usage_limit": control.usage_limit,
            "uses_before": result.used_count,
            "uses_left": None if control.usage_limit is None else max(0, control.usage_limit - result.used_count),
            "has_room": result.reason is None,
        },
    }
    if verdict in ("refuse", "would_refuse") and result.reason is not None:
        by_count = result.reason is Reason.COUNT_LIMIT
        remedy = "the control allows one more use" if by_count else f"the amount is at most {decimal_text(left, places)}"
        step |= {"response": {"code": result.reason.code, "memo": result.reason.memo}, "would_pass_if": remedy}
    return step


def _scope(control: Control) -> dict[str, Any]:
    """Return the account holders and merchants that the control limits; without the fields that it does not set."""
    level = "user" if control.user_token else "card_product" if control.card_product_token else "program"
    named = {
        "user_token": control.user_token, "card_product_token": control.card_product_token, "mid": control.mid,
        "mccs": control.mccs,
    }  # fmt: skip
    return {"level": level, **{name: value for name, value in named.items() if value is not None}}


def _window(control: Control, now: Instant) -> dict[str, Any]:
    """Return the first instant of the current window and of the next one; empty for a transaction, which is its own window."""
    start, end = window_start(control, now), window_end(control.window, now)
    bounds = {"window_start": start, "window_end": end}
    return {name: iso_ms(instant) for name, instant in bounds.items() if instant is not None}


def _funding_step(snapshot: Snapshot, message: Authorization, decision: Decision, refused: bool) -> dict[str, Any]:
    places = exponent_of(snapshot.currency) or 0
    ledger, held = snapshot.account.money(snapshot.currency)
    fee = fee_of(snapshot, decision.type_id, message)
    fee_moved = 0 if decision.fee is None else decision.fee.moved
    shown = {} if fee is None else {"real_time_fee": fee[0].token, "fee_amount": decimal_text(fee[1], places)}
    if decision.is_approved:
        shown["approved"] = decimal_text(decision.amount, places)
        if message.details.cash_back:
            shown["cash_back_approved"] = decimal_text(cash_back_of(decision.reason.number, message.details), places)
    step: dict[str, Any] = {
        "check": "funds_are_found",
        "verdict": "not_reached" if refused else "pass" if decision.is_approved else "refuse",
        "inputs": {
            "requested": decimal_text(message.wanted, places),
            **shown,
            "ledger_balance": decimal_text(ledger, places),
            "on_hold": decimal_text(held, places),
            "allow_gpa_auth": snapshot.product.config.transaction_controls.allow_gpa_auth,
            "jit_funding": "program_funding_source" if snapshot.source else None,
            "funding_source.active": snapshot.source.active if snapshot.source else None,
            "loaded": decimal_text(decision.moved + fee_moved, places),
        },
    }
    if step["verdict"] == "refuse":
        reason = fund(snapshot, message, 0 if fee is None else fee[1]).reason
        amount = "the amount" if fee is None else "the amount and its real-time fee"
        if not snapshot.account.has_room(snapshot.currency, message.wanted):
            remedy = f"the amount is {_less_than_the_largest(places)}"
        elif snapshot.source:
            remedy = "the funding source is active"
        else:
            remedy = f"the account holds {amount}, or the product has JIT Funding"
        step |= {"response": {"code": reason.code, "memo": reason.memo}, "would_pass_if": remedy}
    return step


def _less_than_the_largest(places: int) -> str:
    return f"less than {decimal_text(LARGEST, places)}, and the account can hold it"


FOLLOW_UP_REMEDIES = {
    Reason.PREVIOUSLY_REVERSED: "the authorization has an open hold; its hold was reversed in full",
    Reason.PREVIOUSLY_COMPLETED: "the authorization has an open hold; its hold was cleared",
    Reason.ORIGINAL_NOT_FOUND: "the original lies within find_original_window_days",
    Reason.INVALID_AMOUNT: "the amount is at most the open part of the hold, or an advice lowers the total",
}


def explain_follow_up(row: TransactionRow) -> list[dict[str, Any]]:
    """Return the single step of a report of a past event, which is checked only against its chain."""
    places = exponent_of(row.currency) or 0
    if row.card_id is None:
        return [_movement_step(row, places)]
    reason = REASON_OF[row.code]
    step: dict[str, Any] = {
        "check": "chain_has_room",
        "verdict": "pass" if row.impacted is not None else "refuse",
        "inputs": {"amount": decimal_text(row.amount, places), "follows_an_authorization": row.root_id is not None},
    }
    if reason in FOLLOW_UP_REMEDIES:
        remedy = FOLLOW_UP_REMEDIES[reason]
        if reason is Reason.INVALID_AMOUNT and row.type_id not in RELEASE_TYPES:
            # Clearings and refunds are declined only for their size.
            remedy = f"the amount is {_less_than_the_largest(places)}"
        step |= {"response": {"code": reason.code, "memo": reason.memo}, "would_pass_if": remedy}
    return [step]


def _movement_step(row: TransactionRow, places: int) -> dict[str, Any]:
    """Return the step of a movement. It always passes: a movement that fails leaves no row."""
    inputs = {"amount": decimal_text(row.amount, places), "available_afterwards": decimal_text(row.available, places)}
    return {"check": "account_is_in_order", "verdict": "pass", "inputs": inputs}
