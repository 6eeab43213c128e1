"""Delivery to real receivers, on both databases: at least once, identical bytes, and no waits for slow endpoints."""

import asyncio
import hmac
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, select, update

from cardwright.kit.clock import ProgramClock, iso_ms, monotonic_ms, system_ms
from cardwright.kit.guard import OutgoingPolicy
from cardwright.kit.vault import MasterKey, Vault
from cardwright.outbox.client import GuardedClient
from cardwright.outbox.deliver import Deliverer
from cardwright.outbox.delivery_queue import LEASE_MARGIN_MS, RetryRules
from cardwright.outbox.endpoint import Endpoint, endpoint_id_of, seal_webhook
from cardwright.outbox.events import Category, Delivery, Target, outbox_row
from cardwright.storage.database import Database
from cardwright.storage.envelopes import TARGET_CONTEXT
from cardwright.storage.programs import ProgramSettings, insert_program, set_clock
from cardwright.storage.tables import outbox, webhooks
from tests.support.failpoints import Failpoints
from tests.support.receiver import a_receiver
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
VAULT = Vault(MasterKey(bytes(range(32))).derived_keys)
PASSWORD = "Harb0r-Hook-Passw0rd!"
SECRET = "Quiet-Harbor_7421!Lantern"
PATIENT = RetryRules(timeout_ms=600_000)
"""Rules under which no answered post reaches its timeout, even on a slow machine."""

GONE = 4711
"""The id of a webhook that does not exist."""


# --- The store and the deliverer ---------------------------------------------------------


def first_states(_: Connection, program_id: int, ids: list[int]) -> list[str]:
    """Return transactions as JSON. This replaces the rendering from the database."""
    return [f'{{"token":"{program_id}-{number}","type":"authorization"}}' for number in ids]


