"""The stress run for outages: the database goes away in every phase of the server's work, comes back, and all is compared."""

import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from cardwright.kit.limits import ANSWER_S
from tests.stress import api_fixtures, check, clusters, disks
from tests.stress.clusters import Outage
from tests.stress.load import BUYERS, Load
from tests.stress.outage_checks import (
    Arrivals,
    Books,
    Limits,
    Moments,
    Record,
    check_books,
    check_messages,
    check_times,
    log_lines_since,
)
from tests.stress.phases import IDLE, PHASES, SQLITE_PHASES, Phases
from tests.support.failpoints import Failpoints
from tests.support.issuing import client_of, made_by, read_of
from tests.support.postgres import Cluster, find_binaries, with_database
from tests.support.receiver import a_receiver
from tests.support.server import RunningServer

CARDS = 24

RESTART_FAST, RESTART_IMMEDIATE = "restart fast", "restart immediate"
TERMINATE, KILL_BACKEND, FREEZE = "all sessions terminated", "kill -9 of one backend", "SIGSTOP"
DISK_FULL, READ_ONLY, HELD_LOCK = "disk full", "read-only files", "lock held"
FAILOVER, READ_ONLY_STANDBY = "failover", "read-only standby"

POSTGRES_KINDS = (RESTART_FAST, RESTART_IMMEDIATE, TERMINATE, KILL_BACKEND, FREEZE)
SQLITE_KINDS = (DISK_FULL, READ_ONLY, HELD_LOCK)

MAY_ONLY_DELAY = (TERMINATE, HELD_LOCK)
"""Outages so short that a retry of the server may hide them from all clients."""

CHECK_EVERY = 10
"""After so many outages the server is stopped in order, timed, and the books are checked as a whole."""

SAFETY_S = 15.0
"""The longest wait for a recovery; a server that is not back by then is killed and started again."""

PATIENCE_S = 90.0
"""The longest wait for the last notifications: a claim of one that was lost with its connection lasts half a minute."""

LOG_LINES_MAX = 12
"""Lines that one process may log about one outage."""

HOOK = {
    "token": "hook",
    "name": "hook",
    "events": ["transaction.*"],
    "config": {"url": "", "basic_auth_username": "stress", "basic_auth_password": "Stress-of-20-character1"},
}


class Site(Protocol):
    """A database that can go away, with the address for the server and the one for looking into it from outside."""

    @property
    def name(self) -> str:
        """The site in the tables."""
        ...

    @property
    def workers(self) -> int | None:
        """The number of server processes."""
        ...

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases in which an outage can begin."""
        ...

    @property
    def address(self) -> str:
        """The address that the server gets."""
        ...

    @property
    def inspected_address(self) -> str:
        """The address at which the database can be looked into."""
        ...

    @property
    def cluster(self) -> Cluster | None:
        """The cluster that the server works on at present."""
        ...

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """An outage of a kind; ``is_felt`` tells whether a client has noticed it."""
        ...

    def renew(self) -> None:
        """Restore what the outage used up."""
        ...


class PostgresSite:
    """A cluster with ``fsync``."""

    phases = tuple(PHASES)

    def __init__(self, cluster: Cluster, workers: int, *, freeze_s: float = clusters.FREEZE_S) -> None:
        self.name = f"PostgreSQL, {workers} process{'es' if workers > 1 else ''}"
        self.workers, self.cluster, self._freeze_s = workers, cluster, freeze_s
        self.address = self.inspected_address = with_database(cluster.dsn, clusters.create_database(cluster))

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """See ``Site``."""
        del is_felt
        pause_s = dice.choice((0.0, 0.5, 1.5, 3.5))
        match kind:
            case "restart fast":
                return clusters.Restart(self.cluster, signal.SIGINT, pause_s)
            case "restart immediate":
                return clusters.Restart(self.cluster, signal.SIGQUIT, pause_s)
            case "all sessions terminated":
                return clusters.Terminate(self.cluster)
            case "kill -9 of one backend":
                return clusters.KillBackend(self.cluster)
            case _:
                return clusters.Freeze(self.cluster, self._freeze_s)

    def renew(self) -> None:
        """Nothing was used up."""


class PairSite:
    """A primary and a synchronous standby; the server knows both hosts."""

    phases = tuple(PHASES)

    def __init__(self, pair: clusters.Pair) -> None:
        self.name, self.workers, self._pair = "PostgreSQL, primary and standby", 1, pair

    @property
    def address(self) -> str:
        """Both hosts."""
        return self._pair.dsn

    @property
    def inspected_address(self) -> str:
        """The present primary."""
        return self._pair.primary_dsn

    @property
    def cluster(self) -> Cluster | None:
        """The present primary."""
        return self._pair.primary

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """See ``Site``."""
        del kind, is_felt
        return clusters.Failover(self._pair, dice.choice((signal.SIGQUIT, signal.SIGKILL)), dice.uniform(0, 1.5))

    def renew(self) -> None:
        """Build a new standby from the new primary."""
        self._pair.exchange()


class SingleHostSite(PairSite):
    """A primary and a standby; the server knows the primary's host only, where the standby is put, read-only at first."""

    def __init__(self, pair: clusters.Pair) -> None:
        super().__init__(pair)
        self.name, self._address = "PostgreSQL, one host of two", pair.primary_dsn

    @property
    def address(self) -> str:
        """The one host."""
        return self._address

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """See ``Site``."""
        del kind, is_felt
        return clusters.ReadOnlyStandby(self._pair, dice.uniform(1, 2.5))


