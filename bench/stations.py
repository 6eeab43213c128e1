"""Stations: Cardwright servers, each with a separate database, that run until the end and are measured in turn.

A station starts at its first use and stays, so that its caches are equally warm in every round.
"""

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import uvloop

from bench import baseline, pgbench
from bench.database import copy_database, is_sqlite, prewarm, settle, start_postgres, warm_log
from bench.load import NextRequest, Place, Result, closed_loop, one_each, post, purchase, purchases, split
from bench.meter import Meter, family_of, memory_mb, postmaster_of, process_table
from bench.seed import ENVIRONMENT, Seeded, make_controls, seed_cards, seed_transactions
from cardwright.engine.card_cache import CARDS_MAX
from tests.support.server import ACCESS_TOKEN, APPLICATION_TOKEN, HOST, RunningServer

CREDENTIALS = (APPLICATION_TOKEN, ACCESS_TOKEN)
APPROVED = b'"response":{"code":"0000"'
Say = Callable[[str, float | None], None]
"""A function that receives the current step and, if it is known, the completed share of it."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a run: cards of the three stores, stored transactions, card products of the stores with many sources."""

    small: int
    main: int
    large: int
    stored: int
    sources: int
    pgbench_scale: int


FULL = Sizes(small=1_000, main=100_000, large=1_000_000, stored=5_000_000, sources=100, pgbench_scale=pgbench.SCALE)
QUICK = Sizes(small=1_000, main=100_000, large=200_000, stored=500_000, sources=20, pgbench_scale=pgbench.SCALE)


@dataclass(frozen=True, slots=True)
class Controls:
    """Number of velocity controls of a store: of the program, and of users without cards."""

    program: int = 0
    foreign: int = 0


CONTROLS = {
    "controls-0": Controls(),
    "controls-10": Controls(program=10),
    "controls-90": Controls(program=90),
    "controls-foreign": Controls(foreign=1_000),
}


@dataclass(frozen=True, slots=True)
class Station:
    """A Cardwright server with cards."""

    seeded: Seeded
    server: RunningServer
    workers: int
    postmaster: int | None

    @property
    def place(self) -> Place:
        """The address of the server."""
        return Place(HOST, self.server.port)

    @property
    def memory_mb(self) -> float:
        """Resident memory of all its processes in megabytes, without the mapped pages of SQLite's file."""
        return memory_mb(family_of(process_table(), [self.server.pid]), without=self.seeded.address)

    def meter(self) -> Meter:
        """Return the meters for one run."""
        roots = {"server": self.server.pid}
        if is_sqlite(self.seeded.address):
            return Meter(roots, root_url=self.server.root_url)
        database = {"database": self.postmaster} if self.postmaster is not None else {}
        # With several workers, a request for metrics reaches an arbitrary one of them.
        url = self.server.root_url if self.workers == 1 else None
        return Meter(roots | database, dsn=self.seeded.address, root_url=url)

    def purchases(self, seed: int) -> NextRequest:
        """Return purchases on evenly drawn cards."""
        return purchases(self.seeded.tokens, CREDENTIALS, seed)

    def warm(self) -> Result:
        """Make one purchase on each card, at most on as many cards as the cache of a process can contain."""
        template = post("/v3/simulate/authorization", purchase(b"?" * 36), CREDENTIALS)
        return uvloop.run(closed_loop(self.place, one_each(split(self.seeded.tokens, CARDS_MAX), template), 128, check=APPROVED))


@dataclass(frozen=True, slots=True)
class BaselineStation:
    """The server of the straightforward design, with the cards of the main store."""

    place: Place
    pid: int
    dsn: str
    tokens: bytes
    postmaster: int | None

    def meter(self) -> Meter:
        """Return the meters for one run."""
        database = {"database": self.postmaster} if self.postmaster is not None else {}
        return Meter({"server": self.pid} | database, dsn=self.dsn)


