"""The process that reads and writes SQLite for the engine: when others write, when it dies, and with much to carry."""

import asyncio
import os
import select
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cardwright.storage.engine.sqlite_client import SqliteClient
from cardwright.storage.engine.store import noop
from cardwright.storage.failures import Conflict, Damaged, InDoubt, Refused, Unavailable
from cardwright.storage.sqlite_connection import connect_sqlite

STATEMENTS = {
    "all": "SELECT id, what FROM rows ORDER BY id",
    "insert": "INSERT INTO rows (id, what) VALUES (?, ?)",
    "none": "SELECT 1 FROM missing",
    "check": "INSERT INTO checked (id) VALUES (?)",
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = str(tmp_path / "rows.db")
    with connect_sqlite(file) as connection:
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, what BLOB)")
        connection.execute("CREATE TABLE checked (id INTEGER PRIMARY KEY CHECK (id < 10))")
    connection.close()
    return file


def later() -> float:
    """A deadline that no test reaches."""
    return asyncio.get_running_loop().time() + 60


def with_wire(path: str, use: Callable[[SqliteClient], Awaitable[None]]) -> None:
    async def run() -> None:
        client = SqliteClient(path, STATEMENTS)
        try:
            await use(client)
        finally:
            await client.close()

    asyncio.run(run())


def test_what_was_read_is_void_when_another_commits(path: str) -> None:
    """A batch writes only if nobody else committed since it read; its own process's commits in between do not count."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([("all", [()])], later())
        await client.write(version, [("insert", [(1, b"ours")])], later(), noop)
        await client.write(version, [("insert", [(2, b"ours")])], later(), noop)
        with connect_sqlite(path) as other:
            other.execute("INSERT INTO rows VALUES (3, 'theirs')")
        other.close()
        with pytest.raises(Conflict):
            await client.write(version, [("insert", [(4, b"late")])], later(), noop)
        version, (rows,) = await client.read([("all", [()])], later())
        assert [row[0] for row in rows] == [1, 2, 3]
        await client.write(version, [("insert", [(4, b"again")])], later(), noop)

    with_wire(path, use)


def test_a_transaction_is_whole_or_nothing(path: str) -> None:
    """A batch whose last statement fails leaves nothing of its first."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([], later())
        with pytest.raises(Conflict):
            await client.write(version, [("insert", [(1, b"once")]), ("insert", [(1, b"twice")])], later(), noop)
        _, (rows,) = await client.read([("all", [()])], later())
        assert rows == []

    with_wire(path, use)


def test_messages_longer_than_a_socket_holds(path: str) -> None:
    """Megabytes go there and come back as they were, while another request waits behind them."""

    async def use(client: SqliteClient) -> None:
        rows = [(number, os.urandom(50_000)) for number in range(100)]
        version, _ = await client.read([], later())
        writing = asyncio.create_task(client.write(version, [("insert", rows)], later(), noop))
        _, (_, (answer,)) = await asyncio.gather(writing, client.read([("all", [()])], later()))
        assert answer == rows

    with_wire(path, use)


def test_when_it_dies_everybody_is_told(path: str) -> None:
    """Who waits for an answer gets Unavailable, and so does who asks afterwards."""

    async def use(client: SqliteClient) -> None:
        await client.read([], later())
        os.kill(client._process.pid, signal.SIGSTOP)
        task = asyncio.create_task(client.read([], later()))
        await asyncio.sleep(0)
        os.kill(client._process.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await task
        with pytest.raises(Unavailable):
            await client.read([], later())

    with_wire(path, use)


def test_a_commit_without_an_answer_is_in_doubt(path: str) -> None:
    """Whoever commits when the process dies gets InDoubt; the process that comes next tells whether it was committed."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([], later())
        os.kill(client._process.pid, signal.SIGSTOP)
        writing = asyncio.create_task(client.write(version, [("insert", [(1, b"perhaps")])], later(), noop))
        await asyncio.sleep(0)
        os.kill(client._process.pid, signal.SIGKILL)
        with pytest.raises(InDoubt):
            await writing

    with_wire(path, use)


def test_a_process_that_does_not_answer_is_killed(path: str) -> None:
    """At its deadline a request ends the process, so that nothing is committed later, and what waits behind it fails too."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([], later())
        os.kill(client._process.pid, signal.SIGSTOP)
        soon = asyncio.get_running_loop().time() + 0.05
        late = asyncio.create_task(client.read([], soon))
        behind = asyncio.create_task(client.write(version, [("insert", [(1, b"never")])], later(), noop))
        with pytest.raises(Unavailable):
            await late
        with pytest.raises(InDoubt):
            await behind
        await client.reap()
        assert client._process.returncode == -signal.SIGKILL

    with_wire(path, use)


def test_a_database_that_cannot_be_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The process answers what is wrong, without a traceback, and works as soon as the file can be opened."""
    path = tmp_path / "folder" / "rows.db"

    async def use(client: SqliteClient) -> None:
        with pytest.raises(Unavailable, match="unable to open"):
            await client.read([], later())
        path.parent.mkdir()
        with connect_sqlite(str(path)) as connection:
            connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, what BLOB)")
        connection.close()
        _, (rows,) = await client.read([("all", [()])], later())
        assert rows == []

    with_wire(str(path), use)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("name", "row"), [("check", (10,)), ("none", ()), ("insert", (2**63, b""))])
def test_what_never_succeeds_is_refused(path: str, name: str, row: tuple[object, ...]) -> None:
    """A broken check, an unknown table and a number that SQLite cannot hold are no outage, and the process goes on."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([], later())
        with pytest.raises(Refused):
            await client.write(version, [(name, [row])], later(), noop)
        _, (rows,) = await client.read([("all", [()])], later())
        assert rows == []

    with_wire(path, use)


def test_a_damaged_file_is_told_apart(path: str) -> None:
    """A page that is no page raises Damaged: no wait repairs it."""
    with connect_sqlite(path) as connection:
        connection.executemany("INSERT INTO rows VALUES (?, ?)", [(number, b"x" * 1500) for number in range(200)])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with open(path, "r+b") as file:
        file.seek(5 * 2048)
        file.write(b"\xff" * 20 * 2048)

    async def use(client: SqliteClient) -> None:
        with pytest.raises(Damaged):
            await client.read([("all", [()])], later())

    with_wire(path, use)


def test_it_outlives_a_terminals_interrupt(path: str) -> None:
    """Ctrl-C reaches all processes of a terminal; this one ends with the server, which has still to commit."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([], later())
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(client._process.pid, number)
        await client.write(version, [("insert", [(1, b"still")])], later(), noop)

    with_wire(path, use)


def test_a_server_that_dies_with_answers_unread(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It ends without a word: a killed server has asked and did not read."""

    async def use(client: SqliteClient) -> None:
        await client.read([], later())
        os.kill(client._process.pid, signal.SIGSTOP)
        tasks = [asyncio.create_task(client.read([], later())) for _ in range(100)]
        await asyncio.sleep(0)
        client._loop.remove_reader(client._socket)
        os.kill(client._process.pid, signal.SIGCONT)
        while not select.select([client._socket], [], [], 0)[0]:
            await asyncio.sleep(0)
        await client.close()
        assert client._process.returncode == 0
        await asyncio.gather(*tasks, return_exceptions=True)

    with_wire(path, use)
    assert capfd.readouterr().err == ""
