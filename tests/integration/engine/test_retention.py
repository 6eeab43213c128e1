"""Retention on both databases: old finished rows are removed in small steps, all other rows stay, and the books balance."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import event, func, select, update
from structlog.testing import capture_logs

from cardwright.engine.retention import MESSAGES_MAX, REMOVALS, ROWS_MAX, Retention, remove_some
from cardwright.kit.clock import DAY_MS, ProgramClock
from cardwright.outbox.delivery_queue import DeliveryAttempt, RetryRules, claim, find_work, record
from cardwright.outbox.events import Category, Delivery, Target, outbox_row
from cardwright.outbox.room import Endpoints
from cardwright.resources.sandbox import webhook_inbox
from cardwright.storage.backtests import DONE, FAILED, QUEUED, RUNNING
from cardwright.storage.database import Database
from cardwright.storage.programs import set_clock
from cardwright.storage.tables import backtest_flips, backtests, inbox_messages, metadata, outbox
from tests.support.databases import check_books
from tests.support.in_process_platform import InProcessPlatform, card_request, new_platform
from tests.support.instants import NOON
from tests.support.waiting import until

DAYS = 30
REMOVED = {"outbox", "inbox_messages", "backtests", "backtest_flips"}
"""The tables from which rows are removed."""


@pytest.fixture
def platform(migrated_url: str) -> Iterator[InProcessPlatform]:
    with new_platform(migrated_url) as platform:
        yield platform


def remove_all(database: Database, real_ms: int) -> None:
    """Run one whole round at an instant of real time."""
    with ThreadPoolExecutor(1) as executor:
        asyncio.run(Retention(database, lambda: real_ms, executor, DAYS).remove_all())


def insert_notifications(platform: InProcessPlatform, state: Delivery, count: int, due_ms: int) -> None:
    """Insert notifications without content, with a state and a due time."""
    row = outbox_row(platform.program_id, NOON, Category.TRANSACTION, [], target=Target(-7, b"sealed"))
    with platform.database.write() as db:
        db.execute(outbox.insert(), [{**row, "state": int(state), "due_ms": due_ms}] * count)


def insert_backtest(platform: InProcessPlatform, token: str, state: str, lease_ms: int, flips: int = 0) -> None:
    """Insert a backtest with flips."""
    row = {
        "program_id": platform.program_id, "token": token, "request_hash": b"", "created_ms": 0, "modified_ms": 0, "doc": "{}",
        "state": state, "job": "{}", "cursor": 0, "sums": "{}", "lease_ms": lease_ms,
    }  # fmt: skip
    with platform.database.write() as db:
        key = db.execute(backtests.insert().values(row)).inserted_primary_key
        assert key is not None
        rows = [
            {"program_id": platform.program_id, "backtest_id": key[0], "number": number, "doc": "{}"}
            for number in range(1, flips + 1)
        ]
        if rows:
            db.execute(backtest_flips.insert(), rows)


def post(platform: InProcessPlatform, body: bytes, real_ms: int) -> None:
    """Deliver a message to the webhook inbox at an instant of real time."""
    assert webhook_inbox.accept(platform.database, platform.app.vault, lambda: real_ms, "world", "box", [], body)


def bodies(database: Database) -> list[tuple[int, bytes]]:
    """Return id and body of the inbox messages, oldest first."""
    with database.read() as db:
        rows = db.execute(select(inbox_messages.c.id, inbox_messages.c.body).order_by(inbox_messages.c.id))
        return [(row.id, bytes(row.body)) for row in rows]


def states(database: Database) -> list[int]:
    """Return the states of all notifications."""
    with database.read() as db:
        return sorted(db.scalars(select(outbox.c.state)))


def tokens(database: Database) -> list[str]:
    """Return the tokens of all backtests."""
    with database.read() as db:
        return list(db.scalars(select(backtests.c.token).order_by(backtests.c.id)))


def count(database: Database, table: Any) -> int:
    """Return the number of rows of a table."""
    with database.read() as db:
        return db.scalar(select(func.count()).select_from(table)) or 0


# --- Age ----------------------------------------------------------------------------------


CLOCKS = [ProgramClock(40 * DAY_MS), ProgramClock(frozen_ms=NOON - 40 * DAY_MS)]
"""A clock 40 days ahead of real time, and a frozen clock 40 days behind it."""


@pytest.mark.parametrize("clock", CLOCKS, ids=["ahead", "behind"])
@pytest.mark.parametrize(("status", "state"), [(200, Delivery.DELIVERED), (None, Delivery.DEAD)])
def test_notification_ages_by_real_time(
    platform: InProcessPlatform, status: int | None, state: Delivery, clock: ProgramClock
) -> None:
    """A settled notification is removed 30 real days after its outcome and not before, independent of the program's clock."""
    insert_notifications(platform, Delivery.DUE, 1, due_ms=0)
    with platform.database.write() as db:
        set_clock(db, platform.program_id, clock)
        queues = find_work(db, NOON, None).queues
        (claimed,) = claim(db, NOON, RetryRules(), queues, Endpoints(sends_max=1, endpoint_max=1).room())
        attempt = DeliveryAttempt(claim=claimed, at_ms=NOON, status=status, is_last=status is None)
        assert record(db, NOON, RetryRules(), [attempt]) == [state]
    remove_all(platform.database, NOON + DAYS * DAY_MS)
    assert states(platform.database) == [state]
    remove_all(platform.database, NOON + DAYS * DAY_MS + 1)
    assert states(platform.database) == []


