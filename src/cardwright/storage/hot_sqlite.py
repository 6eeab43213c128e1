"""The heart's SQLite: one writer, a batch an immediate transaction, the commit's wait for the disk in a thread.

Statements run on the event loop's own thread. Handing a batch to a writer thread would make both threads fight for the
interpreter at every SQLite call; only the commit, which waits for the disk without the interpreter, is handed over.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from cardwright.core.record import Recorded
from cardwright.storage.database import Database, connect_sqlite
from cardwright.storage.hot import (
    ACCOUNT_JOURNAL_COLUMNS,
    JOURNAL_COLUMNS,
    LIST_TRANSACTIONS,
    MOVEMENT_COLUMNS,
    OUTBOX_COLUMNS,
    SELECT_CARDS,
    SHADOW_HIT_COLUMNS,
    TRANSACTION_COLUMNS,
    CardRow,
    Conflict,
    HolderRow,
    MovementReplay,
    ProgramRow,
    Replay,
    Seen,
    Unavailable,
    Want,
    Write,
)

ID_BLOCK = 1_000_000

FRAMES_MAX = 50_000
"""Pages of 2 KiB in the write-ahead log after which it begins anew."""

FRAMES_FEW = 128
"""Pages that are moved so quickly that hardly ever a commit falls into it."""

PASSES_MAX = 8
"""How often in a row what came meanwhile is moved."""

Run = Callable[..., sqlite3.Cursor]


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


INSERT_TRANSACTION = _insert("transactions", TRANSACTION_COLUMNS)
INSERT_JOURNAL = _insert("journal", JOURNAL_COLUMNS)
INSERT_ACCOUNT_JOURNAL = _insert("journal", ACCOUNT_JOURNAL_COLUMNS)
INSERT_MOVEMENT = _insert("movements", MOVEMENT_COLUMNS)
INSERT_OUTBOX = _insert("outbox", OUTBOX_COLUMNS)
UPDATE_CHAIN = "UPDATE transactions SET state = ?2, hold_left = ?3, load_left = ?4, cleared = ?5, due_ms = ?6 WHERE id = ?1"
INSERT_TOKEN = _insert("message_tokens", ("program_id", "token", "transaction_id", "request_hash"))
INSERT_SHADOW_HIT = _insert("shadow_hits", SHADOW_HIT_COLUMNS)
# One statement for all, which takes half of what one for each does; a list of numbers is JSON as Python writes it.
SELECT_HOLDERS = "SELECT h.id, h.revision, h.state, h.recent FROM json_each(?) AS k CROSS JOIN holders AS h ON h.id = k.value"
SELECT_TRANSACTION = f"SELECT {', '.join(TRANSACTION_COLUMNS)} FROM transactions WHERE id = ?"
SELECT_CARD = SELECT_CARDS.format(cards="cards c") + "WHERE c.program_id = ? AND c.token = ?"


class SqliteStore:
    """Lanes on a SQLite file. There is one writer, so there is one lane."""

    lanes_max = 1

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reader: sqlite3.Connection | None = None

    async def open_lane(self) -> "SqliteLane":
        """The lane."""
        return SqliteLane(self._database)

    async def load_cards(self, keys: Sequence[tuple[int, str]]) -> list[CardRow]:
        """The cards with these (program id, token), over a connection of their own, which never waits for a writer."""
        if self._reader is None:
            self._reader = connect_sqlite(self._database.path)
            # What it keeps is void with the next commit of anybody else.
            self._reader.execute("PRAGMA cache_size=-1024")
        found = (self._reader.execute(SELECT_CARD, key).fetchone() for key in keys)
        try:
            return [CardRow(*row) for row in found if row is not None]
        except sqlite3.Error as error:
            raise Unavailable(str(error)) from error

    async def close(self) -> None:
        """Ends the connection that cards are read over."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def next_ids(self) -> range:
        """The ids after the last one used: there is only one process that decides on a SQLite file."""
        with self._database.read() as db:
            last = db.exec_driver_sql("SELECT coalesce(max(id), -1) FROM transactions").scalar_one()
        return range(last + 2, last + 2 + ID_BLOCK, 2)


