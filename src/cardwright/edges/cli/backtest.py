"""`cardwright backtest`: tries a change of controls on the history of a running instance."""

import json
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardwright.edges.cli.client import ApiResponse, Client
from cardwright.edges.cli.instance import client_of
from cardwright.edges.cli.output import Failure, print_notice, show_fields, show_json, show_table

if TYPE_CHECKING:
    from cardwright.settings import Settings

POLL_S = 0.2
SHOWN_MAX = 20
"""Flips that are shown; all of them are at /sandbox/backtests/TOKEN/flips."""

RUNNING = ("QUEUED", "RUNNING", "INTERRUPTED")


def backtest(settings: "Settings", file: Path, *, base_url: str | None, as_json: bool, max_approval_drop: Decimal | None) -> bool:
    """Tries what the file asks for and shows what came of it; tells whether the approval rate stays within bounds.

    ``max_approval_drop`` in percentage points. Raises Failure for what is no backtest, and when it did not come to its end.
    """
    client = client_of(settings, base_url)
    job = _call(client, "POST", "/sandbox/backtests", file, _body(file))
    result = _watched(client, job, file)
    path = f"/sandbox/backtests/{result['token']}/flips?count={SHOWN_MAX}"
    flips = _call(client, "GET", path, file)["data"]
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
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file}: {error}", "cardwright backtest change.json", 2) from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failure(f"{file} is no JSON: {error}", "cardwright backtest change.json", 2) from None


def _call(client: Client, verb: str, path: str, file: Path, body: object = None) -> dict[str, Any]:
    answer: ApiResponse = client.request(verb, path, body)
    if answer.status < 300 and isinstance(answer.body, dict):
        return answer.body
    reason = answer.body.get("error_message", answer.body) if isinstance(answer.body, dict) else answer.body
    hint = "cardwright status   (are these its credentials?)" if answer.status == 401 else ""
    raise Failure(f"{file}: {answer.status} {reason}", hint, 2 if answer.status == 400 else 1)


def _watched(client: Client, job: dict[str, Any], file: Path) -> dict[str, Any]:
    """The backtest at its end. On a terminal one line tells how far it is."""
    while job["state"] in RUNNING:
        _show_progress(job)
        time.sleep(POLL_S)
        job = _call(client, "GET", f"/sandbox/backtests/{job['token']}", file)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if job["state"] != "DONE":
        raise Failure(f"the backtest {job['token']} has {job['state']}: {job.get('error', '')}")
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
