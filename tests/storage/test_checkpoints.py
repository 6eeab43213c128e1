"""SQLite's write-ahead log under steady load: it begins anew when it is long, and nobody who reads is in the way for long."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardwright.storage.database import Database
from cardwright.storage.hot_sqlite import Checkpointer, PinnedLog
from cardwright.storage.sqlite import connect_sqlite

ROW = b"x" * 1_500
FRAMES_MAX = 100
PAGE = 2_048


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(str(tmp_path / "log.db"))
    connection = connect_sqlite(found.path)
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, what BLOB)")
    connection.close()
    yield found
    found.close()


def write(database: Database, seconds: float) -> tuple[int, float]:
    """Commits one row after the other through the gate, as the heart does: how many, and the longest that one took."""
    connection = connect_sqlite(database.path)
    end, count, longest = time.monotonic() + seconds, 0, 0.0
    while (began := time.monotonic()) < end:
        with database.write_gate:
            connection.execute("INSERT INTO rows (what) VALUES (?)", (ROW,))
        count, longest = count + 1, max(longest, time.monotonic() - began)
    connection.close()
    return count, longest


def frames(database: Database) -> int:
    return Path(f"{database.path}-wal").stat().st_size // PAGE


def test_the_log_begins_anew_under_steady_load(database: Database) -> None:
    """There is never a moment without a commit, and still the log is much shorter than what was written."""
    keeper = Checkpointer(database, every_s=0.01, frames_max=FRAMES_MAX)
    count, _ = write(database, 1.5)
    length = frames(database)
    keeper.stop()
    assert count > 5 * FRAMES_MAX, "too little was written to show anything"
    assert length < count / 2
    with connect_sqlite(database.path) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (count,)


def test_a_long_reader_stops_nobody(database: Database) -> None:
    """While somebody reads an older state the log grows, and no commit waits for him."""
    write(database, 0.05)
    reader = connect_sqlite(database.path)
    reader.execute("BEGIN")
    (seen,) = reader.execute("SELECT count(*) FROM rows").fetchone()
    keeper = Checkpointer(database, every_s=0.01, frames_max=FRAMES_MAX)
    count, longest = write(database, 1.0)
    assert reader.execute("SELECT count(*) FROM rows").fetchone() == (seen,)
    reader.close()
    keeper.stop()
    assert count > 2 * FRAMES_MAX
    assert longest < 0.8, "the reader was waited for"


def test_a_checkpoint_and_a_log_that_begins_anew_keep_apart(database: Database) -> None:
    """A commit that falls into the beginning of a checkpoint either leaves the log as it is, or is not moved by it.

    Otherwise SQLite before 3.51.3 may take pages for moved that are not. It happens between two of its instructions, so what is
    shown here is that they cannot meet, not that they do no harm.
    """
    log, writer = PinnedLog(database.path), connect_sqlite(database.path)

    def commit(_statement: str = "") -> None:
        writer.execute("INSERT INTO rows (what) VALUES (?)", (ROW,))

    commit()
    began = salt(database)
    # Whether the log has pages to be moved or has none when the checkpoint begins.
    for is_empty in (False, True, False, True):
        if is_empty:
            log.move()
        else:
            commit()
            began = salt(database)
        log.mover.set_trace_callback(commit)
        frames, moved = log.move()
        log.mover.set_trace_callback(None)
        assert frames > moved, "what was committed meanwhile was moved"
        assert (salt(database) != began, moved == 0) in ((True, True), (False, False))
        began = salt(database)
    log.close()
    writer.close()


def salt(database: Database) -> bytes:
    """What the log has in its header since it began: two numbers at the 16th byte (sqlite.org/fileformat2.html, 4.1)."""
    return Path(f"{database.path}-wal").read_bytes()[16:24]
