"""Failures of the database: exceptions, and the mapping from driver errors to them."""

import sqlite3
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cardwright.storage.sqlite_connection import SQLITE_AWAY, SQLITE_BLOCKED, SQLITE_DAMAGED

LOCK_NOT_AVAILABLE, QUERY_CANCELED = "55P03", "57014"

AWAY_CLASSES = ("08", "53", "57", "58")
"""SQLSTATE classes: connection exception, insufficient resources (too many connections, disk full), operator intervention
(starting, stopping, terminated, cancelled), system error."""

AWAY_STATES = frozenset({"25006", "25P03", "26000", "0A000", LOCK_NOT_AVAILABLE})
"""Read-only transaction (a standby, or a full disk of a managed server), idle in a transaction for too long.

Unknown prepared statement, statement that is no longer valid, lock not available in time.
"""

MIGRATED_STATES = frozenset({"42703"})
"""Undefined column: another version has migrated the database. A new worker detects this by the schema revision."""

LOST_STATES = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
"""The server ends the connection: by an administrator's command, after a crash, when it starts or stops, idle for too long."""

RETRIABLE_STATES = frozenset({"23505", "40001", "40P01", LOCK_NOT_AVAILABLE})
"""Unique violation, serialization failure, deadlock, lock not available in time: run the batch again."""


class Conflict(Exception):
    """A conflict with another process, which committed the same key or holds a lock. The batch must run again."""


class Refused(Exception):
    """A statement that the database refuses permanently, such as a violated CHECK constraint. It is a bug."""


class Unavailable(Exception):
    """A database that is unreachable or temporarily refuses work. Nothing was committed, except perhaps with ``InDoubt``."""


class ConnectionLost(Unavailable):
    """The loss of an open connection. The database may still be available on a new one."""


class Contended(Unavailable):
    """A wait for a lock, or for a connection of the pool, that took too long. The database itself works."""


class TimedOut(Unavailable):
    """A missing answer within the time limit. The reason is unknown."""


class Locked(Unavailable):
    """A lock of the SQLite file that another process kept until the wait ended."""


class InDoubt(Unavailable):
    """A transaction that may have been committed: the connection was lost, or the time ran out, after COMMIT was sent.

    ``row_ids`` are the ids of the rows that it inserts, all or none. ``holder_ids`` are the accounts that it has locked.
    """

    def __init__(self, text: str, row_ids: Sequence[int] = (), holder_ids: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.row_ids = row_ids
        self.holder_ids = holder_ids


class Damaged(Unavailable):
    """A damaged SQLite file. The server stops, and the file must be restored."""


class SchemaChanged(Unavailable):
    """A database whose schema revision differs from the one that this version of Cardwright requires."""


def is_away(state: str) -> bool:
    """Return True if an SQLSTATE means that the database temporarily cannot work."""
    return state in AWAY_STATES or state.startswith(AWAY_CLASSES)


def is_away_error(error: Exception) -> bool:
    """Return True if an error of SQLAlchemy or a driver means that the database temporarily cannot work.

    All other errors are bugs, or results such as a unique violation.
    """
    if isinstance(error, (PoolTimeoutError, InvalidatePoolError)):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (isinstance(error.orig, Exception) and is_away_error(error.orig))
    if isinstance(error, sqlite3.Error):
        # The low byte of an extended result code is the primary one.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in SQLITE_AWAY
    if state := getattr(error, "sqlstate", None):
        return is_away(state)
    # psycopg reports a lost or refused connection without an SQLSTATE. With SQLite psycopg is not imported, so compare the name.
    return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


def is_damage(error: Exception) -> bool:
    """Return True if an error means that the SQLite file is damaged."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in SQLITE_DAMAGED


def is_contention(error: Exception) -> bool:
    """Return True if the database works, but a wait for a lock, a statement or the connection pool took too long."""
    if isinstance(error, PoolTimeoutError):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None) in (LOCK_NOT_AVAILABLE, QUERY_CANCELED)


def is_locked(error: Unavailable) -> bool:
    """Return True if another transaction kept a lock until the wait for it ended."""
    cause = error.__cause__.orig if isinstance(error.__cause__, DBAPIError) else error.__cause__
    return isinstance(error, Locked) or getattr(cause, "sqlstate", None) == LOCK_NOT_AVAILABLE


def unavailability(error: Exception) -> Unavailable:
    """Return the exception for a driver's error. ``is_away_error`` must be true for the error."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    is_file_locked = isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in SQLITE_BLOCKED
    return (Locked if is_file_locked else Unavailable)(reason_of(error))


def public_reason(error: Exception) -> str:
    """Return the reason of a failure for API callers. The driver's text names hosts and files, so it goes to the log only."""
    match error:
        case SchemaChanged():
            return str(error)
        case Damaged():
            return "the database file is damaged"
        case Locked():
            return "another process holds the lock of the database file"
        case TimedOut():
            return "the database does not answer in time"
        case Contended():
            return "other work on the database takes too long"
        case _:
            return "the database does not answer or takes no writes"


def reason_of(error: Exception) -> str:
    """Return the first line of a driver's error text, or the name of its class."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).strip().partition("\n")[0] or type(cause).__name__
