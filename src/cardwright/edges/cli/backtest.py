"""`cardwright backtest`: tries a change of controls on the history of a running instance."""

import json
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardwright.edges.cli.client import ApiResponse, Client
from cardwright.edges.cli.instance import client_of
from cardwright.edges.cli.output import Failure, show_fields, show_json, show_table, tell

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
    made = _call(client, "POST", "/sandbox/backtests", file, _body(file))
    found = _watched(client, made, file)
    path = f"/sandbox/backtests/{found['token']}/flips?count={SHOWN_MAX}"
    flips = _call(client, "GET", path, file)["data"]
    if as_json:
        show_json({**found, "first_flips": flips})
    else:
        _show(found, flips)
    drop = -Decimal(str(found["approval_rate_change"] or 0))
    if max_approval_drop is None or drop <= max_approval_drop:
        return True
    tell(f"the approval rate drops by {drop} percentage points, more than --max-approval-drop {max_approval_drop}")
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
    said = answer.body.get("error_message", answer.body) if isinstance(answer.body, dict) else answer.body
    hint = "cardwright status   (are these its credentials?)" if answer.status == 401 else ""
    raise Failure(f"{file}: {answer.status} {said}", hint, 2 if answer.status == 400 else 1)


def _watched(client: Client, found: dict[str, Any], file: Path) -> dict[str, Any]:
    """The backtest at its end. On a terminal one line tells how far it is."""
    while found["state"] in RUNNING:
        _tell_progress(found)
        time.sleep(POLL_S)
        found = _call(client, "GET", f"/sandbox/backtests/{found['token']}", file)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if found["state"] != "DONE":
        raise Failure(f"the backtest {found['token']} has {found['state']}: {found.get('error', '')}")
    return found


def _tell_progress(found: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        progress = found["progress"]
        line = f"{progress['accounts']} of {progress['accounts_total']} accounts, {found['purchases']} purchases"
        print(f"\r{line:<70}", end="", file=sys.stderr, flush=True)


def _show(found: dict[str, Any], flips: list[dict[str, Any]]) -> None:
    before, after, flipped = found["before"], found["after"], found["flips"]
    show_fields([("backtest", found["token"]), ("from", found["start_time"]), ("to", found["end_time"])], indent=0)
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
    if found["declined_by"]:
        print()
        rows = [(one["control"], one["purchases"], one["request_amount"]) for one in found["declined_by"]]
        show_table(("declined by", "purchases", "amount"), rows)
    if flips:
        print()
        rows = [_flip(one) for one in flips]
        colours = ["red" if one["after"]["outcome"] == "DECLINED" else "green" for one in flips]
        show_table(("time", "user", "amount", "mid", "then", "now", "because of"), rows, colours)
        if flipped["kept"] > len(flips):
            print(f"and {flipped['kept'] - len(flips)} more: GET /sandbox/backtests/{found['token']}/flips")


def _flip(one: dict[str, Any]) -> tuple[Any, ...]:
    then, now = one["before"], one["after"]
    cause = now.get("control") or then.get("declined_by") or now["response"]["memo"]
    amount = f"{one['request_amount']} {one['currency_code']}"
    return one["created_time"], one["user_token"], amount, one["mid"], then["outcome"], now["outcome"], cause


def _or_dash(rate: object) -> object:
    return "-" if rate is None else rate
