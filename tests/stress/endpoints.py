"""Endpoints: the slowest delivery to an endpoint that answers, beside dead endpoints and names that do not resolve.

`python -m tests.stress.endpoints` runs one deliverer with the defaults of a server on each database. Half of the dead endpoints
refuse connections, the others accept them and never answer. Each dead endpoint and silent name has a backlog that is older than
every notification for the endpoint that answers. The deliverer starts with the backlog and without knowledge of the dead
endpoints, as after a restart. The result is 1 if a delivery to the endpoint that answers takes more than a second.
"""

import argparse
import asyncio
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from cardwright.kit.clock import ProgramClock, monotonic_ms, system_ms
from cardwright.kit.guard import OutgoingPolicy
from cardwright.kit.vault import Vault
from cardwright.outbox.client import GuardedClient
from cardwright.outbox.deliver import Deliverer
from cardwright.outbox.delivery_queue import RetryRules
from cardwright.outbox.endpoint import TARGET_CONTEXT, endpoint_id_of
from cardwright.outbox.events import Category, Target, outbox_row
from cardwright.outbox.resolver import NameResolver
from cardwright.storage.database import Database
from cardwright.storage.migrate import migrate
from cardwright.storage.programs import ProgramSettings, insert_program
from cardwright.storage.tables import outbox
from tests.support import free_port
from tests.support.postgres import TestPostgres
from tests.support.receiver import a_receiver
from tests.support.server import HOST
from tests.support.waiting import until

LIMIT_MS = 1_000
"""The guaranteed maximum of the time between commit and arrival."""

BACKLOG_AGE_MS = 60_000
VAULT = Vault(bytes(range(32)))


@dataclass(frozen=True, slots=True)
class Trial:
    """Parameters of a run. ``interval_s`` is the pause between two notifications for the endpoint that answers."""

    dead: int
    silent_names: int
    backlog: int
    deliveries: int
    interval_s: float


@dataclass(slots=True)
class Figures:
    """Durations in milliseconds from commit to arrival, and the attempts at the dead endpoints in the meantime."""

    database: str
    durations_ms: list[float] = field(default_factory=list)
    attempts: int = 0

    @property
    def is_kept(self) -> bool:
        """True if every notification arrived within the limit, and the dead endpoints were tried too."""
        return max(self.durations_ms) <= LIMIT_MS and self.attempts > 0