def test_notification_that_waits_stays(platform: InProcessPlatform) -> None:
    """A notification that is due or is being sent is never removed, at any age."""
    for state in Delivery:
        insert_notifications(platform, state, 1, due_ms=0)
    remove_all(platform.database, NOON)
    assert states(platform.database) == [Delivery.DUE, Delivery.SENDING]


@pytest.mark.parametrize("clock", CLOCKS, ids=["ahead", "behind"])
def test_message_ages_by_real_time(platform: InProcessPlatform, clock: ProgramClock) -> None:
    """An inbox message is removed 30 real days after its arrival and not before, independent of the program's clock."""
    with platform.database.write() as db:
        set_clock(db, platform.program_id, clock)
    for number, body in enumerate((b"old", b"new", b"newest")):
        post(platform, body, NOON + number)
    remove_all(platform.database, NOON + DAYS * DAY_MS)
    assert [body for _, body in bodies(platform.database)] == [b"old", b"new", b"newest"]
    remove_all(platform.database, NOON + DAYS * DAY_MS + 1)
    assert [body for _, body in bodies(platform.database)] == [b"new", b"newest"]


def test_ids_of_messages_never_come_again(platform: InProcessPlatform) -> None:
    """When all messages are old, the newest one still stays. The next message therefore has a higher id than all before."""
    for body in (b"1", b"2", b"3"):
        post(platform, body, NOON)
    newest = bodies(platform.database)[-1]
    remove_all(platform.database, NOON + 31 * DAY_MS)
    assert bodies(platform.database) == [newest]
    post(platform, b"4", NOON + 31 * DAY_MS)
    assert bodies(platform.database)[1][0] > newest[0]


def test_finished_backtest_goes_with_its_flips(platform: InProcessPlatform) -> None:
    """Backtests that ended more than 30 days ago are removed with all their flips. Younger and unfinished ones keep theirs."""
    old = NOON - DAYS * DAY_MS - 1
    insert_backtest(platform, "done", DONE, old, flips=2 * ROWS_MAX + 1)
    insert_backtest(platform, "failed", FAILED, old)
    insert_backtest(platform, "young", DONE, old + 1, flips=3)
    insert_backtest(platform, "runs", RUNNING, 0, flips=2)
    insert_backtest(platform, "waits", QUEUED, 0)
    remove_all(platform.database, NOON)
    assert tokens(platform.database) == ["young", "runs", "waits"]
    assert count(platform.database, backtest_flips) == 5


# --- Steps --------------------------------------------------------------------------------


