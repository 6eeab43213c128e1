"""A decision told in full: every check in order, what it looked at, its verdict, and what would have had to differ."""

from typing import Any

from cardwright.core.checks import CHECKS
from cardwright.core.decide import decide, verdicts
from cardwright.core.funding import fund
from cardwright.core.messages import Authorization
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.outcome import Decision
from cardwright.core.record import Recorded
from cardwright.core.responses import REASON_OF, Reason
from cardwright.core.snapshot import Snapshot
from cardwright.core.velocity import Verdict
from cardwright.kit.clock import Instant


def explain(seen: Snapshot, message: Authorization, now: Instant) -> tuple[Decision, list[dict[str, Any]]]:
    """The decision, made again, and its steps in order. After the first refusal a step's verdict is ``not_reached``."""
    decision = decide(seen, message, now)
    steps, refused = [], False
    for check in CHECKS:
        reason = check.refusal(seen, message, now)
        verdict = "not_reached" if refused else "pass" if reason is None else "refuse"
        step: dict[str, Any] = {"check": check.name, "verdict": verdict, "inputs": check.inputs(seen, message, now)}
        if verdict == "refuse" and reason is not None:
            step |= {"response": {"code": reason.code, "memo": reason.memo}, "would_pass_if": check.remedy}
            refused = True
        steps.append(step)
    for said in verdicts(seen, message, now):
        steps.append(_control_step(seen, said, refused))
        refused = refused or said.reason is not None
    steps.append(_funding_step(seen, message, decision, refused))
    return decision, steps


def _control_step(seen: Snapshot, verdict: Verdict, refused: bool) -> dict[str, Any]:
    control, places = verdict.control, exponent_of(seen.currency) or 0
    left = control.amount_limit - verdict.used_amount
    step: dict[str, Any] = {
        "check": "velocity_has_room",
        "verdict": "not_reached" if refused else "pass" if verdict.reason is None else "refuse",
        "inputs": {
            "control": control.token,
            "name": control.name,
            "level": "user" if control.user_token else "card_product" if control.card_product_token else "program",
            "velocity_window": control.window,
            "amount_limit": decimal_text(control.amount_limit, places),
            "used_before": decimal_text(verdict.used_amount, places),
            "this_purchase": decimal_text(verdict.amount, places),
            "left": decimal_text(max(0, left), places),
            "usage_limit": control.usage_limit,
            "uses_before": verdict.used_count,
        },
    }
    if step["verdict"] == "refuse" and verdict.reason is not None:
        by_count = verdict.reason is Reason.COUNT_LIMIT
        remedy = "the control allows one use more" if by_count else f"the amount is at most {decimal_text(max(0, left), places)}"
        step |= {"response": {"code": verdict.reason.code, "memo": verdict.reason.memo}, "would_pass_if": remedy}
    return step


def _funding_step(seen: Snapshot, message: Authorization, decision: Decision, refused: bool) -> dict[str, Any]:
    places = exponent_of(seen.currency) or 0
    ledger, held = seen.account.money(seen.currency)
    step: dict[str, Any] = {
        "check": "funds_are_found",
        "verdict": "not_reached" if refused else "pass" if decision.is_approved else "refuse",
        "inputs": {
            "requested": decimal_text(message.requested, places),
            "ledger_balance": decimal_text(ledger, places),
            "on_hold": decimal_text(held, places),
            "allow_gpa_auth": seen.product.config.transaction_controls.allow_gpa_auth,
            "jit_funding": "program_funding_source" if seen.source else None,
            "funding_source.active": seen.source.active if seen.source else None,
            "loaded": decimal_text(decision.moved, places),
        },
    }
    if step["verdict"] == "refuse":
        reason = fund(seen, message).reason
        remedy = "the funding source is active" if seen.source else "the account holds the amount, or the product has JIT Funding"
        step |= {"response": {"code": reason.code, "memo": reason.memo}, "would_pass_if": remedy}
    return step


FOLLOW_UP_REMEDIES = {
    Reason.PREVIOUSLY_REVERSED: "the authorization still has a hold; this one was reversed in full",
    Reason.PREVIOUSLY_COMPLETED: "the authorization still has a hold; this one was cleared",
    Reason.ORIGINAL_NOT_FOUND: "the original lies within find_original_window_days",
    Reason.INVALID_AMOUNT: "the amount is at most what is left of the hold",
}


def explain_follow_up(row: Recorded) -> list[dict[str, Any]]:
    """The one step of a message that tells what has happened: it is checked against its chain, and by nothing else."""
    places = exponent_of(row.currency) or 0
    reason = REASON_OF[row.code]
    step: dict[str, Any] = {
        "check": "chain_has_room",
        "verdict": "pass" if row.impacted is not None else "refuse",
        "inputs": {"amount": decimal_text(row.amount, places), "follows_an_authorization": row.root_id is not None},
    }
    if reason in FOLLOW_UP_REMEDIES:
        step |= {"response": {"code": reason.code, "memo": reason.memo}, "would_pass_if": FOLLOW_UP_REMEDIES[reason]}
    return [step]
