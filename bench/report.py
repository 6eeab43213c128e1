"""Report: medians, goals with their limits, tables for the terminal and for Markdown, and the plot."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import REFUSED

Measured = Mapping[str, Sequence[Mapping[str, Any]]]

IN_TIME_MS = 5_000
"""Maximum time of an answer under overload, in milliseconds: the longest wait of a card network."""

CALM = 0.08
"""Maximum share of the machine that other processes use in a calm measurement. Other rounds count only if none is calm."""

AT_ONCE_MS = 1_000
"""Maximum time of a refusal, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A required result. ``values`` has one number for each round; ``must`` and ``aim`` are limits."""

    name: str
    unit: str
    must: float
    aim: float
    values: "Values"
    is_ceiling: bool = False

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values.numbers)

    @property
    def verdict(self) -> str:
        """The result in words: aim reached, reached or missed."""
        verdict = "aim reached" if self._within(self.aim) else "reached" if self._within(self.must) else "**missed**"
        return f"{verdict} (disturbed)" if self.values.is_disturbed else verdict

    def text(self, value: float) -> str:
        """Return a number with its unit."""
        if math.isinf(value):
            return "never"
        digits = 2 if self.unit == "×" else 0 if abs(value) >= 100 else 1
        return f"{value:,.{digits}f}{' ' if self.unit != '×' else ''}{self.unit}"

    def _within(self, limit: float) -> bool:
        return self.value <= limit if self.is_ceiling else self.value >= limit


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers of the rounds that count: the calm rounds, or all rounds if none is calm."""

    numbers: tuple[float, ...]
    is_disturbed: bool


def values_of(rounds: Mapping[int, tuple[float, float]]) -> Values:
    """Return the values that count, from pairs (number, share of the machine that other processes used) by round."""
    calm = tuple(number for number, others in rounds.values() if others <= CALM)
    return Values(calm or tuple(number for number, _ in rounds.values()), bool(rounds) and not calm)


def by_round(measured: Measured, name: str, field: str = "rate") -> dict[int, tuple[float, float]]:
    """Return a number and the share of other processes by round: of several tries, the median and the largest share."""
    rounds: dict[int, list[tuple[float, float]]] = {}
    for row in measured.get(name, ()):
        if row.get(field) is not None:
            rounds.setdefault(row["round"], []).append((float(row[field]), float(row.get("others_share", 0.0))))
    return {number: (median(value for value, _ in rows), max(share for _, share in rows)) for number, rows in rounds.items()}


def plain(measured: Measured, name: str, field: str = "rate") -> Values:
    """Return the values of one measurement."""
    return values_of(by_round(measured, name, field))


def quotients(measured: Measured, over: str, under: str, field: str = "rate") -> Values:
    """Return the ratio of two measurements for each round, so that it compares results from the same minutes."""
    above, below = by_round(measured, over, field), by_round(measured, under, field)
    both = [number for number in sorted(above.keys() & below.keys()) if below[number][0]]
    return values_of({n: (above[n][0] / below[n][0], max(above[n][1], below[n][1])) for n in both})


def middle(measured: Measured, name: str, field: str = "rate") -> float | None:
    """Return the median of the rounds that count, or None if nothing was measured."""
    values = plain(measured, name, field).numbers
    return median(values) if values else None


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """Return the goals that were measured."""
    return [goal for goal in _goals(results["measured"], results["sizes"]) if goal.values.numbers]


