"""Database connections: one interface for a SQLite file and for PostgreSQL.

Every transaction of a server has a time limit. At the limit a watchdog aborts the wait: it shuts the socket of PostgreSQL down,
or interrupts the statement of SQLite. If the database temporarily cannot work, all driver errors become ``Unavailable``.
"""

import contextlib
import os
import re
import select
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError

from cardwright.kit.fair_lock import FairLock
from cardwright.kit.limits import PATIENT, Limits
from cardwright.kit.watchdog import Watch, Watchdog
from cardwright.storage.failures import (
    ConnectionLost,
    Contended,
    Damaged,
    InDoubt,
    TimedOut,
    Unavailable,
    is_away_error,
    is_contention,
    is_damage,
    reason_of,
    unavailability,
)
from cardwright.storage.outage import TIMEOUTS, Outage
from cardwright.storage.sqlite_connection import connect_sqlite

if TYPE_CHECKING:
    import psycopg

IDLE_MS = 60_000
"""Milliseconds after which the PostgreSQL server ends an idle transaction and releases its locks."""

SILENT_CLIENT = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=5000"
"""TCP settings of the server's end. The server closes the connection of an unreachable client within about 11 seconds."""

PEER_OPTIONS = {"keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3", "tcp_user_timeout": "5000"}
"""TCP settings of libpq's end: it closes the connection to an unreachable host within about 11 seconds."""


