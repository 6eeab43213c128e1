"""`make storm`: kills on both databases, races between processes, a melee; all that was counted stands at the end.

Races for the last room under a velocity control are among them; `make races` runs more of those.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.storm import kills, limits, melee, races
from tests.storm.figures import kills_table, melee_table, races_table, written_into
from tests.support.postgres import TestPostgres

TRUST = Path(__file__).parent.parent.parent / "TRUST.md"
PARTS = ("kills", "races", "limits", "melee")
DATABASES = ("sqlite", "postgres")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the storm. Exits with 1 when a promise was not kept, and when a danger was never met: that proves nothing."""
    asked = _parser().parse_args(arguments)
    tables, unproven = list[str](), list[str]()
    with TestPostgres(durable=False) as postgres:
        if "kills" in asked.parts:
            runs = [_kill(name, postgres, asked) for name in asked.db]
            unproven += [f"{run.database}: {what}" for run in runs for what in kills.unproven(run)]
            tables.append(kills_table(runs, asked.seed))
        if "races" in asked.parts:
            raced = races.run(postgres.new_database(), rounds=asked.rounds)
            unproven += [f"races: {what}" for what in races.unproven(raced)]
            tables.append(races_table(raced, asked.rounds))
        if "limits" in asked.parts:
            found = limits.run(postgres.new_database(), rounds=asked.races, seed=asked.seed, say=_say)
            unproven += [f"limits: {what}" for one in found for what in one.unproven]
            tables.append(limits.table(found))
        if "melee" in asked.parts:
            tables.append(melee_table([_fight(name, postgres, asked) for name in asked.db]))
    print("\n\n".join(tables))
    if asked.write:
        TRUST.write_text(written_into(TRUST.read_text("utf-8"), "\n\n".join(tables)), "utf-8")
    for what in unproven:
        print(f"never met, so nothing is proven: {what}", file=sys.stderr)
    return 1 if unproven else 0


def _kill(name: str, postgres: TestPostgres, asked: argparse.Namespace) -> kills.Figures:
    count = asked.kills // len(asked.db)
    if name == "postgres":
        return kills.run(postgres.new_database(), seed=asked.seed, blows=count, workers=2, say=_say)
    with tempfile.TemporaryDirectory(prefix="cardwright-storm-") as folder:
        return kills.run(str(Path(folder, "cardwright.db")), seed=asked.seed, blows=count, say=_say)


def _fight(name: str, postgres: TestPostgres, asked: argparse.Namespace) -> melee.Figures:
    if name == "postgres":
        return melee.run(postgres.new_database(), seconds=asked.melee, seed=asked.seed, workers=2)
    with tempfile.TemporaryDirectory(prefix="cardwright-storm-") as folder:
        return melee.run(str(Path(folder, "cardwright.db")), seconds=asked.melee, seed=asked.seed)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=42, help="the same seed asks for the same things and strikes alike")
    parser.add_argument("--kills", type=int, default=200, help="how often the server dies, shared between the databases")
    parser.add_argument("--rounds", type=int, default=100, help="how often each race is run")
    parser.add_argument("--races", type=int, default=200, help="how many rounds of each race for the last room under a limit")
    parser.add_argument("--melee", type=float, default=60, help="how many seconds every route is called at once")
    parser.add_argument("--db", nargs="*", choices=DATABASES, default=DATABASES)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--write", action="store_true", help="put the figures into TRUST.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
