"""The engine's SQLite: two round trips a batch to the process that reads and writes it (``sqlite_worker``)."""

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
"""Pages of 2 KiB in the write-ahead log after which it begins anew."""

FRAMES_MIN = 128
"""Pages that are moved so quickly that hardly ever a commit falls into it."""

CARD_LOCK_S = 0.05
"""The longest wait for a lock when cards are read, which happens on the event loop."""

PASSES_MAX = 8
"""How often in a row what came meanwhile is moved."""


def _sql(change: Insert | Update) -> str:
    """A change as SQL whose parameters are a row."""
    if isinstance(change, Insert):
        marks = ", ".join("?" * len(change.columns))
        return f"INSERT INTO {change.table} ({', '.join(change.columns)}) VALUES ({marks})"
    key, *others = change.columns
    values = ", ".join(f"{name} = ?{number}" for number, name in enumerate(others, 2))
    return f"UPDATE {change.table} SET {values} WHERE {key} = ?1{change.condition}"


STATEMENTS = {
    # One statement for all, which takes half of what one for each does; a list of numbers is JSON as Python writes it.
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
    """Workers on a SQLite file: two of them, so that one batch is read and decided while the other is written."""

    workers_max = 2

    def __init__(self, database: Database) -> None:
        self._database = database
        self._client: SqliteClient | None = None
        self._opening = asyncio.Lock()
        self._reader: sqlite3.Connection | None = None

    async def open_worker(self) -> "SqliteWorker":
        """See ``store.EngineStore``; all workers share the process that writes."""
        worker = SqliteWorker(self._database.write_lock, await self._open_client())
        try:
            await worker.probe(asyncio.get_running_loop().time() + self._database.limits.statement_s)
        except BaseException:
            await worker.close()
            raise
        return worker

    async def _open_client(self) -> SqliteClient:
        """The way to the process, with a new one in place of one that ended. Raises Unavailable."""
        async with self._opening:
            if self._client is None or not self._client.is_open:
                failpoint("connect.before")
                if self._client is not None:
                    # As long as it lives it may still commit.
                    await self._client.reap()
                self._client = SqliteClient(self._database.path, STATEMENTS, self._database.limits.lock_s)
            return self._client

    async def load_cards(self, keys: Sequence[tuple[int, str]]) -> list[CardRow]:
        """The cards with these (program id, token), over a connection of their own, which never waits for a writer."""
        try:
            if self._reader is None:
                self._reader = connect_sqlite(self._database.path, CARD_LOCK_S)
                # What it keeps is void with the next commit of another connection.
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
        """See ``store.EngineStore``. Old ones may be on the disk, and here only those wait for it who ask for them."""
        return [Original(*row) for row in await self._read("originals", [(row_id,) for row_id in ids])]

    async def load_chosen(self, keys: Sequence[TokenKey]) -> dict[TokenKey, Original]:
        """See ``store.EngineStore``."""
        rows = await self._read("chosen_originals", keys)
        return {(program_id, token): Original(*row) for program_id, token, *row in rows}

    async def _read(self, name: str, keys: Sequence[Sequence[Any]]) -> list[Any]:
        """What a statement finds, in the process that also writes: it comes after what was asked there before."""
        client = await self._open_client()
        _, (rows,) = await client.read([(name, keys)], asyncio.get_running_loop().time() + self._database.limits.read_s)
        return list(rows)

    async def close(self) -> None:
        """Ends the connection that cards are read over, and the process that writes."""
        self._close_reader()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def next_ids(self) -> range:
        """See ``store.EngineStore``. The ids after the last one used: only one process decides on a SQLite file."""
        failpoint("ids.before")
        with self._database.read(self._database.limits.read_s) as db:
            last = db.exec_driver_sql("SELECT coalesce(max(id), -1) FROM transactions").scalar_one()
        return range(last + 2, last + 2 + ID_BLOCK, 2)


class SqliteWorker:
    """See ``store.Worker``.

    Between reading and writing no transaction is open. Other writers of this process wait at the lock meanwhile, which the
    workers share, for no account is in two of them; and when another process has committed, what was read is void.
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
        """Commit a change of nothing. Raises Unavailable when the file takes no writes, SchemaChanged."""
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
        """See ``store.Worker``. The process that was to commit has ended, or this worker could not have been opened."""
        _, (rows,) = await self._client.read([("is_committed", [(row_id,) for row_id in doubt.row_ids[:1]])], deadline)
        return bool(rows)

    async def _share(self, deadline: float) -> None:
        """Wait for the turn among the writers. Raises Conflict when it does not come in time."""
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
        """Waits for its turn among the writers and reads."""
        self._want, self._deadline = want, deadline
        await self._share(deadline)
        try:
            return await self._read(want)
        except BaseException:
            # Refused or cancelled, it is neither committed nor aborted, and the other writers would never get their turn.
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
        """Writes and commits in one round trip."""
        try:
            await self._client.write(self._version, changes_of(write), self._deadline, meanwhile)
        except InDoubt as doubt:
            raise doubt_about(self._want, write, str(doubt)) from doubt
        finally:
            self._lock.unshare()

    async def abort(self) -> None:
        """Lets the other writers in; nothing was written."""
        self._lock.unshare()

    async def close(self) -> None:
        """Ends its thread; the process that writes ends with the store."""
        self._waiting.shutdown(wait=False)


class Checkpointer:
    """Moves what is in the write-ahead log into the database file, beside the commits rather than inside somebody's.

    Left to itself SQLite does it in the commit that fills the log, and that one waits for it, up to seconds. Under steady load
    there is always a commit that is not moved yet, and the log would grow without end: when it is long, the writers pause
    for the last few commits to be moved, and the next one begins the log anew; if somebody reads just then, one of a later time.
    """

    def __init__(self, database: Database, every_s: float = 0.5, frames_max: int = FRAMES_MAX) -> None:
        self._path, self._lock = database.path, database.write_lock
        self._every_s, self._frames_max = every_s, frames_max
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after a last checkpoint."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            # A disk that is full or read-only for a while must not end the thread: the log would grow without end.
            with contextlib.suppress(sqlite3.Error), contextlib.closing(PinnedLog(self._path)) as log:
                self._move_often(log)
            self._stop.wait(self._every_s)

    def _move_often(self, log: "PinnedLog") -> None:
        """Move pages until the thread is stopped. Raises sqlite3.Error."""
        while not self._stop.wait(self._every_s):
            if self._move(log) > self._frames_max:
                with self._lock:
                    log.move()
        log.move()

    def _move(self, log: "PinnedLog") -> int:
        """Moves what there is; how many pages the log has then, 0 while it cannot begin anew.

        SQLite has the file written to the disk only by a checkpoint during which nobody commits, so there are several, each
        of what came during the last. Otherwise the pages of seconds were written while the writers paused, a tenth of a second
        each time, and at half of the peak the p99 was 90 ms instead of 12.
        """
        moved = 0
        for _ in range(PASSES_MAX):
            before = moved
            frames, moved = log.move()
            if frames - moved >= FRAMES_MIN:
                # Somebody who reads an older state, for a snapshot, needs the log as it is.
                return 0
            if moved - before < FRAMES_MIN:
                break
        return frames


class PinnedLog:
    """The write-ahead log of a SQLite file for whoever moves it, so that nobody begins it anew meanwhile.

    In SQLite before 3.51.3 a checkpoint that begins while a commit begins the log anew may take the new log's pages for moved:
    they are skipped, and what was committed is lost or the file malformed (sqlite.org/wal.html, "The WAL-Reset Bug"). It takes
    checkpoints in quick succession beside commits, which is what ``Checkpointer`` does: looking every 10 ms beside two writers
    it spoiled 10 of 12 files within a minute, with a pin none of 12. The pin is a reader. One that began with pages still to be
    moved keeps the log from beginning anew; one that began with none keeps the checkpoint from moving any.
    """

    def __init__(self, path: str) -> None:
        self.mover, self._pin = connect_sqlite(path), connect_sqlite(path)

    def move(self) -> tuple[int, int]:
        """Moves what was committed before; pages in the log, and how many of them are in the database file by now."""
        self._pin.execute("BEGIN")
        try:
            # The transaction reads from here on.
            self._pin.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            _, frames, moved = self.mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            self._pin.execute("COMMIT")
        return frames, moved

    def close(self) -> None:
        """Ends its connections."""
        self._pin.close()
        self.mover.close()
