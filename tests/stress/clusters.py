"""Outages of a PostgreSQL cluster: restart, ended sessions, a killed backend, a freeze, and a failover to a standby.

An outage has two steps. ``strike`` begins it and returns at once, so that a paused failpoint is released while the database is
unavailable. ``mend`` ends it and returns the moment, in seconds of ``time.monotonic``, from which a new connection works.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self
from uuid import uuid4

import psycopg

from tests.support.postgres import Cluster, find_binaries, with_database

FREEZE_S = 5.0
"""Time for which all processes of PostgreSQL are stopped."""

WAIT_S = 20.0
"""The longest wait for a state of the cluster; only a safety limit."""

CONTROL = "stress"
"""The application name of the connections that control the cluster."""

BACKENDS = f"FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> '{CONTROL}'"

Control = psycopg.Connection[Any]


class Outage(Protocol):
    """An outage of a database, and the recovery from it."""

    def strike(self) -> None:
        """Begin the outage."""
        ...

    def mend(self) -> float:
        """End the outage; return the moment from which the database is available."""
        ...


class Restart:
    """A shutdown of the cluster by SIGINT (fast) or SIGQUIT (immediate), and a start after a pause."""

    def __init__(self, cluster: Cluster, sign: signal.Signals, pause_s: float) -> None:
        self._cluster, self._sign, self._pause_s = cluster, sign, pause_s

    def strike(self) -> None:
        """Send the signal."""
        os.kill(self._cluster.pid, self._sign)

    def mend(self) -> float:
        """Start the cluster on the same port and data."""
        time.sleep(self._pause_s)
        self._cluster.launch()
        return time.monotonic()


class Terminate:
    """The end of all sessions by ``pg_terminate_backend``; the cluster keeps running."""

    def __init__(self, cluster: Cluster) -> None:
        self._control = connect(cluster.dsn)

    def strike(self) -> None:
        """End the sessions."""
        terminate_sessions(self._control)

    def mend(self) -> float:
        """Return at once."""
        self._control.close()
        return time.monotonic()


class KillBackend:
    """A SIGKILL to one backend; the postmaster then ends all others and recovers from the log."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._control = cluster, connect(cluster.dsn)

    def strike(self) -> None:
        """Kill the client backend with the oldest transaction, or the control backend if there are no clients."""
        row = self._control.execute(f"SELECT pid {BACKENDS} ORDER BY xact_start NULLS LAST, pid LIMIT 1").fetchone()
        os.kill(row[0] if row is not None else self._control.info.backend_pid, signal.SIGKILL)

    def mend(self) -> float:
        """Wait for the end of the crash recovery."""
        # The control connection ends with all others. From then on, a new connection succeeds only after the recovery.
        wait_until(self._is_over)
        self._control.close()
        wait_for_connection(self._cluster.dsn)
        return time.monotonic()

    def _is_over(self) -> bool:
        try:
            self._control.execute("SELECT 1")
        except psycopg.OperationalError:
            return True
        return False


class Freeze:
    """A SIGSTOP to the postmaster and all its children, for some seconds."""

    def __init__(self, cluster: Cluster, seconds: float) -> None:
        self._cluster, self._seconds = cluster, seconds
        self._stopped: list[int] = []

    def strike(self) -> None:
        """Stop the processes, the postmaster first, so that it starts no further child."""
        send_all([self._cluster.pid], signal.SIGSTOP)
        self._stopped = [*children_of(self._cluster.pid), self._cluster.pid]
        send_all(self._stopped, signal.SIGSTOP)

    def mend(self) -> float:
        """Continue the processes after the freeze."""
        time.sleep(self._seconds)
        send_all(self._stopped, signal.SIGCONT)
        return time.monotonic()


class Pair:
    """A primary and a synchronous standby on two ports; every failover exchanges their roles."""

    def __init__(self) -> None:
        self.primary = Cluster(find_binaries(), durable=True, settings={})
        self.standby = self._new_standby()
        self._name = create_database(self.primary)
        self._ports = (self.primary.port, self.standby.port)

    @property
    def dsn(self) -> str:
        """The address of the database on both hosts."""
        first, second = self._ports
        return f"postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/{self._name}"

    @property
    def primary_dsn(self) -> str:
        """The address of the database on the current primary."""
        return with_database(self.primary.dsn, self._name)

    def exchange(self) -> None:
        """Make the old standby the primary, and build a new standby on the port of the old primary."""
        old, self.primary = self.primary, self.standby
        port = next(port for port in self._ports if port != self.primary.port)
        old.stop()
        self.standby = self._new_standby(port)

    def close(self) -> None:
        """Stop both and remove their data."""
        for cluster in (self.primary, self.standby):
            cluster.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_standby(self, port: int | None = None) -> Cluster:
        """Start a standby that every later commit of the primary waits for."""
        standby = Cluster(find_binaries(), durable=True, settings={}, primary=self.primary, port=port)
        with connect(self.primary.dsn) as control:
            streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
            assert wait_until(lambda: control.execute(streaming).fetchone() == (1,)), "the standby does not stream"
            # Set after the copy: the data of the standby must not contain it, because a promoted standby has no standby.
            control.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            control.execute("SELECT pg_reload_conf()")
            is_sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            assert wait_until(lambda: control.execute(is_sync).fetchone() == (1,)), "the standby is not synchronous"
        return standby