class NotificationStore:
    """A database with a program in it, webhooks, and notifications to deliver."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.program_id = self.program("mine")

    def program(self, token: str) -> int:
        parts: dict[str, Any] = {"settings": ProgramSettings(), "clock": ProgramClock(), "now": system_ms()}
        with self.database.write() as db:
            return insert_program(db, token=token, name=token, short_code="100", **parts)

    def clock(self, clock: ProgramClock) -> None:
        with self.database.write() as db:
            set_clock(db, self.program_id, clock)

    def webhook(self, url: str, *, program_id: int | None = None, active: bool = True, **fields: Any) -> int:
        program_id, token = program_id or self.program_id, f"hook-{fields.pop('name', url[-12:])}"
        endpoint = Endpoint(url=url, username="harbor", password=PASSWORD, **fields)
        config = {"url": url, "signature_algorithm": endpoint.algorithm, "custom_header": dict(endpoint.custom_header)}
        row = {
            "program_id": program_id, "token": token, "request_hash": b"", "created_ms": 0, "modified_ms": 0, "active": active,
            "doc": msgspec.json.encode({"config": config}).decode(),
            "sealed": seal_webhook(VAULT, program_id, token, endpoint),
        }  # fmt: skip
        with self.database.write() as db:
            key = db.execute(webhooks.insert().values(row)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def notify(self, webhook_id: int | None, *refs: int, now: int | None = None, program_id: int | None = None) -> None:
        rows = [
            outbox_row(
                program_id or self.program_id, system_ms() if now is None else now, Category.TRANSACTION, [ref],
                webhook_id=webhook_id,
            )
            for ref in refs
        ]  # fmt: skip
        with self.database.write() as db:
            db.execute(outbox.insert(), rows)

    def notify_inline(self, ref: int, **target: str) -> None:
        sealed = VAULT.seal(msgspec.json.encode(target).decode(), TARGET_CONTEXT)
        target_of_row = Target(endpoint_id_of(self.program_id, target["endpoint"]), sealed)
        row = outbox_row(self.program_id, system_ms(), Category.TRANSACTION, [ref], target=target_of_row)
        with self.database.write() as db:
            db.execute(outbox.insert().values(row))

    def rows(self) -> list[Any]:
        with self.database.read() as db:
            return list(db.execute(select(outbox).order_by(outbox.c.id)))

    def states(self) -> list[int]:
        return [row.state for row in self.rows()]

    def wait_for_a_look(self) -> None:
        """Wait until a deliverer has claimed all rows that were due before the call.

        The row that is inserted here has an unknown webhook. Its claim sets it to DEAD, and it is removed.
        """
        self.notify(GONE, 0, now=0)
        until(lambda: [row.state for row in self.rows() if row.webhook_id == GONE] == [Delivery.DEAD])
        with self.database.write() as db:
            db.execute(outbox.delete().where(outbox.c.webhook_id == GONE))

    def attempts(self) -> list[dict[str, Any]]:
        """Return the attempts of the only row."""
        (row,) = self.rows()
        return msgspec.json.decode(row.attempts, type=list[dict[str, Any]])


@pytest.fixture
def store(migrated_url: str) -> Iterator[NotificationStore]:
    database = Database(migrated_url)
    try:
        yield NotificationStore(database)
    finally:
        database.close()


@contextmanager
def delivering(
    database: Database, rules: RetryRules = PATIENT, real_clock: Callable[[], int] = system_ms, **limits: int
) -> Iterator[Deliverer]:
    """Run a deliverer in an event loop of a separate thread, and stop it at the end."""
    started = threading.Event()
    deliverers: list[Deliverer] = []

    async def story() -> None:
        client = GuardedClient(OutgoingPolicy.sandbox(), monotonic_ms)
        deliverer = Deliverer(database, VAULT, client, real_clock, rules, first_states, threads, **{"poll_ms": 20, **limits})
        deliverers.append(deliverer)
        started.set()
        await deliverer.run()
        await client.close()

    with ThreadPoolExecutor(1) as threads:
        thread = threading.Thread(target=asyncio.run, args=(story(),))
        thread.start()
        assert started.wait(60)
        try:
            yield deliverers[0]
        finally:
            deliverers[0].stop()
            thread.join(60)
            assert not thread.is_alive(), "the deliverer did not stop"


# --- Content of a notification -----------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "digest"), [("HMAC_SHA_1", sha1), ("HMAC_SHA_256", sha256)])
def test_a_notification_arrives_signed_and_with_credentials(store: NotificationStore, algorithm: str, digest: Any) -> None:
    """A post has body, Basic credentials, a signature of the exact bytes and the custom header. Its row becomes DELIVERED."""
    with a_receiver() as receiver:
        hook = store.webhook(receiver.url, secret=SECRET, algorithm=algorithm, custom_header={"X-City": "Ávila"})
        store.notify(hook, 7)
        with delivering(store.database):
            until(lambda: store.states() == [Delivery.DELIVERED])
    headers = receiver.headers[0]
    assert receiver.bodies == [b'{"transactions":[{"token":"1-7","type":"authorization"}]}']
    assert headers["Authorization"] == "Basic aGFyYm9yOkhhcmIwci1Ib29rLVBhc3N3MHJkIQ=="
    assert headers["Content-Type"] == "application/json"
    assert headers["X-City"].encode("latin-1").decode() == "Ávila"
    assert headers["X-Marqeta-Signature"] == hmac.new(SECRET.encode(), receiver.bodies[0], digest).hexdigest()
    (attempt,) = store.attempts()
    assert (attempt["status"], attempt["error"], attempt["body"]) == (200, None, "thanks")


def test_without_secret_no_signature_without_user_no_credentials(store: NotificationStore) -> None:
    """A webhook of a simulation without credentials gets no Authorization header and no signature."""
    with a_receiver() as receiver:
        store.notify_inline(7, endpoint=receiver.url)
        with delivering(store.database):
            until(lambda: store.states() == [Delivery.DELIVERED])
    assert {"Authorization", "X-Marqeta-Signature"}.isdisjoint(receiver.headers[0])


def test_an_address_of_one_simulation_has_its_own_credentials(store: NotificationStore) -> None:
    """User name, password and secret of the simulation's webhook are used."""
    with a_receiver() as receiver:
        store.notify_inline(7, endpoint=receiver.url, username="u", password="p", secret="s")
        with delivering(store.database):
            until(lambda: store.states() == [Delivery.DELIVERED])
    assert receiver.headers[0]["Authorization"] == "Basic dTpw"
    assert receiver.headers[0]["X-Marqeta-Signature"] == hmac.new(b"s", receiver.bodies[0], sha1).hexdigest()


def test_a_wake_up_is_not_lost(store: NotificationStore) -> None:
    """`wake` causes delivery at once, although the next poll is a day away."""
    with a_receiver() as receiver:
        hook = store.webhook(receiver.url)
        with delivering(store.database, poll_ms=86_400_000) as deliverer:
            for number in range(1, 31):
                store.notify(hook, number)
                deliverer.wake()
                until(lambda number=number: len(receiver.bodies) == number)  # type: ignore[misc]


