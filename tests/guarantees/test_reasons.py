"""Texts of a 503: the reason is correct, and the text states the effect of the request."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.stress import api_fixtures
from tests.support.databases import migrated_file
from tests.support.failpoints import Failpoints
from tests.support.server import Client, Reply, RunningServer
from tests.support.waiting import until

HASTY = {"CARDWRIGHT_ANSWER_LIMIT_S": "3"}
LOCKED_FILE = "Service unavailable: another process holds the lock of the database file; "
CONTENDED = "Service unavailable: other work on the database takes too long; "
STOPPING = "Service unavailable: the server is stopping; "
NOT_BOOKED = "nothing was booked, try again later"
NOT_CHANGED = "nothing was changed, try again later"
MAYBE_DONE = "the request may have been carried out: repeat it with the same token if you chose one, else look it up first"


SLOW_COMMIT = (
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
)
"""Statements that delay the COMMIT of a new user by an hour."""


def text_of(reply: Reply) -> str:
    """Assert a 503; return its message."""
    assert (reply.status, reply.json["error_code"]) == (503, "503001"), reply.text
    return str(reply.json["error_message"])


@contextmanager
def locked_file(path: str) -> Iterator[None]:
    """Hold the write lock of a SQLite file in this process."""
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def in_background(server: RunningServer, ask: Callable[[Client], Reply]) -> Iterator[Future[Reply]]:
    """Send a request in a thread, on a new connection; yield its future answer."""

    def send() -> Reply:
        with server.client() as client:
            return ask(client)

    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(send)


def buy(card: api_fixtures.Card, token: str) -> Callable[[Client], Reply]:
    return lambda client: client.post("/simulate/authorization", api_fixtures.purchase(card.token, 100, token))


def waits_for_a_lock(db: "psycopg.Connection[Any]") -> bool:
    """Return True if a session of the database waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    row = db.execute(query).fetchone()
    return row is not None and row[0] > 0


def test_locked_file_is_the_reason(tmp_path: Path) -> None:
    """A locked SQLite file is the reason in the answers to a purchase, to another write, and of the readiness probe."""
    path = migrated_file(tmp_path / "cardwright.db")
    with RunningServer(db=path, env=HASTY) as server, server.client() as client:
        card = api_fixtures.build(client, 1)[0]
        with locked_file(path):
            assert text_of(client.put(f"/users/{card.user}", {"first_name": "Ann"})) == LOCKED_FILE + NOT_CHANGED
            assert text_of(buy(card, "refused")(client)) == LOCKED_FILE + NOT_BOOKED
            ready = until(lambda: (reply := client.get("/readyz")).status == 503 and reply.json)
            assert ready == {"status": "unavailable", "reason": "another process holds the lock of the database file"}


def test_read_does_not_say_that_nothing_was_booked(migrated_postgres_url: str) -> None:
    """With a locked table, a read and a write get 503, and only the text for the write states its effect."""
    with RunningServer(db=migrated_postgres_url, env=HASTY) as server, server.client() as client:
        card = api_fixtures.build(client, 1)[0]
        with psycopg.connect(migrated_postgres_url) as other:
            other.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            assert text_of(client.get(f"/users/{card.user}")) == CONTENDED + "try again later"
            assert text_of(client.put(f"/users/{card.user}", {"first_name": "Ann"})) == CONTENDED + NOT_CHANGED
            other.rollback()


def test_lock_of_an_account_refuses_the_messages_behind_it(migrated_postgres_url: str) -> None:
    """Six purchases behind a row lock get the lock or the time limit as reason, and not an overload."""
    with RunningServer(db=migrated_postgres_url, env=HASTY) as server, server.client() as client:
        cards = api_fixtures.build(client, 6)
        with psycopg.connect(migrated_postgres_url) as other:
            other.execute("SELECT id FROM holders FOR UPDATE")
            with ThreadPoolExecutor(6) as threads:

                def refused(card: api_fixtures.Card) -> str:
                    with server.client() as connection:
                        return text_of(buy(card, f"refused-{card.token}")(connection))

                texts = set(threads.map(refused, cards))
            other.rollback()
    assert texts <= {
        f"Service unavailable: locks of other transactions or conflicts with them took too long; {NOT_BOOKED}",
        f"Service unavailable: earlier messages took so long that this one was not decided in time; {NOT_BOOKED}",
    }


