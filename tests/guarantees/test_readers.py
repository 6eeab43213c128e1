"""Readers of transaction lists while purchases arrive: a short round. `python -m tests.stress.readers` runs the long one."""

from pathlib import Path
from typing import Any

import pytest

from tests.stress import readers
from tests.stress.overlap import running_pair
from tests.support.databases import migrated_file
from tests.support.server import RunningServer


def check(kinds: tuple[readers.Readings, readers.Readings]) -> None:
    """Assert both guarantees, and that purchases arrived between the pages of both kinds of readers."""
    one_connection, connection_a_page = kinds
    assert (one_connection.repeated, one_connection.missed) == (0, 0), one_connection
    assert connection_a_page.missed == 0, connection_a_page
    assert min(kind.pages_after_arrivals for kind in kinds) > 0
    assert min(kind.expected for kind in kinds) > 0


def test_readers_of_one_process(tmp_path: Path) -> None:
    """On SQLite a reader gets each entry once over one connection, and misses none with a connection for each page."""
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db"), env=readers.IDLE) as server:
        check(readers.run([server], readers=12, purchases=60, first=60))


def test_readers_of_two_processes(migrated_postgres_url: str) -> None:
    """On PostgreSQL the same is true of two processes, which a reader with a connection for each page uses alternately."""
    with running_pair(migrated_postgres_url) as pair:
        check(readers.run(pair.servers, readers=12, purchases=60, first=60))


def test_a_miss_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of the tests above are positive if a page omits or repeats entries."""
    real = readers.ask

    def cut(*of: Any) -> dict[str, Any]:
        page = real(*of)
        return {**page, "data": page["data"][2:] + page["data"][-1:]}

    monkeypatch.setattr(readers, "ask", cut)
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db"), env=readers.IDLE) as server:
        # Without arrivals: a purchase that arrives between the start of a reader and its first page is not expected, so its
        # omission would not count.
        for kind in readers.run([server], readers=1, purchases=0, first=10):
            assert min(kind.missed, kind.repeated) > 0
