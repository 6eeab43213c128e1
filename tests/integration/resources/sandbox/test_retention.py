"""Retention on both databases: rows removed after the retention time, their metrics, and the bounds of the setting."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Connection, Table, func, select, update

from cardwright.edges.cli.commands import settings_from
from cardwright.edges.cli.output import Failure
from cardwright.kit.clock import DAY_MS, system_ms
from cardwright.outbox.events import Delivery
from cardwright.storage.database import Database
from cardwright.storage.tables import backtest_flips, backtests, inbox_messages, outbox
from tests.support.databases import check_books
from tests.support.server import RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until, until_all_are_delivered

DAYS = 2


@pytest.fixture
def server(migrated_url: str) -> Iterator[RunningServer]:
    """Yield a server with a retention time of two days."""
    with RunningServer(db=migrated_url, env={"CARDWRIGHT_RETENTION_DAYS": str(DAYS)}) as server:
        yield server


def counts(db: Connection) -> dict[str, int]:
    """Return the number of rows of each table that retention removes rows from."""
    tables: tuple[Table, ...] = (outbox, inbox_messages, backtest_flips, backtests)
    return {table.name: db.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def removed(server: RunningServer) -> dict[str, int]:
    """Return the counters of removed rows from ``/metrics``."""
    with server.client() as client:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("cardwright_removed_rows_total{")]
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}


def run_backtest(shop: Shop, token: str) -> None:
    """Run a backtest that declines every purchase."""
    change = {"velocity_controls": {"change": [{"token": "day", "amount_limit": 1}]}}
    assert shop.client.post("/sandbox/backtests", {"token": token, **change}).status == 201
    until(lambda: shop.get(f"/sandbox/backtests/{token}")["state"] == "DONE", 60)


def test_rows_past_the_retention_time_are_removed(server: RunningServer, migrated_url: str) -> None:
    """Deliveries, inbox messages and backtests past the retention time are removed. Younger ones and the books stay."""
    started_ms = system_ms()
    shop = Shop(server)
    config = {"url": f"{server.root_url}/sandbox/inbox/{shop.program['token']}/box"}
    config |= {"basic_auth_username": "harbor_user", "basic_auth_password": "Harb0r-Hook-Passw0rd!"}
    shop.make("webhooks", name="box", events=["*"], config=config)
    shop.make("velocitycontrols", token="day", amount_limit=100, velocity_window="DAY", currency_code="USD")
    shop.buy(30)
    shop.buy(40)
    for token in ("old", "young"):
        run_backtest(shop, token)
    until_all_are_delivered(shop.client)
    transactions = shop.listed()
    server.stop()

    with closing(Database(migrated_url)) as database, database.write() as db:
        assert set(db.scalars(select(outbox.c.state))) == {Delivery.DELIVERED}
        assert all(started_ms <= ended_ms <= system_ms() for ended_ms in db.scalars(select(backtests.c.lease_ms)))
        before, by_ms = counts(db), (DAYS + 1) * DAY_MS
        # Age the first row of the outbox, of the inbox and of the backtests.
        for table, column in ((outbox, "due_ms"), (inbox_messages, "stored_ms"), (backtests, "lease_ms")):
            first = db.scalar(select(func.min(table.c.id)))
            older = update(table).where(table.c.id == first).values({column: table.c[column] - by_ms})
            assert db.execute(older).rowcount == 1

    server.start()
    gone = {"outbox": 1, "inbox_messages": 1, "backtest_flips": 2, "backtests": 1}
    until(lambda: removed(server) == gone, 60)
    shop.client = shop.connect()
    states = [shop.client.get(f"/sandbox/backtests/{token}").status for token in ("old", "young")]
    assert states == [404, 200]
    assert len(shop.listed("/sandbox/backtests/young/flips")) == 2
    assert len(shop.listed("/sandbox/deliveries")) == before["outbox"] - 1
    assert len(shop.listed("/sandbox/inbox/box")) == before["inbox_messages"] - 1
    assert shop.listed() == transactions
    server.stop()
    with closing(Database(migrated_url)) as database:
        with database.read() as db:
            assert counts(db) == {name: count - gone[name] for name, count in before.items()}
        check_books(database)


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_retention_has_bounds(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retention time outside 1 to 3,650 days is refused with the name of the setting."""
    monkeypatch.setenv("CARDWRIGHT_RETENTION_DAYS", str(days))
    with pytest.raises(Failure, match="CARDWRIGHT_RETENTION_DAYS"):
        settings_from()