def test_stop_is_the_reason(migrated_postgres_url: str) -> None:
    """A purchase that waits for a lock when the server stops gets the stop as reason and was not booked."""
    with RunningServer(db=migrated_postgres_url) as server, server.client() as client:
        card = api_fixtures.build(client, 1)[0]
        with psycopg.connect(migrated_postgres_url) as other, psycopg.connect(migrated_postgres_url, autocommit=True) as watcher:
            other.execute("SELECT id FROM holders FOR UPDATE")
            with in_background(server, buy(card, "refused")) as purchase:
                until(lambda: waits_for_a_lock(watcher))
                server.terminate()
                assert text_of(purchase.result()) == STOPPING + NOT_BOOKED
            other.rollback()


def test_write_that_a_stop_cuts_may_have_been_carried_out(migrated_postgres_url: str) -> None:
    """A write that a stop interrupts may have been carried out, because its thread continues, and the text states that."""
    with RunningServer(db=migrated_postgres_url) as server, server.client() as client:
        card = api_fixtures.build(client, 1)[0]
        with psycopg.connect(migrated_postgres_url) as other, psycopg.connect(migrated_postgres_url, autocommit=True) as watcher:
            other.execute("SELECT id FROM users FOR UPDATE")
            with in_background(server, lambda client: client.put(f"/users/{card.user}", {"first_name": "Ann"})) as update:
                until(lambda: waits_for_a_lock(watcher))
                server.terminate()
                assert text_of(update.result()) == STOPPING + MAYBE_DONE
            other.rollback()


def test_message_to_the_inbox_that_a_stop_cuts(tmp_path: Path) -> None:
    """A message to the webhook inbox that a stop interrupts gets 503 in the API's format."""
    with Failpoints() as failpoints, RunningServer(db=migrated_file(tmp_path / "x.db"), env=failpoints.environment) as server:
        failpoints.arm("inbox.answer.before", "pause")
        with in_background(server, lambda client: client.post("/sandbox/inbox/default/box", {})) as message:
            assert failpoints.wait("inbox.answer.before")
            server.terminate()
            assert text_of(message.result()) == STOPPING + MAYBE_DONE


def test_stop_after_a_failed_try_leaves_no_doubt(tmp_path: Path) -> None:
    """A purchase whose first commit failed at a lock, and which a stop interrupts then, was not booked, as its text states."""
    path = migrated_file(tmp_path / "cardwright.db")
    # The first try ends after 3 s. SIGTERM interrupts the request 2 s later, before its limit of 8.9 s.
    with RunningServer(db=path, env={"CARDWRIGHT_ANSWER_LIMIT_S": "10"}) as server:
        with server.client() as client:
            card = api_fixtures.build(client, 1)[0]
        with locked_file(path), in_background(server, buy(card, "refused")) as purchase:
            until(lambda: "database is locked" in server.output())
            server.terminate()
            assert text_of(purchase.result()) == STOPPING + NOT_BOOKED
            assert server.ends_within(60)
        server.start()
        with server.client() as client:
            assert client.get("/transactions/refused").status == 404


def test_late_answer_to_a_commit_is_in_doubt(migrated_postgres_url: str) -> None:
    """If the answer to COMMIT is late, the text states that the request may have been carried out."""
    user = {"token": "late"}
    with (
        RunningServer(db=migrated_postgres_url, env=HASTY) as server,
        server.client() as client,
        psycopg.connect(migrated_postgres_url, autocommit=True) as admin,
    ):
        for statement in SLOW_COMMIT:
            admin.execute(statement)
        text = text_of(client.post("/users", user))
        assert text == f"Service unavailable: the database did not confirm the commit; {MAYBE_DONE}"
        admin.execute("DROP TRIGGER slow ON users")
        assert client.post("/users", user).json["token"] == client.post("/users", user).json["token"] == "late"


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_texts_name_no_host(migrated_postgres_url: str, verb: str) -> None:
    """The reason in an answer names neither hosts nor files. The log has them."""
    with RunningServer(db=migrated_postgres_url, env=HASTY) as server, server.client() as client:
        card = api_fixtures.build(client, 1)[0]
        name = migrated_postgres_url.rpartition("/")[2]
        with psycopg.connect(migrated_postgres_url.replace(f"/{name}", "/postgres"), autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            reply = client.get(f"/users/{card.user}") if verb == "GET" else buy(card, "refused")(client)
            effect = "try again later" if verb == "GET" else NOT_BOOKED
            assert text_of(reply) == f"Service unavailable: the database does not answer or takes no writes; {effect}"
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
