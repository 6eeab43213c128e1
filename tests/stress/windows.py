"""Random histories under velocity controls while time passes; `make windows HISTORIES=2000` runs the full size.

Each history has 40 steps: messages of one card, changes of controls, and time. It crosses at least two window ends, if the
window has an end. After every step a second, naive count of all stored messages (`naive_velocity.py`) checks:

* No approved request exceeds a limit together with the count at its decision.
* No control declined a request although every limit had room.
* No stored usage is below zero.
* The available amount of each control is its limit minus the count, and at least 0.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.in_process_platform import InProcessPlatform
from tests.support.limit_histories import WINDOWS, WRONG, Figures, play
from tests.support.postgres import TestPostgres

PEOPLE = 100
"""Histories of one program; each program has a separate clock and separate controls."""


def run(address: str, *, histories: int, seed: int, windows: Sequence[str] = WINDOWS, people: int = PEOPLE, stories: int = 1,
        say: Callable[[str], None] = lambda _: None) -> list[Figures]:  # fmt: skip
    """Run ``histories`` histories for each window on one empty database. Up to ``stories`` kinds of failures get an example."""
    all_figures = []
    platform = InProcessPlatform(address)
    try:
        for window in windows:
            started = time.monotonic()
            programs = max(1, histories // people)
            figures = play(platform, window, seed, programs=programs, people=min(people, histories), stories=stories)
            figures.seconds = time.monotonic() - started
            all_figures.append(figures)
            say(f"{window}: {figures.histories:,} histories, {figures.wrong:,} wrong, {figures.seconds:.0f} s")
    finally:
        platform.close()
    return all_figures


def failures_of(figures: Figures) -> dict[str, Counter[str]]:
    """Return the number of wrong histories for each kind of failure and for the steps before its first occurrence."""
    counts = dict[str, Counter[str]]()
    for failure in figures.failures:
        verbs = {
            line.step.verb for line in failure.place.lines if line.turn == failure.turn and line.owner == failure.person.name
        }
        counts.setdefault(failure.kind, Counter())[" + ".join(sorted(verbs)) or "a change for all users"] += 1
    return counts


def table(all_figures: Sequence[Figures]) -> str:
    """Return the figures as a Markdown table, with the number of histories beside each zero."""
    head = ("velocity limits while time passes", "histories with a violation", "steps", "*reached:* requests approved",
            "*reached:* declined by a limit", "*reached:* given back in a later window", "duration")  # fmt: skip
    lines = [
        (
            figures.window, f"{figures.wrong:,} of {figures.histories:,}", f"{figures.steps:,}", f"{figures.met['approved']:,}",
            f"{figures.met['over an amount'] + figures.met['over a count']:,}",
            f"{figures.met['given back in a later window']:,}",
            f"{figures.seconds:.0f} s",
        )
        for figures in all_figures
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the histories. Return 1 if a history was wrong, or if a dangerous state was never reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.windows", description=__doc__.split("\n\n")[0])
    parser.add_argument("--histories", type=int, default=2_000, help="histories for each window (default: 2000)")
    parser.add_argument("--people", type=int, default=PEOPLE, help="histories of one program (default: 100)")
    parser.add_argument("--windows", nargs="*", choices=WINDOWS, default=WINDOWS)
    parser.add_argument("--seed", type=int, default=42, help="seed of the histories (default: 42)")
    parser.add_argument("--db", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--json", type=Path, help="file for the counts of reached states")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", file=sys.stderr, flush=True)

    def play_at(address: str) -> list[Figures]:
        return run(
            address, histories=options.histories, seed=options.seed, windows=options.windows, people=options.people,
            stories=len(WRONG), say=lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip

    if options.db == "postgres":
        with TestPostgres(durable=False) as postgres:
            all_figures = play_at(postgres.new_database())
    else:
        with tempfile.TemporaryDirectory(prefix="cardwright-windows-") as folder:
            all_figures = play_at(str(Path(folder, "cardwright.db")))
    print(table(all_figures))
    for figures in all_figures:
        for kind, verbs in failures_of(figures).items():
            verb_counts = ", ".join(f"{verb} {times}" for verb, times in verbs.most_common())
            print(
                f"{figures.window}: {kind} in {verbs.total()} histories, first after {verb_counts}\n\n{figures.stories[kind]}\n"
            )
    if options.json:
        met = [{"window": figures.window, "histories": figures.histories, "met": dict(figures.met)} for figures in all_figures]
        options.json.write_text(json.dumps(met, indent=1) + "\n", "utf-8")
    unproven = [danger for figures in all_figures for danger in figures.unproven]
    for danger in unproven:
        print(f"not reached, so the run proves nothing about it: {danger}", file=sys.stderr)
    return 1 if unproven or any(figures.failures for figures in all_figures) else 0


if __name__ == "__main__":
    sys.exit(main())
