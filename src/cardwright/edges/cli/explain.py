"""`cardwright explain`: the reasons why a purchase was approved or declined, check by check."""

from typing import TYPE_CHECKING, Any

from cardwright.edges.cli.client import ApiResponse, Client
from cardwright.edges.cli.instance import client_of, credentials_hint
from cardwright.edges.cli.output import Failure, Hint, show_fields, show_json, show_table
from cardwright.kit.clock import iso

if TYPE_CHECKING:
    from cardwright.settings import Settings

COLOURS = {"pass": "green", "refuse": "red", "would_refuse": "yellow", "not_reached": "dim"}

TRANSACTION_NOT_FOUND = "404011"


def explain(settings: "Settings", token: str, *, base_url: str | None, as_json: bool) -> None:
    """Print a decision. Raises Failure if no instance answers or there is no such transaction."""
    client = client_of(settings, base_url)
    response = client.request("GET", f"/sandbox/decisions/{token}")
    if response.status != 200:
        raise _failure(client, settings, token, response)
    if as_json:
        show_json(response.body)
    else:
        show_decision(response.body)


def _failure(client: Client, settings: "Settings", token: str, response: ApiResponse) -> Failure:
    """Return the failure for a status other than 200. For an unknown token it names the program that was searched."""
    body = response.body if isinstance(response.body, dict) else {}
    if body.get("error_code") == TRANSACTION_NOT_FOUND:
        advice = (
            "take the token from transaction.token of a response; `cardwright reset` and POST /sandbox/reset remove "
            "transactions; for another program, set its CARDWRIGHT_APPLICATION_TOKEN and CARDWRIGHT_ACCESS_TOKEN"
        )
        return Failure(f"{token}: there is no such transaction in {_program_of(client)} at {client.root_url}", Hint(text=advice))
    reason = body.get("error_message", response.body)
    hint = credentials_hint(settings) if response.status == 401 else Hint(
        text=f"check that {client.root_url} is a Cardwright instance in sandbox mode"
    )  # fmt: skip
    return Failure(f"{token}: {client.root_url} answered {response.status}: {reason}", hint)


def _program_of(client: Client) -> str:
    """Return the name of the program that the credentials belong to."""
    response = client.request("GET", "/sandbox/program")
    is_found = response.status == 200 and isinstance(response.body, dict) and "token" in response.body
    return f"the program {response.body['token']}" if is_found else "the program of these credentials"


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
    """Return an input as text: an instant as an ISO 8601 time, a boolean as in JSON."""
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