class Database:
    """Database: connections for reading and for writing.

    ``address`` is a file path or ``postgresql://…``, which may name several hosts. ``limits`` applies to every wait; the default
    is for commands.
    """

    def __init__(self, address: str, limits: Limits = PATIENT) -> None:
        self.is_sqlite = not address.startswith(("postgresql://", "postgres://"))
        if self.is_sqlite and "://" in address:
            raise ValueError(f"--db takes a file path, :memory: or postgresql://…, not {address.split('://')[0]}://")
        self._address = str(Path(address).expanduser()) if self.is_sqlite else address
        self.limits = limits
        self._watchdog = Watchdog()
        self._is_closed = False
        self.outage = Outage()
        self.access_revision: str | None = None
        """The access revision (``storage.credentials``) as the monitor last read it, None before its first read."""
        # SQLite has one writer. This lock is FIFO and does not poll; the file's lock does neither.
        self.write_lock = FairLock()
        self.engine = self._sqlite_engine() if self.is_sqlite else self._postgres_engine()
        # A SQLite transaction reads one snapshot. PostgreSQL does so only from REPEATABLE READ on.
        self._reader = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        self._writer = self.engine.execution_options(immediate=True) if self.is_sqlite else self.engine

    @property
    def path(self) -> str:
        """The file of a SQLite database."""
        assert self.is_sqlite
        return self._address

    @property
    def dsn(self) -> str:
        """The libpq connection string of a PostgreSQL database."""
        assert not self.is_sqlite
        return self._address

    @property
    def place(self) -> str:
        """The file path or the PostgreSQL address, for display. A password is replaced by ``***``."""
        return self._address if self.is_sqlite else without_password(self._address)

    @contextmanager
    def read(self, limit_s: float | None = None) -> Iterator[Connection]:
        """Yield the connection of a read transaction, whose snapshot is taken at its first statement.

        Raises Unavailable if the database cannot work, or does not finish within ``limit_s`` seconds.
        """
        with self._guarded(self._reader, self._deadline(limit_s)) as (connection, _), connection.begin():
            yield connection

    @contextmanager
    def write(self, limit_s: float | None = None) -> Iterator[Connection]:
        """Yield the connection of a write transaction, which is committed at the end and rolled back on any exception.

        Raises Unavailable if nothing was committed, and InDoubt if the connection was lost during COMMIT. After ``limit_s``
        seconds no commit begins.
        """
        deadline = self._deadline(limit_s)
        with self._turn(deadline), self._guarded(self._writer, deadline) as (connection, watch):
            transaction = connection.begin()
            try:
                yield connection
                if watch is not None and watch.is_over:
                    raise TimedOut("the database did not answer in time")
            except BaseException:
                with contextlib.suppress(DBAPIError):
                    transaction.rollback()
                raise
            self._commit(transaction.commit)

    def renew(self) -> None:
        """Close the idle connections of the pool, which may be broken or, on SQLite, read-only."""
        self.engine.dispose()

    def abort(self) -> None:
        """Abort all running transactions that have a time limit."""
        self._watchdog.expire()

    def close(self) -> None:
        """Abort all running transactions that have a time limit, and close the idle connections."""
        self._is_closed = True
        self._watchdog.close()
        self.engine.dispose()

    def connect_postgres(self, options: str, *, autocommit: bool = False) -> "psycopg.Connection[Any]":
        """Return a new psycopg connection.

        ``options`` are settings of the session. Raises psycopg.OperationalError if no host accepts it.
        """
        import psycopg

        parameters: dict[str, Any] = self._parameters()
        return psycopg.connect(self._address, autocommit=autocommit, options=options, **parameters)

    # --- Limits ------------------------------------------------------------------------------

    def _deadline(self, limit_s: float | None) -> float | None:
        limit_s = self.limits.transaction_s if limit_s is None else limit_s
        return None if limit_s is None else monotonic() + limit_s

    @contextmanager
    def _turn(self, deadline: float | None) -> Iterator[None]:
        """Hold the lock of this process's SQLite writers. Raises Contended at the deadline."""
        if not self.is_sqlite:
            yield
            return
        if not self.write_lock.acquire(None if deadline is None else self._turn_s(deadline - monotonic())):
            TIMEOUTS.labels("turn").inc()
            raise Contended("other writes take too long")
        try:
            yield
        finally:
            self.write_lock.release()

    def _turn_s(self, left_s: float) -> float:
        """Return the longest wait for the write lock, in seconds.

        The rest of the time is for the file's lock, because the watchdog cannot interrupt SQLite's wait for it.
        """
        return max(0.0, left_s / 2, left_s - self.limits.lock_s)

    @contextmanager
    def _guarded(self, engine: Engine, deadline: float | None) -> Iterator[tuple[Connection, Watch | None]]:
        """Yield a connection under the watchdog. Errors of an unavailable database become Unavailable."""
        watch: Watch | None = None
        try:
            if self._is_closed:
                raise Unavailable("the database has been closed")
            if deadline is not None and monotonic() >= deadline:
                raise TimedOut("the time limit passed before the database was asked")
            with engine.connect() as connection, _discarded_when_void(connection):
                if deadline is None:
                    yield connection, None
                    return
                raw = connection.connection.dbapi_connection
                with _abort_of(raw) as abort, self._watchdog.watch(deadline, abort) as watch:
                    yield connection, watch
        except Unavailable:
            raise
        except Exception as error:
            if watch is not None and watch.is_over:
                TIMEOUTS.labels("transaction").inc()
                raise TimedOut("the database did not answer in time") from error
            if is_damage(error):
                damage = Damaged(reason_of(error))
                if self.limits.transaction_s is not None:
                    self.outage.begin(damage)
                raise damage from error
            if not is_away_error(error):
                raise
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise ConnectionLost(reason_of(error)) from error
            if is_contention(error):
                TIMEOUTS.labels("lock").inc()
                raise Contended(reason_of(error)) from error
            failure = unavailability(error)
            if self.limits.transaction_s is not None:
                # A command without a limit reports the failure itself and ends.
                self.outage.begin(failure)
            raise failure from error

    @staticmethod
    def _commit(commit: Callable[[], None]) -> None:
        try:
            commit()
        except DBAPIError as error:
            if not is_away_error(error) or isinstance(error.orig, sqlite3.Error):
                # If SQLite reports an error from COMMIT, nothing was committed.
                raise
            raise InDoubt(f"the connection was lost during COMMIT ({reason_of(error)})") from error

    # --- Engines -----------------------------------------------------------------------------

    def _postgres_engine(self) -> Engine:
        # libpq gets the address unchanged: the URL of SQLAlchemy supports no list of hosts.
        options = f"{SILENT_CLIENT} -c lock_timeout={int(self.limits.lock_s * 1000)}"
        options += f" -c idle_in_transaction_session_timeout={IDLE_MS}"
        if self.limits.transaction_s is not None:
            # Every second the server checks that the client of a running statement is still connected.
            options += " -c client_connection_check_interval=1000"
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: self.connect_postgres(options),
            pool_size=16,
            max_overflow=16,
            pool_timeout=self.limits.lock_s,
            # The text of an error goes to the log, and parameters are personal data.
            hide_parameters=True,
        )
        event.listen(engine, "checkout", _check_out)
        return engine

    def _parameters(self) -> dict[str, str]:
        """Return our libpq parameters, without those that the address sets."""
        ours = {"connect_timeout": str(self.limits.connect_s), "application_name": f"cardwright/{os.getpid()}", **PEER_OPTIONS}
        if "," in urlsplit(self._address).netloc:
            # Choose the host that accepts writes: a standby refuses them.
            ours["target_session_attrs"] = "read-write"
        given = {name for name, _ in parse_qsl(urlsplit(self._address).query)}
        return {name: value for name, value in ours.items() if name not in given}

    def _sqlite_engine(self) -> Engine:
        path, busy_s = self._address, self.limits.lock_s
        # The creator has the path. Without an explicit pool class, SQLAlchemy would use the pool of an in-memory database.
        engine = create_engine(
            "sqlite://", creator=lambda: connect_sqlite(path, busy_s), poolclass=QueuePool, pool_size=16, max_overflow=16,
            pool_timeout=self.limits.lock_s, hide_parameters=True,
        )  # fmt: skip

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A read transaction that starts to write can get SQLITE_BUSY at once, whatever the timeout. So writers use IMMEDIATE.
            immediate = connection.get_execution_options().get("immediate", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

        return engine


@contextmanager
def _discarded_when_void(connection: Connection) -> Iterator[None]:
    """Invalidate a connection after an error of an unavailable database, so that the pool drops it.

    Its prepared statements may be void, or on SQLite it may have been opened while the disk was read-only.
    """
    try:
        yield
    except Exception as error:
        if is_away_error(error) and not is_contention(error) and not connection.invalidated:
            connection.invalidate()
        raise


def _check_out(raw: Any, _record: object, _proxy: object) -> None:
    """Raise DisconnectionError if an idle connection is broken, so that the pool replaces it.

    An idle connection is readable only after a message of the server or the end of the connection. A query as a test would cost
    a round trip, and would hang if the server is frozen.
    """
    # ``select`` accepts no descriptor above 1,023.
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    if poll.poll(0):
        raise DisconnectionError


@contextmanager
def _abort_of(raw: Any) -> Iterator[Callable[[], None]]:
    """Yield a function that aborts the wait of a driver's connection from another thread."""
    if isinstance(raw, sqlite3.Connection):
        yield raw.interrupt
        return
    # A copy of the socket: when psycopg notices a loss, it closes its descriptor, and another connection may get the same number.
    with socket.socket(fileno=os.dup(raw.fileno())) as copy:

        def shut_down() -> None:
            with contextlib.suppress(OSError):
                copy.shutdown(socket.SHUT_RDWR)

        yield shut_down


def without_password(dsn: str) -> str:
    """Return a PostgreSQL address with its password replaced by ``***``."""
    rest = dsn.partition("://")[2]
    # A password may contain @, so the last @ ends it.
    user, separator, hosts = rest.rpartition("@")
    name, colon, _ = user.partition(":")
    shown = f"{name}{':***' if colon else ''}{separator}{hosts}"
    return "postgresql://" + re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", shown)


Row = Any
"""A SQLAlchemy row. Its columns are attributes."""
