"""Stress tests: kills and outages on both databases, failovers, races between processes, and a mixed load.

`make stress` runs all parts and prints the figures at the end. The part `limits` races for the last amount or use of a velocity
control; `make stress-limits` runs more rounds of it. The parts outages and failover store their counts in a file; `--resume FILE`
continues an interrupted run.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.stress import kills, limits, mixed_load, outages, races
from tests.stress.figures import OUTAGES, kills_table, mixed_load_table, outages_tables, races_table, written_into
from tests.support.postgres import TestPostgres

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reliability.md"
PARTS = ("kills", "races", "limits", "mixed-load", "outages", "failover")
DATABASES = ("sqlite", "postgres")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stress tests. Return 1 if a guarantee was violated, or if a dangerous state was never reached."""
    options = _parser().parse_args(arguments)
    unproven = list[str]()
    _say(f"seed {options.seed}")
    if not {"outages", "failover"}.issuperset(options.parts):
        _kills_and_races(options, unproven)
    violations = _outages(options, unproven) if {"outages", "failover"}.intersection(options.parts) else []
    for danger in unproven:
        print(f"not reached, so the run proves nothing about it: {danger}", file=sys.stderr)
    return 1 if unproven or violations else 0


def _kills_and_races(options: argparse.Namespace, unproven: list[str]) -> None:
    """Run the other parts and print their tables. Raises AssertionError for the first violated guarantee."""
    tables = list[str]()
    with TestPostgres(durable=False) as postgres:
        if "kills" in options.parts:
            runs = [_kill(name, postgres, options) for name in options.db]
            unproven += [f"{run.database}: {danger}" for run in runs for danger in kills.unproven(run)]
            tables.append(kills_table(runs, options.seed))
        if "races" in options.parts:
            raced = races.run(postgres.new_database(), rounds=options.rounds)
            unproven += [f"races: {danger}" for danger in races.unproven(raced)]
            tables.append(races_table(raced, options.rounds))
        if "limits" in options.parts:
            limit_figures = limits.run(postgres.new_database(), rounds=options.races, seed=options.seed, say=_say)
            unproven += [f"limits: {danger}" for figures in limit_figures for danger in figures.unproven]
            tables.append(limits.table(limit_figures))
        if "mixed-load" in options.parts:
            tables.append(mixed_load_table([_run_mixed_load(name, postgres, options) for name in options.db]))
    print("\n\n".join(tables))
    if options.write:
        PAGE.write_text(written_into(PAGE.read_text("utf-8"), "\n\n".join(tables)), "utf-8")


def _outages(options: argparse.Namespace, unproven: list[str]) -> list[str]:
    """Run the parts outages and failover, print their tables, and return all violations."""
    file = options.resume or Path(tempfile.gettempdir(), f"cardwright-outages-{options.seed}.json")
    if options.resume is None:
        file.unlink(missing_ok=True)
    state = outages.State.read(file, options.seed)
    _say(f"counts are stored in {file}; --resume {file} continues an interrupted run")
    not_tried = ""
    if "outages" in options.parts and "postgres" in options.db:
        outages.run_postgres(state, _say, cuts=options.cuts)
    if "outages" in options.parts and "sqlite" in options.db:
        not_tried = outages.run_sqlite(state, _say, cuts=options.disk_cuts)
    if "failover" in options.parts and "postgres" in options.db:
        outages.run_failovers(state, _say, cuts=options.failovers)
    unproven += outages.unproven(state.records)
    violations = [f"{', '.join(map(str, record.name))}: {text}" for record in state.records for text in record.violations]
    tables = outages_tables(state.records, options.seed)
    print(f"\n\n{tables}\n")
    if options.write:
        PAGE.write_text(written_into(PAGE.read_text("utf-8"), tables, OUTAGES), "utf-8")
    for text in violations:
        print(f"violated: {text}", file=sys.stderr)
    if not_tried:
        print(not_tried)
    return violations


def _kill(name: str, postgres: TestPostgres, options: argparse.Namespace) -> kills.Figures:
    count = options.kills // len(options.db)
    if name == "postgres":
        return kills.run(postgres.new_database(), seed=options.seed, count=count, workers=2, say=_say)
    with tempfile.TemporaryDirectory(prefix="cardwright-stress-") as folder:
        return kills.run(str(Path(folder, "cardwright.db")), seed=options.seed, count=count, say=_say)


def _run_mixed_load(name: str, postgres: TestPostgres, options: argparse.Namespace) -> mixed_load.Figures:
    if name == "postgres":
        return mixed_load.run(postgres.new_database(), seconds=options.mixed_load, seed=options.seed, workers=2)
    with tempfile.TemporaryDirectory(prefix="cardwright-stress-") as folder:
        return mixed_load.run(str(Path(folder, "cardwright.db")), seconds=options.mixed_load, seed=options.seed)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--seed", type=int, default=42, help="seed of the requests, kills and outages (default: 42)")
    parser.add_argument("--kills", type=int, default=200, help="number of kills, divided among the databases (default: 200)")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of each race (default: 100)")
    parser.add_argument("--races", type=int, default=200, help="rounds of each race for a limit (default: 200)")
    parser.add_argument("--mixed-load", type=float, default=60, help="duration of the mixed load, in seconds (default: 60)")
    parser.add_argument("--cuts", type=int, default=30, help="PostgreSQL outages of each kind, half as many with two processes")
    parser.add_argument("--disk-cuts", type=int, default=20, help="SQLite outages of each kind (default: 20)")
    parser.add_argument("--failovers", type=int, default=10, help="promotions of a standby (default: 10)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="continue the outages whose counts are in this file")
    parser.add_argument("--db", nargs="*", choices=DATABASES, default=DATABASES)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--write", action="store_true", help="write the figures into docs/reference/reliability.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