def test_a_step_is_small(platform: InProcessPlatform) -> None:
    """One transaction removes at most 200 rows or 5 messages. The steps together remove all old rows."""
    insert_notifications(platform, Delivery.DELIVERED, 2 * ROWS_MAX + 7, due_ms=0)
    insert_backtest(platform, "done", DONE, 0, flips=ROWS_MAX + 2)
    for _ in range(MESSAGES_MAX + 2):
        post(platform, b"{}", 0)
    steps: dict[str, list[int]] = {table: [] for table in REMOVED}
    for removal in REMOVALS:
        while removed := remove_some(platform.database, removal, NOON):
            steps[removal.table.name].append(removed)
    assert steps == {
        "outbox": [ROWS_MAX, ROWS_MAX, 7], "inbox_messages": [MESSAGES_MAX, 1], "backtest_flips": [ROWS_MAX, 2], "backtests": [1],
    }  # fmt: skip


def test_removed_rows_are_counted(platform: InProcessPlatform) -> None:
    """The metric grows by the number of removed rows, by table."""
    insert_notifications(platform, Delivery.DEAD, ROWS_MAX + 3, due_ms=0)

    def counted() -> float:
        return REGISTRY.get_sample_value("cardwright_removed_rows_total", {"table": "outbox"}) or 0

    before = counted()
    remove_all(platform.database, NOON)
    assert counted() - before == ROWS_MAX + 3


def test_a_locked_row_is_passed_over(migrated_postgres_url: str) -> None:
    """A step skips rows that another process has locked, and does not wait. A later round removes them."""
    with new_platform(migrated_postgres_url) as platform:
        insert_notifications(platform, Delivery.DELIVERED, 3, due_ms=0)
        post(platform, b"1", 0)
        post(platform, b"2", 0)
        insert_backtest(platform, "done", DONE, 0, flips=3)
        lowest = {table: select(func.min(table.c.id)).scalar_subquery() for table in (outbox, inbox_messages, backtests)}
        locks = [select(table.c.id).where(table.c.id == key).with_for_update() for table, key in lowest.items()]
        locks.append(select(backtest_flips.c.number).where(backtest_flips.c.number == 2).with_for_update())
        with ThreadPoolExecutor(1) as executor, platform.database.write() as other:
            for lock in locks:
                assert len(other.execute(lock).all()) == 1
            # The locks are released after all steps. A step that waited for a lock would therefore not end.
            removing = [executor.submit(remove_some, platform.database, removal, NOON) for removal in REMOVALS]
            assert [future.result(30) for future in removing] == [2, 0, 0, 2, 0]
        remove_all(platform.database, NOON)
        assert (count(platform.database, outbox), count(platform.database, backtest_flips), tokens(platform.database)) == (
            0,
            0,
            [],
        )
        assert [body for _, body in bodies(platform.database)] == [b"2"]


def test_two_processes_remove_together(migrated_postgres_url: str) -> None:
    """Two processes that remove rows at the same time remove each row once, and neither fails."""
    with new_platform(migrated_postgres_url) as platform:
        insert_notifications(platform, Delivery.DELIVERED, 5 * ROWS_MAX, due_ms=0)
        insert_backtest(platform, "done", DONE, 0, flips=5 * ROWS_MAX)
        databases, together = [Database(migrated_postgres_url) for _ in range(2)], threading.Barrier(2)

        def remove(database: Database) -> int:
            together.wait(30)
            removed = 0
            for removal in REMOVALS:
                while some := remove_some(database, removal, NOON):
                    removed += some
            return removed

        with ThreadPoolExecutor(2) as executor:
            removed = sum(executor.map(remove, databases))
        for database in databases:
            database.close()
        # A process that finds every old row locked ends its round. The next round finds these rows removed.
        remove_all(platform.database, NOON)
        assert removed == 10 * ROWS_MAX + 1
        assert tokens(platform.database) == []


# --- Rows that stay -----------------------------------------------------------------------