def _goals(measured: Measured, sizes: Mapping[str, int]) -> Iterator[Goal]:
    main, large, stored, small = (f"{sizes[name]:,}" for name in ("main", "large", "stored", "small"))
    postgres = f"PostgreSQL, 64 in flight, {main} cards"
    yield Goal(f"{postgres} ÷ pgbench TPC-B-like, 32 clients", "×", 1.5, 2.5, quotients(measured, "postgres 64", "pgbench 32"))
    yield Goal(f"{postgres} ÷ straightforward design over HTTP", "×", 4, 8, quotients(measured, "postgres 64", "baseline 64"))
    yield Goal("SQLite ÷ PostgreSQL, 64 in flight", "×", 1.0, 1.5, quotients(measured, "sqlite 64", "postgres 64"))
    latency = quotients(measured, "postgres 1", "pgbench 1", "p50_ms")
    yield Goal(
        "PostgreSQL, 1 in flight: p50 of a purchase ÷ p50 of a pgbench transaction", "×", 2.0, 1.3, latency, is_ceiling=True
    )
    for kind, title in (("postgres", "PostgreSQL"), ("sqlite", "SQLite")):
        half = plain(measured, f"{kind} open 0.5", "p99_ms")
        yield Goal(f"{title}: p99 at half of the peak rate", "ms", 25, 10, half, is_ceiling=True)
        full = quotients(measured, f"{kind} full", f"{kind} small")
        yield Goal(f"{title}: {large} cards and {stored} transactions ÷ {small} cards, empty", "×", 0.85, 0.95, full)
    shared = quotients(measured, "postgres one-source", "postgres own-sources")
    yield Goal("PostgreSQL: one funding source for all card products ÷ one for each", "×", 0.95, 1.0, shared)
    for kind, title in (("postgres", "PostgreSQL"), ("sqlite", "SQLite")):
        many = quotients(measured, f"{kind} controls-90", f"{kind} controls-0")
        yield Goal(f"{title}: 90 velocity controls that apply ÷ none", "×", 0.6, 0.8, many)
        others = quotients(measured, f"{kind} controls-foreign", f"{kind} controls-0")
        yield Goal(f"{title}: 1,000 velocity controls of other users ÷ none", "×", 0.95, 1.0, others)
    for kind, title in (("postgres", "PostgreSQL"), ("sqlite", "SQLite")):
        for name in ("clearing", "reversal", "refund"):
            follow = quotients(measured, f"{kind} {name}", f"{kind} {name}: purchases")
            yield Goal(f"{title}: {name} ÷ authorization", "×", 0.8, 1.0, follow)
        memory = Values(plain(measured, f"{kind} full memory", "memory_mb").numbers, False)
        yield Goal(f"{title}: memory of the process at {large} cards", "MB", 400, 200, memory, is_ceiling=True)
        yield from _overload_goals(measured, f"{kind} overload", f"{title}, open loop at twice the peak")


def _overload_goals(measured: Measured, name: str, title: str) -> Iterator[Goal]:
    rows = measured.get(name, ())
    others = (sum(count for status, count in row["statuses"].items() if int(status) not in (201, *REFUSED)) for row in rows)
    unanswered = tuple(float(count + row["lost"]) for row, count in zip(rows, others, strict=True))
    yield Goal(f"{title}: requests neither answered nor refused", "requests", 0, 0, Values(unanswered, False), is_ceiling=True)
    slowest = plain(measured, name, "answered_max_ms")
    yield Goal(f"{title}: slowest answer", "ms", IN_TIME_MS, IN_TIME_MS / 2, slowest, is_ceiling=True)
    refusal = plain(measured, name, "refused_p99_ms")
    yield Goal(f"{title}: p99 of refusals", "ms", AT_ONCE_MS, AT_ONCE_MS / 10, refusal, is_ceiling=True)
    normal = plain(measured, name, "normal_after_s")
    yield Goal(f"{title}: time until the p99 is normal", "s", 5, 1, normal, is_ceiling=True)


# --- Tables -------------------------------------------------------------------------------


def markdown(results: Mapping[str, Any]) -> str:
    """Return all tables."""
    parts = [machine_lines(results), goal_table(goals(results)), rate_table(results["measured"]), cost_table(results["measured"])]
    return "\n\n".join(parts) + "\n"


def machine_lines(results: Mapping[str, Any]) -> str:
    """Return the machine, the settings and the options of the run."""
    machine, options = results["machine"], results["options"]
    settings = ", ".join(f"{name} {value}" for name, value in results["postgres"].items())
    others = [row["others_share"] for rows in results["measured"].values() for row in rows if "others_share" in row]
    busy = f"median {median(others):.0%}, worst {max(others):.0%}" if others else "unknown"
    return "\n".join(
        [
            f"* Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['system']}, "
            f"Python {machine['python']}, SQLite {machine['sqlite']}",
            f"* PostgreSQL: {settings}",
            f"* Run: {machine['date']}, commit {machine['commit']}, {'quick' if options['quick'] else 'full'}, "
            f"median of {options['rounds']} rounds of {options['seconds']:g} s; load average {machine['load']}",
            f"* Share of the machine that other processes used during the measurements: {busy}",
        ]
    )


def goal_table(lines: Sequence[Goal]) -> str:
    """Return the table of the goals and their results."""
    rows = [
        (goal.name, goal.text(goal.value), f"{goal.text(min(goal.values.numbers))} … {goal.text(max(goal.values.numbers))}",
         f"{'≤' if goal.is_ceiling else '≥'} {goal.text(goal.must)}", goal.text(goal.aim), goal.verdict)
        for goal in lines
    ]  # fmt: skip
    return table(("measurement", "median", "range of the rounds", "required", "aim", "result"), rows)


