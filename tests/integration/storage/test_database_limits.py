"""Limits of transactions: a database that does not answer, refuses work or is unreachable raises Unavailable in time."""

import contextlib
import os
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import monotonic, sleep

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from cardwright.kit.limits import Limits
from cardwright.storage.database import Database
from cardwright.storage.failures import ConnectionLost, Damaged, InDoubt, Unavailable, is_away_error

SAFETY_S = 60
SERVER = Limits(answer_s=4.5, transaction_s=SAFETY_S)
ENDLESS = {
    True: "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c",
    False: "SELECT pg_sleep(3600)",
}

SLOW_COMMIT = (
    "CREATE TABLE things (id INTEGER PRIMARY KEY)",
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
)
"""A table on which the COMMIT of an insert takes an hour."""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, SERVER)) as database:
        with database.write() as db:
            db.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY)"))
        yield database


def things(database: Database) -> list[int]:
    with database.read() as db:
        return list(db.scalars(text("SELECT id FROM things ORDER BY id")))


def insert(database: Database, number: int) -> None:
    with database.write() as db:
        db.execute(text("INSERT INTO things VALUES (:id)"), {"id": number})


@contextmanager
def terminated_while(dsn: str, waits: str) -> Iterator[None]:
    """Terminate the session that waits for this event as soon as it waits."""

    def terminate() -> None:
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = %s AND datname = current_database()"
        with psycopg.connect(dsn, autocommit=True) as db:
            end = monotonic() + SAFETY_S
            while not db.execute(query, [waits]).fetchall() and monotonic() < end:
                sleep(0.01)

    thread = threading.Thread(target=terminate)
    thread.start()
    yield
    thread.join()


def test_a_statement_without_end_is_aborted(database: Database) -> None:
    """A statement is aborted at its limit with Unavailable, and the next transaction works."""
    with pytest.raises(Unavailable, match="in time"), database.read(0.1) as db:
        db.execute(text(ENDLESS[database.is_sqlite]))
    insert(database, 1)
    assert things(database) == [1]


def test_nothing_is_committed_after_the_limit(database: Database) -> None:
    """A write is rolled back after its limit although its statements succeed, because its caller already has an answer."""

    def outlive() -> None:
        with database.write(SERVER.lock_s + 0.2) as db:
            db.execute(text("INSERT INTO things VALUES (1)"))
            end = monotonic() + SAFETY_S
            while monotonic() < end and database._watchdog._heap:
                sleep(0.01)

    with pytest.raises(Unavailable):
        outlive()
    assert things(database) == []


def test_an_outage_aborts_what_waits(database: Database) -> None:
    """``abort`` ends transactions in progress before their limit, so that no thread stays blocked."""
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(Unavailable), database.read() as db:
            db.execute(text(ENDLESS[database.is_sqlite]))
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not database._watchdog._heap:
        sleep(0.001)
    while not ended.wait(0.05):
        database.abort()
    thread.join()


def test_what_is_no_outage_keeps_its_kind(database: Database) -> None:
    """A unique violation raises IntegrityError for the caller and is no outage."""
    insert(database, 1)
    with pytest.raises(IntegrityError):
        insert(database, 1)
    assert database.outage.text is None


def test_a_lock_of_another_transaction_has_an_end(database: Database, database_url: str) -> None:
    """A wait for the lock of another process ends with Unavailable. It is an outage on SQLite, but not on PostgreSQL."""
    insert(database, 1)
    with closing(Database(database_url)) as other, other.write() as db:
        db.execute(text("UPDATE things SET id = id"))
        with pytest.raises(Unavailable), database.write() as mine:
            mine.execute(text("UPDATE things SET id = id"))
    assert (database.outage.text is not None) == database.is_sqlite
    insert(database, 2)


def test_a_session_that_was_terminated_while_idle_is_replaced(postgres_url: str) -> None:
    """A pooled connection that broke while idle is replaced without an error, and is no outage."""
    with closing(Database(postgres_url, SERVER)) as database:
        with database.read() as db:
            pid = db.scalar(text("SELECT pg_backend_pid()"))
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            while admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall():
                sleep(0.01)
        with database.read() as db:
            assert db.scalar(text("SELECT pg_backend_pid()")) != pid
        assert database.outage.text is None


def test_a_session_terminated_in_the_middle(postgres_url: str) -> None:
    """A session that is terminated during a statement raises ConnectionLost. It is no outage until a new connection fails."""
    with closing(Database(postgres_url, SERVER)) as database:
        with terminated_while(postgres_url, "PgSleep"), pytest.raises(ConnectionLost), database.read() as db:
            db.execute(text(ENDLESS[False]))
        assert database.outage.text is None


