"""How the commands speak: what was asked for goes to stdout, everything else to stderr; plain lines where nobody looks on."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Rich takes a tenth of a second to import, which `serve` has no use for.
    from rich.console import Console

PLAIN_WIDTH = 200
"""Columns where there is no terminal: a file has no edge at which lines must be broken."""


class Failure(Exception):
    """A command cannot do what it was asked for. The text names the option; ``hint`` is what to type next."""

    def __init__(self, text: str, hint: str = "", code: int = 1) -> None:
        super().__init__(text)
        self.hint = hint
        self.code = code


def console() -> "Console":
    """Where people read: colours and the terminal's width when stdout is one."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def show_json(value: object) -> None:
    """Data for a machine, indented for the people who look at it too."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_fields(fields: Sequence[tuple[str, str]], indent: int = 2) -> None:
    """Names and values in two columns; fields without a value are left out."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value:
            print(f"{' ' * indent}{name:<{width}}  {value}")


def show_table(heads: Sequence[str], rows: Iterable[Sequence[Any]], styles: Sequence[str] = ()) -> None:
    """A table without frames: what is copied out of it is what stands in it. ``styles`` are the rows' colours on a terminal."""
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
    """A word to whoever is there, beside the data."""
    print(text, file=sys.stderr, flush=True)


def print_failure(failure: Failure) -> None:
    """What went wrong and what to type next."""
    print_notice(f"error: {failure}")
    if failure.hint:
        print_notice(f"next:  {failure.hint}")
