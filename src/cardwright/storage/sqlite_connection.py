"""SQLite connections: pragmas and result codes."""

import sqlite3
from time import monotonic, sleep

from cardwright.kit.limits import PATIENT

SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL,
    }
)  # fmt: skip
"""Primary result codes of a SQLite file that is temporarily locked, full, read-only or unreadable."""

SQLITE_BLOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
"""The codes among ``SQLITE_AWAY`` that mean a lock."""

SQLITE_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Primary result codes of a SQLite file that must be restored."""

POLL_S = 0.01

SQLITE_PRAGMAS = (
    # Small pages keep the WAL frames of a batch small, because one changed row costs a page.
    "PRAGMA page_size=2048",
    "PRAGMA journal_mode=WAL",
    # FULL, not NORMAL: an answered commit must survive a power failure, not only a killed process.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    # An automatic checkpoint delays its commit. The server runs checkpoints in a separate thread (Checkpointer, decision 2).
    "PRAGMA wal_autocheckpoint=0",
    "PRAGMA cache_size=-2048",
    # Memory-mapped reads avoid a system call for each page (decision 2).
    "PRAGMA mmap_size=2147418112",
)


def connect_sqlite(path: str, busy_s: float = PATIENT.lock_s) -> sqlite3.Connection:
    """Return a connection with our pragmas and without implicit transactions. One thread at a time may use it.

    It waits at most ``busy_s`` seconds for a lock of another process.
    """
    connection = sqlite3.connect(path, timeout=busy_s, check_same_thread=False, isolation_level=None)
    until = monotonic() + busy_s
    for pragma in SQLITE_PRAGMAS:
        _run(connection, pragma, until)
    return connection


def _run(connection: sqlite3.Connection, pragma: str, until: float) -> None:
    """Run a pragma, and repeat it until ``until`` while the file is busy.

    If two connections switch a new file to WAL at once, one gets SQLITE_BUSY without a wait.
    """
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
