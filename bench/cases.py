"""Measurements in groups. A round runs every group once, so that a busy minute of the machine affects all groups alike."""

import gc
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import uvloop

from bench import pgbench
from bench.database import size_of
from bench.load import NextRequest, Result, closed_loop, normal_after_ms, one_each, open_loop, post, purchases, quantile
from bench.meter import others_share_now
from bench.report import CALM
from bench.stations import APPROVED, CONTROLS, CREDENTIALS, BaselineStation, Station, Yard

KINDS = ("postgres", "sqlite")
IN_FLIGHT = (1, 16, 64, 256)
TRIES = 2
"""Number of consecutive tries of each measurement. The median of the calm tries counts.

A virtual processor may share its core with another machine: the same work then takes up to twice as long for about a second.
Threads of the operating system may be periodic: one that reclaims memory used a processor for up to 0.8 s in every 6 s.
"""

OPEN_TRIES = 3
"""TRIES of an open loop, where a disturbance of a twentieth of a second determines the p99."""

TRIES_MAX = 4
"""Maximum number of tries while other processes used more of the machine than CALM in every try."""

PATIENCE_S = 480.0
"""Total time that a run spends on waiting for a calm machine and on additional tries, in seconds.

Later results count even if they are disturbed, and the report marks them.
"""

LADDER = (0.1, 0.25, 0.5, 0.7, 0.85, 1.0, 1.25)
"""Rates of the open loop as shares of the peak. The overload has a separate rate."""

OVERLOAD = 2.0
AFTER_OVERLOAD = 0.5
"""Rate after the overload as a share of the peak. The ladder has measured the latency of the same rate."""

NORMAL_MS = 25.0
"""Limit of a normal p99 after an overload, in milliseconds. If twice the p99 at half of the peak is higher, that value counts."""

CONNECTIONS_MAX = 14_000
"""Number of connections at twice the peak: enough that the server, not the generator, must queue or refuse requests.

They are opened beforehand. A burst of new connections would measure the backlog of the operating system, which drops the
connections that exceed it.
"""

OnBody = Callable[[bytes], None]

BEFORE_MANY = 16
"""Requests in flight of the closed loop whose purchases are cleared late. The loops with more in flight run after it."""

LATE_PER_S = 5_000
"""Number of late clearings for each second of a measurement."""

FOLLOW_UPS = {
    "clearing": ("/v3/simulate/clearing", b""),
    "reversal": ("/v3/simulate/reversal", b""),
    "refund": ("/v3/simulate/clearing", b',"is_refund":true'),
}


@dataclass(slots=True)
class Run:
    """A run of the benchmark.

    ``seconds``, ``warm_s`` and ``open_s`` are the lengths of a measurement, of its warm-up and of a rate of the open loop.
    ``purchased`` has tokens of purchases by database, which the server's cache has dropped when they are cleared late.
    ``measured`` has the results so far by name, with their rounds.
    """

    yard: Yard
    seconds: float
    warm_s: float
    open_s: float
    patience_s: float = PATIENCE_S
    number: int = 0
    purchased: dict[str, list[bytes]] = field(default_factory=dict)
    measured: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    say: Callable[[str, float | None], None] = lambda _description, _share: None

    def keep(self, name: str, *tries: dict[str, Any]) -> None:
        """Store the results of this round's tries under a name."""
        self.measured.setdefault(name, []).extend({"round": self.number} | numbers for numbers in tries)

    def rate_of(self, name: str) -> float | None:
        """Return this round's median rate under a name, or None if this round has not measured it."""
        rates = [float(row["rate"]) for row in self.measured.get(name, []) if row["round"] == self.number]
        return median(rates) if rates else None


def numbers_of(result: Result) -> dict[str, Any]:
    """Return the rate, the latencies and the counts of a result."""
    ordered = result.latencies_ms()
    numbers: dict[str, Any] = {"rate": result.per_second, "count": len(ordered), "seconds": result.seconds}
    numbers |= {f"p{share}_ms": quantile(ordered, share / 100) for share in (50, 90, 99)}
    numbers["max_ms"] = quantile(ordered, 1.0)
    numbers["statuses"] = {str(status): count for status, count in result.statuses.items()}
    return numbers | {"declined": result.declined, "lost": result.lost}