def run(database: Database, name: str, trial: Trial) -> Figures:
    """Deliver beside the dead endpoints. Return the figures."""
    figures, arrivals = Figures(name), dict[int, float]()
    migrate(database)
    with database.write() as db:
        program_id = insert_program(
            db, token="trial", name="trial", short_code="100", settings=ProgramSettings(), clock=ProgramClock(), now=system_ms()
        )  # fmt: skip
    with ExitStack() as stack:
        receiver = stack.enter_context(a_receiver())
        insert(database, program_id, receiver.url, [0], system_ms())
        with delivering(database):
            until(lambda: receiver.bodies and attempts(database))
        receiver.on_request = lambda: arrivals.setdefault(len(arrivals), time.monotonic())
        urls = [f"http://{HOST}:{port}/" for port in stack.enter_context(silent_ports(trial.dead // 2))]
        urls += [f"http://{HOST}:{free_port()}/" for _ in range(trial.dead - len(urls))]
        urls += [f"http://name-{number}.silent/" for number in range(trial.silent_names)]
        for url in urls:
            insert(database, program_id, url, range(trial.backlog), system_ms() - BACKLOG_AGE_MS)
        deliverer = stack.enter_context(delivering(database))
        # The first attempts at all dead endpoints begin before the first notification for the endpoint that answers.
        until(lambda: attempts(database) or not urls)
        for number in range(trial.deliveries):
            insert(database, program_id, receiver.url, [number], system_ms())
            committed = time.monotonic()
            deliverer.wake()
            until(lambda number=number: number in arrivals)  # type: ignore[misc]
            figures.durations_ms.append(1000 * (arrivals[number] - committed))
            time.sleep(trial.interval_s)
        figures.attempts = attempts(database) - len(receiver.bodies)
    return figures


def insert(database: Database, program_id: int, url: str, refs: Sequence[int], now: int) -> None:
    """Insert notifications for an inline webhook."""
    sealed = VAULT.seal(msgspec.json.encode({"endpoint": url}).decode(), TARGET_CONTEXT)
    target = Target(endpoint_id_of(program_id, url), sealed)
    rows = [outbox_row(program_id, now, Category.TRANSACTION, [ref], target=target) for ref in refs]
    with database.write() as db:
        db.execute(outbox.insert(), rows)


def attempts(database: Database) -> int:
    """Return the number of ended attempts."""
    with database.read() as db:
        return int(db.execute(select(func.coalesce(func.sum(outbox.c.tries), 0))).scalar_one())


@contextmanager
def silent_ports(count: int) -> Iterator[list[int]]:
    """Yield ports that accept connections and send nothing."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((HOST, 0))
            listener.listen(64)
        yield [listener.getsockname()[1] for listener in listeners]


def first_states(_: Connection, program_id: int, ids: list[int]) -> list[str]:
    """Return transactions as JSON, instead of rendering them."""
    return [f'{{"token":"{program_id}-{number}"}}' for number in ids]


@contextmanager
def delivering(database: Database) -> Iterator[Deliverer]:
    """Run a deliverer in a thread. Names under .silent do not resolve before the end."""
    started, over, deliverers = threading.Event(), threading.Event(), list[Deliverer]()

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Sequence[tuple[Any, ...]]:
        if host.endswith(".silent"):
            over.wait()
        return socket.getaddrinfo(host, *arguments, **options)

    async def story() -> None:
        client = GuardedClient(OutgoingPolicy.sandbox(), monotonic_ms, resolver=NameResolver(getaddrinfo))
        deliverers.append(Deliverer(database, VAULT, client, system_ms, RetryRules(), first_states, threads))
        started.set()
        await deliverers[0].run()
        await client.close()

    with ThreadPoolExecutor(1) as threads:
        thread = threading.Thread(target=asyncio.run, args=(story(),))
        thread.start()
        started.wait()
        try:
            yield deliverers[0]
        finally:
            over.set()
            deliverers[0].stop()
            thread.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial and print its figures. Return 1 if a delivery took longer than the limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.endpoints", description=__doc__.split("\n\n")[0])
    parser.add_argument("--dead", type=int, default=20, help="endpoints that refuse or never answer (default: 20)")
    parser.add_argument("--silent-names", type=int, default=4, help="names that do not resolve (default: 4)")
    parser.add_argument("--backlog", type=int, default=500, help="notifications for each of them (default: 500)")
    parser.add_argument("--deliveries", type=int, default=200, help="notifications for the endpoint that answers (default: 200)")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between two of them (default: 0.1)")
    parser.add_argument("--db", nargs="*", choices=("sqlite", "postgres"), default=("sqlite", "postgres"))
    options = parser.parse_args(arguments)
    trial = Trial(options.dead, options.silent_names, options.backlog, options.deliveries, options.interval)
    print("| database | dead endpoints | silent names | failed attempts | deliveries | median, ms | slowest, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    is_kept = True
    for name in options.db:
        figures = _run_on(name, trial)
        cells = (
            name, trial.dead, trial.silent_names, figures.attempts, len(figures.durations_ms),
            round(median(figures.durations_ms)), round(max(figures.durations_ms)),
        )  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        is_kept = is_kept and figures.is_kept
    return 0 if is_kept else 1


def _run_on(name: str, trial: Trial) -> Figures:
    if name == "postgres":
        with TestPostgres(durable=False) as postgres:
            return _run_at(postgres.new_database(), name, trial)
    with tempfile.TemporaryDirectory(prefix="cardwright-endpoints-") as folder:
        return _run_at(str(Path(folder, "cardwright.db")), name, trial)


def _run_at(address: str, name: str, trial: Trial) -> Figures:
    database = Database(address)
    try:
        return run(database, name, trial)
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
