"""State changes: a change, its transition and its event are one commit, by the rows, after a kill, and with two processes."""

from collections import Counter
from http.client import RemoteDisconnected
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, column, select

from cardwright.core.movements import Deposit
from cardwright.engine.scheduler import DUE_MAX
from cardwright.outbox.events import BATCH_MAX, Category
from cardwright.outbox.render import TRANSITIONS
from cardwright.storage.tables import outbox, transactions, webhooks
from tests.support.failpoints import Failpoints
from tests.support.in_process_platform import InProcessPlatform, card_request, movement_request, new_platform
from tests.support.instants import NOON
from tests.support.issuing import read_of
from tests.support.receiver import Receiver, a_receiver
from tests.support.register import Register
from tests.support.server import RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until

TODAY, FRIDAY = "2035-06-01T09:00:00Z", "2035-06-08T00:00:00Z"


# --- One database transaction --------------------------------------------------------------


def subscribe(platform: InProcessPlatform) -> None:
    """Insert a webhook for all events. This platform delivers nothing, so the rows of the outbox stay unchanged."""
    row = {
        "program_id": platform.program_id, "token": "hook", "request_hash": b"", "created_ms": NOON, "modified_ms": NOON,
        "doc": '{"events":["*"]}', "active": True, "sealed": b"",
    }  # fmt: skip
    with platform.database.write() as db:
        db.execute(webhooks.insert().values(row))


def change_everything(platform: InProcessPlatform) -> None:
    """Make a change of each category, by actions of resources and by the engine."""
    platform.make("fundingsources/program", token="source", name="Source")
    config = {"jit_funding": {"program_funding_source": {"enabled": True, "funding_source_token": "source"}}}
    platform.make("cardproducts", token="product", name="Product", start_date="2025-01-01", config=config)
    platform.make("users", token="ana")
    platform.make("cards", token="card", user_token="ana", card_product_token="product")
    platform.make("cardtransitions", card_token="card", state="ACTIVE", channel="API")
    platform.make("depositaccounts", token="account", user_token="ana")
    echoed = {"user_token": "ana", "direct_deposit_account_token": "account"}
    days = {"at once": 0, "later": 10**14}
    arrived = [
        movement_request(platform, Deposit, ["ana"], 60, seed=number, token=token, settles_ms=day, is_credit=True, echoed=echoed)
        for number, (token, day) in enumerate(days.items())
    ]
    platform.run([[card_request(platform, "card", 100, seed=9), *arrived]])


def writers_of(db: Connection, category: Category, refs: list[Any]) -> set[int]:
    """Return the ids of the PostgreSQL transactions that wrote the objects of a notification."""
    xmin: Any = column("xmin")
    if category is Category.TRANSACTION:
        query = select(xmin).select_from(transactions).where(transactions.c.id.in_(refs))
    else:
        table, condition = TRANSITIONS[category]
        query = select(xmin).select_from(table).where(condition, table.c.token.in_(refs))
    writers = db.scalars(query).all()
    assert len(writers) == len(refs)
    return {int(writer) for writer in writers}


def test_event_is_written_by_the_transaction_that_writes_the_change(migrated_postgres_url: str) -> None:
    """For each category, the object and the row of the outbox have the same PostgreSQL transaction id (xmin)."""
    with new_platform(migrated_postgres_url) as platform:
        subscribe(platform)
        change_everything(platform)
        with platform.database.read() as db:
            xmin: Any = column("xmin")
            rows = db.execute(select(outbox.c.category, outbox.c.refs, xmin)).all()
            events = [(Category(row.category), msgspec.json.decode(row.refs), int(row.xmin)) for row in rows]
            assert {category for category, _, _ in events} == set(Category)
            for category, refs, writer in events:
                assert writers_of(db, category, refs) == {writer}, (category, refs)


# --- Killed process ------------------------------------------------------------------------


class Payroll(Shop):
    """A shop whose user ``bo`` gets deposits."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.number = self.make("depositaccounts", token="bos", user_token="bo")["account_number"]

    def send(self, token: str, day: str = FRIDAY) -> None:
        """Simulate a pending deposit of 1.00."""
        body = {"account_number": self.number, "amount": 1, "type": "CREDIT", "settlement_date": day, "token": token}
        read_of(self.simulate("directdeposits", **body))


def transitions_in(receiver: Receiver) -> Counter[tuple[str, str]]:
    """Return the number of received direct deposit transitions by deposit and state."""
    arrays = (body.get(Category.DEPOSIT.array, []) for body in receiver.json())
    return Counter((transition["direct_deposit_token"], transition["state"]) for array in arrays for transition in array)


@pytest.mark.parametrize("moment", ["commit.before", "commit.after"])
def test_a_kill_loses_neither_change_nor_event(migrated_url: str, moment: str) -> None:
    """A kill right before or after the commit that applies a due deposit loses neither the change nor its notification."""
    with (
        Failpoints() as failpoints,
        a_receiver() as receiver,
        RunningServer(db=migrated_url, env=failpoints.environment) as server,
    ):
        payroll = Payroll(server)
        config = {"url": receiver.url, "basic_auth_username": "harbor", "basic_auth_password": "Harb0r-Hook-Passw0rd!"}
        payroll.make("webhooks", name="hook", events=["directdeposittransition.*"], config=config)
        payroll.send("wage")
        until(lambda: transitions_in(receiver)["wage", "PENDING"])
        failpoints.arm(moment, "kill")
        # The request gets no answer, because it applies the deposit.
        with pytest.raises(RemoteDisconnected):
            payroll.clock(FRIDAY)
        server.kill()
        failpoints.disarm()
        server.start()
        payroll.client = payroll.connect()
        until(lambda: transitions_in(receiver)["wage", "APPLIED"])
        (applied,) = payroll.listed("/directdeposits/transitions", direct_deposit_token="wage", states="APPLIED")
        assert (applied["channel"], payroll.money("bo")) == ("SYSTEM", (1, 1))
        tokens = {
            transition["token"]
            for body in receiver.json()
            for transition in body[Category.DEPOSIT.array]
            if transition["state"] == "APPLIED"
        }
        assert tokens == {applied["token"]}


# --- Many changes, and two processes --------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_many_changes_at_one_time_send_one_event_each(migrated_postgres_url: str, workers: int) -> None:
    """DUE_MAX + 5 deposits of one day are each applied once and reported once, at most BATCH_MAX in a notification."""
    with RunningServer(db=migrated_postgres_url, workers=workers) as server:
        payroll, count = Payroll(server), DUE_MAX + 5
        register = Register(payroll.client, server.root_url, payroll.program["token"], ["directdeposittransition.state.applied"])
        for number in range(count):
            payroll.send(f"wage{number}")
        payroll.clock(FRIDAY)
        # The request times out after five seconds, and the timers apply the rest.
        until(lambda: payroll.money("bo") == (count, count))
        expected = {(f"wage{number}", state): 1 for number in range(count) for state in ("PENDING", "APPLIED")}
        elements = [arrival.element for arrival in register.arrivals("everything") if arrival.category is Category.DEPOSIT]
        assert Counter((element["direct_deposit_token"], element["state"]) for element in elements) == expected
        assert max(len(array) for body in register.messages("everything") for array in body.values()) <= BATCH_MAX
