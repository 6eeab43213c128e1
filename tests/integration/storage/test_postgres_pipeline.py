"""Pipeline connections to PostgreSQL: if one is lost, late or cancelled, its round trip fails and no descriptor stays watched."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing

import psycopg
import pytest

from cardwright.storage.database import Database
from cardwright.storage.engine.postgres_pipeline import PipelineConnection, rows_of
from cardwright.storage.failures import Conflict, ConnectionLost, InDoubt, Refused, Unavailable

STATEMENTS = {
    "pid": "SELECT pg_backend_pid()",
    "sleep": "SELECT pg_sleep(3600)",
    "insert": "INSERT INTO things VALUES (1)",
    "lock": "SELECT id FROM things ORDER BY id FOR NO KEY UPDATE NOWAIT",
}


def with_pipe(dsn: str, use: Callable[[PipelineConnection, "psycopg.Connection"], Awaitable[None]]) -> None:
    """Run a test with a pipeline connection and with a separate one for the administrator."""

    async def run() -> None:
        with closing(Database(dsn)) as database, psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY)")
            session = "-c client_connection_check_interval=100"
            pipeline = PipelineConnection(database.connect_postgres(session, autocommit=True))
            try:
                await pipeline.prepare(STATEMENTS, later())
                await use(pipeline, admin)
            finally:
                pipeline.close()

    asyncio.run(run())


def later(seconds: float = 60) -> float:
    return asyncio.get_running_loop().time() + seconds


async def pid_of(pipeline: PipelineConnection) -> int:
    """Return the process id of the server's session. The transaction stays open."""
    pipeline.send("pid")
    return int.from_bytes(rows_of((await pipeline.ask(later()))[0])[0][0] or b"", "big")


async def asking_on(pipeline: PipelineConnection) -> None:
    """Use the connection until it fails."""
    while True:
        pipeline.send("pid")
        await pipeline.end(later())


def sockets() -> set[int]:
    """Return the descriptors of this process that are sockets."""
    return {int(name) for name in os.listdir("/proc/self/fd") if _is_socket(int(name))}


def _is_socket(descriptor: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    except OSError:
        return False


def test_a_lost_connection_fails_what_waits(postgres_url: str) -> None:
    """A session that is terminated during a wait raises ConnectionLost, and so does every later use."""

    async def use(pipeline: PipelineConnection, admin: "psycopg.Connection") -> None:
        pid = await pid_of(pipeline)
        pipeline.send("sleep")
        waiting = asyncio.create_task(pipeline.end(later()))
        await asyncio.sleep(0)
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(ConnectionLost):
            await waiting
        with pytest.raises(ConnectionLost):
            pipeline.send("pid")
        with pytest.raises(ConnectionLost):
            await pipeline.end(later())

    with_pipe(postgres_url, use)


def test_a_connection_lost_after_commit_was_sent_is_in_doubt(postgres_url: str) -> None:
    """If the connection is lost after COMMIT was sent, InDoubt is raised, because the commit may have succeeded."""

    async def use(pipeline: PipelineConnection, admin: "psycopg.Connection") -> None:
        pid = await pid_of(pipeline)
        pipeline.send("sleep")
        pipeline.send("insert")
        waiting = asyncio.create_task(pipeline.end(later(), commits=True))
        await asyncio.sleep(0)
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(InDoubt):
            await waiting

    with_pipe(postgres_url, use)


def test_an_answer_that_is_late_ends_the_transaction(postgres_url: str) -> None:
    """At the deadline the connection is closed. The server then rolls the transaction back and releases its locks."""

    async def use(pipeline: PipelineConnection, admin: "psycopg.Connection") -> None:
        pipeline.send("insert")
        await pipeline.ask(later())
        pipeline.send("sleep")
        with pytest.raises(Unavailable, match="in time"):
            await pipeline.ask(later(0.05))
        # The first insert locks its key until its transaction ends. A second insert would wait for that.
        admin.execute("SET statement_timeout = '60s'")
        admin.execute("INSERT INTO things VALUES (1)")

    with_pipe(postgres_url, use)


def test_a_wait_that_is_cancelled_spoils_no_later_one(postgres_url: str) -> None:
    """A cancelled wait closes the connection, so that no later request takes the answers of the cancelled one."""

    async def use(pipeline: PipelineConnection, admin: "psycopg.Connection") -> None:
        pipeline.send("sleep")
        waiting = asyncio.create_task(pipeline.ask(later()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(ConnectionLost):
            pipeline.send("pid")

    with_pipe(postgres_url, use)


def test_a_conflict_leaves_the_connection_usable(postgres_url: str) -> None:
    """A unique violation ends the transaction, and the connection stays usable."""

    async def use(pipeline: PipelineConnection, admin: "psycopg.Connection") -> None:
        admin.execute("INSERT INTO things VALUES (1)")
        pipeline.send("insert")
        with pytest.raises(Conflict):
            await pipeline.ask(later())
        assert await pid_of(pipeline) > 0

    with_pipe(postgres_url, use)


def test_what_never_succeeds_is_refused(postgres_url: str) -> None:
    """A violated check raises Refused. It is a bug and no outage, so it is not retried."""

    async def use(pipeline: PipelineConnection, admin: "psycopg.Connection") -> None:
        admin.execute("ALTER TABLE things ADD CHECK (id > 1)")
        pipeline.send("insert")
        with pytest.raises(Refused):
            await pipeline.end(later(), commits=True)

    with_pipe(postgres_url, use)


def test_locks_hold_between_the_round_trips(postgres_url: str) -> None:
    """Between the round trip that locks and the commit, another session cannot lock the same row."""

    async def use(pipeline: PipelineConnection, admin: "psycopg.Connection") -> None:
        admin.execute("INSERT INTO things VALUES (1)")
        pipeline.send("lock")
        await pipeline.ask(later())
        with pytest.raises(psycopg.errors.LockNotAvailable):
            admin.execute(STATEMENTS["lock"])
        await pipeline.end(later())
        admin.execute(STATEMENTS["lock"])

    with_pipe(postgres_url, use)


def test_a_lost_connection_leaves_no_descriptor_watched(postgres_url: str) -> None:
    """New sockets with the descriptor numbers of a lost connection receive their data.

    While the event loop still watched the old numbers, two of ten new clients got no answer.
    """

    async def use(pipeline: PipelineConnection, admin: "psycopg.Connection") -> None:
        before = sockets()
        pid = await pid_of(pipeline)
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(Unavailable):
            await asking_on(pipeline)
        gone = before - sockets()
        assert gone, "the connection must be closed"
        pairs = [socket.socketpair() for _ in range(2 * len(gone) + 8)]
        assert gone <= {end.fileno() for pair in pairs for end in pair}, "the descriptor numbers must be in use again"
        for ours, theirs in pairs:
            ours.setblocking(False)
            theirs.send(b"heard")
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 8), 60) == b"heard"
            ours.close()
            theirs.close()

    with_pipe(postgres_url, use)
