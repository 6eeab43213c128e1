"""Uncertain commits: a message with a 503 is never decided later, and the outcome of an unconfirmed commit is looked up."""

import threading
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.stress import api_fixtures
from tests.support.failpoints import Failpoints
from tests.support.proxy import Proxy
from tests.support.server import Client, Reply, RunningServer

SAFETY_S = 60


@pytest.fixture
def failpoints() -> Iterator[Failpoints]:
    with Failpoints() as opened:
        yield opened


@pytest.fixture
def server(migrated_postgres_url: str, failpoints: Failpoints) -> Iterator[RunningServer]:
    with RunningServer(db=migrated_postgres_url, env=failpoints.environment) as running:
        yield running


@pytest.fixture
def hasty(migrated_postgres_url: str) -> Iterator[RunningServer]:
    with RunningServer(db=migrated_postgres_url, env={"CARDWRIGHT_ANSWER_LIMIT_S": "3"}) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with server.client(timeout_s=SAFETY_S) as connected:
        yield connected


def in_background(server: RunningServer, path: str, body: dict[str, Any]) -> tuple[threading.Thread, list[Reply]]:
    """Send a request from a thread. Its answer is in the list when the thread has ended."""
    replies = list[Reply]()

    def send() -> None:
        with server.client(timeout_s=SAFETY_S) as client:
            replies.append(client.post(path, body))

    thread = threading.Thread(target=send)
    thread.start()
    return thread, replies


def workers(dsn: str) -> list[int]:
    """Return the process ids of the sessions with locked accounts."""
    query = "SELECT DISTINCT pid FROM pg_locks WHERE relation = 'holders'::regclass AND mode = 'RowShareLock'"
    with psycopg.connect(dsn, autocommit=True) as db:
        return [pid for (pid,) in db.execute(query)]


def terminate(dsn: str, pid: int) -> None:
    """Terminate a session and wait for its end."""
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("SELECT pg_terminate_backend(%s)", [pid])
        end = monotonic() + SAFETY_S
        while db.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall() and monotonic() < end:
            sleep(0.01)


def approve(client: Client, card: api_fixtures.Card, token: str) -> None:
    """Make a purchase and assert its approval."""
    reply = client.post("/simulate/authorization", api_fixtures.purchase(card.token, 100, token))
    assert reply.json["transaction"]["response"]["code"] == "0000", reply.text


def test_a_message_that_was_refused_is_never_decided(hasty: RunningServer, migrated_postgres_url: str) -> None:
    """A purchase gets 503 while another session holds the account's lock, and is not booked after the lock is released."""
    client = hasty.client(timeout_s=SAFETY_S)
    card = api_fixtures.build(client, 1)[0]
    approve(client, card, "first")
    with psycopg.connect(migrated_postgres_url) as other:
        other.execute("SELECT id FROM holders FOR NO KEY UPDATE")
        reply = client.post("/simulate/authorization", api_fixtures.purchase(card.token, 100, "refused"))
        assert (reply.status, reply.json["error_code"]) == (503, "503001"), reply.text
        assert client.get("/healthz").status == 200
        update = client.put(f"/users/{card.user}", {"first_name": "Ann"})
        assert (update.status, update.json["error_code"]) == (503, "503001"), update.text
        assert client.get(f"/users/{card.user}").status == 200, "a read waits for a lock"
        other.rollback()
    assert client.get("/transactions/refused").status == 404
    approve(client, card, "second")
    assert client.get("/transactions/refused").status == 404
    assert "first_name" not in client.get(f"/users/{card.user}").json
    approve(client, card, "refused")
    client.close()


