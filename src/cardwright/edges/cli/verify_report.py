"""Report of `cardwright verify`: each promise, its invariants in words, and the violations; lines of 80 columns."""

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardwright.ledger.invariants import Finding

COLUMNS = 80
BOLD, RED, PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[0m"


def show_report(report: Sequence["Finding"]) -> None:
    """Print the findings by promise, then up to twenty violations of each broken invariant."""
    from cardwright.ledger.invariants import PROMISES

    for promise, text in PROMISES.items():
        if findings := [finding for finding in report if finding.promise == promise]:
            _print(_wrapped(f"{promise}  {text}", indent=0, hanging=4), BOLD)
            for finding in findings:
                _show_finding(finding)
            print()
    for finding in report:
        for violation in finding.violations:
            where = f"{violation.name}: {violation.where}"
            _print(_wrapped(f"{where}: expected {violation.expected}, found {violation.actual}", indent=0, hanging=4), RED)
        if finding.broken > len(finding.violations):
            print(f"{finding.name}: and {finding.broken - len(finding.violations)} more")


def _show_finding(finding: "Finding") -> None:
    verdict = f"{finding.broken} broken" if finding.broken else "holds"
    rows = f"{finding.examined} rows"
    _print([f"    {finding.name:<41}{rows:>15}  {verdict}"], RED if finding.broken else "")
    _print(_wrapped(finding.says, indent=8, hanging=8))


def _wrapped(text: str, *, indent: int, hanging: int) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent=" " * indent, subsequent_indent=" " * hanging, break_on_hyphens=False)


def _print(lines: Iterable[str], style: str = "") -> None:
    is_styled = bool(style) and sys.stdout.isatty()
    print("\n".join(f"{style}{line}{PLAIN}" if is_styled else line for line in lines))
