"""Failures of the database: what the rest of the code catches, and which errors of a driver mean that."""

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
"""Read-only transaction (a standby, or a full disk of a managed server), idle in a transaction for too long, unknown prepared
statement, statement that is no longer valid, lock not available in time."""

MIGRATED_STATES = frozenset({"42703"})
"""Undefined column: another version has migrated the database, which a new worker tells by the schema."""

LOST_STATES = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
"""The server ends the connection: by an administrator's command, after a crash, when it starts or stops, idle for too long."""

RETRIABLE_STATES = frozenset({"23505", "40001", "40P01", LOCK_NOT_AVAILABLE})
"""Unique violation, serialization failure, deadlock, lock not available in time: run the batch again."""


class Conflict(Exception):
    """Another process committed what this batch wanted to commit too, or holds its lock: run the batch again."""


class Refused(Exception):
    """The database refuses a statement for a reason that does not pass, such as a broken check: a bug."""


class Unavailable(Exception):
    """The database cannot be reached or refuses work for now. Nothing was committed, except with ``InDoubt``."""


class ConnectionLost(Unavailable):
    """A connection that was open has ended. A new one tells whether the database is away."""


class Contended(Unavailable):
    """The database works, but other work keeps a lock, or all connections, for too long."""


class TimedOut(Unavailable):
    """The database did not answer in time, which says nothing about the reason."""


class Locked(Unavailable):
    """Another process kept the lock of the SQLite file until the wait for it ended."""


class InDoubt(Unavailable):
    """The connection was lost, or the time ran out, after COMMIT was sent: the transaction may have been committed.

    ``row_ids`` are ids of transactions that it inserts, all or none, ``holder_ids`` the accounts that it has locked.
    """

    def __init__(self, text: str, row_ids: Sequence[int] = (), holder_ids: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.row_ids = row_ids
        self.holder_ids = holder_ids


class Damaged(Unavailable):
    """The SQLite file is damaged. It must be restored: the server ends."""


class SchemaChanged(Unavailable):
    """The database has another schema than this version of the program works with."""


def is_away(state: str) -> bool:
    """Whether an SQLSTATE means that the database cannot work for now."""
    return state in AWAY_STATES or state.startswith(AWAY_CLASSES)


def is_away_error(error: Exception) -> bool:
    """Whether an error of SQLAlchemy or of a driver means that the database cannot work for now.

    All others are bugs, or facts such as a unique violation.
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
    # psycopg reports a lost or refused connection without a state. It is not imported where SQLite is used.
    return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


def is_damage(error: Exception) -> bool:
    """Whether an error means that the SQLite file is damaged."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in SQLITE_DAMAGED


def is_contention(error: Exception) -> bool:
    """Whether the database works, but others kept a lock or all connections of the pool for too long."""
    if isinstance(error, PoolTimeoutError):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None) in (LOCK_NOT_AVAILABLE, QUERY_CANCELED)


def is_locked(error: Unavailable) -> bool:
    """Whether the database works, but another transaction kept a lock until the wait for it ended."""
    cause = error.__cause__.orig if isinstance(error.__cause__, DBAPIError) else error.__cause__
    return isinstance(error, Locked) or getattr(cause, "sqlstate", None) == LOCK_NOT_AVAILABLE


def unavailability(error: Exception) -> Unavailable:
    """The failure that a driver's error means of which ``is_away_error`` is true."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    is_file_locked = isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in SQLITE_BLOCKED
    return (Locked if is_file_locked else Unavailable)(reason_of(error))


def public_reason(error: Exception) -> str:
    """The reason of a failure as callers may know it: the driver's text names hosts and files, which are for the log."""
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
    """The first line of what the driver reports."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).strip().partition("\n")[0] or type(cause).__name__
