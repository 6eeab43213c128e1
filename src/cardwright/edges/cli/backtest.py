"""`cardwright backtest`: replays the history of a running instance under changed spend controls."""

import json
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardwright.edges.cli.client import ApiResponse, Client
from cardwright.edges.cli.instance import client_of, credentials_hint
from cardwright.edges.cli.output import Failure, Hint, print_notice, show_fields, show_json, show_table
from cardwright.edges.cli.surroundings import failure_of_file

if TYPE_CHECKING:
    from cardwright.settings import Settings

POLL_S = 0.2
SHOWN_MAX = 20
"""Maximum number of flips in the report; all of them are at /sandbox/backtests/TOKEN/flips."""

EXAMPLE = '{"velocity_controls": {"change": [{"token": "TOKEN", "amount_limit": 50}]}}'

RUNNING = ("QUEUED", "RUNNING", "INTERRUPTED")


def backtest(settings: "Settings", file: Path, *, base_url: str | None, as_json: bool, max_approval_drop: Decimal | None) -> bool:
    """Run a backtest and print its report. Return whether the approval rate drops by at most ``max_approval_drop``.

    The unit of ``max_approval_drop`` is percentage points. Raises Failure if the file is malformed or the backtest fails.
    """
    call = Caller(client_of(settings, base_url), settings, file)
    job = call("POST", "/sandbox/backtests", _body(file))
    result = _finished(call, job)
    flips = call("GET", f"/sandbox/backtests/{result['token']}/flips?count={SHOWN_MAX}")["data"]
    if as_json:
        show_json({**result, "first_flips": flips})
    else:
        _show(result, flips)
    drop = -Decimal(str(result["approval_rate_change"] or 0))
    if max_approval_drop is None or drop <= max_approval_drop:
        return True
    print_notice(f"the approval rate drops by {drop} percentage points, more than --max-approval-drop {max_approval_drop}")
    return False


def _body(file: Path) -> Any:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise failure_of_file(error, 2) from None
    except UnicodeDecodeError as error:
        raise Failure(
            f"{file} is not UTF-8 text: {error}", Hint(text=f"save the file as UTF-8; an example: {EXAMPLE}"), 2
        ) from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failure(f"{file} is not JSON: {error}", Hint(text=f"correct the file; an example: {EXAMPLE}"), 2) from None


@dataclass(frozen=True, slots=True)
class Caller:
    """Caller of the API for one backtest. Raises Failure if the status is 300 or more; the exit code for status 400 is 2."""

    client: Client
    settings: "Settings"
    file: Path

    def __call__(self, verb: str, path: str, body: object = None) -> dict[str, Any]:
        """Return the body of a response."""
        response: ApiResponse = self.client.request(verb, path, body)
        if response.status < 300 and isinstance(response.body, dict):
            return response.body
        reason = response.body.get("error_message", response.body) if isinstance(response.body, dict) else response.body
        url = self.client.root_url
        match response.status:
            case 400:
                hint = Hint(text=f"correct the field; {url}/docs lists the fields of POST /sandbox/backtests")
            case 401:
                hint = credentials_hint(self.settings)
            case _:
                hint = Hint(text=f"check that {url} is a Cardwright instance in sandbox mode")
        raise Failure(f"{self.file}: {url} answered {response.status}: {reason}", hint, 2 if response.status == 400 else 1)


def _finished(call: Caller, job: dict[str, Any]) -> dict[str, Any]:
    """Return the backtest when it has ended. A terminal shows the progress."""
    while job["state"] in RUNNING:
        _show_progress(job)
        time.sleep(POLL_S)
        job = call("GET", f"/sandbox/backtests/{job['token']}")
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if job["state"] != "DONE":
        advice = "run the command again; if it fails again, look for the token in the server's log"
        raise Failure(f"the backtest {job['token']} ended with {job['state']}: {job.get('error', '')}", Hint(text=advice))
    return job


def _show_progress(job: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        progress = job["progress"]
        line = f"{progress['accounts']} of {progress['accounts_total']} accounts, {job['purchases']} purchases"
        print(f"\r{line:<70}", end="", file=sys.stderr, flush=True)


def _show(result: dict[str, Any], flips: list[dict[str, Any]]) -> None:
    before, after, flipped = result["before"], result["after"], result["flips"]
    show_fields([("backtest", result["token"]), ("from", result["start_time"]), ("to", result["end_time"])], indent=0)
    print()
    show_table(
        ("", "before", "after"),
        [
            ("approved", before["approved"], after["approved"]),
            ("declined", before["declined"], after["declined"]),
            ("approved amount", before["approved_amount"], after["approved_amount"]),
            ("approval rate, %", _or_dash(before["approval_rate"]), _or_dash(after["approval_rate"])),
        ],
    )
    print(f"\n{flipped['to_declined']} would be declined ({flipped['to_declined_amount']}), "
          f"{flipped['to_approved']} would be approved ({flipped['to_approved_amount']})")  # fmt: skip
    if result["declined_by"]:
        print()
        rows = [(control["control"], control["purchases"], control["request_amount"]) for control in result["declined_by"]]
        show_table(("declined by", "purchases", "amount"), rows)
    if flips:
        print()
        rows = [_flip(flip) for flip in flips]
        colours = ["red" if flip["after"]["outcome"] == "DECLINED" else "green" for flip in flips]
        show_table(("time", "user", "amount", "mid", "then", "now", "because of"), rows, colours)
        if flipped["kept"] > len(flips):
            print(f"and {flipped['kept'] - len(flips)} more: GET /sandbox/backtests/{result['token']}/flips")


def _flip(flip: dict[str, Any]) -> tuple[Any, ...]:
    then, now = flip["before"], flip["after"]
    cause = now.get("control") or then.get("declined_by") or now["response"]["memo"]
    amount = f"{flip['request_amount']} {flip['currency_code']}"
    return flip["created_time"], flip["user_token"], amount, flip["mid"], then["outcome"], now["outcome"], cause


def _or_dash(rate: object) -> object:
    return "-" if rate is None else rate
