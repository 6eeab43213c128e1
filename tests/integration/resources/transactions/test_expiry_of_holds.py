"""Expiry of holds: with a running clock, after a restart, in two processes, with a time limit, and after a reset."""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.databases import migrated_file
from tests.support.fixtures import shared_server
from tests.support.issuing import made_by
from tests.support.server import RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until

EXPIRY = "authorization.reversal.issuerexpiration"

server = shared_server()


def expired(shop: Shop, within_s: float = 10) -> dict[str, Any]:
    """Wait for the expiry of the only hold and return it."""
    (expiry,) = until(lambda: shop.listed(type=EXPIRY, state="ALL"), within_s)
    return expiry


def test_a_running_clock_is_enough(server: RunningServer) -> None:
    """With a running clock, a hold of 200 ms expires without a request."""
    shop = Shop(server, frozen=False)
    options = {"pre_auth_time_limit": "200ms"}
    visit = shop.buy(80, is_pre_auth=True, transaction_options=options)
    expiry = expired(shop)
    assert (expiry["preceding_related_transaction_token"], expiry["amount"]) == (visit["token"], 80)
    assert shop.money("ana") == (0, 0)


def test_a_hold_due_during_downtime_expires_after_the_start(tmp_path: Path) -> None:
    """If the server is killed, an open hold expires once after the restart, without a request."""
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db")) as server:
        shop = Shop(server, frozen=False)
        visit = shop.buy(80, is_pre_auth=True, transaction_options={"pre_auth_time_limit": "1s"})
        server.kill()
        server.start()
        shop.client = shop.connect()
        assert expired(shop)["preceding_related_transaction_token"] == visit["token"]


def test_two_processes_expire_each_hold_once(migrated_postgres_url: str) -> None:
    """Two processes expire each of 250 holds exactly once, and all money returns to the funding source."""
    holds = 250
    with RunningServer(db=migrated_postgres_url, workers=2) as server:
        shop = Shop(server)
        for _ in range(holds):
            made_by(shop.simulate("authorization", card_token="jit", amount=1, mid="m1"))
        for leap in ("2035-06-08T08:59:59Z", "2035-06-08T09:00:00Z", "2035-06-20T09:00:00Z"):
            shop.clock(leap)
        expiries = [*shop.listed(type=EXPIRY, state="ALL"), *shop.listed(type=EXPIRY, state="ALL", start_index=100)]
        expiries += shop.listed(type=EXPIRY, state="ALL", start_index=200)
        assert set(Counter(expiry["preceding_related_transaction_token"] for expiry in expiries).values()) == {1}
        assert len(expiries) == holds
        assert shop.money("ana") == (0, 0)


def test_bad_time_limits_name_the_field(server: RunningServer) -> None:
    """A ``pre_auth_time_limit`` that is no duration, zero or too long gets 400 with a message that names it, without a hold."""
    shop = Shop(server)
    for limit in ("soon", "0", "0s", "101", "2500h", "-1", 10**17):
        options = {"pre_auth_time_limit": limit}
        body = {"card_token": "jit", "amount": 1, "mid": "m1", "is_pre_auth": True, "transaction_options": options}
        reply = shop.simulate("authorization", **body)
        assert (reply.status, "pre_auth_time_limit" in reply.json["error_message"]) == (400, True), limit
    assert shop.money("ana") == (0, 0)
    # Without ``is_pre_auth`` the limit has no effect.
    assert shop.buy(1, transaction_options={"pre_auth_time_limit": "3h"})["state"] == "PENDING"
    shop.clock("2035-06-01T13:00:00Z")
    assert shop.money("ana") == (1, 0)


def test_a_reset_forgets_holds(server: RunningServer) -> None:
    """An open hold from before a reset does not expire."""
    shop = Shop(server)
    shop.buy(5)
    assert shop.client.post("/sandbox/reset", {}).status == 200
    reply = shop.client.post("/sandbox/clock", {"set": "2036-01-01"})
    assert reply.status == 200, reply.text
    assert shop.listed(state="ALL", start_date="2026-01-01") == []