def make_purchases(platform: InProcessPlatform) -> None:
    """Create two cards and purchases with and without a chosen token. One purchase names a webhook address."""
    platform.make("fundingsources/program", token="source", name="Source")
    funding = {"program_funding_source": {"enabled": True, "funding_source_token": "source"}}
    config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": funding}
    platform.make("cardproducts", token="product", name="Product", start_date="2025-01-01", config=config)
    for name in ("ana", "ben"):
        platform.make("users", token=name)
        platform.make("cards", token=f"{name}_card", user_token=name, card_product_token="product")
    batch = [card_request(platform, "ana_card", 100, seed=1, token="chosen"), card_request(platform, "ben_card", 100, seed=2)]
    batch.append(card_request(platform, "ana_card", 100, seed=3)._replace(inline_target=Target(-7, b"sealed")))
    platform.run([batch])


def dump(database: Database) -> dict[str, list[str]]:
    """Return every row of every table, as text."""
    with database.read() as db:
        return {table.name: sorted(map(repr, db.execute(select(table)).all())) for table in metadata.sorted_tables}


def test_everything_else_stays(platform: InProcessPlatform) -> None:
    """After all removable rows are removed, every other table is unchanged, and the books balance."""
    make_purchases(platform)
    with platform.database.write() as db:
        assert db.execute(update(outbox).values(state=int(Delivery.DELIVERED), due_ms=NOON)).rowcount == 1
    insert_backtest(platform, "done", DONE, NOON, flips=1)
    post(platform, b"{}", NOON)
    post(platform, b"{}", NOON)
    before = dump(platform.database)
    assert all(before[name] for name in (*REMOVED, "transactions", "journal", "message_tokens", "config_history", "holders"))
    remove_all(platform.database, NOON + 3650 * DAY_MS)
    after = dump(platform.database)
    assert {name for name in before if before[name] != after[name]} == REMOVED
    check_books(platform.database)


# --- The loop -----------------------------------------------------------------------------


@contextmanager
def running(database: Database, real_ms: int) -> Iterator[None]:
    """Run the loop in a thread, with 10 ms between rounds. It must end when it is stopped."""
    with ThreadPoolExecutor(2) as executor:
        started: list[tuple[asyncio.AbstractEventLoop, Retention]] = []

        async def run() -> None:
            retention = Retention(database, lambda: real_ms, executor, DAYS, round_s=0.01)
            started.append((asyncio.get_running_loop(), retention))
            await retention.run()

        ended = executor.submit(asyncio.run, run())
        loop, retention = until(lambda: started and started[0])
        try:
            yield
        finally:
            loop.call_soon_threadsafe(retention.stop)
            ended.result(30)


def test_loop_survives_a_database_that_is_away(migrated_postgres_url: str) -> None:
    """While the database refuses connections, each round logs one debug line. Afterwards the loop removes the old rows."""
    name = migrated_postgres_url.rpartition("/")[2]
    with (
        new_platform(migrated_postgres_url) as platform,
        psycopg.connect(f"{migrated_postgres_url.rpartition('/')[0]}/postgres", autocommit=True) as db,
    ):
        insert_notifications(platform, Delivery.DELIVERED, 3, due_ms=0)
        platform.database.engine.dispose()
        db.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        with capture_logs() as lines, running(platform.database, NOON):
            until(lambda: len(lines) >= 3)
            db.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            until(lambda: states(platform.database) == [])
        assert {(line["log_level"], "exc_info" in line) for line in lines} == {("debug", False)}


def test_loop_stops_between_two_steps(platform: InProcessPlatform) -> None:
    """A stop during the first step ends the loop after that step, although there is more to remove."""
    insert_notifications(platform, Delivery.DELIVERED, 2 * ROWS_MAX, due_ms=0)

    async def run(executor: ThreadPoolExecutor) -> None:
        loop, retention = asyncio.get_running_loop(), Retention(platform.database, lambda: NOON, executor, DAYS)

        def stop(_: object) -> None:
            loop.call_soon_threadsafe(retention.stop)

        event.listen(platform.database.engine, "commit", stop)
        await retention.run()
        event.remove(platform.database.engine, "commit", stop)

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(run(executor))
    assert count(platform.database, outbox) == ROWS_MAX