class Failover:
    """The end of the primary by SIGQUIT (immediate) or SIGKILL, and a promotion of the standby after a pause."""

    def __init__(self, pair: Pair, sign: signal.Signals, pause_s: float) -> None:
        self._pair, self._sign, self._pause_s = pair, sign, pause_s

    def strike(self) -> None:
        """End the primary; SIGKILL goes to all its processes."""
        end_primary(self._pair.primary, self._sign)

    def mend(self) -> float:
        """Promote the standby; return the moment from which it accepted writes."""
        time.sleep(self._pause_s)
        promote(self._pair.standby)
        return time.monotonic()


class ReadOnlyStandby:
    """The end of the primary and a read-only standby on its port, which is promoted after a pause."""

    def __init__(self, pair: Pair, pause_s: float) -> None:
        self._pair, self._pause_s = pair, pause_s

    def strike(self) -> None:
        """End the primary and start the standby on its port."""
        primary, standby = self._pair.primary, self._pair.standby
        end_primary(primary, signal.SIGQUIT)
        primary.wait()
        os.kill(standby.pid, signal.SIGINT)
        standby.launch(primary.port)

    def mend(self) -> float:
        """Promote the standby; return the moment from which it accepted writes."""
        time.sleep(self._pause_s)
        promote(self._pair.standby)
        return time.monotonic()


def end_primary(primary: Cluster, sign: signal.Signals) -> None:
    """Send the postmaster a signal. Send SIGKILL to its children too: without it they would end later than the postmaster."""
    children = children_of(primary.pid) if sign == signal.SIGKILL else []
    send_all([primary.pid, *children], sign)


def promote(standby: Cluster) -> None:
    """Make a standby a primary; return when it accepts writes."""
    with connect(standby.dsn) as control:
        control.execute("SELECT pg_promote(false)")
        accepts = wait_until(lambda: control.execute("SELECT pg_is_in_recovery()").fetchone() == (False,))
    assert accepts, "the standby was not promoted"


def create_database(cluster: Cluster) -> str:
    """Create an empty database and return its name."""
    name = f"cardwright_{uuid4().hex}"
    with connect(cluster.dsn) as control:
        control.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    return name


def connect(dsn: str) -> Control:
    """Open a connection for control statements."""
    return psycopg.connect(dsn, autocommit=True, connect_timeout=10, application_name=CONTROL)


def terminate_sessions(control: Control) -> None:
    """End all client sessions except those that control the cluster."""
    control.execute(f"SELECT pg_terminate_backend(pid) {BACKENDS}")


def wait_for_connection(dsn: str) -> None:
    """Wait until a new connection can run a statement. Raises the last error after ``WAIT_S``."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with connect(dsn) as control:
                control.execute("SELECT 1")
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def children_of(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def send_all(pids: list[int], sign: signal.Signals) -> None:
    """Send processes a signal; ignore those that have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)


def wait_until(condition: Callable[[], bool], seconds: float = WAIT_S) -> bool:
    """Wait until a condition holds; return whether it does."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds


@contextmanager
def stopped_backends(cluster: Cluster, *, resumes: bool = True) -> Iterator[None]:
    """Stop all client backends, so that statements stay unread and unanswered. ``resumes`` continues them at the end."""
    with connect(cluster.dsn) as control:
        pids = [row[0] for row in control.execute(f"SELECT pid {BACKENDS}")]
    send_all(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        if resumes:
            send_all(pids, signal.SIGCONT)


@contextmanager
def unanswered_commits(cluster: Cluster) -> Iterator[Callable[[], bool]]:
    """Keep commits unanswered although they are on disk: they wait for a synchronous standby that does not exist.

    Yield a function that returns True as soon as a commit waits, and False if none does within 5 s.
    """
    with connect(cluster.dsn) as control:
        control.execute("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
        control.execute("SELECT pg_reload_conf()")

    def has_waiting() -> bool:
        with connect(cluster.dsn) as control:
            query = f"SELECT EXISTS (SELECT {BACKENDS} AND wait_event = 'SyncRep')"
            is_reached = wait_until(lambda: control.execute(query).fetchone() == (True,), 5)
            # This changes only the file: the running cluster keeps the setting until it reads the file again.
            control.execute("ALTER SYSTEM RESET synchronous_standby_names")
        return is_reached

    try:
        yield has_waiting
    finally:
        send_all([cluster.pid], signal.SIGHUP)