# --- Failures ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [201, 204, 302, 400, 404, 410, 500, 503])
def test_only_200_is_a_success(store: NotificationStore, status: int) -> None:
    """Any status but 200, also another 2xx or a redirect, is a failure that is retried four seconds later."""
    frozen = 1_700_000_000_000
    store.clock(ProgramClock(frozen_ms=frozen))
    with a_receiver(answers=[status]) as receiver:
        store.notify(store.webhook(receiver.url), 7, now=frozen)
        with delivering(store.database):
            until(lambda: store.rows()[0].tries == 1)
    (row,) = store.rows()
    assert (row.state, row.due_ms) == (Delivery.DUE, frozen + 4_000)
    (attempt,) = store.attempts()
    assert (attempt["status"], attempt["at"]) == (status, iso_ms(frozen))
    assert len(receiver.bodies) == 1


def test_retries_follow_the_program_clock(store: NotificationStore) -> None:
    """Ten retries follow 4, 16, 64 … 4^10 seconds apart by the program's clock, with identical bytes. Then the row is DEAD."""
    now = 1_700_000_000_000
    store.clock(ProgramClock(frozen_ms=now))
    with a_receiver(answers=[500] * 50) as receiver:
        store.notify(store.webhook(receiver.url, secret=SECRET), 7, now=now)
        with delivering(store.database):
            for retry in range(1, 11):
                until(lambda retry=retry: store.rows()[0].tries == retry)  # type: ignore[misc]
                assert store.rows()[0].due_ms == now + 1000 * 4**retry
                store.clock(ProgramClock(frozen_ms=now + 1000 * 4**retry - 1))
                store.wait_for_a_look()
                assert (store.states(), store.rows()[0].tries) == ([Delivery.DUE], retry), "sent a millisecond too early"
                now += 1000 * 4**retry
                store.clock(ProgramClock(frozen_ms=now))
            until(lambda: store.states() == [Delivery.DEAD])
            store.clock(ProgramClock(frozen_ms=now + 10**10))
            store.wait_for_a_look()
    assert len(receiver.bodies) == 11
    assert len(set(receiver.bodies)) == 1
    assert len({headers["X-Marqeta-Signature"] for headers in receiver.headers}) == 1
    assert len(store.attempts()) == 11


def test_an_offset_moves_due_times_too(store: NotificationStore) -> None:
    """With a clock a week ahead, a notification that is due in six days is sent now."""
    with a_receiver() as receiver:
        store.notify(store.webhook(receiver.url), 7, now=system_ms() + 6 * 86_400_000)
        with delivering(store.database):
            store.wait_for_a_look()
            assert store.states() == [Delivery.DUE]
            store.clock(ProgramClock(offset_ms=7 * 86_400_000))
            until(lambda: store.states() == [Delivery.DELIVERED])


def test_an_address_of_one_simulation_gets_three_tries(store: NotificationStore) -> None:
    """A notification to a simulation's webhook is given up after three retries."""
    with a_receiver(answers=[500] * 50) as receiver:
        store.notify_inline(7, endpoint=receiver.url)
        with delivering(store.database):
            for retry in range(1, 4):
                until(lambda retry=retry: store.rows()[0].tries == retry)  # type: ignore[misc]
                store.clock(ProgramClock(offset_ms=86_400_000 * retry))
            until(lambda: store.states() == [Delivery.DEAD])
    assert len(receiver.bodies) == 4


@pytest.mark.parametrize("active", [False, None])
def test_delivery_without_an_active_webhook_is_dead(store: NotificationStore, active: bool | None) -> None:
    """For a webhook that is not active or does not exist nothing is sent. The row is DEAD and has the reason."""
    with a_receiver() as receiver:
        store.notify(GONE if active is None else store.webhook(receiver.url, active=False), 7)
        with delivering(store.database):
            until(lambda: store.states() == [Delivery.DEAD])
    assert receiver.bodies == []
    (attempt,) = store.attempts()
    assert attempt["error"] == ("the webhook does not exist any more" if active is None else "the webhook is not active")