LOOK_S = 0.5
"""Length of one measurement of the machine's load, in seconds."""


def calm_down(run: Run) -> None:
    """Wait until the machine is calm or the patience is spent, then write the system's dirty pages to disk."""
    while run.patience_s > 0 and others_share_now(LOOK_S) > CALM:
        run.patience_s -= LOOK_S
    # Dirty pages of another station would otherwise be written during this station's commits.
    os.sync()


def tried(run: Run, measure: Callable[[], dict[str, Any]], least: int = TRIES) -> list[dict[str, Any]]:
    """Measure repeatedly; return the calm tries, or the least disturbed one if none was calm."""
    tries = list[dict[str, Any]]()
    while len(tries) < least or (len(tries) < TRIES_MAX and run.patience_s > 0 and min(map(_others, tries)) > CALM):
        calm_down(run)
        began = time.monotonic()
        tries.append(measure())
        if len(tries) > least:
            run.patience_s -= time.monotonic() - began
    return [numbers for numbers in tries if _others(numbers) <= CALM] or [min(tries, key=_others)]


def _others(numbers: dict[str, Any]) -> float:
    return float(numbers["others_share"])


def closed(run: Run, station: Station, in_flight: int, on_body: OnBody | None = None) -> list[dict[str, Any]]:
    """Return the results of purchases in a closed loop, with the costs of one purchase."""
    return tried(run, partial(_closed_once, run, station, in_flight, on_body))


def _closed_once(run: Run, station: Station, in_flight: int, on_body: OnBody | None) -> dict[str, Any]:
    meter, before = station.meter(), size_of(station.seeded.address)
    requests = station.purchases(run.number * 1000 + in_flight)
    result = _quietly(
        lambda: closed_loop(
            station.place, requests, in_flight, run.seconds, warm_s=run.warm_s, check=APPROVED, edge=meter.edge, on_body=on_body
        )
    )
    # The size covers the warm-up too, so only the share of the counted seconds belongs to the counted requests.
    grown = (size_of(station.seeded.address) - before) * run.seconds / (run.seconds + run.warm_s)
    costs = meter.costs(len(result.latency))
    return numbers_of(result) | costs | {"stored_bytes": grown / max(1, len(result.latency))}


