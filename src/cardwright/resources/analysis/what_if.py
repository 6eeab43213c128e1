"""Dry runs: purchases that the engine decides like any other and does not store."""

from decimal import Decimal
from typing import Any

import msgspec

from cardwright.core.counterfactuals import smallest_changes
from cardwright.core.explain import explain
from cardwright.core.messages import Authorization
from cardwright.core.problems import bad_field
from cardwright.core.render import render
from cardwright.core.transaction_types import RequestType
from cardwright.core.velocity import Control
from cardwright.engine.batch import CardRequest
from cardwright.engine.dry_run import Trial
from cardwright.kit.clock import iso_ms
from cardwright.kit.guard import check_url
from cardwright.resources.common.call import EngineCall
from cardwright.resources.common.crud import fingerprint
from cardwright.resources.common.route import Scope, post
from cardwright.resources.simulations.v1_authorizations import message_of
from cardwright.resources.simulations.v1_schemas import AuthorizationRequest
from cardwright.storage.records import text_of

# --- Rules: pure ---------------------------------------------------------------------

DRAWN = frozenset({
    "token", "identifier", "approval_code", "network_reference_id", "system_trace_audit_number", "duration",
    "transaction_token",
})  # fmt: skip
"""Fields that only a stored transaction has: generated tokens and numbers, and the duration."""

_exact = msgspec.json.Decoder(float_hook=Decimal)


def without_drawn(transaction: dict[str, Any]) -> dict[str, Any]:
    """Return a rendered transaction without generated fields.

    The funding source inside its order keeps its token.
    """
    kept = {name: value for name, value in transaction.items() if name not in DRAWN}
    for name in ("gpa_order", "acquirer"):
        if name in kept:
            kept[name] = {key: value for key, value in kept[name].items() if key not in DRAWN}
    return {name: value for name, value in kept.items() if value != {}}


def answer_of(trial: Trial, shadows: tuple[Control, ...]) -> dict[str, Any]:
    """Return the transaction that the message would become, with its checks."""
    row, card, _program, source, _answer = trial.outcome
    transaction = _exact.decode(render(row, card.fragments, source.fragments if source is not None else None, row.first_state))
    if trial.snapshot is None:
        # The token was used before: a simulation would return the transaction with this token.
        return {"repeats": transaction["token"], "transaction": transaction, "checks": []}
    assert isinstance(trial.message, Authorization), "the message of a what-if is an authorization"
    _decision, steps = explain(trial.snapshot, trial.message, trial.now, shadows)
    refusal = next((step for step in steps if step["verdict"] == "refuse"), None)
    changes = smallest_changes(trial.snapshot, trial.message, trial.now)
    return {
        "decided_time": iso_ms(trial.now),
        "outcome": "DECLINED" if row.impacted is None else "APPROVED",
        "transaction": without_drawn(transaction),
        **({"first_refusal": refusal["check"], "would_pass_if": refusal["would_pass_if"]} if refusal else {}),
        **({"would_be_approved_with_any_of": changes} if changes else {}),
        "checks": steps,
    }


# --- Actions: what a caller can do with it -------------------------------------------


async def try_authorization(call: EngineCall, body: AuthorizationRequest) -> bytes:
    """Decide a purchase as a dry run.

    The response has the transaction and every check. Nothing is stored.
    """
    card, message = await message_of(
        call, body, RequestType.PURCHASE, body.amount, body.cash_back_amount, is_pre_auth=body.is_pre_auth is True
    )
    if body.webhook is not None and (reason := check_url(body.webhook.endpoint, call.app.policy)) is not None:
        raise bad_field("webhook.endpoint", reason)
    token = body.transaction_options.transaction_token if body.transaction_options is not None else None
    trial = await call.app.engine.try_out(
        CardRequest(
            card=card,
            message=message,
            seed=0,
            received_ms=call.app.real_clock(),
            chosen_token=token,
            request_hash=fingerprint(call.app, body, RequestType.PURCHASE) if token is not None else b"",
        )
    )
    outcome = trial.outcome
    return text_of(answer_of(trial, outcome.program.shadows_of(outcome.card.card))).encode()


# --- Routes: parse, act, render ------------------------------------------------------

# Not in production mode: a dry run leaves no trace, so a caller could guess security codes and PINs unnoticed.
TAG = "Whatif"

routes = [
    post(
        "/whatif/authorization",
        AuthorizationRequest,
        try_authorization,
        dict[str, Any],
        status=200,
        scope=Scope.SANDBOX_ONLY,
        writes=False,
    ),
]
