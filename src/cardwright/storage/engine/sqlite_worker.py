"""The process that reads and writes SQLite for the engine: ``python -m cardwright.storage.engine.sqlite_worker FILE DESCRIPTOR``.

``sqlite_client.SqliteClient`` starts it, and it knows nothing but SQL. In the server's own process every statement would take
the interpreter from the decisions, and every wait for the disk would end with waiting for the interpreter: with a process of
its own the rate at 64 in flight is 1.15 times as high. It ends when the other end of its socket does.

A request is ``(version, deadline, [(statement's name, [parameters, ...]), ...])``. Without a version it is a transaction that
reads, and its answer is ``("", version, [rows, ...])``. With the version of what it read it is one that writes, and its answer
is ``("", version, [])``, or a refusal's ``(kind, 0, [text])``. Nothing is written after the deadline, a time of the monotonic
clock, which the processes of a machine share. All of it travels as ``marshal`` has it, each message behind its length
(``kit.framing``): both ends are one program of one Python, ``marshal`` takes less time than MessagePack for a batch of rows, and
MessagePack's library made this process a third larger.
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
"""Kinds of refusals: run it again; another process holds the lock; the deadline has passed."""

UNAVAILABLE, DAMAGED, REFUSED = "unavailable", "damaged", "refused"
"""Kinds of refusals: the database does not do it for now; the file is damaged; the database will never do it."""

Parts = list[tuple[str, list[Any]]]


def packed(message: Any) -> bytes:
    """A message as it travels: numbers, text, byte strings, lists, plain tuples, dictionaries."""
    return framed(marshal.dumps(message))


TAKEN = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID)

MIGRATED = ("no such column", "has no column named")
"""Texts of errors without a code of their own: another version has migrated the file, which a new worker tells by the schema."""


class Writer:
    """Carries out requests, one transaction each. The connection is opened when it is needed, and again after a failure."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], statements: dict[str, str]) -> None:
        self._connect = connect
        self._open: sqlite3.Connection | None = None
        self._opened = self._wait_ms = 0
        self._statements = statements

    def answer(self, version: int | None, deadline: float, parts: Parts) -> tuple[str, int, list[Any]]:
        """The answer to a request."""
        try:
            return self._read(parts) if version is None else self._write(version, deadline, parts)
        except sqlite3.IntegrityError as error:
            # Only a key that another process was faster with is another one the next time.
            return CONFLICT if error.sqlite_errorcode in TAKEN else REFUSED, 0, [str(error)]
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in SQLITE_BLOCKED:
                return LOCKED, 0, [str(error)]
            # Opened on a disk that was read-only for a moment, a connection stays read-only.
            self._close()
            is_away = code in SQLITE_AWAY or any(text in str(error) for text in MIGRATED)
            return DAMAGED if code in SQLITE_DAMAGED else UNAVAILABLE if is_away else REFUSED, 0, [str(error)]
        except Exception as error:
            # A value that SQLite cannot hold, or a bug: the process goes on for the others.
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
            return LATE, 0, ["no time is left to write"]
        if wait_ms // 100 != self._wait_ms // 100:
            # To set it costs as much as a small statement, and a tenth of a second is exact enough.
            run(f"PRAGMA busy_timeout={wait_ms}")
            self._wait_ms = wait_ms
        run("BEGIN IMMEDIATE")
        if self._version() != version:
            return CONFLICT, 0, ["somebody else has committed since"]
        for name, rows in parts:
            many(self._statements[name], rows)
        run("COMMIT")
        return "", version, []

    def _version(self) -> int:
        """Changes when anybody else commits, not with what is committed here."""
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        # Versions of two connections cannot be compared.
        return (self._opened << 32) + version


def _messages(descriptor: int) -> Iterator[bytes]:
    """Messages as they arrive on a descriptor, until its other end is closed."""
    frames = FrameReader()
    while chunk := os.read(descriptor, 1 << 16):
        yield from frames.feed(chunk)


def main() -> None:
    """Serves the requests of one server until it ends."""
    # Who stops the server stops us through it: what it has begun to commit is still to be carried out.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    path, descriptor = sys.argv[1], int(sys.argv[2])
    messages = _messages(descriptor)
    if (first := next(messages, None)) is None:
        return
    writer = Writer(lambda: connect_sqlite(path), marshal.loads(first))
    # A server that was killed leaves answers unread, which resets the connection.
    with contextlib.suppress(ConnectionError):
        for message in messages:
            left = memoryview(packed(writer.answer(*marshal.loads(message))))
            while left:
                left = left[os.write(descriptor, left) :]


if __name__ == "__main__":
    main()
