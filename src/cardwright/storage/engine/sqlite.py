"""SQLite store of the engine: two round trips a batch to the process that reads and writes the file (``sqlite_worker``)."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cardwright.core.transaction_row import TransactionRow
from cardwright.kit.failpoints import failpoint
from cardwright.kit.fair_lock import FairLock
from cardwright.storage.database import Database
from cardwright.storage.engine.sqlite_client import SqliteClient
from cardwright.storage.engine.store import (
    CHANGES,
    LIST_TRANSACTIONS,
    SELECT_CARDS,
    SELECT_COMMITTED,
    SELECT_HOLDERS,
    SELECT_MOVEMENTS,
    SELECT_ORIGINALS,
    SELECT_PROGRAMS,
    SELECT_REPLAYS,
    TRANSACTION_COLUMNS,
    CardRow,
    HolderRow,
    Insert,
    LoadedRows,
    MovementReplay,
    ProgramRow,
    ReadSet,
    Replay,
    StatementRows,
    Update,
    WriteSet,
    changes_of,
    doubt_about,
    noop,
)
from cardwright.storage.failures import Conflict, Contended, Damaged, InDoubt, is_damage, unavailability
from cardwright.storage.migrate import PROBE, SELECT_SCHEMA, check_schema
from cardwright.storage.original_transactions import ORIGINAL_COLUMNS, Original, TokenKey
from cardwright.storage.sqlite_connection import connect_sqlite

ID_BLOCK = 1_000_000

FRAMES_MAX = 50_000
"""Limit of the write-ahead log (WAL) in pages of 2 KiB. Above it the checkpointer makes the log restart."""

FRAMES_MIN = 128
"""Minimum number of pages for another checkpoint. A checkpoint of fewer pages is so short that a commit rarely falls into it."""

CARD_LOCK_S = 0.05
"""Maximum wait in seconds for a lock when cards are read, because the read runs on the event loop."""

PASSES_MAX = 8
"""Maximum number of consecutive checkpoints in one move."""


def _sql(change: Insert | Update) -> str:
    """Return the SQL of a change. Its parameters are the columns of one row."""
    if isinstance(change, Insert):
        marks = ", ".join("?" * len(change.columns))
        return f"INSERT INTO {change.table} ({', '.join(change.columns)}) VALUES ({marks})"
    key, *others = change.columns
    values = ", ".join(f"{name} = ?{number}" for number, name in enumerate(others, 2))
    return f"UPDATE {change.table} SET {values} WHERE {key} = ?1{change.condition}"


STATEMENTS = {
    # One statement for all accounts takes half the time of one for each. Python's text of a list of numbers is valid JSON.
    "holders": f"{SELECT_HOLDERS}json_each(?) AS k CROSS JOIN holders AS h ON h.id = k.value",
    "programs": f"{SELECT_PROGRAMS}= ?",
    "transactions": f"SELECT {', '.join(TRANSACTION_COLUMNS)} FROM transactions WHERE id = ?",
    "replays": f"{SELECT_REPLAYS}WHERE m.program_id = ? AND m.token = ?",
    "movements": f"{SELECT_MOVEMENTS}WHERE m.program_id = ? AND m.kind = ? AND m.token = ?",
    "list_transactions": f"{LIST_TRANSACTIONS}WHERE id = ?",
    **{name: _sql(change) for name, change in CHANGES.items()},
    "probe": PROBE,
    "schema": SELECT_SCHEMA,
    "is_committed": f"{SELECT_COMMITTED}= ?",
    "originals": f"{SELECT_ORIGINALS}= ?",
    "chosen_originals": f"SELECT m.program_id, m.token, {ORIGINAL_COLUMNS} FROM message_tokens m "
    "JOIN transactions t ON t.id = m.transaction_id JOIN cards c ON c.id = t.card_id WHERE m.program_id = ? AND m.token = ?",
}
SELECT_CARD = SELECT_CARDS.format(cards="cards c") + "WHERE c.program_id = ? AND c.token = ?"


class SqliteStore:
    """The store on a SQLite file. Two workers let one batch be read and decided while the other is written."""

    workers_max = 2

    def __init__(self, database: Database) -> None:
        self._database = database
        self._client: SqliteClient | None = None
        self._opening = asyncio.Lock()
        self._reader: sqlite3.Connection | None = None

    async def open_worker(self) -> "SqliteWorker":
        """Implement ``store.EngineStore``. All workers share the process that writes."""
        worker = SqliteWorker(self._database.write_lock, await self._open_client())
        try:
            await worker.probe(asyncio.get_running_loop().time() + self._database.limits.statement_s)
        except BaseException:
            await worker.close()
            raise
        return worker

    async def _open_client(self) -> SqliteClient:
        """Return the client of the process, and start a new process if it has ended. Raises Unavailable if the old one hangs."""
        async with self._opening:
            if self._client is None or not self._client.is_open:
                failpoint("connect.before")
                if self._client is not None:
                    # The old process may commit until it has ended.
                    await self._client.reap()
                self._client = SqliteClient(self._database.path, STATEMENTS, self._database.limits.lock_s)
            return self._client

    async def load_cards(self, keys: Sequence[tuple[int, str]]) -> list[CardRow]:
        """Implement ``store.EngineStore``. A separate connection reads the cards, so that the read never waits for a writer."""
        try:
            if self._reader is None:
                self._reader = connect_sqlite(self._database.path, CARD_LOCK_S)
                # A small cache, because each commit of another connection invalidates it.
                self._reader.execute("PRAGMA cache_size=-1024")
            rows = [self._reader.execute(SELECT_CARD, key).fetchone() for key in keys]
        except sqlite3.Error as error:
            self._close_reader()
            if is_damage(error):
                self._database.outage.begin(damage := Damaged(str(error)))
                raise damage from error
            raise unavailability(error) from error
        return [CardRow(*row) for row in rows if row is not None]

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    async def load_originals(self, ids: Sequence[int]) -> list[Original]:
        """Implement ``store.EngineStore``.

        The process reads them: old rows may need a disk read, which must not block the loop.
        """
        return [Original(*row) for row in await self._read("originals", [(row_id,) for row_id in ids])]

    async def load_chosen(self, keys: Sequence[TokenKey]) -> dict[TokenKey, Original]:
        """Implement ``store.EngineStore``."""
        rows = await self._read("chosen_originals", keys)
        return {(program_id, token): Original(*row) for program_id, token, *row in rows}

    async def _read(self, name: str, keys: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the rows of a statement from the process that also writes. It runs after all earlier requests."""
        client = await self._open_client()
        _, (rows,) = await client.read([(name, keys)], asyncio.get_running_loop().time() + self._database.limits.read_s)
        return list(rows)

    async def close(self) -> None:
        """Close the connection for reads of cards, and end the process that writes."""
        self._close_reader()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def next_ids(self) -> range:
        """Implement ``store.EngineStore``. The block begins after the highest used id: one process decides on a SQLite file."""
        failpoint("ids.before")
        with self._database.read(self._database.limits.read_s) as db:
            last = db.exec_driver_sql("SELECT coalesce(max(id), -1) FROM transactions").scalar_one()
        return range(last + 2, last + 2 + ID_BLOCK, 2)


