"""`make storm`: kills and outages on both databases, failovers, races between processes, a melee; figures come at the end.

Races for the last room under a velocity control are among them; `make races` runs more of those.
The parts outages and failover keep their counts in a file; `--resume FILE` goes on with a run that was broken off.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.storm import kills, limits, melee, outages, races
from tests.storm.figures import OUTAGES, kills_table, melee_table, outages_tables, races_table, written_into
from tests.support.postgres import TestPostgres

TRUST = Path(__file__).parent.parent.parent / "TRUST.md"
PARTS = ("kills", "races", "limits", "melee", "outages", "failover")
DATABASES = ("sqlite", "postgres")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the storm. Exits with 1 when a promise was not kept, and when a danger was never met: that proves nothing."""
    asked = _parser().parse_args(arguments)
    unproven = list[str]()
    _say(f"seed {asked.seed}")
    if not {"outages", "failover"}.issuperset(asked.parts):
        _kills_and_races(asked, unproven)
    violations = _outages(asked, unproven) if {"outages", "failover"}.intersection(asked.parts) else []
    for what in unproven:
        print(f"never met, so nothing is proven: {what}", file=sys.stderr)
    return 1 if unproven or violations else 0


def _kills_and_races(asked: argparse.Namespace, unproven: list[str]) -> None:
    """Runs the other parts; prints their tables. Raises AssertionError for the first promise that was not kept."""
    tables = list[str]()
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


def _outages(asked: argparse.Namespace, unproven: list[str]) -> list[str]:
    """Runs the parts outages and failover; prints their tables and returns all violations."""
    file = asked.resume or Path(tempfile.gettempdir(), f"cardwright-outages-{asked.seed}.json")
    if asked.resume is None:
        file.unlink(missing_ok=True)
    state = outages.State.read(file, asked.seed)
    _say(f"counts are kept in {file}; --resume {file} goes on with a run that was broken off")
    not_tried = ""
    if "outages" in asked.parts and "postgres" in asked.db:
        outages.run_postgres(state, _say, cuts=asked.cuts)
    if "outages" in asked.parts and "sqlite" in asked.db:
        not_tried = outages.run_sqlite(state, _say, cuts=asked.disk_cuts)
    if "failover" in asked.parts and "postgres" in asked.db:
        outages.run_failovers(state, _say, cuts=asked.failovers)
    unproven += outages.unproven(state.records)
    violations = [f"{', '.join(map(str, record.name))}: {text}" for record in state.records for text in record.violations]
    tables = outages_tables(state.records, asked.seed)
    print(f"\n\n{tables}\n")
    if asked.write:
        TRUST.write_text(written_into(TRUST.read_text("utf-8"), tables, OUTAGES), "utf-8")
    for text in violations:
        print(f"violated: {text}", file=sys.stderr)
    if not_tried:
        print(not_tried)
    return violations


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
    parser.add_argument("--cuts", type=int, default=30, help="PostgreSQL outages of each kind; half as many with two processes")
    parser.add_argument("--disk-cuts", type=int, default=20, help="SQLite outages of each kind")
    parser.add_argument("--failovers", type=int, default=10, help="promotions of a standby")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on with the outages whose counts are in this file")
    parser.add_argument("--db", nargs="*", choices=DATABASES, default=DATABASES)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--write", action="store_true", help="put the figures into TRUST.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