def test_refused_connections_and_forbidden_addresses_are_failures(store: NotificationStore) -> None:
    """A refused connection or a forbidden address is a failure: the reason is recorded and the row is due again."""
    store.notify(store.webhook("http://127.0.0.1:9/hook", name="deaf"), 1)
    store.notify(store.webhook("http://169.254.169.254/latest", name="metadata"), 2)
    with delivering(store.database):
        until(lambda: [row.tries for row in store.rows()] == [1, 1])
    errors = [msgspec.json.decode(row.attempts)[0]["error"] for row in store.rows()]
    assert errors == ["connection refused", "refused by the outgoing guard: link-local address"]
    assert store.states() == [Delivery.DUE, Delivery.DUE]


def test_a_message_that_cannot_be_made_spoils_only_itself(store: NotificationStore) -> None:
    """An unknown object or a target under another key fails only its own notification. The others are delivered."""
    with a_receiver() as receiver:
        hook, unreadable = store.webhook(receiver.url), Target(-7, b"\x01" * 60)
        with store.database.write() as db:
            db.execute(outbox.insert().values(outbox_row(store.program_id, 0, Category.CARD, ["no such"], webhook_id=hook)))
            db.execute(outbox.insert().values(outbox_row(store.program_id, 0, Category.TRANSACTION, [1], target=unreadable)))
        store.notify(hook, 7)
        with delivering(store.database):
            until(lambda: store.states() == [Delivery.DUE, Delivery.DUE, Delivery.DELIVERED])
    errors = [msgspec.json.decode(row.attempts)[0]["error"] for row in store.rows()[:2]]
    assert errors == ["the notification could not be made"] * 2


def test_no_secret_is_kept_of_an_answer(store: NotificationStore) -> None:
    """An endpoint that echoes the request leaves no password, secret, credential pair or card number in the attempts."""
    with a_receiver(echo=True, answers=[500]) as receiver:
        hook = store.webhook(receiver.url, secret=SECRET, custom_header={"A": f"{PASSWORD} {SECRET}", "B": "4111111111111111"})
        store.notify(hook, 7)
        with delivering(store.database):
            until(lambda: store.rows()[0].tries == 1)
    kept = store.rows()[0].attempts
    assert PASSWORD in receiver.headers[0]["A"], "the endpoint must receive the password"
    assert "[redacted]" in kept
    for secret in (PASSWORD, SECRET, "aGFyYm9yOkhhcmIwci1Ib29rLVBhc3N3MHJkIQ==", "4111111111111111"):
        assert secret not in kept
    assert len(store.attempts()[0]["body"]) <= 256


# --- Slow endpoints ----------------------------------------------------------------------


def test_a_hanging_endpoint_holds_up_no_other(store: NotificationStore) -> None:
    """Two hundred notifications for an endpoint that stops answering do not delay the later one for another endpoint."""
    with a_receiver() as hanging, a_receiver() as quick:
        slow, fast = store.webhook(hanging.url, name="slow"), store.webhook(quick.url, name="fast")
        store.notify(slow, 0)
        with delivering(store.database) as deliverer:
            until(lambda: store.states() == [Delivery.DELIVERED])
            hanging.holds = True
            store.notify(slow, *range(200), now=system_ms() - 60_000)
            store.notify(fast, 7)
            deliverer.wake()
            until(lambda: store.states()[-1] == Delivery.DELIVERED)
            until(lambda: hanging.under_way == 8)
            store.wait_for_a_look()
            assert store.states().count(Delivery.SENDING) == 8
            hanging.over.set()
            until(lambda: set(store.states()) == {Delivery.DELIVERED})
    assert hanging.most_at_once == 8


def test_a_silent_endpoint_is_tried_one_post_at_a_time(store: NotificationStore) -> None:
    """After a timeout an endpoint gets one post at a time, until it answers again."""
    with a_receiver() as receiver:
        hook = store.webhook(receiver.url)
        store.notify(hook, 0)
        with delivering(store.database, RetryRules(timeout_ms=300)):
            until(lambda: store.states() == [Delivery.DELIVERED])
            receiver.holds = True
            store.notify(hook, *range(20))
            until(lambda: sum(row.tries for row in store.rows()) >= 9)

            def are_more_tried() -> bool:
                rows = store.rows()
                assert [row.state for row in rows].count(Delivery.SENDING) <= 1
                return sum(row.tries for row in rows) >= 12

            until(are_more_tried)
            receiver.over.set()
            until(lambda: store.states().count(Delivery.DELIVERED) >= 10)


def test_a_backlog_of_thousands_is_drained(store: NotificationStore) -> None:
    """Two thousand notifications for one endpoint are sent exactly once if nothing fails."""
    with a_receiver() as receiver:
        store.notify(store.webhook(receiver.url), *range(2_000))
        with delivering(store.database):
            until(lambda: set(store.states()) == {Delivery.DELIVERED}, 300)
    assert len(set(receiver.bodies)) == len(receiver.bodies) == 2_000