def test_a_connection_lost_during_commit_is_in_doubt(postgres_url: str) -> None:
    """If the session ends inside COMMIT, InDoubt is raised, because the commit may have succeeded."""
    with closing(Database(postgres_url, SERVER)) as database:
        with database.write() as db:
            for statement in SLOW_COMMIT:
                db.execute(text(statement))
        with terminated_while(postgres_url, "PgSleep"), pytest.raises(InDoubt):
            insert(database, 1)


def test_a_standby_is_an_outage(postgres_url: str) -> None:
    """A server that accepts no writes (SQLSTATE 25006) is an outage."""
    with closing(Database(postgres_url, SERVER)) as database:
        with database.write() as db:
            db.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY)"))
            db.execute(text(f"ALTER DATABASE {database.dsn.rpartition('/')[2]} SET default_transaction_read_only = on"))
        database.renew()
        with pytest.raises(Unavailable, match="read-only"), database.write() as db:
            db.execute(text("INSERT INTO things VALUES (1)"))
        assert database.outage.text is not None


def test_one_of_several_hosts_is_enough(postgres_url: str) -> None:
    """The hosts of an address are tried in turn. The first one here refuses the connection."""
    host = postgres_url.partition("@")[2].partition("/")[0]
    several = postgres_url.replace(f"@{host}", f"@127.0.0.1:1,{host}")
    with closing(Database(several, SERVER)) as database, database.read() as db:
        assert db.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ann:secret@db/bank", "postgresql://ann:***@db/bank"),
        ("postgres://ann:s%40cret@a:1,b:2/bank?sslmode=require", "postgresql://ann:***@a:1,b:2/bank?sslmode=require"),
        ("postgresql://db/bank", "postgresql://db/bank"),
        ("postgresql://ann:pa/ss@x@db/bank", "postgresql://ann:***@db/bank"),
        ("postgresql:///bank?host=/run", "postgresql:///bank?host=/run"),
        ("postgresql://db/bank?password=secret&user=ann", "postgresql://db/bank?password=***&user=ann"),
    ],
)
def test_a_password_is_never_shown(address: str, shown: str) -> None:
    """The database address that `serve` prints contains no password."""
    assert Database(address).place == shown


def test_a_full_file_is_an_outage(tmp_path: object) -> None:
    """SQLITE_FULL raises Unavailable. When there is space again, the same database works."""
    with closing(Database(f"{tmp_path}/full.db", SERVER)) as database:
        with database.write() as db:
            db.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY, filling BLOB)"))
        with database.write() as db:
            pages = db.scalar(text("PRAGMA page_count"))
            db.execute(text(f"PRAGMA max_page_count={pages}"))
        with pytest.raises(Unavailable, match="full"), database.write() as db:
            db.execute(text("INSERT INTO things VALUES (1, randomblob(100000))"))
        assert database.outage.text is not None
        database.renew()
        with database.write() as db:
            db.execute(text("INSERT INTO things VALUES (1, randomblob(100000))"))


def test_the_driver_errors_are_told_apart() -> None:
    """A damaged file is no outage, because it does not recover without a repair."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert not is_away_error(error)


def test_a_statement_that_is_no_longer_valid_is_prepared_anew(postgres_url: str) -> None:
    """After a change of a table (SQLSTATE 0A000) one transaction fails. The next one uses a new connection and works."""
    query = text("SELECT * FROM things")
    with closing(Database(postgres_url, SERVER)) as database:
        with database.write() as db:
            db.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY)"))
        # psycopg prepares a statement after several executions.
        for _ in range(10):
            with database.read() as db:
                db.execute(query)
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute("ALTER TABLE things ADD COLUMN name text")
        with pytest.raises(Unavailable, match="cached plan"), database.read() as db:
            db.execute(query)
        with database.read() as db:
            assert list(db.execute(query).keys()) == ["id", "name"]


def test_a_damaged_file_is_told_apart(tmp_path: object) -> None:
    """A file that SQLite reports as malformed raises Damaged, because no retry repairs it."""
    path = f"{tmp_path}/damaged.db"
    with closing(Database(path, SERVER)) as database, database.write() as db:
        db.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY, filling BLOB)"))
        numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 200) "
        db.execute(text(numbers + "INSERT INTO things SELECT n, randomblob(1500) FROM c"))
    with open(path, "r+b") as file:
        file.seek(3 * 2048)
        file.write(b"\xff" * 20 * 2048)
    with closing(Database(path, SERVER)) as database, pytest.raises(Damaged), database.read() as db:
        db.execute(text("SELECT sum(length(filling)) FROM things")).all()


def test_connections_with_high_descriptors(postgres_url: str) -> None:
    """A process with more than 1,024 open descriptors can reuse pooled connections, which ``select`` would not support."""
    with contextlib.ExitStack() as stack:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        with closing(Database(postgres_url, SERVER)) as database:
            for _ in range(2):
                with database.read() as db:
                    assert db.scalar(text("SELECT 1")) == 1