def _quietly(load: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a load without the garbage collector, because its pauses would count as latency of the server."""
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(load())
    finally:
        gc.enable()


# --- Groups -------------------------------------------------------------------------------


def yardstick(run: Run) -> None:
    """Measure pgbench with 32 clients and with one."""
    for clients in (32, 1):
        run.say(f"pgbench, {clients} clients", None)
        dsn = run.yard.pgbench()
        measure = partial(_pgbench_once, run, dsn, clients)
        run.keep(f"pgbench {clients}", *tried(run, measure))


def _pgbench_once(run: Run, dsn: str, clients: int) -> dict[str, Any]:
    return {**pgbench.run(dsn, clients, run.seconds, run.yard.pgbench_meter())}


def straightforward(run: Run) -> None:
    """Measure the baseline over HTTP."""
    station = run.yard.baseline()
    for in_flight in (1, 64):
        run.say(f"baseline, {in_flight} in flight", None)
        run.keep(f"baseline {in_flight}", *tried(run, partial(_baseline_once, run, station, in_flight)))


def _baseline_once(run: Run, station: BaselineStation, in_flight: int) -> dict[str, Any]:
    meter, requests = station.meter(), purchases(station.tokens, CREDENTIALS, run.number)
    load = partial(closed_loop, warm_s=run.warm_s, check=APPROVED, edge=meter.edge)
    result = _quietly(partial(load, station.place, requests, in_flight, run.seconds))
    return numbers_of(result) | meter.costs(len(result.latency))


def main_store(run: Run) -> None:
    """Measure closed loops on the main store of both databases."""
    for kind in KINDS:
        station = run.yard.station(kind, "main")
        run.purchased[kind] = []
        for in_flight in IN_FLIGHT:
            run.say(f"{kind}, {in_flight} in flight", None)
            # The purchases of the later loops displace these from the server's cache.
            on_body = keeping(run.purchased[kind]) if in_flight == BEFORE_MANY else None
            run.keep(f"{kind} {in_flight}", *closed(run, station, in_flight, on_body))


def scale(run: Run) -> None:
    """Measure the smallest store, and the largest store with stored transactions."""
    for kind in KINDS:
        for name in ("small", "full"):
            station = run.yard.station(kind, name)
            run.say(f"{kind}, {name} store", None)
            run.keep(f"{kind} {name}", *closed(run, station, 64))
            run.keep(f"{kind} {name} memory", {"memory_mb": station.memory_mb})


def workers(run: Run) -> None:
    """Measure two server processes on one PostgreSQL."""
    station = run.yard.station("postgres", "workers")
    for in_flight in (64, 256):
        run.say(f"postgres, two workers, {in_flight} in flight", None)
        run.keep(f"postgres two-workers {in_flight}", *closed(run, station, in_flight))


def sources(run: Run) -> None:
    """Measure one funding source for all card products, and one source for each.

    The difference is smaller than the noise between two measurements, so each store is measured four times, alternately.
    """
    for name in ("one-source", "own-sources", "own-sources", "one-source") * 2:
        station = run.yard.station("postgres", name)
        run.say(f"postgres, {name}", None)
        run.keep(f"postgres {name}", *closed(run, station, 64))


def controls(run: Run) -> None:
    """Measure no velocity controls, 10 and 90 that apply to every purchase, and 1,000 of other users."""
    for kind in KINDS:
        for name in CONTROLS:
            station = run.yard.station(kind, name)
            run.say(f"{kind}, {name}", None)
            run.keep(f"{kind} {name}", *closed(run, station, 64))


def follow_ups(run: Run) -> None:
    """Measure purchases with exactly one following message each, and clearings of older purchases."""
    for kind in KINDS:
        station = run.yard.station(kind, "main")
        for name, (path, extra_fields) in FOLLOW_UPS.items():
            run.say(f"{kind}, {name}", None)
            tries = tried(run, partial(_follow_once, run, station, path, extra_fields))
            run.keep(f"{kind} {name}: purchases", *(both["first"] for both in tries))
            run.keep(f"{kind} {name}", *(both["then"] for both in tries))
        if run.purchased.get(kind):
            run.say(f"{kind}, late clearing", None)
            run.keep(f"{kind} late clearing", *tried(run, partial(_late_once, run, station, run.purchased[kind])))


def _follow_once(run: Run, station: Station, path: str, extra_fields: bytes) -> dict[str, Any]:
    """Measure purchases and their following messages. The larger share of other processes counts for both."""
    tokens = list[bytes]()
    purchased = _followed(station, station.purchases(run.number), max(1.0, run.seconds / 2), keeping(tokens))
    # Otherwise dirty pages of the purchases would be written during the following messages.
    os.sync()
    followed = _followed(station, _follow(tokens, path, extra_fields))
    share = max(purchased["others_share"], followed["others_share"])
    return {"first": purchased, "then": followed, "others_share": share}


def _late_once(run: Run, station: Station, purchased: list[bytes]) -> dict[str, Any]:
    """Clear some of the purchases and remove them from the list, so that none is cleared twice."""
    count = int(max(1.0, run.seconds / 2) * LATE_PER_S)
    tokens, purchased[:] = purchased[:count], purchased[count:]
    return _followed(station, _follow(tokens, *FOLLOW_UPS["clearing"]))


def _follow(tokens: list[bytes], path: str, extra_fields: bytes) -> NextRequest:
    body = b'{"original_transaction_token":"%s","amount":10%s}' % (b"?" * 36, extra_fields)
    return one_each(tokens, post(path, body, CREDENTIALS))


def _followed(
    station: Station, requests: NextRequest, seconds: float | None = None, on_body: OnBody | None = None
) -> dict[str, Any]:
    """Measure 64 requests in flight, for a time or until all requests are sent."""
    meter = station.meter()
    load = partial(closed_loop, check=APPROVED, on_body=on_body, edge=meter.edge)
    result = _quietly(partial(load, station.place, requests, 64, seconds))
    return numbers_of(result) | meter.costs(len(result.latency))


def keeping(tokens: list[bytes]) -> OnBody:
    """Return a function that appends the transaction token of each answer to the list."""

    def keep(body: bytes) -> None:
        start = body.index(b'"token":"') + 9
        tokens.append(body[start : start + 36])

    return keep


def open_loops(run: Run) -> None:
    """Measure latency against rate, and an overload."""
    for kind in KINDS:
        station = run.yard.station(kind, "main")
        peak = _peak(run, kind, station)
        half_ms = NORMAL_MS / 2
        for share in LADDER:
            run.say(f"{kind}, open loop at {share:.0%} of {peak:,.0f}/s", None)
            tries = tried(run, partial(_rung_once, run, station, peak * share), OPEN_TRIES)
            run.keep(f"{kind} open {share:g}", *tries)
            half_ms = median(numbers["p99_ms"] for numbers in tries) if share == AFTER_OVERLOAD else half_ms
        run.say(f"{kind}, open loop at {OVERLOAD:.0%} of {peak:,.0f}/s", None)
        # One try only: it is long enough to include the periodic work of the operating system.
        calm_down(run)
        run.keep(f"{kind} overload", _overload_once(run, station, peak, half_ms))


def _rung_once(run: Run, station: Station, rate: float) -> dict[str, Any]:
    meter = station.meter()
    meter.edge()
    result = _open(run, station, [(rate, run.open_s)], 256)
    meter.edge()
    late = sorted(late / 1e6 for late in result.late)
    load_numbers = {"asked": rate, "late_p99_ms": quantile(late, 0.99)}
    return numbers_of(result) | load_numbers | meter.costs(len(result.latency))


def _peak(run: Run, kind: str, station: Station) -> float:
    """Return the highest rate of this round's closed loops."""
    if all(run.rate_of(f"{kind} {in_flight}") is None for in_flight in IN_FLIGHT):
        run.keep(f"{kind} 256", *closed(run, station, 256))
    return max(rate for in_flight in IN_FLIGHT if (rate := run.rate_of(f"{kind} {in_flight}")) is not None)


def _open(run: Run, station: Station, phases: list[tuple[float, float]], connections: int) -> Result:
    requests = station.purchases(run.number)
    return _quietly(
        lambda: open_loop(
            station.place,
            requests,
            phases,
            connections=connections,
            connections_max=CONNECTIONS_MAX,
            check=APPROVED,
            seed=run.number,
        )
    )


def _overload_once(run: Run, station: Station, peak: float, half_ms: float) -> dict[str, Any]:
    """Measure twice the peak and then half of it: answers, refusals, and the time until the p99 is normal again."""
    phases = [(peak * OVERLOAD, run.open_s), (peak * AFTER_OVERLOAD, max(6.0, 2 * run.open_s))]
    meter = station.meter()
    meter.edge()
    result = _open(run, station, phases, CONNECTIONS_MAX)
    meter.edge()
    end = result.began + int(run.open_s * 1e9)
    answered = result.latencies_ms(result.began, end, refused=False)
    refused = result.latencies_ms(result.began, end, refused=True)
    limit = max(NORMAL_MS, 2 * half_ms)
    numbers = {
        "asked": peak * OVERLOAD, "answered": len(answered), "refused": len(refused), "lost": result.lost,
        "declined": result.declined, "statuses": {str(status): count for status, count in result.statuses.items()},
        "rate": len(answered) / run.open_s, "answered_p50_ms": quantile(answered, 0.5),
        "answered_p99_ms": quantile(answered, 0.99), "answered_max_ms": quantile(answered, 1.0),
        "refused_p50_ms": quantile(refused, 0.5), "refused_p99_ms": quantile(refused, 0.99),
        "normal_ms": limit, "normal_after_s": normal_after_ms(result, end, limit) / 1000,
    }  # fmt: skip
    return numbers | meter.costs(len(result.latency))


GROUPS: dict[str, Callable[[Run], None]] = {
    "pgbench": yardstick,
    "baseline": straightforward,
    "closed": main_store,
    "follow": follow_ups,
    "sources": sources,
    "controls": controls,
    "workers": workers,
    "scale": scale,
    "open": open_loops,
}
"""The groups by their names in `--only`."""
