"""Decisions: explanations of approvals and declines, with every check in order and the configuration of that time."""

from typing import Any, NamedTuple

import msgspec

from cardwright.core.counterfactuals import smallest_changes
from cardwright.core.enums import TYPES, State
from cardwright.core.explain import explain, explain_follow_up
from cardwright.core.messages import Authorization
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.render import details_decoder
from cardwright.core.responses import REASON_OF, Reason
from cardwright.core.snapshot import Account, Snapshot
from cardwright.core.transaction_row import TransactionRow, token_of
from cardwright.core.transaction_types import PENDING_CREDITS, REQUEST_TYPES, SETTLED_AT_ONCE
from cardwright.core.velocity import Control, keeping, recounted, usage_keys
from cardwright.core.velocity_events import changes_for, request_of_row
from cardwright.kit.clock import iso_ms
from cardwright.resources.analysis.configuration import configuration_as_of, controls_as_of, groups_as_of
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import Scope, get
from cardwright.resources.transactions.transactions import get_transaction
from cardwright.storage.controls import load_past

# --- Rules: pure ---------------------------------------------------------------------


class RepeatedDecision(NamedTuple):
    """A decision repeated from its history: its checks and the sufficient changes.

    ``agrees`` is True if its outcome equals the recorded one. Each of ``changes`` alone would have led to an approval.
    """

    steps: list[dict[str, Any]]
    agrees: bool
    changes: dict[str, Any]


def message_of(row: TransactionRow) -> Authorization:
    """Return the message that the row records, as it arrived."""
    details = details_decoder.decode(row.details)
    request_details = msgspec.structs.replace(
        details, address_verdict=None, order_refused=False, chosen_token=None, limited_by=None, mcc_groups=(), assessed=None
    )
    return request_of_row(row, request_details)


def account_before(row: TransactionRow) -> Account:
    """Return the account before the decision: the balances after it, without its effect."""
    held = row.ledger - row.available
    if row.impacted is None or row.type_id in PENDING_CREDITS:
        return Account({row.currency: (row.ledger, held)})
    if row.type_id in SETTLED_AT_ONCE:
        return Account({row.currency: (row.ledger - row.moved - row.impacted, held)})
    return Account({row.currency: (row.ledger - row.moved, held - row.amount)})


# --- Queries: this resource's SQL ----------------------------------------------------


def snapshot_as_of(call: Call, row: TransactionRow) -> tuple[Snapshot, tuple[Control, ...]]:
    """Return the snapshot of the decision and the shadow controls that it evaluated.

    The configuration and the usages are read from the history.
    """
    snapshot = configuration_as_of(call.db, row)
    controls = controls_as_of(call.db, row, snapshot.card, groups_as_of(call.db, row))
    account = with_usage_before(call, row, account_before(row), controls, snapshot.user.token, snapshot.owner.token)
    real = tuple(control for control in controls if not control.shadow)
    shadows = tuple(control for control in controls if control.shadow)
    return msgspec.structs.replace(snapshot, account=account, velocity_limits=real, strictest_limits=None), shadows


def with_usage_before(
    call: Call, row: TransactionRow, account: Account, controls: tuple[Control, ...], user: str, owner: str
) -> Account:
    """Return the account with the usages before the row's decision, recounted from the history."""
    if not controls:
        return account
    past = [
        event for event in load_past(call.db, row.holder_id, user) if (event.time_ms, event.row_id) < (row.created_ms, row.id)
    ]
    kept = keeping(controls)
    pairs = zip(usage_keys(kept, user, owner), kept, strict=True)
    usages = {key: recounted(control, changes_for(control, past), row.created_ms) for key, control in pairs}
    return account.using(usages)


# --- Actions: what a caller can do with it -------------------------------------------


def get_decision(call: Call) -> dict[str, Any]:
    """Explain a decision.

    The explanation has every check with its inputs and verdict, and the first check that declined. It also has the smallest
    changes that each alone would have led to an approval.
    """
    row, _side = get_transaction(call.db, call.program.id, call.token)
    reason = REASON_OF[row.code]
    is_follow_up = row.type_id not in REQUEST_TYPES or reason in (Reason.PREVIOUSLY_REVERSED, Reason.PREVIOUSLY_COMPLETED)
    again = RepeatedDecision(explain_follow_up(row), True, {}) if is_follow_up else _explain_again(call, row)
    steps = again.steps
    places = exponent_of(row.currency) or 0
    refusal = next((step for step in steps if step["verdict"] == "refuse"), None)
    return {
        "transaction_token": details_decoder.decode(row.details).chosen_token or token_of(row),
        "type": TYPES[row.type_id],
        "decided_time": iso_ms(row.created_ms),
        "outcome": "DECLINED" if row.first_state == State.DECLINED else "APPROVED",
        "response": {"code": reason.code, "memo": reason.memo},
        "request_amount": decimal_text(row.request_amount, places),
        "amount": decimal_text(row.amount, places),
        "currency_code": row.currency,
        "configuration": {"program_revision": row.program_revision, "account_revision": row.holder_revision},
        **({"first_refusal": refusal["check"], "would_pass_if": refusal["would_pass_if"]} if refusal else {}),
        **({"would_be_approved_with_any_of": again.changes} if again.changes else {}),
        "replay_agrees": again.agrees,
        "checks": steps,
    }


def _explain_again(call: Call, row: TransactionRow) -> RepeatedDecision:
    """Return the decision on a row, repeated from its history."""
    snapshot, shadows = snapshot_as_of(call, row)
    message = message_of(row)
    decision, steps = explain(snapshot, message, row.created_ms, shadows)
    return RepeatedDecision(steps, decision.reason.number == row.code, smallest_changes(snapshot, message, row.created_ms))


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Decisions"

routes = [get("/decisions/{token}", get_decision, dict[str, Any], scope=Scope.SANDBOX)]
