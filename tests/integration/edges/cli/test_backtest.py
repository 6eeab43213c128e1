"""`cardwright backtest`: its report, its JSON, and its exit code for builds."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cardwright.edges.cli.instance import Fresh, fresh_instance


@pytest.fixture(scope="module")
def instance() -> Iterator[Fresh]:
    """An instance with three purchases under a control of a hundred a day."""
    with fresh_instance() as fresh:
        client = fresh.client

        def made(path: str, **body: Any) -> None:
            assert client.request("POST", f"/v3/{path}", body).status == 201

        jit = {"enabled": True, "funding_source_token": "bank"}
        config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": {"program_funding_source": jit}}
        made("fundingsources/program", token="bank", name="Bank")
        made("cardproducts", token="p", name="P", start_date="2020-01-01", config=config)
        made("users", token="ana")
        made("cards", token="c", user_token="ana", card_product_token="p")
        made("velocitycontrols", token="day", amount_limit=100, velocity_window="DAY", currency_code="USD")
        for amount in (10, 20, 40):
            made("simulate/authorization", card_token="c", amount=amount, mid="m1")
        yield fresh


@pytest.fixture(autouse=True)
def environment(instance: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that `cardwright status -o env` prints for the instance."""
    for name, value in instance.environment.items():
        monkeypatch.setenv(name, value)


def written(limit: int) -> Path:
    """Write a file with a changed limit and return its path."""
    path = Path("change.json")
    path.write_text(json.dumps({"velocity_controls": {"change": [{"token": "day", "amount_limit": limit}]}}))
    return path


def test_report_shows_a_change(cardwright: Callable[..., Any]) -> None:
    """The report has the flips by purchase and control. Without a bound the exit code is 0."""
    done = cardwright("backtest", written(50))
    assert done.code == 0, done.err
    assert "1 would be declined (40.00), 0 would be approved (0.00)" in done.out
    (flip,) = [line for line in done.out.splitlines() if "40.00 USD" in line]
    assert [word for word in flip.split() if word not in ("40.00", "USD")][1:] == ["ana", "m1", "APPROVED", "DECLINED", "day"]
    assert not any(line != line.rstrip() for line in done.out.splitlines())


def test_report_names_an_authorization_control(cardwright: Callable[..., Any]) -> None:
    """A file may change authorization controls, too. The report counts the declines of each control."""
    new = {"token": "no_m1", "name": "Not there", "merchant_scope": {"mid": "m1"}}
    Path("change.json").write_text(json.dumps({"auth_controls": {"add": [new]}, "velocity_controls": {"remove": ["day"]}}))
    done = cardwright("backtest", "change.json", "--max-approval-drop", 99)
    assert (done.code, "3 would be declined (70.00), 0 would be approved (0.00)" in done.out) == (1, True), done
    assert [line.split() for line in done.out.splitlines() if line.startswith("no_m1")] == [["no_m1", "3", "70.00"]]
    assert sum(line.endswith(" no_m1") for line in done.out.splitlines()) == 3


def test_what_is_misspelt_is_not_passed_over(cardwright: Callable[..., Any]) -> None:
    """A misspelt field is refused, because a report without the change would be misleading."""
    Path("change.json").write_text('{"auth_control": {"remove": ["day"]}}')
    done = cardwright("backtest", "change.json")
    assert (done.code, "auth_control is an unknown field" in done.err) == (2, True), done


@pytest.mark.parametrize(("limit", "bound", "code"), [(50, 33.33, 1), (50, 33.34, 0), (100, 0, 0), (200, 0, 0), (1, 99, 1)])
def test_a_build_fails_when_too_much_is_declined(limit: int, bound: float, code: int, cardwright: Callable[..., Any]) -> None:
    """A build fails if the approval rate drops by more than the bound, in percentage points. Equality passes."""
    done = cardwright("backtest", written(limit), "--json", "--max-approval-drop", bound)
    assert done.code == code, done.err
    report = json.loads(done.out)
    assert (report["state"], report["purchases"], len(report["first_flips"])) == ("DONE", 3, report["flips"]["kept"])
    assert ("drops by" in done.err) == (code == 1)


def test_what_cannot_be_tried(cardwright: Callable[..., Any]) -> None:
    """A missing file, invalid JSON and an unknown control have exit code 2. An address without a server has exit code 1."""
    assert (cardwright("backtest", "nothing.json").code, cardwright("backtest", "change.json").code) == (2, 2)
    Path("change.json").write_text("{")
    assert "is not JSON" in cardwright("backtest", "change.json").err
    Path("change.json").write_text('{"velocity_controls": {"remove": ["nobody"]}}')
    done = cardwright("backtest", "change.json")
    assert (done.code, "velocity_controls.remove[0]" in done.err) == (2, True)
    assert cardwright("backtest", "change.json", "--base-url", "http://127.0.0.1:1/v3").code == 1
