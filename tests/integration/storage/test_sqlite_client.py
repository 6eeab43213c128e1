"""SQLite client of the engine: conflicts with other writers, the end of its process, and large messages."""

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
    """Return a deadline that no test reaches."""
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
    """A batch raises Conflict if another process has committed since its read. Commits of the same process do not count."""

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
    """If the last statement of a batch fails, nothing of the batch is committed."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([], later())
        with pytest.raises(Conflict):
            await client.write(version, [("insert", [(1, b"once")]), ("insert", [(1, b"twice")])], later(), noop)
        _, (rows,) = await client.read([("all", [()])], later())
        assert rows == []

    with_wire(path, use)


def test_messages_longer_than_a_socket_holds(path: str) -> None:
    """A message of 5 MB arrives unchanged and returns unchanged, while another request waits behind it."""

    async def use(client: SqliteClient) -> None:
        rows = [(number, os.urandom(50_000)) for number in range(100)]
        version, _ = await client.read([], later())
        writing = asyncio.create_task(client.write(version, [("insert", rows)], later(), noop))
        _, (_, (answer,)) = await asyncio.gather(writing, client.read([("all", [()])], later()))
        assert answer == rows

    with_wire(path, use)


def test_a_dead_process_fails_all_waiting_calls(path: str) -> None:
    """When the process dies, a waiting request and every later one raise Unavailable."""

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
    """A commit in progress raises InDoubt when the process dies."""

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
    """At its deadline a request kills the process, so that nothing is committed later. Requests behind it fail too."""

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
    """The process reports the error without a traceback, and works as soon as the file can be opened."""
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
    """A violated check, an unknown table and a number above 2^63 - 1 raise Refused. The process keeps working."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([], later())
        with pytest.raises(Refused):
            await client.write(version, [(name, [row])], later(), noop)
        _, (rows,) = await client.read([("all", [()])], later())
        assert rows == []

    with_wire(path, use)


def test_a_damaged_file_is_told_apart(path: str) -> None:
    """An overwritten page raises Damaged, because no retry repairs it."""
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
    """The process ignores SIGINT and SIGTERM, because Ctrl-C reaches all processes of a terminal and the server still commits."""

    async def use(client: SqliteClient) -> None:
        version, _ = await client.read([], later())
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(client._process.pid, number)
        await client.write(version, [("insert", [(1, b"still")])], later(), noop)

    with_wire(path, use)


def test_a_server_that_dies_with_answers_unread(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The process ends without output if the server dies with unread answers."""

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