# --- Two processes, kills and stops ------------------------------------------------------


def test_two_deliverers_send_nothing_twice(store: NotificationStore, migrated_url: str) -> None:
    """Two deliverers on one database, both woken repeatedly, send each of 500 notifications once. Both claim rows."""
    other = Database(migrated_url)
    with a_receiver(holds=True) as receiver:
        hook = store.webhook(receiver.url)
        with delivering(store.database) as first, delivering(other) as second:
            for start in range(0, 500, 10):
                store.notify(hook, *range(start, start + 10))
                first.wake()
                second.wake()
            # Each deliverer claims a row: an endpoint gets a second post only after its first answer.
            until(lambda: first._endpoints.posts.total() == second._endpoints.posts.total() == 1)
            receiver.over.set()

            def are_all_delivered() -> bool:
                first.wake()
                second.wake()
                return set(store.states()) == {Delivery.DELIVERED}

            until(are_all_delivered)
    other.close()
    assert len(set(receiver.bodies)) == len(receiver.bodies) == 500


def test_the_program_clock_does_not_end_a_claim(store: NotificationStore, migrated_url: str) -> None:
    """A second process leaves a claimed row alone, although the program's clock moves a year ahead during the post."""
    other, readings = Database(migrated_url), list[int]()

    def clock() -> int:
        readings.append(system_ms())
        return readings[-1]

    with a_receiver(holds=True) as receiver:
        store.notify(store.webhook(receiver.url), 7)
        with delivering(store.database):
            until(lambda: len(receiver.bodies) == 1)
            store.clock(ProgramClock(offset_ms=365 * 86_400_000))
            with delivering(other, real_clock=clock):
                # Each poll reads the clock once at its start, so two polls have ended.
                until(lambda: len(readings) > 2)
                assert len(receiver.bodies) == 1
                receiver.over.set()
                until(lambda: store.states() == [Delivery.DELIVERED])
    other.close()
    assert len(receiver.bodies) == 1


def deliver_in_this_process(migrated_url: str) -> None:
    """Deliver until the process is killed. The next test runs this in a child process."""
    database = Database(migrated_url)
    with delivering(database):
        threading.Event().wait()


def test_a_kill_between_send_and_mark_sends_again(store: NotificationStore, migrated_url: str) -> None:
    """After a kill between the response and its record, another process sends the same bytes when the claim ends."""
    # The frozen clock of the program must not extend the claim of the killed process.
    store.clock(ProgramClock(frozen_ms=system_ms()))
    command = "import sys; from tests.integration.outbox.test_deliver import deliver_in_this_process as run; run(sys.argv[1])"
    with a_receiver() as receiver, Failpoints() as failpoints:
        failpoints.arm("delivery.record.before", "kill")
        env = {**os.environ, **failpoints.environment}
        store.notify(store.webhook(receiver.url, secret=SECRET), 7, now=0)
        child = subprocess.run([sys.executable, "-c", command, migrated_url], cwd=ROOT, env=env, timeout=120, check=False)
        assert child.returncode == -signal.SIGKILL
        assert len(receiver.bodies) == 1
        assert store.states() == [Delivery.SENDING]
        with delivering(store.database):
            store.wait_for_a_look()
            assert store.states() == [Delivery.SENDING], "the claim must still hold"
        later = PATIENT.timeout_ms + LEASE_MARGIN_MS
        with delivering(store.database, real_clock=lambda: system_ms() + later):
            until(lambda: store.states() == [Delivery.DELIVERED])
    assert len(receiver.bodies) == 2
    assert receiver.bodies[0] == receiver.bodies[1]
    assert receiver.headers[0]["X-Marqeta-Signature"] == receiver.headers[1]["X-Marqeta-Signature"]


@pytest.mark.parametrize("status", [200, 500])
def test_lost_claim_writes_no_outcome(store: NotificationStore, status: int) -> None:
    """A response is not recorded if the row has another claim by then, as after a new claim or a reset."""
    with a_receiver(holds=True, answers=[status]) as receiver:
        store.notify(store.webhook(receiver.url), 7)
        with delivering(store.database):
            until(lambda: len(receiver.bodies) == 1)
            with store.database.write() as db:
                db.execute(update(outbox).values(due_ms=outbox.c.due_ms + 1))
            receiver.over.set()
            # The deliverer stops only after the response and its last turn.
    (row,) = store.rows()
    assert (row.state, row.tries, row.attempts) == (Delivery.SENDING, 0, "[]")


