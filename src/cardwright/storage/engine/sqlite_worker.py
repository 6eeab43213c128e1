"""SQLite worker process: reads and writes for the engine, ``python -m cardwright.storage.engine.sqlite_worker FILE DESCRIPTOR``.

``sqlite_client.SqliteClient`` starts it. It only runs SQL. In the server's process, statements and decisions would compete for
the interpreter lock (decision 0002). The process ends when the other end of its socket is closed.

A request is ``(version, deadline, [(statement's name, [parameters, ...]), ...])``. Without a version it is a read transaction,
whose answer is ``("", version, [rows, ...])``. With the version of the rows that it read, it is a write transaction, whose answer
is ``("", version, [])``, or ``(kind, 0, [text])`` for a refusal. After the deadline no write begins. The deadline is a time of
the monotonic clock, which all processes of a machine share. Messages are encoded with ``marshal``, each after its length
(``kit.framing``). Both ends run the same Python, and ``marshal`` is faster than MessagePack for a batch of rows.
"""

import contextlib
import marshal
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from cardwright.kit.framing import FrameReader, framed
from cardwright.storage.sqlite_connection import SQLITE_AWAY, SQLITE_BLOCKED, SQLITE_DAMAGED, connect_sqlite

CONFLICT, LOCKED, LATE = "conflict", "locked", "late"
"""Kinds of refusals: the batch must run again; another process holds the lock; the deadline has passed."""

UNAVAILABLE, DAMAGED, REFUSED = "unavailable", "damaged", "refused"
"""Kinds of refusals: the database temporarily cannot work; the file is damaged; the statement is refused permanently."""

Parts = list[tuple[str, list[Any]]]


def packed(message: Any) -> bytes:
    """Return an encoded message. It may contain numbers, text, byte strings, lists, plain tuples and dictionaries."""
    return framed(marshal.dumps(message))


TAKEN = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID)

MIGRATED = ("no such column", "has no column named")
"""Texts of errors without a specific code: another version has migrated the file. A new worker detects this by the schema."""


class Writer:
    """An executor of requests, one transaction each. It opens its connection on demand, and again after a failure."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], statements: dict[str, str]) -> None:
        self._connect = connect
        self._open: sqlite3.Connection | None = None
        self._opened = self._wait_ms = 0
        self._statements = statements

    def answer(self, version: int | None, deadline: float, parts: Parts) -> tuple[str, int, list[Any]]:
        """Return the answer to a request."""
        try:
            return self._read(parts) if version is None else self._write(version, deadline, parts)
        except sqlite3.IntegrityError as error:
            # A key that another process has inserted first is different in the next try. Other violations are permanent.
            return CONFLICT if error.sqlite_errorcode in TAKEN else REFUSED, 0, [str(error)]
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in SQLITE_BLOCKED:
                return LOCKED, 0, [str(error)]
            # A connection that was opened while the disk was read-only stays read-only.
            self._close()
            is_away = code in SQLITE_AWAY or any(text in str(error) for text in MIGRATED)
            return DAMAGED if code in SQLITE_DAMAGED else UNAVAILABLE if is_away else REFUSED, 0, [str(error)]
        except Exception as error:
            # A value that SQLite cannot store, or a bug: the process must continue for other requests.
            return REFUSED, 0, [f"{type(error).__name__}: {error}"]
        finally:
            self._roll_back()

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open, self._wait_ms = self._connect(), 0
            self._opened += 1
        return self._open

    def _roll_back(self) -> None:
        try:
            if self._open is not None and self._open.in_transaction:
                self._open.execute("ROLLBACK")
        except sqlite3.Error:
            self._close()

    def _close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _read(self, parts: Parts) -> tuple[str, int, list[Any]]:
        run = self._connection.execute
        run("BEGIN")
        version = self._version()
        results = [[row for parameters in rows for row in run(self._statements[name], parameters)] for name, rows in parts]
        run("COMMIT")
        return "", version, results

    def _write(self, version: int, deadline: float, parts: Parts) -> tuple[str, int, list[Any]]:
        run, many = self._connection.execute, self._connection.executemany
        wait_ms = int((deadline - monotonic()) * 1000)
        if wait_ms <= 0:
            return LATE, 0, ["the deadline passed before the write"]
        if wait_ms // 100 != self._wait_ms // 100:
            # The pragma costs as much as a small statement, and a precision of 0.1 s is enough.
            run(f"PRAGMA busy_timeout={wait_ms}")
            self._wait_ms = wait_ms
        run("BEGIN IMMEDIATE")
        if self._version() != version:
            return CONFLICT, 0, ["another process has committed since the read"]
        for name, rows in parts:
            many(self._statements[name], rows)
        run("COMMIT")
        return "", version, []

    def _version(self) -> int:
        """Return the data version, which changes with commits of other connections, not with those of this one."""
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        # Versions of two connections cannot be compared.
        return (self._opened << 32) + version


def _messages(descriptor: int) -> Iterator[bytes]:
    """Yield the messages that arrive on a descriptor until its other end is closed."""
    frames = FrameReader()
    while chunk := os.read(descriptor, 1 << 16):
        yield from frames.feed(chunk)


def main() -> None:
    """Serve the requests of one server until it ends."""
    # Ignore signals to the process group: the server finishes its commits first, and then ends this process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    path, descriptor = sys.argv[1], int(sys.argv[2])
    messages = _messages(descriptor)
    if (first := next(messages, None)) is None:
        return
    writer = Writer(lambda: connect_sqlite(path), marshal.loads(first))
    # A killed server leaves answers unread, which resets the connection.
    with contextlib.suppress(ConnectionError):
        for message in messages:
            left = memoryview(packed(writer.answer(*marshal.loads(message))))
            while left:
                left = left[os.write(descriptor, left) :]


if __name__ == "__main__":
    main()
