"""Output of the commands: data on stdout, notices and errors on stderr, no colours unless stdout is a terminal."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Functions import Rich late, because `serve` does not use it (decision 10).
    from rich.console import Console

PLAIN_WIDTH = 200
"""Columns of a table in a file or a pipe."""


@dataclass(frozen=True, slots=True)
class Hint:
    """The next step after a failure: a shell command that works as printed, or advice in words, or both."""

    command: str = ""
    text: str = ""


class Failure(Exception):
    """The reason why a command cannot do its work. The text names the option or the file; ``hint`` is the next step.

    A plain string as ``hint`` is a command, which a user may paste into a shell. Advice in words needs ``Hint(text=…)``.
    """

    def __init__(self, text: str, hint: Hint | str = "", code: int = 1) -> None:
        super().__init__(text)
        self.hint = Hint(hint) if isinstance(hint, str) else hint
        self.code = code


def console() -> "Console":
    """Return a console for text: with colours and the terminal's width if stdout is a terminal."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def show_json(value: object) -> None:
    """Print data as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_fields(fields: Sequence[tuple[str, str]], indent: int = 2) -> None:
    """Print names and values in two columns. Fields without a value are left out."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value:
            print(f"{' ' * indent}{name:<{width}}  {value}")


def show_table(heads: Sequence[str], rows: Iterable[Sequence[Any]], styles: Sequence[str] = ()) -> None:
    """Print a table without frames, so that copied text has no frame characters. ``styles`` are the rows' colours."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head)
    for number, row in enumerate(rows):
        table.add_row(*map(str, row), style=styles[number] if styles else None)
    page = console()
    with page.capture() as drawn:
        page.print(table)
    # Rich fills every line up to the table's width.
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def print_notice(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_failure(failure: Failure) -> None:
    """Print the error, the advice after ``help:`` and the command to type after ``next:``."""
    print_notice(f"error: {failure}")
    if failure.hint.text:
        print_notice(f"help:  {failure.hint.text}")
    if failure.hint.command:
        print_notice(f"next:  {failure.hint.command}")
