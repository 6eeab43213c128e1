"""Benchmark: `python -m bench` measures everything in one run, prints ratios, and writes JSON, tables and a plot."""

import json
import os
import platform
import resource
import sqlite3
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.cases import GROUPS, PATIENCE_S, Run
from bench.database import settings_of
from bench.profile import profile
from bench.report import goal_table, goals, machine_lines, markdown, plot, rate_table
from bench.stations import FULL, QUICK, Yard
from cardwright.ledger.invariants import verify
from cardwright.storage.database import Database

PROFILE, VERIFY = "profile", "verify"
NAMES = (*GROUPS, PROFILE, VERIFY)

console = Console(stderr=True)


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller stores, one round, short measurements: a few minutes.")] = False,
    rounds: Annotated[int, typer.Option(help="Number of rounds. 0: 5, or 1 with --quick.")] = 0,
    seconds: Annotated[float, typer.Option(help="Length of one measurement, in seconds. 0: 8, or 2.5 with --quick.")] = 0.0,
    out: Annotated[Path, typer.Option(help="JSON file of the results. Tables and plots are written beside it.")] = Path(
        "bench/results/latest.json"
    ),
    only: Annotated[str, typer.Option(help=f"Groups to run, comma-separated (default: all): {', '.join(NAMES)}.")] = "",
) -> None:
    """Measure Cardwright, pgbench and a straightforward design, on one durable PostgreSQL and on SQLite."""
    wanted = [name.strip() for name in only.split(",") if name.strip()] or list(NAMES)
    if unknown := set(wanted) - set(NAMES):
        raise typer.BadParameter(f"unknown group {', '.join(sorted(unknown))}; accepted: {', '.join(NAMES)}")
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    out.parent.mkdir(parents=True, exist_ok=True)
    rounds = rounds or (1 if quick else 5)
    seconds = seconds or (2.5 if quick else 8.0)
    results = measure(wanted, quick, rounds, seconds, out)
    save(results, out)
    show(results, out)


def measure(wanted: list[str], quick: bool, rounds: int, seconds: float, out: Path) -> dict[str, Any]:
    """Run the groups round by round. Ctrl-C ends the run and keeps the results so far."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    groups = [name for name in GROUPS if name in wanted]
    sizes = QUICK if quick else FULL
    results: dict[str, Any] = {
        "machine": machine(), "sizes": asdict(sizes), "options": {"quick": quick, "rounds": rounds, "seconds": seconds},
    }  # fmt: skip
    with Progress(*columns, console=console, refresh_per_second=2, redirect_stdout=False) as progress:
        whole = progress.add_task("all rounds", total=rounds * len(groups))
        now = progress.add_task("starting", total=None)

        def say(description: str, share: float | None) -> None:
            progress.update(now, description=description, total=None if share is None else 1.0, completed=share or 0.0)
            if not console.is_terminal and share is None:
                console.print(description)

        with Yard(sizes, say) as yard:
            run = Run(yard, seconds, max(0.5, seconds / 5), max(2.0, seconds * 0.75), 30.0 if quick else PATIENCE_S, say=say)
            results |= {"measured": run.measured, "postgres": settings_of(yard.postgres)}
            try:
                for run.number in range(1, rounds + 1):
                    for name in groups:
                        GROUPS[name](run)
                        progress.advance(whole)
                        # A full run takes about an hour: write after each group, so that a crash loses one group only.
                        out.write_text(json.dumps(results))
                if PROFILE in wanted:
                    results["profile"] = profile(run, out.parent, f"{out.stem}-flame")
                if VERIFY in wanted:
                    results["books"] = books(yard, say)
            except KeyboardInterrupt:
                console.print("stopped; the results so far follow")
    return results


def books(yard: Yard, say: Any) -> dict[str, Any]:
    """Verify the books of the loaded databases."""
    verdicts = {}
    yard.rest()
    for key, station in yard.stations().items():
        if key.split()[1] not in ("main", "workers", "own-sources"):
            continue
        say(f"{key}: verifying", None)
        database = Database(station.seeded.address)
        report = verify(database)
        database.close()
        rows = sum(finding.examined for finding in report.findings)
        verdicts[key] = {"sound": report.is_sound, "rows": rows, "broken": [asdict(violation) for violation in report.violations]}
    return verdicts


def machine() -> dict[str, Any]:
    """Return the hardware and the software versions of the run."""
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": cpu, "cores": os.cpu_count(), "memory_gb": memory / 1e6, "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "commit": git or "unknown",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "load": f"{os.getloadavg()[0]:.1f} before the run",
    }  # fmt: skip


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def save(results: dict[str, Any], out: Path) -> None:
    """Write JSON, Markdown and the plot."""
    out.write_text(json.dumps(results, indent=1))
    out.with_suffix(".md").write_text(markdown(results))
    plot(results, out.with_name(f"{out.stem}-latency.svg"))


def show(results: dict[str, Any], out: Path) -> None:
    """Print the machine, the goals, the rates, the verification and the paths of the files."""
    printer = Console()
    printer.print(Markdown(machine_lines(results)))
    printer.print(Markdown(goal_table(goals(results))))
    printer.print(Markdown(rate_table(results["measured"])))
    for key, verdict in results.get("books", {}).items():
        printer.print(f"{key}: {verdict['rows']:,} rows verified, {'sound' if verdict['sound'] else 'NOT SOUND'}")
    printer.print(f"results: {out}, tables: {out.with_suffix('.md')}, plot: {out.stem}-latency.svg")


if __name__ == "__main__":
    typer.run(main)
