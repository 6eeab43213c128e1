"""Connections to a SQLite file."""

import sqlite3
from time import monotonic, sleep

from cardwright.kit.limits import PATIENT

SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL,
    }
)  # fmt: skip
"""Primary result codes of a SQLite file that is locked, full, read-only or unreadable for now."""

SQLITE_BLOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
"""Those of them that mean a lock."""

SQLITE_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Primary result codes of a SQLite file that must be restored."""

POLL_S = 0.01

SQLITE_PRAGMAS = (
    # Small pages keep a batch's WAL frames small: one changed row costs a page.
    "PRAGMA page_size=2048",
    "PRAGMA journal_mode=WAL",
    # FULL, not NORMAL: what was answered must survive a power cut, not only a killed process.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    # A checkpoint inside somebody's commit costs that somebody a second; the server runs it beside the commits.
    "PRAGMA wal_autocheckpoint=0",
    "PRAGMA cache_size=-2048",
    # What is not in that cache is read from the system's without a call: a third off the lookup of one card among a million.
    "PRAGMA mmap_size=2147418112",
)


def connect_sqlite(path: str, busy_s: float = PATIENT.lock_s) -> sqlite3.Connection:
    """A connection with our pragmas and no transaction control of its own; may be used from any one thread at a time.

    It waits at most ``busy_s`` seconds for a lock that another process holds.
    """
    connection = sqlite3.connect(path, timeout=busy_s, check_same_thread=False, isolation_level=None)
    until = monotonic() + busy_s
    for pragma in SQLITE_PRAGMAS:
        _run(connection, pragma, until)
    return connection


def _run(connection: sqlite3.Connection, pragma: str, until: float) -> None:
    """Run a pragma. Two connections that switch a new file to WAL at once get SQLITE_BUSY without waiting, so it is repeated."""
    while True:
        try:
            connection.execute(pragma)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() >= until:
                connection.close()
                raise
            sleep(POLL_S)
        else:
            return
