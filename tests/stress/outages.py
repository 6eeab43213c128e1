"""Outages: the database fails in every phase of the server's work and recovers, and all answers are compared."""

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
"""Kinds of outages that a retry of the server may hide from all clients."""

CHECK_EVERY = 10
"""Number of outages between two full checks of the books, each with a timed stop of the server."""

SAFETY_S = 15.0
"""The longest wait for a recovery. A server that has not recovered by then is killed and started again."""

PATIENCE_S = 90.0
"""The longest wait for the last notifications: a claim that was lost with its connection lasts half a minute."""

LOG_LINES_MAX = 12
"""The maximum number of log lines of one process for one outage."""

HOOK = {
    "token": "hook",
    "name": "hook",
    "events": ["transaction.*"],
    "config": {"url": "", "basic_auth_username": "stress", "basic_auth_password": "Stress-of-20-character1"},
}


class Site(Protocol):
    """A database that can fail, with its address for the server and its address for the checks."""

    @property
    def name(self) -> str:
        """The name of the site in the tables."""
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
        """The address for the server."""
        ...

    @property
    def inspected_address(self) -> str:
        """The address for the checks."""
        ...

    @property
    def cluster(self) -> Cluster | None:
        """The current cluster of the server."""
        ...

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """Return an outage of a kind. ``is_felt`` returns whether a client has got a refusal."""
        ...

    def renew(self) -> None:
        """Restore the parts that the outage has used up."""
        ...


class PostgresSite:
    """A PostgreSQL cluster with ``fsync``."""

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
        """Do nothing: these outages use nothing up."""


class PairSite:
    """A primary and a synchronous standby; the server's URL names both hosts."""

    phases = tuple(PHASES)

    def __init__(self, pair: clusters.Pair) -> None:
        self.name, self.workers, self._pair = "PostgreSQL, primary and standby", 1, pair

    @property
    def address(self) -> str:
        """The address of both hosts."""
        return self._pair.dsn

    @property
    def inspected_address(self) -> str:
        """The address of the current primary."""
        return self._pair.primary_dsn

    @property
    def cluster(self) -> Cluster | None:
        """The current primary."""
        return self._pair.primary

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """See ``Site``."""
        del kind, is_felt
        return clusters.Failover(self._pair, dice.choice((signal.SIGQUIT, signal.SIGKILL)), dice.uniform(0, 1.5))

    def renew(self) -> None:
        """Build a new standby from the new primary."""
        self._pair.exchange()


class SingleHostSite(PairSite):
    """A primary and a standby that takes its port, read-only at first. The server's URL names only that host."""

    def __init__(self, pair: clusters.Pair) -> None:
        super().__init__(pair)
        self.name, self._address = "PostgreSQL, one host of two", pair.primary_dsn

    @property
    def address(self) -> str:
        """The address of the host."""
        return self._address

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """See ``Site``."""
        del kind, is_felt
        return clusters.ReadOnlyStandby(self._pair, dice.uniform(1, 2.5))


class DiskSite:
    """SQLite on a separate small disk."""

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
        """Do nothing: these outages use nothing up."""


class FileSite:
    """SQLite in a folder: its lock can be held, its disk cannot fail."""

    workers, cluster, phases = None, None, SQLITE_PHASES

    def __init__(self, path: str, *, lock_s: float | None = None) -> None:
        self.name, self.address, self.inspected_address, self._lock_s = "SQLite", path, path, lock_s

    def outage(self, kind: str, dice: Random, is_felt: Callable[[], bool]) -> Outage:
        """See ``Site``."""
        del kind, is_felt
        return disks.HeldLock(self.address, self._lock_s or dice.uniform(1, 7))

    def renew(self) -> None:
        """Do nothing: these outages use nothing up."""


@dataclass
class State:
    """The records of a run in a JSON file. An interrupted run continues after its last outage."""

    file: Path
    seed: int
    records: list[Record] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path, seed: int) -> "State":
        """Return the state in the file, or an empty one if there is no file. Raises ValueError if its seed differs."""
        if not file.exists():
            return cls(file, seed)
        stored = json.loads(file.read_text("utf-8"))
        if stored["seed"] != seed:
            raise ValueError(f"{file} is of a run with --seed {stored['seed']}, not {seed}")
        return cls(file, seed, [Record.of(record) for record in stored["records"]])

    def has(self, site: str, kind: str, number: int) -> bool:
        """Return whether an outage is recorded."""
        return any(record.name == (site, kind, number) for record in self.records)

    def add(self, record: Record) -> None:
        """Record an outage."""
        self.records.append(record)
        self.write()

    def write(self) -> None:
        """Replace the file."""
        content = {"seed": self.seed, "records": [record.json() for record in self.records]}
        new = self.file.with_name(f"{self.file.name}.new")
        new.write_text(json.dumps(content), "utf-8")
        new.rename(self.file)