def rate_table(measured: Measured) -> str:
    """Return the table of the rates and latencies of all measurements."""
    rows = []
    for name in measured:
        if (rate := middle(measured, name)) is None:
            continue
        p50, p99 = middle(measured, name, "p50_ms"), middle(measured, name, "p99_ms")
        problems = sum(row.get("declined", 0) + row.get("lost", 0) for row in measured[name])
        rows.append((name, f"{rate:,.0f}", _number(p50), _number(p99), str(problems) if problems else ""))
    return table(("measurement", "per second", "p50 ms", "p99 ms", "declined or lost"), rows)


COSTS = (
    ("server_us", "server µs"), ("database_us", "database µs"), ("generator_us", "generator µs"),
    ("batch", "messages per commit"), ("wal_bytes", "WAL bytes"), ("wal_syncs", "WAL syncs"), ("written_bytes", "written bytes"),
    ("stored_bytes", "stored bytes"), ("others_share", "other processes"),
)  # fmt: skip


def cost_table(measured: Measured) -> str:
    """Return the table of the costs of one request."""
    rows = []
    for name in measured:
        values = [middle(measured, name, field) for field, _ in COSTS]
        if values[0] is None and values[1] is None:
            continue
        shown = [_number(value) for value in values[:-1]] + [f"{values[-1]:.0%}" if values[-1] is not None else ""]
        rows.append((name, *shown))
    return table(("measurement", *(title for _, title in COSTS)), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


# --- Comparison ---------------------------------------------------------------------------


FIELDS = {"rate": "per second", "p99_ms": "p99 ms", "server_us": "server µs", "database_us": "database µs"}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return tables of the differences between two runs: first the goals, then rates, latencies and CPU times."""
    old = {goal.name: goal.value for goal in goals(before)}
    known = [(goal, old[goal.name]) for goal in goals(after) if goal.name in old]
    lines = [(goal.name, goal.text(was), goal.text(goal.value), _change(was, goal.value), goal.verdict) for goal, was in known]
    parts = [table(("goal", "before", "after", "change", "now"), lines)]
    for field in ("rate", "p99_ms", "server_us", "database_us"):
        pairs = [
            (name, middle(before["measured"], name, field), middle(after["measured"], name, field)) for name in after["measured"]
        ]
        rows = [(name, _number(a), _number(b), _change(a, b)) for name, a, b in pairs if a is not None and b is not None]
        parts.append(table((FIELDS[field], "before", "after", "change"), rows))
    return "\n\n".join(parts)


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.0%}" if before and math.isfinite(before) and math.isfinite(after) else ""


# --- The plot -----------------------------------------------------------------------------

COLOURS = {"postgres": "#31648c", "sqlite": "#c4612d"}
TITLES = {"postgres": "PostgreSQL", "sqlite": "SQLite"}


def plot(results: Mapping[str, Any], path: Path) -> bool:
    """Plot latency against rate as PNG and SVG. Return False if no open loop was measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "cardwright", "font.size": 10}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for kind, colour in COLOURS.items():
        _draw_curve(axes, results["measured"], kind, colour)
    if not axes.lines:
        pyplot.close(figure)
        return False
    axes.axhline(25, color="#999999", linewidth=0.8, linestyle=":", label="25 ms")
    axes.set(yscale="log", xlabel="scheduled purchases per second (open loop)", ylabel="latency in ms from the scheduled time")
    axes.set_title(f"Latency against rate, {results['sizes']['main']:,} cards, {results['machine']['cores']} cores", loc="left")
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)
    return True


def _draw_curve(axes: Any, measured: Measured, kind: str, colour: str) -> None:
    names = [name for name in measured if name.startswith(f"{kind} open ")]
    points: list[tuple[float, float, float]] = sorted(
        (middle(measured, name, "asked") or 0.0, middle(measured, name, "p50_ms") or 0.0, middle(measured, name, "p99_ms") or 0.0)
        for name in names
    )
    if not points:
        return
    rates, halves, tails = zip(*points, strict=True)
    axes.plot(rates, tails, color=colour, marker="o", markersize=4, label=f"{TITLES[kind]} p99")
    axes.plot(rates, halves, color=colour, marker="o", markersize=3, linestyle="--", linewidth=1, label=f"{TITLES[kind]} p50")
    peak = points[-1][0] / float(names[-1].rpartition(" ")[2])
    axes.axvline(peak, color=colour, linewidth=0.8, alpha=0.5, label=f"{TITLES[kind]} peak, closed loop")


def read(path: Path) -> dict[str, Any]:
    """Read the results of a run."""
    results: dict[str, Any] = json.loads(path.read_text())
    return results
