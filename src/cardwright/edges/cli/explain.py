"""`cardwright explain`: why a purchase was approved or declined, check by check."""

from typing import TYPE_CHECKING, Any

from cardwright.edges.cli.client import Client
from cardwright.edges.cli.instance import client_of
from cardwright.edges.cli.output import Failure, show_fields, show_json, show_table
from cardwright.kit.clock import iso

if TYPE_CHECKING:
    from cardwright.settings import Settings

COLOURS = {"pass": "green", "refuse": "red", "would_refuse": "yellow", "not_reached": "dim"}


def explain(settings: "Settings", token: str, *, base_url: str | None, as_json: bool) -> None:
    """Print a decision. Raises Failure if no instance answers or there is no such transaction."""
    decision = decision_of(client_of(settings, base_url), token)
    if as_json:
        show_json(decision)
    else:
        show_decision(decision)


def decision_of(client: Client, token: str) -> dict[str, Any]:
    """The decision about the transaction with this token."""
    answer = client.request("GET", f"/sandbox/decisions/{token}")
    if answer.status == 200:
        decision: dict[str, Any] = answer.body
        return decision
    reason = answer.body.get("error_message", answer.body) if isinstance(answer.body, dict) else answer.body
    known = "cardwright explain TOKEN   (the transaction.token of an answer)"
    hint = "cardwright status   (are these its credentials?)" if answer.status == 401 else known
    raise Failure(f"{token}: {answer.status} {reason}", hint)


def show_decision(decision: dict[str, Any]) -> None:
    """Print the outcome, every check in order, and each single change that would have led to an approval."""
    response, configuration = decision["response"], decision["configuration"]
    print(f"{decision['type']} {decision['transaction_token']}")
    print(f"{decision['outcome']}: {response['code']} {response['memo']}")
    print(
        f"{decision['request_amount']} {decision['currency_code']} requested, decided at {decision['decided_time']}, "
        f"program revision {configuration['program_revision']}, account revision {configuration['account_revision']}\n"
    )
    rows = [(step["check"], step["verdict"].replace("_", " "), _inputs(step["inputs"])) for step in decision["checks"]]
    show_table(("check", "verdict", "inputs"), rows, [COLOURS[step["verdict"]] for step in decision["checks"]])
    if "first_refusal" in decision:
        print(f"\ndeclined by    {decision['first_refusal']}")
        print(f"would pass if  {decision['would_pass_if']}")
    if changes := decision.get("would_be_approved_with_any_of"):
        print("\nEach of these changes alone would have led to an approval:")
        show_fields([(name.replace("_", " "), _change(value)) for name, value in changes.items()])


def _change(value: object) -> str:
    """Return one sufficient change as text, with the control of each limit."""
    if not isinstance(value, list):
        return str(value)
    limits = [
        (entry["control"], name, entry[name]) for entry in value for name in ("amount_limit", "usage_limit") if name in entry
    ]
    return ", ".join(f"{control} {name} {limit}" for control, name, limit in limits)


def _inputs(inputs: dict[str, Any]) -> str:
    values = {name: value for name, value in inputs.items() if value not in (None, [])}
    return ", ".join(f"{name.removesuffix('_ms')} {_plain(name, value)}" for name, value in values.items())


def _plain(name: str, value: object) -> str:
    """A value for people: an instant as a time, a boolean as JSON writes it."""
    if name.endswith("_ms") and isinstance(value, int):
        return iso(value)
    if isinstance(value, list):
        return "; ".join(_named(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _named(item: Any) -> str:
    """Return the name of a control or exemption that the check read."""
    if not isinstance(item, dict):
        return str(item)
    return f"{item['name'] or item['token']}{'' if item['applies'] else ' (not here, or not now)'}"