class Yard:
    """All servers and databases of a run: the PostgreSQL server, template databases and stations."""

    def __init__(self, sizes: Sizes, say: Say) -> None:
        self.sizes = sizes
        self._say = say
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cardwright-bench-")))
        self.postgres = self._stack.enter_context(start_postgres())
        self.postmaster = postmaster_of(self.postgres.dsn)
        # Only a PostgreSQL that this run has started may be suspended.
        self._our_postmaster = self.postmaster if self.postgres.socket_dir is not None else None
        self._templates: dict[tuple[str, int, int, int, int], Seeded] = {}
        self._stations: dict[str, Station] = {}
        self._baseline: BaselineStation | None = None
        self._pgbench: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._stoppable():
            _signal_family(pid, signal.SIGCONT)
        self._stack.close()

    def station(self, kind: str, name: str) -> Station:
        """Return a running station and suspend the others.

        ``kind`` is ``sqlite`` or ``postgres``; ``name`` is one of the names in ``copy``.
        """
        key = f"{kind} {name}"
        if key not in self._stations:
            self.rest()
            controls = CONTROLS.get(name, Controls())
            self._stations[key] = self._open(key, self.copy(kind, name), 2 if name == "workers" else 1, controls)
        self._rouse(self._stations[key].server.pid, needs_postgres=kind == "postgres")
        warm_log(self._stations[key].seeded.address)
        return self._stations[key]

    def copy(self, kind: str, name: str) -> Seeded:
        """Return a new store with the contents for a station of this name."""
        sizes = self.sizes
        cards, stored, products, sources = {
            "small": (sizes.small, 0, 1, 1),
            "main": (sizes.main, 0, 1, 1),
            "workers": (sizes.main, 0, 1, 1),
            "full": (sizes.large, sizes.stored, 1, 1),
            "one-source": (sizes.main // 10, 0, sizes.sources, 1),
            "own-sources": (sizes.main // 10, 0, sizes.sources, sizes.sources),
            **dict.fromkeys(CONTROLS, (sizes.main // 10, 0, 1, 1)),
        }[name]
        return self._seeded(kind, cards, stored, products, sources)

    def stations(self) -> dict[str, Station]:
        """Return the stations so far by kind and name."""
        return dict(self._stations)

    def baseline(self) -> BaselineStation:
        """Return the running server of the straightforward design."""
        if self._baseline is None:
            self.rest()
            self._say("baseline: cards", None)
            dsn = self.postgres.new_database()
            tokens = baseline.seed_baseline(dsn, self.sizes.main)
            settle(self.postgres, dsn)
            place, pid = self._stack.enter_context(baseline.running(dsn))
            self._baseline = BaselineStation(place, pid, dsn, tokens, self.postmaster)
        self._rouse(self._baseline.pid)
        return self._baseline

    def pgbench(self) -> str:
        """Return the DSN of pgbench's database."""
        self.rest()
        if self._pgbench is None:
            self._say(f"pgbench: scale {self.sizes.pgbench_scale}", None)
            self._pgbench = self.postgres.new_database()
            pgbench.initialize(self._pgbench, self.sizes.pgbench_scale)
            settle(self.postgres, self._pgbench)
        return self._pgbench

    def pgbench_meter(self) -> Meter:
        """Return the meters for a run of pgbench."""
        return Meter({"database": self.postmaster} if self.postmaster is not None else {}, dsn=self.pgbench())

    def rest(self) -> None:
        """Suspend all servers except PostgreSQL."""
        self._rouse(None)

    def _stoppable(self) -> list[int]:
        pids = [station.server.pid for station in self._stations.values()]
        extra_pids = (self._baseline.pid if self._baseline is not None else None, self._our_postmaster)
        return pids + [pid for pid in extra_pids if pid is not None]

    def _rouse(self, pid: int | None, *, needs_postgres: bool = True) -> None:
        """Resume one server and suspend the others.

        Twelve idle servers use a tenth of the machine. PostgreSQL vacuums and writes dirty pages during measurements of SQLite.
        """
        running = {pid, self._our_postmaster} if needs_postgres else {pid}
        for stoppable_pid in self._stoppable():
            _signal_family(stoppable_pid, signal.SIGCONT if stoppable_pid in running else signal.SIGSTOP)

    def _open(self, key: str, seeded: Seeded, workers: int, controls: Controls) -> Station:
        self._say(f"{key}: server", None)
        server = self._stack.enter_context(RunningServer(db=seeded.address, workers=workers, env=ENVIRONMENT))
        with server.client() as client:
            make_controls(client, program=controls.program, foreign=controls.foreign)
        station = Station(seeded, server, workers, self.postmaster)
        self._say(f"{key}: warming up", None)
        prewarm(seeded.address)
        result = station.warm()
        assert not result.declined, f"{key}: the warm-up was declined"
        assert set(result.statuses) == {201}, f"{key}: the warm-up was answered {result.statuses}"
        return station

    def _seeded(self, kind: str, cards: int, stored: int, products: int, sources: int) -> Seeded:
        """Return a copy of the template with these sizes, or the template itself if it has stored transactions.

        Only one station uses that template, so it needs no copy.
        """
        template = self._template(kind, cards, stored, products, sources)
        if stored:
            return template
        address = copy_database(self.postgres, template.address, self.folder)
        return Seeded(address, template.tokens, template.stored)

    def _template(self, kind: str, cards: int, stored: int, products: int, sources: int) -> Seeded:
        key = (kind, cards, stored, products, sources)
        if key not in self._templates:
            if stored:
                empty = self._seeded(kind, cards, 0, products, sources)
                description = f"{kind}: {stored:,} transactions"
                self._templates[key] = seed_transactions(empty, stored, progress=lambda share: self._say(description, share))
            else:
                file = self.folder / f"template-{cards}-{products}-{sources}.db"
                address = self.postgres.new_database() if kind == "postgres" else str(file)
                description = f"{kind}: {cards:,} cards"
                self._templates[key] = seed_cards(
                    address, cards, products=products, sources=sources, progress=lambda share: self._say(description, share)
                )
            settle(self.postgres, self._templates[key].address)
        return self._templates[key]


def _signal_family(pid: int, number: signal.Signals) -> None:
    for member_pid in family_of(process_table(), [pid]):
        # A process may have ended since the table was read.
        with contextlib.suppress(ProcessLookupError):
            os.kill(member_pid, number)
