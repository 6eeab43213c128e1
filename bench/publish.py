"""Publisher: `python -m bench.publish RESULTS.json` writes the tables and pictures of docs/reference/performance.md.

It replaces the text between `<!-- begin NAME -->` and `<!-- end NAME -->`. The rest of the page is written by hand.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.report import cost_table, goal_table, goals, machine_lines, plot, rate_table, read, table

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "performance.md"
FOLDER = PAGE.with_suffix("")


def main(file: Path) -> None:
    """Replace the generated parts of the page and the pictures."""
    results = read(file)
    page = PAGE.read_text(encoding="utf-8")
    for name, text in parts(results).items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        assert begin in page, f"the page has no marker {begin}"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(page, encoding="utf-8")
    plot(results, FOLDER / "latency.svg")
    (FOLDER / "latency.png").unlink(missing_ok=True)
    flame = file.with_name(f"{file.stem}-flame-postgres.svg")
    if flame.exists():
        shutil.copyfile(flame, FOLDER / "flame.svg")


def parts(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the generated parts of the page by name."""
    measured = results["measured"]
    return {
        "machine": machine_lines(results), "goals": goal_table(goals(results)), "rates": rate_table(measured),
        "costs": cost_table(measured), "parts": parts_table(results.get("profile", {})),
        "statements": statement_line(results.get("profile", {})), "books": book_lines(results.get("books", {})),
    }  # fmt: skip


def parts_table(profile: Mapping[str, Any]) -> str:
    """Return a table of CPU time by part of the server: microseconds per authorization, and shares of the samples."""
    kinds = [kind for kind in ("postgres", "sqlite") if kind in profile]
    names = {part: None for kind in kinds for part in profile[kind]["parts"]}
    rows = [(name, *(_share(profile[kind], name) for kind in kinds)) for name in names]
    return table(("part of the server", *kinds), rows)


def _share(profile: Mapping[str, Any], part: str) -> str:
    share = profile["parts"].get(part, 0.0)
    return f"{share * profile['server_us']:.0f} µs · {share:.0%}"


def statement_line(profile: Mapping[str, Any]) -> str:
    """Return a sentence with the statements and messages of one commit on PostgreSQL."""
    counts = dict(profile.get("statements", {}))
    if not counts:
        return "Not counted in this run."
    messages, statements = counts.pop("messages"), counts.pop("statements")
    return f"{statements:.1f} statements per commit ({', '.join(counts)}), {messages:.1f} messages per commit, at 64 in flight."


def book_lines(books: Mapping[str, Any]) -> str:
    """Return the result of `cardwright verify` on each database after the run."""
    lines = [
        f"* {key}: {verdict['rows']:,} rows examined, {'all invariants hold' if verdict['sound'] else '**broken invariants**'}"
        for key, verdict in books.items()
    ]
    return "\n".join(lines) or "Not verified in this run."


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.publish RESULTS.json")
    main(Path(sys.argv[1]))