def test_a_session_that_ends_before_commit_costs_nothing(
    server: RunningServer, client: Client, failpoints: Failpoints, migrated_postgres_url: str
) -> None:
    """If the session ends before COMMIT, the batch runs again on a new connection and the purchase is approved once."""
    card = api_fixtures.build(client, 1)[0]
    failpoints.arm("commit.before", "pause")
    thread, replies = in_background(server, "/simulate/authorization", api_fixtures.purchase(card.token, 100, "cut"))
    assert failpoints.wait("commit.before")
    (pid,) = workers(migrated_postgres_url)
    terminate(migrated_postgres_url, pid)
    failpoints.release("commit.before")
    thread.join(SAFETY_S)
    assert replies[0].json["transaction"]["response"]["code"] == "0000", replies[0].text
    expect_once(client, "cut", card, replies[0])


def test_a_commit_that_was_cut_is_looked_up(
    server: RunningServer, client: Client, failpoints: Failpoints, migrated_postgres_url: str
) -> None:
    """If the session ends inside COMMIT, the look-up finds no commit, and the batch runs again with one effect."""
    card = api_fixtures.build(client, 1)[0]
    failpoints.arm("commit.before", "pause")
    thread, replies = in_background(server, "/simulate/authorization", api_fixtures.purchase(card.token, 100, "doubt"))
    assert failpoints.wait("commit.before")
    (pid,) = workers(migrated_postgres_url)
    with psycopg.connect(migrated_postgres_url, autocommit=True) as admin:
        # The trigger runs inside COMMIT and waits for the lock that this test holds.
        admin.execute("SELECT pg_advisory_lock(1)")
        admin.execute(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM set_config(''lock_timeout'', ''0'', true); PERFORM pg_advisory_lock_shared(1); RETURN NULL; END'"
        )
        admin.execute(
            "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON journal DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION hold()"
        )
        failpoints.release("commit.before")
        wait_until_it_waits(admin, pid)
        terminate(migrated_postgres_url, pid)
        admin.execute("DROP TRIGGER hold ON journal")
        admin.execute("SELECT pg_advisory_unlock(1)")
    thread.join(SAFETY_S)
    assert replies[0].status == 201, replies[0].text
    expect_once(client, "doubt", card, replies[0])


def test_a_commit_without_an_answer_is_looked_up(failpoints: Failpoints, migrated_postgres_url: str) -> None:
    """If the answer to COMMIT is lost, the look-up on a new connection finds the commit, and the client gets its answer."""
    port = urlsplit(migrated_postgres_url).port
    assert port is not None
    with Proxy(port) as proxy:
        through = migrated_postgres_url.replace(f":{port}/", f":{proxy.port}/")
        with RunningServer(db=through, env=failpoints.environment) as server, server.client(timeout_s=SAFETY_S) as client:
            card = api_fixtures.build(client, 1)[0]
            failpoints.arm("commit.before", "pause")
            thread, replies = in_background(server, "/simulate/authorization", api_fixtures.purchase(card.token, 100, "booked"))
            assert failpoints.wait("commit.before")
            proxy.mute()
            failpoints.release("commit.before")
            with psycopg.connect(migrated_postgres_url, autocommit=True) as admin:
                end = monotonic() + SAFETY_S
                while not admin.execute("SELECT 1 FROM message_tokens WHERE token = 'booked'").fetchall() and monotonic() < end:
                    sleep(0.01)
            proxy.cut()
            thread.join(SAFETY_S)
            assert replies[0].status == 201, replies[0].text
            expect_once(client, "booked", card, replies[0])


def wait_until_it_waits(admin: "psycopg.Connection", pid: int) -> None:
    """Wait until the session waits for a lock."""
    end = monotonic() + SAFETY_S
    waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    while not admin.execute(waits, [pid]).fetchall() and monotonic() < end:
        sleep(0.01)


def expect_once(client: Client, token: str, card: api_fixtures.Card, first: Reply) -> None:
    """Assert that a request had one effect, and that its replay gets the first answer."""
    assert client.get(f"/transactions/{token}").json == first.json["transaction"]
    again = client.post("/simulate/authorization", api_fixtures.purchase(card.token, 100, token))
    assert again.json["transaction"] == first.json["transaction"]
    assert client.get("/transactions", query={"type": "authorization"}).json["count"] == 1
