"""Order of checks: the page on spend controls lists the checks in their order, with their response codes."""

import re
from pathlib import Path

from cardwright.core.checks import CHECKS
from cardwright.core.responses import Reason
from tests.unit.core.test_checks import NOON, ORDER_OF_REFUSALS, request_of, snapshot_of

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "spend-controls.md"
ROW = re.compile(r"^\| (\d+|–) \| `(\w+)` \| ([^|]+) \|", re.MULTILINE)


def rows() -> list[tuple[str, str, set[str]]]:
    """Return number, check and codes of each row of the page's table of checks."""
    return [(number, name, set(re.findall(r"\d{4}", codes))) for number, name, codes in ROW.findall(PAGE.read_text("utf-8"))]


def test_the_page_has_the_order_of_the_list() -> None:
    """Each check has a row in its place. The rows of hold increase, velocity controls and funds follow."""
    names = [name for _, name, _ in rows()]
    assert names == [*(check.name for check in CHECKS), "hold_is_raised", "velocity_has_room", "funds_are_found"]
    assert [int(number) for number, _, _ in rows() if number != "–"] == list(range(1, len(CHECKS) + 3))


def test_the_page_names_only_codes_that_there_are() -> None:
    """Every code on the page is a response code, and the code of each check's fault is in its row."""
    known = {reason.code for reason in Reason}
    by_name = {name: codes for _, name, codes in rows()}
    assert set().union(*by_name.values()) <= known
    for check, (column, cell, _) in zip(CHECKS, ORDER_OF_REFUSALS, strict=False):
        row = {column: cell, "rules": "us-only auth-zip"}
        reason = check.refusal(snapshot_of(row, NOON), request_of(row), NOON)
        assert reason is not None
        assert reason.code in by_name[check.name]
