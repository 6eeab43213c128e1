"""Endpoints apart, with real sockets on both databases: dead endpoints and silent names delay no delivery to another one.

The posts to servers that never answer have a timeout of ten minutes. So a delivery that waited for one of them would not arrive
within the test, however slow the machine is.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import pytest

from cardwright.kit.clock import monotonic_ms, system_ms
from cardwright.kit.guard import OutgoingPolicy
from cardwright.outbox import resolver as resolver_module
from cardwright.outbox.client import GuardedClient
from cardwright.outbox.deliver import Deliverer
from cardwright.outbox.events import Delivery
from cardwright.outbox.resolver import NameResolver
from cardwright.storage.database import Database
from tests.integration.outbox.test_deliver import PATIENT, VAULT, NotificationStore, first_states
from tests.support import free_port
from tests.support.receiver import a_receiver
from tests.support.server import HOST
from tests.support.waiting import until

DEAD, SILENT_NAMES, BACKLOG = 10, 4, 50
"""Endpoints that refuse, as many that never answer, names that do not resolve, and the notifications for each of them."""


@pytest.fixture
def store(migrated_url: str) -> Iterator[NotificationStore]:
    database = Database(migrated_url)
    try:
        yield NotificationStore(database)
    finally:
        database.close()


@contextmanager
def silent_ports(count: int) -> Iterator[list[int]]:
    """Yield ports that accept connections and send nothing."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((HOST, 0))
            listener.listen(64)
        yield [listener.getsockname()[1] for listener in listeners]


class Names:
    """A system resolver in which names under .silent hang until the end of the test, and all others are the local host."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.silent: list[str] = []

    def __call__(self, host: str, *_: object, **__: object) -> list[Any]:
        if host.endswith(".silent"):
            self.silent.append(host)
            self.over.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, 0))]


@contextmanager
def delivering(database: Database, names: Names) -> Iterator[Deliverer]:
    """Run a deliverer whose client resolves names with ``names``."""
    started, deliverers = threading.Event(), list[Deliverer]()

    async def story() -> None:
        client = GuardedClient(OutgoingPolicy.sandbox(), monotonic_ms, resolver=NameResolver(names))
        deliverers.append(Deliverer(database, VAULT, client, system_ms, PATIENT, first_states, threads, poll_ms=20))
        started.set()
        await deliverers[0].run()
        await client.close()

    with ThreadPoolExecutor(1) as threads:
        thread = threading.Thread(target=asyncio.run, args=(story(),))
        thread.start()
        assert started.wait(60)
        try:
            yield deliverers[0]
        finally:
            names.over.set()
            deliverers[0].stop()
            thread.join(60)
            assert not thread.is_alive(), "the deliverer did not stop"


def attempts_at(store: NotificationStore, ids: range) -> list[Any]:
    """Return the errors of all attempts of the rows with these positions."""
    return [attempt["error"] for row in store.rows()[ids.start : ids.stop] for attempt in msgspec.json.decode(row.attempts)]


@pytest.mark.parametrize("is_inline", [True, False])
def test_dead_endpoints_and_silent_names_delay_no_delivery(
    store: NotificationStore, is_inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty dead endpoints and four silent names with an older backlog delay no delivery to one that answers.

    The time limit of a lookup is ten minutes too.
    """
    monkeypatch.setattr(resolver_module, "RESOLVE_S", 600.0)
    names = Names()
    with silent_ports(DEAD) as silent, a_receiver() as receiver, delivering(store.database, names) as deliverer:
        urls = [f"http://{HOST}:{port}/" for port in silent]
        urls += [f"http://{HOST}:{free_port()}/" for _ in range(DEAD)]
        urls += [f"http://name{number}.silent:{free_port()}/" for number in range(SILENT_NAMES)]
        for number, url in enumerate(urls):
            if is_inline:
                for ref in range(BACKLOG):
                    store.notify_inline(ref, endpoint=url)
            else:
                store.notify(store.webhook(url, name=f"dead-{number}"), *range(BACKLOG), now=system_ms() - 60_000)
        deliverer.wake()
        until(lambda: store.states().count(Delivery.SENDING) >= DEAD + SILENT_NAMES)
        good = f"http://good.example:{receiver.port}/"
        hook = None if is_inline else store.webhook(good, name="good")
        for number in range(1, 31):
            if hook is None:
                store.notify_inline(number, endpoint=good)
            else:
                store.notify(hook, number)
            deliverer.wake()
            until(lambda number=number: len(receiver.bodies) == number)  # type: ignore[misc]
        rows = store.rows()
        silent_rows = rows[: DEAD * BACKLOG]
        assert len([row for row in silent_rows if row.state == Delivery.SENDING]) == DEAD, "each silent endpoint has one post"
        assert {row.attempts for row in silent_rows} == {"[]"}
        assert len(set(names.silent)) == len(names.silent) == SILENT_NAMES
        refused = attempts_at(store, range(DEAD * BACKLOG, 2 * DEAD * BACKLOG))
        assert set(refused) == {"connection refused"}
    assert len(set(receiver.bodies)) == 30


def test_an_attempt_names_the_failed_resolution(store: NotificationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempts of a silent name have the error of the resolution, not that of the endpoint."""
    monkeypatch.setattr(resolver_module, "RESOLVE_S", 0.05)
    with delivering(store.database, Names()):
        store.notify_inline(1, endpoint="http://name.silent/")
        until(lambda: store.rows()[0].tries == 1)
    assert attempts_at(store, range(1)) == ["the name did not resolve in time"]


def test_endpoints_that_stop_answering_delay_no_other(store: NotificationStore) -> None:
    """If twenty answering endpoints stop answering at once, with many due notifications, another one is delivered to at once."""
    with ExitStack() as stack:
        dying = [stack.enter_context(a_receiver()) for _ in range(20)]
        good = stack.enter_context(a_receiver())
        deliverer = stack.enter_context(delivering(store.database, Names()))
        for receiver in (*dying, good):
            store.notify_inline(0, endpoint=receiver.url)
        until(lambda: set(store.states()) == {Delivery.DELIVERED})
        for receiver in dying:
            receiver.holds = True
        hooks = [store.webhook(receiver.url) for receiver in dying]
        for hook in hooks:
            store.notify(hook, *range(BACKLOG), now=system_ms() - 60_000)
        deliverer.wake()
        until(lambda: sum(receiver.under_way for receiver in dying) == 32 + len(dying))
        for number in range(2, 10):
            store.notify_inline(number, endpoint=good.url)
            deliverer.wake()
            until(lambda number=number: len(good.bodies) == number)  # type: ignore[misc]
        for receiver in dying:
            receiver.over.set()
        until(lambda: set(store.states()) == {Delivery.DELIVERED})