class DiskSite:
    """SQLite on a small disk of its own."""

    workers, cluster, phases = None, None, SQLITE_PHASES

    def __init__(self, disk: disks.Disk) -> None:
        self.name, self._disk = "SQLite", disk
        self.address = self.inspected_address = disk.database

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """See ``Site``."""
        match kind:
            case "disk full":
                return disks.DiskFull(self._disk, is_felt)
            case "read-only files":
                return disks.ReadOnly(self._disk, is_felt)
            case _:
                return disks.HeldLock(self.address, dice.uniform(1, 7))

    def renew(self) -> None:
        """Nothing was used up."""


class FileSite:
    """SQLite in a folder, whose lock can be held; its disk cannot be touched."""

    workers, cluster, phases = None, None, SQLITE_PHASES

    def __init__(self, path: str, *, lock_s: float | None = None) -> None:
        self.name, self.address, self.inspected_address, self._lock_s = "SQLite", path, path, lock_s

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """See ``Site``."""
        del kind, is_felt
        return disks.HeldLock(self.address, self._lock_s or dice.uniform(1, 7))

    def renew(self) -> None:
        """Nothing was used up."""


@dataclass
class State:
    """The records of a run in a JSON file, so that a run that was broken off goes on after its last outage."""

    file: Path
    seed: int
    records: list[Record] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path, seed: int) -> "State":
        """What the file holds; nothing if there is none. Raises ValueError if it is of a run with another seed."""
        if not file.exists():
            return cls(file, seed)
        stored = json.loads(file.read_text("utf-8"))
        if stored["seed"] != seed:
            raise ValueError(f"{file} is of a run with --seed {stored['seed']}, not {seed}")
        return cls(file, seed, [Record.of(record) for record in stored["records"]])

    def has(self, site: str, kind: str, number: int) -> bool:
        """Whether an outage was recorded."""
        return any(record.name == (site, kind, number) for record in self.records)

    def add(self, record: Record) -> None:
        """Record an outage."""
        self.records.append(record)
        self.write()

    def write(self) -> None:
        """Write the file anew."""
        content = {"seed": self.seed, "records": [record.json() for record in self.records]}
        new = self.file.with_name(f"{self.file.name}.new")
        new.write_text(json.dumps(content), "utf-8")
        new.rename(self.file)


