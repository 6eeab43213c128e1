"""Connections to the database: SQLite in a file or PostgreSQL, with the same interface.

Every transaction has a time limit. When it is reached, the wait for the database is aborted from outside: the socket is shut
down, the statement of SQLite interrupted. A database that cannot work for now raises ``Unavailable`` here, whatever the driver
calls it.
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
"""After so long the server ends a transaction whose client has fallen silent, and with it its locks."""

SILENT_CLIENT = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=5000"
"""How soon the server gives up a client whose host has fallen silent, and with it the locks of its transaction."""

PEER_OPTIONS = {"keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3", "tcp_user_timeout": "5000"}
"""How soon libpq gives up a host that has fallen silent."""


class Database:
    """Connections for reading and for writing. ``address`` is a file path or ``postgresql://…``, with several hosts if need be.

    ``limits`` holds for every wait; the default is for commands.
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
        # SQLite has one writer. Threads wait here, in order and without polling, rather than on the file's lock.
        self.write_lock = FairLock()
        self.engine = self._sqlite_engine() if self.is_sqlite else self._postgres_engine()
        # In SQLite a transaction sees the database as its first read found it; PostgreSQL must be asked for that.
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
        """Where the data lives, for people to read; without a password."""
        return self._address if self.is_sqlite else without_password(self._address)

    @contextmanager
    def read(self, limit_s: float | None = None) -> Iterator[Connection]:
        """A transaction that only reads: all of it sees what was committed when its first statement began.

        Raises Unavailable when the database cannot work for now, or not within ``limit_s`` seconds.
        """
        with self._guarded(self._reader, self._deadline(limit_s)) as (connection, _), connection.begin():
            yield connection

    @contextmanager
    def write(self, limit_s: float | None = None) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, rolled back on any exception.

        Raises Unavailable when nothing was committed, and InDoubt when the connection was lost during COMMIT. Nothing is
        committed after the limit.
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
        """Abort the transactions under way that have a limit."""
        self._watchdog.expire()

    def close(self) -> None:
        """Abort what is under way and end all connections."""
        self._is_closed = True
        self._watchdog.close()
        self.engine.dispose()

    def connect_postgres(self, options: str, *, autocommit: bool = False) -> "psycopg.Connection[Any]":
        """A new connection of psycopg; ``options`` set the server's session. Raises psycopg.OperationalError."""
        import psycopg

        parameters: dict[str, Any] = self._parameters()
        return psycopg.connect(self._address, autocommit=autocommit, options=options, **parameters)

    # --- Limits ------------------------------------------------------------------------------

    def _deadline(self, limit_s: float | None) -> float | None:
        limit_s = self.limits.transaction_s if limit_s is None else limit_s
        return None if limit_s is None else monotonic() + limit_s

    @contextmanager
    def _turn(self, deadline: float | None) -> Iterator[None]:
        """The turn among the writers of SQLite in this process."""
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
        """How long to wait for the turn: what is left must do for the file's lock, whose wait SQLite does not break off."""
        return max(0.0, left_s / 2, left_s - self.limits.lock_s)

    @contextmanager
    def _guarded(self, engine: Engine, deadline: float | None) -> Iterator[tuple[Connection, Watch | None]]:
        """A connection under the watchdog. Errors that mean that the database is away become Unavailable."""
        watch: Watch | None = None
        try:
            if self._is_closed:
                raise Unavailable("the database has been closed")
            if deadline is not None and monotonic() >= deadline:
                raise TimedOut("there is no time left to ask the database")
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
                # SQLite reports a COMMIT that failed; nothing was committed then.
                raise
            raise InDoubt(f"the connection was lost during COMMIT ({reason_of(error)})") from error

    # --- Engines -----------------------------------------------------------------------------

    def _postgres_engine(self) -> Engine:
        # libpq gets the address as it is: SQLAlchemy's own form knows no list of hosts.
        options = f"{SILENT_CLIENT} -c lock_timeout={int(self.limits.lock_s * 1000)}"
        options += f" -c idle_in_transaction_session_timeout={IDLE_MS}"
        if self.limits.transaction_s is not None:
            # The server notices that the client of a running statement is gone.
            options += " -c client_connection_check_interval=1000"
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: self.connect_postgres(options),
            pool_size=16,
            max_overflow=16,
            pool_timeout=self.limits.lock_s,
        )
        event.listen(engine, "checkout", _check_out)
        return engine

    def _parameters(self) -> dict[str, str]:
        """Parameters of libpq that the address does not set itself."""
        ours = {"connect_timeout": str(self.limits.connect_s), "application_name": f"cardwright/{os.getpid()}", **PEER_OPTIONS}
        if "," in urlsplit(self._address).netloc:
            # Of several hosts the one that takes writes: a standby refuses them.
            ours["target_session_attrs"] = "read-write"
        given = {name for name, _ in parse_qsl(urlsplit(self._address).query)}
        return {name: value for name, value in ours.items() if name not in given}

    def _sqlite_engine(self) -> Engine:
        path, busy_s = self._address, self.limits.lock_s
        # The address is in the creator; without a pool named here SQLAlchemy would take this for a database in memory.
        engine = create_engine(
            "sqlite://", creator=lambda: connect_sqlite(path, busy_s), poolclass=QueuePool, pool_size=16, max_overflow=16,
            pool_timeout=self.limits.lock_s,
        )  # fmt: skip

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A read that turns into a write gets SQLITE_BUSY at once, whatever the timeout: writers begin as writers.
            immediate = connection.get_execution_options().get("immediate", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

        return engine


@contextmanager
def _discarded_when_void(connection: Connection) -> Iterator[None]:
    """Keep a connection that the database refuses to work on out of the pool.

    Its prepared statements may be void, or on SQLite it may have been opened while the disk was read-only.
    """
    try:
        yield
    except Exception as error:
        if is_away_error(error) and not is_contention(error) and not connection.invalidated:
            connection.invalidate()
        raise


def _check_out(raw: Any, _record: object, _proxy: object) -> None:
    """Have a connection replaced that broke while it was idle: a server that goes says so, or closes its end.

    A round trip would tell too, but takes its time, and with a frozen server has no end.
    """
    # Not ``select``, which takes no descriptor above 1,023.
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    if poll.poll(0):
        raise DisconnectionError


@contextmanager
def _abort_of(raw: Any) -> Iterator[Callable[[], None]]:
    """How to abort what a driver's connection waits for, from another thread."""
    if isinstance(raw, sqlite3.Connection):
        yield raw.interrupt
        return
    # A copy of the socket: psycopg closes its own when it notices a loss, and its number may be another connection's then.
    with socket.socket(fileno=os.dup(raw.fileno())) as copy:

        def shut_down() -> None:
            with contextlib.suppress(OSError):
                copy.shutdown(socket.SHUT_RDWR)

        yield shut_down


def without_password(dsn: str) -> str:
    """Return a PostgreSQL address with its password replaced by ``***``."""
    rest = dsn.partition("://")[2]
    # The last @ ends the password, whatever characters it has.
    user, separator, hosts = rest.rpartition("@")
    name, colon, _ = user.partition(":")
    shown = f"{name}{':***' if colon else ''}{separator}{hosts}"
    return "postgresql://" + re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", shown)


Row = Any
"""A SQLAlchemy row: its columns are attributes."""