@pytest.fixture
def patient_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a limit of a stop that is longer than any response of a slow machine."""
    monkeypatch.setattr("cardwright.outbox.deliver.STOP_S", 60.0)


def end_turn(deliverer: Deliverer) -> None:
    """Wait for the end of the turn that began before the stop: it may claim rows that arrive during it."""
    assert deliverer._loop is not None
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), deliverer._loop).result(60)
    deliverer._executor.submit(int).result(60)


def test_a_stop_waits_for_answers_and_claims_nothing_more(store: NotificationStore, patient_stop: None) -> None:
    """A stop records the response of the post in progress. A later notification stays due."""
    with a_receiver(holds=True) as receiver:
        hook = store.webhook(receiver.url)
        store.notify(hook, 1)
        with delivering(store.database) as deliverer:
            until(lambda: len(receiver.bodies) == 1)
            deliverer.stop()
            end_turn(deliverer)
            store.notify(hook, 2)
            deliverer.wake()
            receiver.over.set()
    assert store.states() == [Delivery.DELIVERED, Delivery.DUE]
    assert len(receiver.bodies) == 1


def test_a_stop_has_a_time_limit(store: NotificationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A post without a response is given up after STOP_S. It is due again, because it may not have arrived."""
    monkeypatch.setattr("cardwright.outbox.deliver.STOP_S", 0.2)
    with a_receiver(holds=True) as receiver:
        store.notify(store.webhook(receiver.url), 1)
        # The stop returns although the endpoint does not answer and the timeout of the post is ten minutes.
        with delivering(store.database):
            until(lambda: len(receiver.bodies) == 1)
    assert store.states() == [Delivery.DUE]
    assert store.attempts()[0]["error"] == "Cardwright stopped before the answer came"


def test_cancelling_is_a_stop(store: NotificationStore, patient_stop: None) -> None:
    """Cancellation of the task records the response of the post in progress."""

    async def story(threads: ThreadPoolExecutor) -> None:
        client = GuardedClient(OutgoingPolicy.sandbox(), monotonic_ms)
        deliverer = Deliverer(store.database, VAULT, client, system_ms, PATIENT, first_states, threads, poll_ms=20)
        task = asyncio.create_task(deliverer.run())
        while not receiver.bodies:
            await asyncio.sleep(0.01)
        task.cancel()
        # After one turn of the loop, the cancellation has reached the task during the post.
        await asyncio.sleep(0)
        receiver.over.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.close()

    with a_receiver(holds=True) as receiver, ThreadPoolExecutor(1) as threads:
        store.notify(store.webhook(receiver.url), 1)
        asyncio.run(story(threads))
    assert store.states() == [Delivery.DELIVERED]


def test_trouble_with_the_database_is_survived(store: NotificationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome that cannot be written is kept and written when the database is back. Nothing is sent twice."""
    monkeypatch.setattr("cardwright.outbox.deliver.ERROR_PAUSE_S", 0.05)
    broken, failures = threading.Event(), list[OSError]()
    real_write = store.database.write

    def write() -> Any:
        if broken.is_set():
            failures.append(OSError("the disk is full"))
            raise failures[-1]
        return real_write()

    with a_receiver(on_request=broken.set) as receiver:
        store.notify(store.webhook(receiver.url), 1)
        with delivering(store.database):
            monkeypatch.setattr(store.database, "write", write)
            until(lambda: len(failures) >= 3)
            assert store.states() == [Delivery.SENDING]
            broken.clear()
            until(lambda: store.states() == [Delivery.DELIVERED])
    assert len(receiver.bodies) == 1


def test_idling_writes_nothing(store: NotificationStore) -> None:
    """Polling for work opens no write transaction, because others would wait for its lock."""
    store.notify(store.webhook("http://127.0.0.1:9/hook"), 1, now=system_ms() + 3_600_000)
    readings = list[int]()

    def clock() -> int:
        readings.append(system_ms())
        return readings[-1]

    # Each poll reads the clock once at its start. A poll that writes would wait, and no other would follow.
    with delivering(store.database, real_clock=clock), store.database.write():
        count = len(readings)
        until(lambda: len(readings) > count + 2)
    assert store.states() == [Delivery.DUE]
