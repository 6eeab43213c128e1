"""SQLite's writer process: the server replaces it after a kill, and it ends with the server."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardwright.ledger.invariants import verify
from cardwright.storage.database import Database
from tests.support.databases import migrated_file
from tests.support.server import RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db")) as running:
        yield running


def writer_of(server: RunningServer) -> int | None:
    """Return the id of the writer process, or None if there is none that is alive."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == server.pid and b"sqlite_worker" in words:
            return int(folder.name)
    return None


def is_alive(pid: int) -> bool:
    try:
        return b"sqlite_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        # The process has ended.
        return False


def test_a_killed_writer_is_replaced(server: RunningServer) -> None:
    """After a kill of the writer, some purchases may get 503, later ones are decided, and all invariants hold."""
    shop = Shop(server)
    before = shop.buy(10)
    writer = writer_of(server)
    assert writer is not None
    os.kill(writer, signal.SIGKILL)
    refused = 0
    while (answer := shop.simulate("authorization", card_token="jit", amount=10, mid="m1")).status != 201:
        assert answer.status == 503, answer.text
        refused += 1
        assert refused < 10, "the writer process was not replaced"
    assert shop.client.get(f"/transactions/{before['token']}").status == 200
    assert len(shop.client.get("/transactions?type=authorization").json["data"]) == 2
    assert writer_of(server) not in (None, writer)
    database = Database(server.db)
    report = verify(database)
    database.close()
    assert report.is_sound, report.violations


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_writer_ends_with_its_server(server: RunningServer, end: str) -> None:
    """The writer process ends when its server is stopped or killed."""
    writer = writer_of(server)
    assert writer is not None
    getattr(server, end)()
    until(lambda: not is_alive(writer))