class SqliteWorker:
    """A worker on the shared process, see ``store.Worker``.

    No transaction is open between reading and writing. The workers share the write lock, because no account is in two of them;
    other writers of this process wait for it. If another process commits in between, the write raises Conflict.
    """

    def __init__(self, lock: FairLock, client: SqliteClient) -> None:
        self._lock = lock
        self._client = client
        self._version = 0
        self._want = ReadSet((), (), (), ())
        self._deadline = 0.0
        self._loop = asyncio.get_running_loop()
        self._waiting = ThreadPoolExecutor(1, thread_name_prefix="worker")

    async def probe(self, deadline: float) -> None:
        """Commit an update without a change.

        Raises Unavailable if the file accepts no writes, and SchemaChanged if its schema is of another version.
        """
        try:
            await self._share(deadline)
            try:
                version, (revisions,) = await self._client.read([("schema", [()])], deadline)
                check_schema([revision for (revision,) in revisions])
                await self._client.write(version, [("probe", [()])], deadline, noop)
            finally:
                self._lock.unshare()
        except Conflict as conflict:
            raise Contended(str(conflict)) from conflict

    async def is_committed(self, doubt: InDoubt, deadline: float) -> bool:
        """Implement ``store.Worker``. A new worker opens only after the process that was to commit has ended."""
        _, (rows,) = await self._client.read([("is_committed", [(row_id,) for row_id in doubt.row_ids[:1]])], deadline)
        return bool(rows)

    async def _share(self, deadline: float) -> None:
        """Wait for a shared hold of the write lock. Raises Conflict if the deadline passes first."""
        if self._lock.share(0):
            return
        left_s = max(0.0, deadline - self._loop.time())
        turn = self._loop.run_in_executor(self._waiting, self._lock.share, left_s)
        try:
            is_shared = await asyncio.shield(turn)
        except asyncio.CancelledError:
            turn.add_done_callback(lambda turn: self._lock.unshare() if turn.result() else None)
            raise
        if not is_shared:
            raise Conflict("another write takes too long")

    async def begin(self, want: ReadSet, deadline: float) -> LoadedRows:
        """Wait for the write lock and read."""
        self._want, self._deadline = want, deadline
        await self._share(deadline)
        try:
            return await self._read(want)
        except BaseException:
            # After a failure here the engine calls neither commit nor abort, and other writers would never get the lock.
            self._lock.unshare()
            raise

    async def _read(self, want: ReadSet) -> LoadedRows:
        parts: list[StatementRows] = [
            ("holders", [(str(want.holder_ids),)]),
            ("programs", [(program_id,) for program_id in want.program_ids]),
            ("transactions", [(row_id,) for row_id in want.row_ids]),
            ("replays", want.tokens),
            ("movements", want.movements),
        ]
        self._version, (holders, programs, rows, replays, movements) = await self._client.read(parts, self._deadline)
        loaded = LoadedRows(
            {holder_id: HolderRow(revision, state, recent) for holder_id, revision, state, recent in holders},
            {program_id: ProgramRow(*columns) for program_id, *columns in programs},
            {(program_id, token): Replay(*columns) for program_id, token, *columns in replays},
            {row[0]: TransactionRow(*row) for row in rows},
            {(program_id, kind, token): MovementReplay(*columns) for program_id, kind, token, *columns in movements},
        )
        if replays:
            ids = [(replay.transaction_id,) for replay in loaded.replays.values()]
            _, (rows,) = await self._client.read([("transactions", ids)], self._deadline)
            loaded.rows |= {row[0]: TransactionRow(*row) for row in rows}
        return loaded

    async def commit(self, write: WriteSet, meanwhile: Callable[[], None]) -> None:
        """Write and commit in one round trip."""
        try:
            await self._client.write(self._version, changes_of(write), self._deadline, meanwhile)
        except InDoubt as doubt:
            raise doubt_about(self._want, write, str(doubt)) from doubt
        finally:
            self._lock.unshare()

    async def abort(self) -> None:
        """Release the write lock. Nothing was written."""
        self._lock.unshare()

    async def close(self) -> None:
        """End the worker's thread. The process that writes ends with the store."""
        self._waiting.shutdown(wait=False)