@dataclass
class Run:
    """One server on one site, with its clients' cards, its failpoints and the receivers of its notifications."""

    site: Site
    seed: int
    limits: Limits
    failpoints: Failpoints
    inline: Arrivals
    hook: Arrivals
    server: RunningServer
    books: Books = field(default_factory=Books)
    cards: list[api_fixtures.Card] = field(default_factory=list)
    _other_program: dict[str, object] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make cards, a webhook, and a second program that may be reset."""
        with self.server.client() as client:
            self.cards = api_fixtures.build(client, CARDS)
            config = {**HOOK["config"], "url": self.hook.receiver.url}  # type: ignore[dict-item]
            api_fixtures.made(client.post("/webhooks", {**HOOK, "config": config}))
            self._other_program = made_by(client.post("/sandbox/programs", {}))

    def cut(self, kind: str, phase: str, number: int) -> Record:
        """One outage in one phase, with all checks after it."""
        record, started_s = Record(self.site.name, kind, phase, number), time.monotonic()
        dice = Random(f"{self.seed}-{record.name}")
        load = self._new_load(f"{''.join(word[0] for word in kind.split())}{number}")
        length, strike_s = len(self.server.output()), [0.0]
        try:
            if phase != IDLE:
                load.start()
                clusters.wait_until(lambda: load.approved() >= 2 * BUYERS, SAFETY_S)
            outage = self.site.outage(kind, dice, lambda: load.is_felt_since(strike_s[0]))
            stops = list[Stopping]()
            phases = Phases(self.failpoints, self.site.cluster, self._reset, lambda: stops.append(Stopping(self.server)))
            with phases.enter(phase, dice, resumes=kind != FREEZE) as record.is_reached:
                strike_s[0] = time.monotonic()
                outage.strike()
            if phase == IDLE:
                load.start()
            moments = Moments(strike_s[0], outage.mend(), stops[0].sent_s if stops else None)
            if stops:
                self._note_end(record, stops[0])
            else:
                self._await_recovery(load, moments)
        finally:
            load.stop()
        check_times(record, load.exchanges, moments, self.limits)
        self._check_log(record, length)
        self._restart_if_needed(record, load, moments)
        self.site.renew()
        with self.server.client() as client:
            check_messages(record, client, self.site.inspected_address, load, moments, dice)
        self.books.add(load.memory)
        for arrivals in (self.inline, self.hook):
            arrivals.count()
        record.took_s = round(time.monotonic() - started_s, 1)
        return record

    def conclude(self, record: Record) -> None:
        """Check the books and stop the server in order; all that is wrong goes into the record."""
        with self.server.client() as client:
            check_books(record, client, self.site.inspected_address, self.books)
        self._note_end(record, Stopping(self.server))
        self.server.kill()

    def check_arrivals(self, record: Record) -> None:
        """Every notification has arrived."""
        for name, arrivals, due in (("hook", self.hook, self.books.due), ("inline", self.inline, self.books.due_inline)):
            missing = arrivals.missing(due, PATIENCE_S)
            if missing:
                record.violations.append(f"{name}: {len(missing)} of {len(due)} notifications never came: {sorted(missing)[:3]}")

    def _new_load(self, prefix: str) -> Load:
        return Load(self.server, self.cards, self.inline.receiver.url, prefix)

    def _reset(self) -> None:
        with client_of(self.server, self._other_program) as client:
            read_of(client.post("/sandbox/reset", {}))

    def _await_recovery(self, load: Load, moments: Moments) -> None:
        load.probe(moments.return_s, SAFETY_S)
        deadline_s = moments.return_s + SAFETY_S

        def is_back() -> bool:
            return load.has_all_since(moments.return_s) and load.is_ready_since(moments.return_s)

        clusters.wait_until(is_back, max(0.0, deadline_s - time.monotonic()))

    def _note_end(self, record: Record, stopping: "Stopping") -> None:
        end_s = stopping.ended_s(SAFETY_S)
        if end_s is None:
            end_s = stopping.sent_s + SAFETY_S
        took_s = end_s - stopping.sent_s
        record.stop_ms = max(record.stop_ms or 0, round(took_s * 1000))
        if took_s > self.limits.stop_s:
            record.violations.append(f"SIGTERM ended the server after {took_s:.2f} s")

    def _restart_if_needed(self, record: Record, load: Load, moments: Moments) -> None:
        if moments.stop_s is None and load.has_all_since(moments.return_s):
            return
        if moments.stop_s is None:
            record.violations.append("the server is not back on every connection and was killed")
        self.server.kill()
        self.server.start()

    def _check_log(self, record: Record, length: int) -> None:
        lines = log_lines_since(self.server.output(), length)
        record.log_lines = len(lines)
        if len(lines) > LOG_LINES_MAX * (self.site.workers or 1):
            record.violations.append(f"{len(lines)} lines in the log, such as {lines[:3]}")
        if any("Traceback" in line for line in lines):
            record.violations.append(f"a traceback in the log: {[line for line in lines if 'Error' in line][:3]}")


class Stopping:
    """A stop of the server by SIGTERM; a thread notes the moment of its end."""

    def __init__(self, server: RunningServer) -> None:
        self.sent_s = time.monotonic()
        server.terminate()
        self._end_s: float | None = None
        self._thread = threading.Thread(target=self._watch, args=(server,), daemon=True)
        self._thread.start()

    def ended_s(self, seconds: float) -> float | None:
        """The moment of the end; None if it does not come within some seconds."""
        self._thread.join(seconds)
        return self._end_s

    def _watch(self, server: RunningServer) -> None:
        if server.ends_within(4 * SAFETY_S):
            self._end_s = time.monotonic()


@contextmanager
def running(site: Site, *, seed: int, limits: Limits) -> Iterator[Run]:
    """A server on a site, with everything that a run needs."""
    with ExitStack() as stack:
        failpoints = stack.enter_context(Failpoints())
        inline, hook = (Arrivals(stack.enter_context(a_receiver())) for _ in range(2))
        env = {**failpoints.environment, "CARDWRIGHT_ANSWER_LIMIT_S": f"{ANSWER_S}"}
        server = RunningServer(db=site.address, workers=site.workers, env=env)
        stack.callback(server.close)
        run = Run(site, seed, limits, failpoints, inline, hook, server)
        run.prepare()
        yield run


def run_site(site: Site, plan: Sequence[tuple[str, str, int]], state: State, say: Callable[[str], None],
             *, limits: Limits | None = None, patient: bool = True) -> None:  # fmt: skip
    """Carry out a plan of outages, each a kind, a phase and a number; those that are recorded already are left out.

    Without ``patient`` the claims of notifications that were lost with a connection are made to run out at the end.
    """
    left = [entry for entry in plan if not state.has(site.name, entry[0], entry[2])]
    if not left:
        return
    with running(site, seed=state.seed, limits=limits or Limits()) as run:
        for count, (kind, phase, number) in enumerate(left, 1):
            record = run.cut(kind, phase, number)
            if count % CHECK_EVERY == 0 or count == len(left):
                if count == len(left):
                    if not patient:
                        check.expire_claims(site.inspected_address)
                    run.check_arrivals(record)
                run.conclude(record)
                if count < len(left):
                    run.server.start()
            state.add(record)
            say(progress(record, len(plan) - len(left) + count, len(plan)))


def progress(record: Record, count: int, total: int) -> str:
    """An outage in a line, and its violations in lines of their own."""
    times = f"slowest answer {record.slowest_ms} ms"
    times += f", back in {record.recovery_ms} ms" if record.recovery_ms is not None else ""
    times += f", stopped in {record.stop_ms} ms" if record.stop_ms is not None else ""
    line = (
        f"{record.site} {count}/{total}: {record.kind}, {PHASES[record.phase]}{'' if record.is_reached else ' (missed)'}: "
        f"{record.requests} requests, {record.refused} refused, {record.unknown_booked} of {record.unknown} unknown booked, "
        f"{times}, {record.log_lines} lines, took {record.took_s} s"
    )
    shown = [f"    {violation}" for violation in record.violations[:5]]
    hidden = len(record.violations) - len(shown)
    return "\n".join([line, *shown, *([f"    and {hidden} more"] if hidden else [])])


def plan(kinds: Sequence[str], phases: Sequence[str], cuts: int) -> list[tuple[str, str, int]]:
    """So many outages of each kind; every kind meets all phases in turn, and neighbours differ in both."""
    return [
        (kind, phases[(number + 3 * place) % len(phases)], number) for number in range(cuts) for place, kind in enumerate(kinds)
    ]


def durable_cluster() -> Cluster:
    """A cluster with ``fsync``, which after a crash asks the operating system once to write all files, not for each of 1,500."""
    return Cluster(find_binaries(), durable=True, settings={"recovery_init_sync_method": "syncfs"})


def run_postgres(state: State, say: Callable[[str], None], *, cuts: int) -> None:
    """With one server process so many outages of each kind, with two half as many."""
    cluster = durable_cluster()
    try:
        for workers, count in ((1, cuts), (2, (cuts + 1) // 2)):
            site = PostgresSite(cluster, workers)
            run_site(site, plan(POSTGRES_KINDS, site.phases, count), state, say)
    finally:
        cluster.stop()


def run_sqlite(state: State, say: Callable[[str], None], *, cuts: int) -> str:
    """So many outages of each kind; returns why those of the disk were left out, or nothing."""
    try:
        for kind in SQLITE_KINDS:
            # A disk for each kind: it is small, and the database grows.
            with disks.Disk() as disk:
                site = DiskSite(disk)
                run_site(site, plan((kind,), site.phases, cuts), state, say)
    except disks.MountError as error:
        with tempfile.TemporaryDirectory(prefix="cardwright-stress-") as folder:
            site_without_disk = FileSite(str(Path(folder, "cardwright.db")))
            run_site(site_without_disk, plan((HELD_LOCK,), site_without_disk.phases, cuts), state, say)
        return f"not tried, because nothing can be mounted here: {DISK_FULL}, {READ_ONLY} ({error})"
    return ""


def run_failovers(state: State, say: Callable[[str], None], *, cuts: int) -> None:
    """So many failovers to a standby, and a third as many in which the server meets the standby while it is read-only."""
    for make_site, kind, count in ((PairSite, FAILOVER, cuts), (SingleHostSite, READ_ONLY_STANDBY, (cuts + 2) // 3)):
        with clusters.Pair() as pair:
            site = make_site(pair)
            run_site(site, plan((kind,), site.phases, count), state, say)


def unproven(records: Sequence[Record]) -> list[str]:
    """Phases that were reached fewer than three times, and kinds of outages that no purchase ever felt."""
    missing = list[str]()
    for site in dict.fromkeys(record.site for record in records):
        of_site = [record for record in records if record.site == site]
        for phase in dict.fromkeys(record.phase for record in of_site):
            count = sum(record.is_reached for record in of_site if record.phase == phase)
            if count < min(3, sum(record.phase == phase for record in of_site)):
                missing.append(f"{site}: {PHASES[phase]}, reached {count} times")
        for kind in dict.fromkeys(record.kind for record in of_site):
            if kind not in MAY_ONLY_DELAY and not sum(record.refused for record in of_site if record.kind == kind):
                missing.append(f"{site}: no purchase was refused by {kind}")
    return missing
