"""Meters of a run: CPU time of each side, write-ahead log, syncs, memory, and the machine's share that other processes used."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psycopg

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A row of the process table. ``cpu_s`` includes the CPU time of ended children that the process has waited for."""

    pid: int
    parent: int
    cpu_s: float


def process_table() -> dict[int, Process]:
    """Return all running processes by id."""
    table = {}
    for folder in os.listdir("/proc"):
        if not folder.isdigit():
            continue
        try:
            text = Path("/proc", folder, "stat").read_text()
        except OSError:
            continue
        # The name may contain any characters, parentheses too; the last parenthesis ends it.
        fields = text[text.rindex(")") + 2 :].split()
        table[int(folder)] = Process(int(folder), int(fields[1]), sum(map(int, fields[11:15])) / TICKS)
    return table


def family_of(table: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """Return the ids of the processes and of all their descendants."""
    children = defaultdict(list)
    for process in table.values():
        children[process.parent].append(process.pid)
    pids, left = set[int](), list(roots)
    while left:
        pid = left.pop()
        if pid in table and pid not in pids:
            pids.add(pid)
            left += children[pid]
    return pids


def machine_busy_s() -> float:
    """Return the seconds of CPU time that the machine was not idle, from a fixed but arbitrary start. Stolen time counts too.

    It uses the idle time, which the kernel counts exactly. The kernel estimates the other times from samples at each tick.
    """
    _user, _nice, _system, idle, iowait, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return time.monotonic() * (os.cpu_count() or 1) - (int(idle) + int(iowait)) / TICKS


def memory_mb(pids: Iterable[int], without: str) -> float:
    """Return the resident memory of processes without the pages of one mapped file, which the system may drop at any time."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
        except OSError:
            continue
        is_ours = True
        for line in lines:
            name, *fields = line.split()
            if not name.endswith(":"):
                is_ours = fields[-1] != without
            elif name == "Rss:" and is_ours:
                total += int(fields[0]) * 1024
    return total / 1e6


def written_bytes(pids: Iterable[int]) -> int:
    """Return the bytes that the processes have written to disk so far."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
    return total


def postmaster_of(dsn: str) -> int | None:
    """Return the id of the server's postmaster, or None if the server runs on another machine."""
    with psycopg.connect(dsn) as db:
        row = db.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'").fetchone()
    process = process_table().get(row[0]) if row else None
    return process.parent if process else None


def batches_of(root_url: str) -> tuple[float, float]:
    """Return the number of commits and of messages that a server has counted so far."""
    with urlopen(f"{root_url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("cardwright_batch_messages_"))
    return float(values["cardwright_batch_messages_count"]), float(values["cardwright_batch_messages_sum"])


def others_share_now(seconds: float) -> float:
    """Return the share of the machine that other processes use while the benchmark and its servers are idle."""
    before = machine_busy_s()
    time.sleep(seconds)
    return (machine_busy_s() - before) / seconds / (os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """The values of all meters at one instant."""

    time_s: float
    cpu_s: dict[str, float]
    machine_s: float
    wal_bytes: int
    wal_syncs: int
    wal_images: int
    batches: tuple[float, float]
    written: int


class Meter:
    """Readings at both edges of a run: after two calls of ``edge``, ``costs`` returns the cost of one request.

    ``roots`` are the processes of each side by name. ``dsn`` is the PostgreSQL whose write-ahead log is measured. ``root_url``
    is a Cardwright server with one process, whose batches are counted.
    """

    def __init__(self, roots: dict[str, int], dsn: str | None = None, root_url: str | None = None) -> None:
        self._roots = {"generator": os.getpid()} | roots
        self._dsn, self._root_url = dsn, root_url
        self._readings: list[Reading] = []

    def edge(self) -> None:
        """Take a reading."""
        table = process_table()
        families = {name: family_of(table, [pid]) for name, pid in self._roots.items()}
        # The servers are descendants of this process too. Their time does not count as the generator's.
        families["generator"] -= set().union(*(pids for name, pids in families.items() if name != "generator"))
        cpu_s = {name: sum(table[pid].cpu_s for pid in pids) for name, pids in families.items()}
        wal = self._wal() if self._dsn is not None else (0, 0, 0)
        batches = batches_of(self._root_url) if self._root_url is not None else (0.0, 0.0)
        written = written_bytes(set().union(*families.values()) - families["generator"])
        self._readings.append(Reading(time.monotonic(), cpu_s, machine_busy_s(), *wal, batches, written))

    def costs(self, requests: int) -> dict[str, float]:
        """Return the cost of one request between the first and the last reading. Shares are of the whole machine."""
        first, last = self._readings[0], self._readings[-1]
        seconds, count = last.time_s - first.time_s, max(1, requests)
        spent = {name: last.cpu_s[name] - first.cpu_s[name] for name in first.cpu_s}
        machine_s = (os.cpu_count() or 1) * seconds
        costs = {f"{name}_us": 1e6 * value / count for name, value in spent.items()}
        costs["others_share"] = max(0.0, (last.machine_s - first.machine_s - sum(spent.values())) / machine_s)
        costs["written_bytes"] = (last.written - first.written) / count
        if self._dsn is not None:
            costs["wal_bytes"] = (last.wal_bytes - first.wal_bytes) / count
            costs["wal_syncs"] = (last.wal_syncs - first.wal_syncs) / count
            costs["wal_images"] = (last.wal_images - first.wal_images) / count
        if self._root_url is not None and last.batches[0] > first.batches[0]:
            costs["batch"] = (last.batches[1] - first.batches[1]) / (last.batches[0] - first.batches[0])
        return costs

    def _wal(self) -> tuple[int, int, int]:
        assert self._dsn is not None
        query = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, wal_sync, wal_fpi FROM pg_stat_wal"
        with psycopg.connect(self._dsn) as db:
            row = db.execute(query).fetchone()
        assert row is not None
        return int(row[0]), int(row[1]), int(row[2])
