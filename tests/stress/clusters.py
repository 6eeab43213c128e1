"""Outages of a PostgreSQL cluster: restart, ended sessions, a killed backend, a freeze, and a failover to a standby.

An outage has two steps. ``strike`` begins it and returns at once, so that a paused failpoint is released while the database is
away. ``mend`` ends it and returns the moment, in seconds of ``time.monotonic``, at which a new connection could use the database.
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
"""How long all processes of PostgreSQL are stopped."""

WAIT_S = 20.0
"""The longest wait for a state of the cluster; only a safety limit."""

CONTROL = "stress"
"""The application name of the connections that control the cluster."""

BACKENDS = f"FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> '{CONTROL}'"

Control = psycopg.Connection[Any]


class Outage(Protocol):
    """A way in which a database goes away and comes back."""

    def strike(self) -> None:
        """Begin the outage."""
        ...

    def mend(self) -> float:
        """End the outage; return the moment from which the database is there again."""
        ...


class Restart:
    """The cluster is shut down by a signal, SIGINT (fast) or SIGQUIT (immediate), and started again after a pause."""

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
    """All sessions are ended by ``pg_terminate_backend``; the cluster itself is never away."""

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
    """One backend is killed with SIGKILL; the postmaster then ends all others and recovers from the log."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._control = cluster, connect(cluster.dsn)

    def strike(self) -> None:
        """Kill the backend with the oldest transaction, or any backend of a client."""
        row = self._control.execute(f"SELECT pid {BACKENDS} ORDER BY xact_start NULLS LAST, pid LIMIT 1").fetchone()
        os.kill(row[0] if row is not None else self._control.info.backend_pid, signal.SIGKILL)

    def mend(self) -> float:
        """Wait for the end of the crash recovery."""
        # The connection from before ends with all others. From then on a new connection means that the recovery is over.
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
    """The postmaster and all its children are stopped with SIGSTOP for some seconds."""

    def __init__(self, cluster: Cluster, seconds: float) -> None:
        self._cluster, self._seconds = cluster, seconds
        self._stopped: list[int] = []

    def strike(self) -> None:
        """Stop the processes, the postmaster first: it starts no further child then."""
        send_all([self._cluster.pid], signal.SIGSTOP)
        self._stopped = [*children_of(self._cluster.pid), self._cluster.pid]
        send_all(self._stopped, signal.SIGSTOP)

    def mend(self) -> float:
        """Let the processes go on when the time is over."""
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
        """The address of the database on the present primary."""
        return with_database(self.primary.dsn, self._name)

    def exchange(self) -> None:
        """Take the old standby for the primary, and build a new standby on the port of the old primary."""
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
        """A standby that every commit of the primary waits for from now on."""
        standby = Cluster(find_binaries(), durable=True, settings={}, primary=self.primary, port=port)
        with connect(self.primary.dsn) as control:
            streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
            assert wait_until(lambda: control.execute(streaming).fetchone() == (1,)), "the standby does not stream"
            # Only now, and not in the data that the standby was copied from: once promoted, it has no standby to wait for.
            control.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            control.execute("SELECT pg_reload_conf()")
            is_sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            assert wait_until(lambda: control.execute(is_sync).fetchone() == (1,)), "the standby is not synchronous"
        return standby


class Failover:
    """The primary ends by SIGQUIT (immediate) or SIGKILL, and the standby is promoted after a pause."""

    def __init__(self, pair: Pair, sign: signal.Signals, pause_s: float) -> None:
        self._pair, self._sign, self._pause_s = pair, sign, pause_s

    def strike(self) -> None:
        """End the primary, with SIGKILL all its processes at once."""
        end_primary(self._pair.primary, self._sign)

    def mend(self) -> float:
        """Promote the standby; return the moment from which it accepted writes."""
        time.sleep(self._pause_s)
        promote(self._pair.standby)
        return time.monotonic()


class ReadOnlyStandby:
    """The primary ends and the standby starts on its port, still read-only; it is promoted after a pause."""

    def __init__(self, pair: Pair, pause_s: float) -> None:
        self._pair, self._pause_s = pair, pause_s

    def strike(self) -> None:
        """End the primary and put the standby in its place."""
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
    """Send the postmaster a signal, and SIGKILL to its children as well: they would end by themselves, but later."""
    children = children_of(primary.pid) if sign == signal.SIGKILL else []
    send_all([primary.pid, *children], sign)


def promote(standby: Cluster) -> None:
    """Make a standby a primary; return when it accepts writes."""
    with connect(standby.dsn) as control:
        control.execute("SELECT pg_promote(false)")
        accepts = wait_until(lambda: control.execute("SELECT pg_is_in_recovery()").fetchone() == (False,))
    assert accepts, "the standby was not promoted"


def create_database(cluster: Cluster) -> str:
    """The name of a new, empty database."""
    name = f"cardwright_{uuid4().hex}"
    with connect(cluster.dsn) as control:
        control.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    return name


def connect(dsn: str) -> Control:
    """A connection for control statements."""
    return psycopg.connect(dsn, autocommit=True, connect_timeout=10, application_name=CONTROL)


def terminate_sessions(control: Control) -> None:
    """End all sessions of clients but those that control the cluster."""
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
    """The process ids of a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def send_all(pids: list[int], sign: signal.Signals) -> None:
    """Send processes a signal; those that are gone are left out."""
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
    """Stop the backends of all clients, until the end if ``resumes``: what is sent to them stays undone and unanswered."""
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

    Gives a function that waits until a commit is in this state and then returns True; False if none is.
    """
    with connect(cluster.dsn) as control:
        control.execute("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
        control.execute("SELECT pg_reload_conf()")

    def has_waiting() -> bool:
        with connect(cluster.dsn) as control:
            query = f"SELECT EXISTS (SELECT {BACKENDS} AND wait_event = 'SyncRep')"
            is_reached = wait_until(lambda: control.execute(query).fetchone() == (True,), 5)
            # In the file only: the running cluster keeps the setting until it reads the file again.
            control.execute("ALTER SYSTEM RESET synchronous_standby_names")
        return is_reached

    try:
        yield has_waiting
    finally:
        send_all([cluster.pid], signal.SIGHUP)
