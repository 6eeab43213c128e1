"""Comparison of two runs: `python -m bench.compare BEFORE.json AFTER.json`."""

import sys
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from bench.report import changes, read


def main(before: str, after: str) -> None:
    """Print goals and rates of both runs with their changes."""
    Console().print(Markdown(changes(read(Path(before)), read(Path(after)))))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m bench.compare BEFORE.json AFTER.json")
    main(*sys.argv[1:])