@dataclass
class Run:
    """One server on one site, with the cards of its clients, its failpoints and the receivers of its notifications."""

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
        """Create cards, a webhook, and a second program that may be reset."""
        with self.server.client() as client:
            self.cards = api_fixtures.build(client, CARDS)
            config = {**HOOK["config"], "url": self.hook.receiver.url}  # type: ignore[dict-item]
            api_fixtures.made(client.post("/webhooks", {**HOOK, "config": config}))
            self._other_program = made_by(client.post("/sandbox/programs", {}))

    def cut(self, kind: str, phase: str, number: int) -> Record:
        """Carry out one outage in one phase, and all checks after it."""
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
        """Check the books and stop the server with SIGTERM. Violations go into the record."""
        with self.server.client() as client:
            check_books(record, client, self.site.inspected_address, self.books)
        self._note_end(record, Stopping(self.server))
        self.server.kill()

    def check_arrivals(self, record: Record) -> None:
        """Check that every notification has arrived. Violations go into the record."""
        for name, arrivals, due in (("hook", self.hook, self.books.due), ("inline", self.inline, self.books.due_inline)):
            missing = arrivals.missing(due, PATIENCE_S)
            if missing:
                record.violations.append(f"{name}: {len(missing)} of {len(due)} notifications missing: {sorted(missing)[:3]}")

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
            record.violations.append("the server did not recover on every connection and was killed")
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
    """A stop of the server by SIGTERM; a thread records the moment of its end."""

    def __init__(self, server: RunningServer) -> None:
        self.sent_s = time.monotonic()
        server.terminate()
        self._end_s: float | None = None
        self._thread = threading.Thread(target=self._watch, args=(server,), daemon=True)
        self._thread.start()

    def ended_s(self, seconds: float) -> float | None:
        """Return the moment of the end, None if the server does not end within ``seconds``."""
        self._thread.join(seconds)
        return self._end_s

    def _watch(self, server: RunningServer) -> None:
        if server.ends_within(4 * SAFETY_S):
            self._end_s = time.monotonic()


@contextmanager
def running(site: Site, *, seed: int, limits: Limits) -> Iterator[Run]:
    """Yield a run with a new server on a site."""
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
    """Carry out a plan of outages, each a kind, a phase and a number; skip those that are recorded already.

    If not ``patient``, the claims of notifications that were lost with a connection are ended before the last check.
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
    """Return an outage in one line, and its first violations in further lines."""
    times = f"slowest answer {record.slowest_ms} ms"
    times += f", recovered in {record.recovery_ms} ms" if record.recovery_ms is not None else ""
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
    """Return ``cuts`` outages of each kind. Each kind takes the phases in turn; neighbours differ in kind and phase."""
    return [
        (kind, phases[(number + 3 * place) % len(phases)], number) for number in range(cuts) for place, kind in enumerate(kinds)
    ]


def durable_cluster() -> Cluster:
    """Start a cluster with ``fsync``. After a crash it syncs the file system once instead of each of 1,500 files."""
    return Cluster(find_binaries(), durable=True, settings={"recovery_init_sync_method": "syncfs"})


def run_postgres(state: State, say: Callable[[str], None], *, cuts: int) -> None:
    """Run ``cuts`` outages of each kind with one server process, and half as many with two."""
    cluster = durable_cluster()
    try:
        for workers, count in ((1, cuts), (2, (cuts + 1) // 2)):
            site = PostgresSite(cluster, workers)
            run_site(site, plan(POSTGRES_KINDS, site.phases, count), state, say)
    finally:
        cluster.stop()


def run_sqlite(state: State, say: Callable[[str], None], *, cuts: int) -> str:
    """Run ``cuts`` outages of each kind. Return why those of the disk were skipped, or an empty text."""
    try:
        for kind in SQLITE_KINDS:
            # One disk for each kind, because the disk is small and the database grows.
            with disks.Disk() as disk:
                site = DiskSite(disk)
                run_site(site, plan((kind,), site.phases, cuts), state, say)
    except disks.MountError as error:
        with tempfile.TemporaryDirectory(prefix="cardwright-stress-") as folder:
            site_without_disk = FileSite(str(Path(folder, "cardwright.db")))
            run_site(site_without_disk, plan((HELD_LOCK,), site_without_disk.phases, cuts), state, say)
        return f"skipped, because no disk can be mounted: {DISK_FULL}, {READ_ONLY} ({error})"
    return ""


def run_failovers(state: State, say: Callable[[str], None], *, cuts: int) -> None:
    """Run ``cuts`` failovers to a standby, and a third as many to a standby that is still read-only."""
    for make_site, kind, count in ((PairSite, FAILOVER, cuts), (SingleHostSite, READ_ONLY_STANDBY, (cuts + 2) // 3)):
        with clusters.Pair() as pair:
            site = make_site(pair)
            run_site(site, plan((kind,), site.phases, count), state, say)


def unproven(records: Sequence[Record]) -> list[str]:
    """Return the phases that were reached fewer than three times, and the kinds of outages without a refused purchase."""
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