class Checkpointer:
    """A thread that copies the write-ahead log (WAL) into the database file, so that no commit waits for a checkpoint.

    SQLite's automatic checkpoint runs in the commit that fills the WAL, which can take seconds. Under steady load some commit is
    always uncopied, and the WAL would grow without limit. If it is longer than ``frames_max`` pages, the thread takes the write
    lock and copies the last commits. The next commit then restarts the WAL. A reader at that moment delays the restart.
    """

    def __init__(self, database: Database, every_s: float = 0.5, frames_max: int = FRAMES_MAX) -> None:
        self._path, self._lock = database.path, database.write_lock
        self._every_s, self._frames_max = every_s, frames_max
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after a last checkpoint."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            # A temporarily full or read-only disk must not end the thread, because the WAL would grow without limit.
            with contextlib.suppress(sqlite3.Error), contextlib.closing(PinnedLog(self._path)) as log:
                self._move_often(log)
            self._stop.wait(self._every_s)

    def _move_often(self, log: "PinnedLog") -> None:
        """Copy pages until the thread is stopped. Raises sqlite3.Error if a checkpoint fails."""
        while not self._stop.wait(self._every_s):
            if self._move(log) > self._frames_max:
                with self._lock:
                    log.move()
        log.move()

    def _move(self, log: "PinnedLog") -> int:
        """Copy all pages. Return the number of pages in the WAL, or 0 while a reader keeps the WAL from restarting.

        SQLite syncs the file only after a checkpoint that copies the whole WAL. So repeat the checkpoint, each time for the pages
        of the last one. Otherwise that sync would happen while the writers wait, for a tenth of a second.
        """
        moved = 0
        for _ in range(PASSES_MAX):
            before = moved
            frames, moved = log.move()
            if frames - moved >= FRAMES_MIN:
                # A reader of an older snapshot needs the WAL as it is.
                return 0
            if moved - before < FRAMES_MIN:
                break
        return frames


class PinnedLog:
    """A write-ahead log (WAL) that cannot restart during a checkpoint, because a pinning reader is open.

    SQLite before 3.51.3 has a bug: a checkpoint that begins while a commit restarts the WAL may treat pages of the new WAL as
    copied. Then the commits on these pages are lost, or the file is damaged (sqlite.org/wal.html, "The WAL-Reset Bug"). Frequent
    checkpoints beside commits trigger it (decision 0002). A pin that begins while pages are uncopied prevents the restart; a pin
    that begins without such pages keeps the checkpoint from copying any.
    """

    def __init__(self, path: str) -> None:
        self.mover, self._pin = connect_sqlite(path), connect_sqlite(path)

    def move(self) -> tuple[int, int]:
        """Copy all earlier commits. Return the number of pages in the WAL, and the number of copied pages."""
        self._pin.execute("BEGIN")
        try:
            # The read transaction begins with its first read.
            self._pin.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            _, frames, moved = self.mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            self._pin.execute("COMMIT")
        return frames, moved

    def close(self) -> None:
        """Close both connections."""
        self._pin.close()
        self.mover.close()
