"""Overlap: two server processes on one PostgreSQL, and row locks that stop their batches until both wait.

The test locks accounts on a separate connection, sends requests for them to both processes, and commits when
``pg_stat_activity`` shows that a backend of each process waits for a lock. So the requests overlap at any machine speed.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import psycopg

from tests.support.failpoints import Failpoints
from tests.support.server import RunningServer

MEET_S = 60.0
"""The longest wait for blocked backends; only a safety limit."""

POLL_S = 0.002

MASTER_KEY = "ab" * 32
"""The master key of both servers, because they share one vault."""

LOCK_ACCOUNTS = """
    SELECT h.id FROM holders h JOIN users u ON u.holder_id = h.id WHERE u.token = ANY(%s) ORDER BY h.id FOR NO KEY UPDATE OF h
"""

WAITING = """
    SELECT application_name FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND position(%s IN query) > 0
"""

BATCH = "FOR NO KEY UPDATE"
"""Part of the statement by which a batch locks its accounts."""

CHANGE = "UPDATE holders SET revision"
"""Part of the statement by which a change of a card or user locks the account."""

RESET = "FOR UPDATE"
"""Part of the statement by which a reset locks all accounts of its program."""


class HeldAccounts:
    """Row locks on the accounts of users, taken by the constructor and held until ``release``."""

    def __init__(self, address: str, users: Sequence[str]) -> None:
        self._holder = psycopg.connect(address)
        self._observer = psycopg.connect(address, autocommit=True)
        held = self._holder.execute(LOCK_ACCOUNTS, (list(users),)).fetchall()
        assert len(held) == len(set(users)), f"{len(held)} accounts of {len(set(users))} users"

    def wait(self, processes: int = 2, statement: str = BATCH) -> None:
        """Return when backends of so many processes wait for a lock in the statement. Raises AssertionError after ``MEET_S``."""
        deadline = time.monotonic() + MEET_S
        while len(names := self._waiting(statement)) < processes:
            assert time.monotonic() < deadline, f"within {MEET_S} s only {sorted(names)} waited for a lock in {statement}"
            time.sleep(POLL_S)

    def release(self) -> None:
        """Commit, so that the waiting backends get the locks."""
        self._holder.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._holder.close()
        self._observer.close()

    def _waiting(self, statement: str) -> set[str]:
        return {name for (name,) in self._observer.execute(WAITING, (statement,))}


class Pair:
    """Two servers of one process each on one database, at two addresses, so that a test chooses the process of a request.

    ``failpoints`` has the failpoints of each server, in the order of ``servers``.
    """

    def __init__(self, address: str, servers: Sequence[RunningServer], failpoints: Sequence[Failpoints]) -> None:
        self.address, self.servers, self.failpoints = address, servers, failpoints

    def held(self, users: Sequence[str]) -> HeldAccounts:
        """Lock the accounts of these users."""
        return HeldAccounts(self.address, users)

    def output(self) -> str:
        """Return all that both servers have printed."""
        return "".join(server.output() for server in self.servers)


@contextmanager
def running_pair(address: str) -> Iterator[Pair]:
    """Start a pair on an empty PostgreSQL database; both log at level info."""
    with ExitStack() as stack:
        failpoints = [stack.enter_context(Failpoints()) for _ in range(2)]
        servers = list[RunningServer]()
        for number, points in enumerate(failpoints):
            env = {"CARDWRIGHT_LOG_LEVEL": "info", "CARDWRIGHT_MASTER_KEY": MASTER_KEY, **points.environment}
            # The application name identifies the process of a backend in pg_stat_activity.
            name = f"{'&' if '?' in address else '?'}application_name=process-{number}"
            servers.append(stack.enter_context(RunningServer(db=address + name, env=env)))
        yield Pair(address, servers, failpoints)
