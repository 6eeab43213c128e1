"""SQLite's write-ahead log (WAL) under steady load: it restarts when it is long, and a reader delays no commit."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardwright.storage.database import Database
from cardwright.storage.engine.sqlite import Checkpointer, PinnedLog
from cardwright.storage.sqlite_connection import connect_sqlite

ROW = b"x" * 1_500
FRAMES_MAX = 100
PAGE = 2_048


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(str(tmp_path / "log.db"))
    connection = connect_sqlite(database.path)
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, what BLOB)")
    connection.close()
    yield database
    database.close()


WRITE_S = 120
"""Maximum time of a test's writes, in seconds. It is only a safety limit."""


def write(database: Database, is_enough: Callable[[int], bool]) -> int:
    """Commit rows through the lock, as the engine does, until ``is_enough`` returns True. Return their number."""
    connection, count, deadline = connect_sqlite(database.path), 0, time.monotonic() + WRITE_S
    while not is_enough(count):
        assert time.monotonic() < deadline, f"not enough in {WRITE_S} s: {count} rows, {frames(database)} pages in the log"
        with database.write_lock:
            connection.execute("INSERT INTO rows (what) VALUES (?)", (ROW,))
        count += 1
    connection.close()
    return count


def frames(database: Database) -> int:
    return Path(f"{database.path}-wal").stat().st_size // PAGE


def test_the_log_begins_anew_under_steady_load(database: Database) -> None:
    """Under a load without pauses the WAL restarts: it has fewer pages than half of the written rows."""
    keeper = Checkpointer(database, every_s=0.01, frames_max=FRAMES_MAX)
    count = write(database, lambda count: count > 5 * FRAMES_MAX and count > 2 * frames(database))
    keeper.stop()
    with connect_sqlite(database.path) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (count,)


def test_a_long_reader_stops_nobody(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a reader keeps an older state, the WAL grows, and no commit waits for the reader."""
    tries, real_move = list[tuple[int, int]](), PinnedLog.move

    def move(log: PinnedLog) -> tuple[int, int]:
        tries.append(real_move(log))
        return tries[-1]

    monkeypatch.setattr(PinnedLog, "move", move)
    write(database, lambda count: count == 20)
    reader = connect_sqlite(database.path)
    reader.execute("BEGIN")
    (row_count,) = reader.execute("SELECT count(*) FROM rows").fetchone()
    keeper = Checkpointer(database, every_s=0.01, frames_max=FRAMES_MAX)
    # The reader stays until the commits are done. A commit that waited for it would never end.
    write(database, lambda count: count > 2 * FRAMES_MAX and sum(frames > FRAMES_MAX for frames, _ in tries) > 5)
    assert reader.execute("SELECT count(*) FROM rows").fetchone() == (row_count,)
    reader.close()
    keeper.stop()


def test_a_checkpoint_and_a_log_that_begins_anew_keep_apart(database: Database) -> None:
    """If a commit at the start of a checkpoint restarts the WAL, the checkpoint copies no page.

    Otherwise SQLite before 3.51.3 may treat pages as copied that are not. The race is between two instructions of SQLite. The
    test shows that the two events cannot coincide. It does not show that a coincidence is harmless.
    """
    log, writer = PinnedLog(database.path), connect_sqlite(database.path)

    def commit(_statement: str = "") -> None:
        writer.execute("INSERT INTO rows (what) VALUES (?)", (ROW,))

    commit()
    began = salt(database)
    # The WAL has pages to copy, or has none, when the checkpoint begins.
    for is_empty in (False, True, False, True):
        if is_empty:
            log.move()
        else:
            commit()
            began = salt(database)
        log.mover.set_trace_callback(commit)
        frames, moved = log.move()
        log.mover.set_trace_callback(None)
        assert frames > moved, "the checkpoint copied a commit that was made meanwhile"
        assert (salt(database) != began, moved == 0) in ((True, True), (False, False))
        began = salt(database)
    log.close()
    writer.close()


def salt(database: Database) -> bytes:
    """Return the salt of the WAL, which changes at each restart: 8 bytes at byte 16 (sqlite.org/fileformat2.html, 4.1)."""
    return Path(f"{database.path}-wal").read_bytes()[16:24]
