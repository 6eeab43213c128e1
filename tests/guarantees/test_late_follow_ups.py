"""Late follow-ups: they find an earlier transaction that is in no cache, as after a restart or some days later."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarantees.test_sqlite_writer import writer_of
from tests.support.databases import chosen_databases, migrated_database, migrated_file
from tests.support.server import RunningServer
from tests.support.shop import Shop

CHOSEN = "till-7/2035-06-01/42"
UNKNOWN = "01e0a1f0-9280-7eee-8000-000002748374"


@pytest.fixture(params=chosen_databases())
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with migrated_database(request.param, request, tmp_path) as database_address:
        yield database_address


def test_after_a_restart(address: str) -> None:
    """After a restart a clearing finds a purchase or its advice by a generated or a chosen token, and only in its program."""
    with RunningServer(db=address) as server:
        shop, other = Shop(server), Shop(server)
        unchosen = shop.buy(10)
        chosen = shop.buy(20, transaction_options={"transaction_token": CHOSEN})
        lowered = shop.follow("authorization/advice", shop.buy(30), 25)
        lowered_chosen = shop.follow(
            "authorization/advice", shop.buy(40, transaction_options={"transaction_token": "root"}), 35,
            transaction_options={"transaction_token": "advice"},
        )  # fmt: skip
        assert (chosen["token"], lowered_chosen["token"]) == (CHOSEN, "advice")
        server.stop()
        server.start()
        shop.client, other.client = shop.connect(), other.connect()
        named = [(unchosen, 10), (chosen, 20), (lowered, 25), (lowered_chosen, 35)]
        # The other program has none of them, and gets 404 before and after the right program has found the purchase.
        for purchase, amount in named:
            assert other.simulate("clearing", original_transaction_token=purchase["token"], amount=1).status == 404
            cleared = shop.follow("clearing", purchase, amount)
            assert (cleared["state"], cleared["amount"], cleared["card_token"]) == ("COMPLETION", amount, "jit")
            assert other.simulate("clearing", original_transaction_token=purchase["token"], amount=1).status == 404
        assert shop.simulate("clearing", original_transaction_token=UNKNOWN, amount=1).status == 404
        balance = shop.get("/balances/ana")["gpa"]
        assert (balance["ledger_balance"], balance["pending_credits"]) == (0, 0)


def test_without_the_process_that_reads(tmp_path: Path) -> None:
    """After a kill of SQLite's writer process, a reversal may get 503 and then succeeds, without a purchase before it."""
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db")) as server:
        shop = Shop(server)
        late = shop.buy(10, transaction_options={"transaction_token": CHOSEN})
        writer = writer_of(server)
        assert writer is not None
        os.kill(writer, signal.SIGKILL)
        body = {"original_transaction_token": late["token"], "amount": 10}
        tries = [shop.simulate("reversal", **body).status for _ in range(4)]
        assert tries[-1] == 201, tries
        assert set(tries[: tries.index(201)]) <= {503}, tries
        assert set(tries[tries.index(201) :]) == {201}, tries