class SqliteLane:
    """See ``hot.Lane``."""

    def __init__(self, database: Database) -> None:
        self._gate = database.write_gate
        self._connection = connect_sqlite(database.path)
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="commit")

    async def begin(self, want: Want) -> Seen:
        """Waits for its turn among the writers and reads."""
        if not self._gate.acquire(blocking=False):
            await asyncio.get_running_loop().run_in_executor(self._committer, self._gate.acquire)
        try:
            run = self._connection.execute
            run("BEGIN IMMEDIATE")
            return self._read(run, want)
        except sqlite3.Error as error:
            self._end()
            raise Unavailable(str(error)) from error

    def _read(self, run: Run, want: Want) -> Seen:
        seen = Seen({}, {}, {}, {})
        for holder_id, *found in run(SELECT_HOLDERS, (str(want.holder_ids),)):
            seen.holders[holder_id] = HolderRow(*found)
        for program_id in want.program_ids:
            row = run("SELECT revision, clock_offset_ms, clock_frozen_ms FROM programs WHERE id = ?", (program_id,)).fetchone()
            seen.programs[program_id] = ProgramRow(*row)
        for row_id in want.row_ids:
            if (found := run(SELECT_TRANSACTION, (row_id,)).fetchone()) is not None:
                seen.rows[row_id] = Recorded(*found)
        for key in want.tokens:
            query = "SELECT transaction_id, request_hash FROM message_tokens WHERE program_id = ? AND token = ?"
            if (found := run(query, key).fetchone()) is not None:
                seen.replays[key] = Replay(*found)
                seen.rows[found[0]] = Recorded(*run(SELECT_TRANSACTION, (found[0],)).fetchone())
        for movement in want.movements:
            query = "SELECT request_hash, doc FROM movements WHERE program_id = ? AND kind = ? AND token = ?"
            if (found := run(query, movement).fetchone()) is not None:
                seen.movements[movement] = MovementReplay(*found)
        return seen

    async def commit(self, write: Write, meanwhile: Callable[[], None]) -> None:
        """Writes, and waits for the disk in a thread."""
        many = self._connection.executemany
        try:
            many("UPDATE holders SET state = ?2, recent = ?3 WHERE id = ?1", write.holders)
            many(INSERT_TRANSACTION, write.transactions)
            if write.listed:
                many(LIST_TRANSACTIONS + "?", [(row_id,) for row_id in write.listed])
            many(UPDATE_CHAIN, write.chains.values())
            if write.grown:
                many("UPDATE transactions SET details = ?2 WHERE id = ?1", write.grown.items())
            many(INSERT_JOURNAL, write.journal)
            if write.outbox:
                many(INSERT_OUTBOX, [tuple(row[column] for column in OUTBOX_COLUMNS) for row in write.outbox])
            if write.tokens:
                many(INSERT_TOKEN, write.tokens)
            if write.movements:
                many(INSERT_MOVEMENT, write.movements)
            if write.reworded:
                rows = [(row_id, *changed) for row_id, changed in write.reworded.items()]
                many("UPDATE movements SET modified_ms = ?2, doc = ?3 WHERE id = ?1", rows)
            if write.account_journal:
                many(INSERT_ACCOUNT_JOURNAL, write.account_journal)
            if write.shadow_hits:
                many(INSERT_SHADOW_HIT, write.shadow_hits)
            done = asyncio.get_running_loop().run_in_executor(self._committer, self._connection.execute, "COMMIT")
            meanwhile()
            await done
        except sqlite3.IntegrityError as error:
            self._end()
            raise Conflict(str(error)) from error
        except sqlite3.Error as error:
            self._end()
            raise Unavailable(str(error)) from error
        self._gate.release()

    async def abort(self) -> None:
        """Ends the transaction without a trace."""
        self._end()

    async def close(self) -> None:
        """Ends the connection."""
        self._connection.close()
        self._committer.shutdown()

    def _end(self) -> None:
        """Leaves the transaction, if there still is one, and lets the next writer in."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._gate.release()


class Checkpointer:
    """Moves what is in the write-ahead log into the database file, beside the commits rather than inside somebody's.

    Left to itself SQLite does it in the commit that fills the log, and that one waits for it, up to seconds. Under steady load
    there is always a commit that is not moved yet, and the log would grow without end: when it is long, the writers pause
    for the last few commits to be moved, and the next one begins the log anew.
    """

    def __init__(self, database: Database, every_s: float = 0.5, frames_max: int = FRAMES_MAX) -> None:
        self._path, self._gate = database.path, database.write_gate
        self._every_s, self._frames_max = every_s, frames_max
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after a last checkpoint."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection = connect_sqlite(self._path)
        # The writers wait while this one does.
        connection.execute("PRAGMA busy_timeout=50")
        try:
            while not self._stop.wait(self._every_s):
                if self._move(connection) > self._frames_max:
                    with self._gate:
                        _checkpoint(connection, "RESTART")
        finally:
            _checkpoint(connection, "PASSIVE")
            connection.close()

    def _move(self, connection: sqlite3.Connection) -> int:
        """Moves what there is; how many pages the log has then, 0 while it cannot begin anew.

        SQLite has the file written to the disk only by a checkpoint during which nobody commits, so there are several, each
        of what came during the last. Otherwise the pages of seconds were written while the writers paused, a tenth of a second
        each time, and at half of the peak the p99 was 90 ms instead of 12.
        """
        frames = 0
        for _ in range(PASSES_MAX):
            before = frames
            frames, moved = _checkpoint(connection, "PASSIVE")
            if moved < frames:
                # Somebody who reads an older state, for a snapshot, needs the log as it is.
                return 0
            if frames - before < FRAMES_FEW:
                break
        return frames


def _checkpoint(connection: sqlite3.Connection, how: str) -> tuple[int, int]:
    """Pages in the log, and how many of them are in the database file by now."""
    _, frames, moved = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    return frames, moved
