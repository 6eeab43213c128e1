"""Figures: the counts of the stress tests as Markdown tables, with the number of attempts beside each zero."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from tests.stress import kills, mixed_load, races
from tests.stress.outage_checks import Record
from tests.stress.phases import PHASES

BEGIN, END = "<!-- figures: make stress WRITE=1 -->", "<!-- end of figures -->"
OUTAGES = "<!-- outages: make outages WRITE=1 -->"
"""The mark before the figures of outages, which are in another section."""

Line = tuple[str, ...]


def table(head: Line, lines: Iterable[Line]) -> str:
    """Return a Markdown table."""
    rows = [head, ("---",) * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def kills_table(runs: Sequence[kills.Figures], seed: int) -> str:
    """Return the table of kills, with a column for each database. A finished run has no violation: the first one ends it."""
    columns = [
        (
            f"{run.kills:,}",
            ", ".join(f"{count} {point}" for point, count in sorted(run.kills_at.items())),
            f"{run.acknowledged:,}",
            f"**{run.committed_unanswered:,}** of {run.unanswered:,}",
            f"0 of {run.looked_up:,}",
            f"0 of {run.repeated:,} · 0 of {run.refused:,}",
            f"0 of {run.verified:,}",
            f"0 of {run.due:,}",
            f"**{run.delivered_again:,}** of {run.delivered:,}",
            f"{run.seconds / 60:.0f} min",
        )
        for run in runs
    ]
    names = (
        "SIGKILLs, each followed by a restart and all the checks",
        "kills by place",
        "acknowledged messages (purchases, clearings, reversals, advices)",
        "*reached:* requests without an answer whose transaction was committed",
        "acknowledged messages lost, or different on GET",
        "repeats with another outcome · repeats with another body that were accepted",
        "restarts after which an invariant, the number of rows or a balance was wrong",
        "notifications that did not arrive",
        "*reached:* notifications sent, not recorded as sent, and sent again with the same content",
        "duration",
    )
    head = (f"kills, seed {seed}, {datetime.now(UTC):%Y-%m-%d}", *(run.database for run in runs))
    return table(head, (line for line in zip(names, *columns, strict=True)))


def races_table(run: races.Figures, rounds: int) -> str:
    """Return the table of races. A finished run has no violation."""
    reached = "*reached:*"
    lines = [
        (f"{reached} pairs of overlapping requests, one in each process", f"**{run.overlapping:,}** of {run.pairs:,}"),
        (f"{reached} commits that conflicted with the other process's commit of the same token", f"**{run.conflicts:,}**"),
        ("same token and body sent twice: two effects, or different answers", f"0 of {run.pairs - run.contradicted:,}"),
        ("same token with two bodies: both carried out, or neither", f"0 of {run.contradicted:,}"),
        ("accounts overdrawn by concurrent purchases", f"0 of {run.last_cents:,}"),
        ("velocity limits exceeded", f"0 of {run.last_slots:,}"),
        (f"{reached} purchases declined only because of a concurrent one", f"**{run.declined_for_another:,}**"),
        ("purchases sent after a card, user, product or source was deactivated, and approved", f"0 of {run.refused_after:,}"),
        (f"{reached} purchases under way during a deactivation", f"**{run.under_way:,}** in {run.changes:,} deactivations"),
        ("of these, approved and decided after the answer to the deactivation (product and source)", f"{run.decided_late:,}"),
        ("resets under load after which a row was left, or an invariant was wrong", f"0 of {run.resets:,}"),
        ("duration", f"{run.seconds / 60:.0f} min"),
    ]
    return table((f"races, {rounds} rounds, {datetime.now(UTC):%Y-%m-%d}", "PostgreSQL, two processes"), lines)


def mixed_load_table(runs: Sequence[mixed_load.Figures]) -> str:
    """Return the table of the mixed load, with a column for each database. A finished run had no 5xx and sound books."""
    statuses = sorted({status for run in runs for status in run.statuses})
    lines = [
        ("calls answered with 5xx", *(f"0 of {run.statuses.total():,}" for run in runs)),
        *((f"answered {status}", *(f"{run.statuses[status]:,}" for run in runs)) for status in statuses),
        ("duration", *(f"{run.seconds / 60:.0f} min" for run in runs)),
    ]
    return table(
        (f"mixed load, {mixed_load.CLIENTS} clients, {datetime.now(UTC):%Y-%m-%d}", *(run.database for run in runs)), lines
    )


def outages_tables(records: Sequence[Record], seed: int) -> str:
    """Return the tables of outages: counts and times for each kind and site, and counts for each phase."""
    groups = {(record.site, record.kind): list[Record]() for record in records}
    for record in records:
        groups[record.site, record.kind].append(record)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    counts = table(
        (
            f"outages, seed {seed}, {date}", "outages", "answered requests", "answered 503",
            "*reached:* outcome unknown, booked", "acknowledged and lost", "answered 503 and booked", "all violations",
        ),
        [(f"{site}: {kind}", *_counts(of_group)) for (site, kind), of_group in groups.items()],
    )  # fmt: skip
    times = table(
        ("times in ms: p99, maximum", "answers", "purchases approved after the return", "`/readyz` ready after the return",
         "exit after SIGTERM", "log lines, maximum"),
        [(f"{site}: {kind}", *_times(of_group)) for (site, kind), of_group in groups.items()],
    )  # fmt: skip
    sites = list(dict.fromkeys(record.site for record in records))
    reached = Counter((record.site, record.phase) for record in records if record.is_reached)
    phases = table(
        ("outages that began in this phase", *sites),
        [(name, *(f"{reached[site, phase]}" for site in sites)) for phase, name in PHASES.items()],
    )
    return f"{counts}\n\n{times}\n\n{phases}"


def _counts(records: Sequence[Record]) -> Line:
    def violated(word: str) -> int:
        return sum(text.startswith(word) for record in records for text in record.violations)

    return (
        f"{len(records)}",
        f"{sum(record.requests for record in records):,}",
        f"{sum(record.refused for record in records):,}",
        f"{sum(record.unknown_booked for record in records):,} of {sum(record.unknown for record in records):,}",
        f"{violated('acknowledged and lost')} of {sum(record.acknowledged for record in records):,}",
        f"{violated('refused and carried out')} of {sum(record.certain for record in records):,}",
        f"{sum(len(record.violations) for record in records)}",
    )


def _times(records: Sequence[Record]) -> Line:
    answers = sum((Counter(record.times_ms) for record in records), Counter[int]())
    columns = [_p99(sorted(answers.elements()), max(record.slowest_ms for record in records))]
    for name in ("recovery_ms", "ready_ms", "stop_ms"):
        measured = sorted(value for record in records if (value := getattr(record, name)) is not None)
        columns.append(_p99(measured, measured[-1]) if measured else "–")
    return (*columns, f"{max(record.log_lines for record in records)}")


def _p99(measured: Sequence[int], slowest: int) -> str:
    return f"{measured[min(len(measured) - 1, len(measured) * 99 // 100)]:,}, {slowest:,}" if measured else "–"


def written_into(page: str, figures: str, begin: str = BEGIN) -> str:
    """Return the page with new figures after a mark."""
    before, _, rest = page.partition(begin)
    _, mark, after = rest.partition(END)
    assert mark, f"the page must have the marks {begin} and {END}"
    return f"{before}{begin}\n\n{figures}\n\n{END}{after}"
