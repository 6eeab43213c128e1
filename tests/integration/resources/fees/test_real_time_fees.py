"""Real-time fees on both databases: charges along with purchases, refunds, and the groups as a resource."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from cardwright.storage.database import Database
from cardwright.storage.tables import journal, programs
from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import made_by, problem_of, read_of
from tests.support.server import RunningServer
from tests.support.shop import Shop

USD = {"currency_code": "USD"}


class Club(Shop):
    """A shop whose two users pay 0.50 for a purchase, 10 % for a PIN debit, and 2.50 for a purchase with cash back."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.fee("half", 0.5, "authorization")
        self.fee("tenth", 10, "pindebit", type="PERCENTAGE")
        self.fee("cash", 2.5, "AUTHORIZATION.CASHBACK", category="REAL_TIME")
        self.make("realtimefeegroups", token="fees", name="Fees", fee_tokens=["half", "tenth", "cash"])
        self.make("accountholdergroups", token="members", config={"real_time_fee_group_token": "fees"})
        for user in ("ana", "bo"):
            self.put(f"users/{user}", account_holder_group_token="members")

    def fee(self, token: str, amount: Any, transaction_type: str, **fields: Any) -> None:
        """Create a real-time fee for a type of transaction."""
        attributes = {"transaction_type": transaction_type}
        self.make(
            "fees", token=token, name=token, amount=amount,
            **{"category": "REALTIME", "fee_attributes": attributes, **USD, **fields},
        )  # fmt: skip

    def put(self, path: str, **body: Any) -> None:
        """Change a resource."""
        read_of(self.client.request("PUT", f"/{path}", body))

    def order(self, amount: Any, user: str = "bo") -> None:
        """Load an account."""
        self.make("gpaorders", user_token=user, amount=amount, funding_source_token="harbor_funding", **USD)

    def debit(self, amount: Any, card: str = "jit") -> dict[str, Any]:
        """Make a PIN debit and return its transaction."""
        made = made_by(self.simulate("financial", card_token=card, amount=amount, mid="m1", card_acceptor={}))
        return dict(made["transaction"])

    def fees(self, user: str) -> list[tuple[str, str, float]]:
        """Return type, state and impacted amount of a user's fees, the oldest first."""
        listed = self.listed(user_token=user, state="ALL", sort_by="created_time")
        return [
            (transaction["type"].removeprefix("fee."), transaction["state"], transaction["gpa"]["impacted_amount"])
            for transaction in listed
            if "fee" in transaction
        ]

    def entries(self, database: Database, user: str) -> str:
        """Return the legs of the last two journal entries: that of the message, then that of the fee."""
        (last, *_) = self.listed(user_token=user, state="ALL", sort_by="-created_time")
        entries = select(journal).join(programs, programs.c.id == journal.c.program_id)
        entries = entries.where(programs.c.token == self.program["token"], journal.c.id <= int(last["identifier"]))
        newest = entries.order_by(journal.c.id.desc()).limit(2)
        with database.read() as db:
            rows = db.execute(newest)
            return ", ".join(_postings(row._mapping) for row in reversed(rows.all()))


LETTERS = {"program_funding": "f", "available": "a", "held": "h", "settlement": "s", "fees": "e"}


def _postings(row: Any) -> str:
    return " ".join(f"{letter}{row[name] / 100:g}" for name, letter in LETTERS.items() if row[name])


server = shared_server(chosen_databases())
club = program_fixture(Club)


@pytest.fixture
def database(server: RunningServer) -> Iterator[Database]:
    database = Database(server.db)
    yield database
    database.close()


def test_a_fee_waits_beside_its_purchase(club: Club, database: Database) -> None:
    """JIT Funding loads amount and fee with separate orders. The fee is held with the purchase and charged by its clearing."""
    coffee = club.buy(10)
    assert (coffee["amount"], coffee["gpa_order"]["amount"]) == (10, 10)
    assert (coffee["real_time_fee_group"]["token"], coffee["real_time_fee_group"]["fee_tokens"][0]) == ("fees", "half")
    assert club.money("ana") == (10.5, 0)
    assert club.entries(database, "ana") == "f-10 h10, f-0.5 h0.5"
    (pending,) = club.listed(type="fee.charge.pending")
    assert (pending["state"], pending["amount"], pending["polarity"]) == ("PENDING", 0.5, "PENDING_DEBIT")
    assert pending["preceding_related_transaction_token"] == coffee["token"]
    assert (pending["fee"]["token"], pending["gpa_order"]["amount"], pending["gpa_order"]["state"]) == ("half", 0.5, "PENDING")
    assert pending["real_time_fee_group"] == coffee["real_time_fee_group"]

    club.clock("2035-06-02T09:00:00Z")
    club.follow("clearing", coffee, 10)
    assert club.money("ana") == (0, 0)
    assert club.entries(database, "ana") == "h-10 s10, h-0.5 e0.5"
    (charged,) = club.listed(type="fee.charge")
    assert charged["preceding_related_transaction_token"] == pending["token"]
    assert (charged["created_time"], charged["user_transaction_time"]) == ("2035-06-02T09:00:00Z", "2035-06-01T09:00:00Z")
    assert club.get(f"/transactions/{pending['token']}")["state"] == "CLEARED"
    related = {transaction["type"] for transaction in club.listed(f"/transactions/{coffee['token']}/related")}
    assert related >= {"authorization.clearing", "fee.charge.pending", "fee.charge"}


@pytest.mark.parametrize(
    ("user", "act", "fees", "money", "entries"),
    [
        # A full reversal releases the fee, a partial one does not. An advice to 0 and the expiry of the hold release it too.
        ("ana", lambda c: c.follow("reversal", c.buy(10), 10), "charge.reversal", (0, 0), "f10 h-10, f0.5 h-0.5"),
        ("bo", lambda c: c.follow("reversal", c.buy(10, "plain"), 10), "charge.reversal", (100, 100), "a10 h-10, a0.5 h-0.5"),
        ("ana", lambda c: c.follow("reversal", c.buy(10), 4), "charge.pending", (6.5, 0), None),
        ("ana", lambda c: c.follow("authorization/advice", c.buy(10), 0), "charge.reversal", (0, 0), None),
        ("ana", lambda c: (c.buy(10), c.clock("2035-06-09T09:00:00Z")), "charge.reversal", (0, 0), "f10 h-10, f0.5 h-0.5"),
        # The first clearing charges the whole fee. Later messages change nothing.
        ("ana", lambda c: c.follow("clearing", c.buy(10), 4), "charge", (6, 0), "h-4 s4, h-0.5 e0.5"),
        ("ana", lambda c: c.follow("clearing", c.follow("reversal", c.buy(10), 10), 10), "charge.reversal", (0, 0), None),
        ("bo", lambda c: c.follow("clearing", c.buy(10, "plain"), 12), "charge", (87.5, 87.5), "a-2 h-10 s12, h-0.5 e0.5"),
        # A financial is charged at once. A full reversal returns the fee.
        ("ana", lambda c: c.debit(10), "charge", (0, 0), "f-10 s10, f-1 e1"),
        ("bo", lambda c: c.debit(9.95, "plain"), "charge", (89.05, 89.05), "a-9.95 s9.95, a-1 e1"),
        ("ana", lambda c: c.follow("reversal", c.debit(10), 10), "charge.reversal", (0, 0), "f10 s-10, f1 e-1"),
        ("ana", lambda c: c.follow("reversal", c.debit(10), 9), "charge", (0, 0), None),
        # Cash back is another transaction type with another fee.
        ("ana", lambda c: c.buy(10, cash_back_amount=5), "charge.pending", (17.5, 0), "f-15 h15, f-2.5 h2.5"),
        # The amount is 0, or the percentage rounds to 0.
        ("ana", lambda c: c.buy(0), None, (0, 0), None),
        ("ana", lambda c: c.debit(0.04), None, (0, 0), None),
    ],
)  # fmt: skip
def test_what_becomes_of_a_fee(
    club: Club, database: Database, user: str, act: Any, fees: str | None, money: tuple[float, float], entries: str | None
) -> None:
    """Each message leaves the listed last fee transaction, balances and journal entries."""
    club.order(100)
    act(club)
    listed_fees = club.fees(user)
    assert (listed_fees[-1][0] if listed_fees else None) == fees
    assert club.money(user) == money
    if entries is not None:
        assert club.entries(database, user) == entries


def test_who_cannot_pay_the_fee_cannot_pay(club: Club) -> None:
    """Without JIT Funding the account must cover amount and fee. A purchase with a fee is not approved in part."""
    club.order(10)
    refused = club.buy(9.6, "plain")
    assert (refused["state"], refused["response"]["code"], club.money("bo")) == ("DECLINED", "1016", (10, 10))
    assert "real_time_fee_group" not in refused
    decision = read_of(club.client.get(f"{club.server.root_url}/sandbox/decisions/{refused['token']}"))
    assert (decision["first_refusal"], decision["replay_agrees"]) == ("funds_are_found", True)
    funds = decision["checks"][-1]
    assert (funds["inputs"]["real_time_fee"], funds["inputs"]["fee_amount"]) == ("half", "0.50")
    assert "and its real-time fee" in funds["would_pass_if"]

    paid = club.buy(9.5, "plain")
    assert (paid["state"], club.money("bo")) == ("PENDING", (10, 0))
    decision = read_of(club.client.get(f"{club.server.root_url}/sandbox/decisions/{paid['token']}"))
    assert (decision["outcome"], decision["replay_agrees"]) == ("APPROVED", True)
    assert club.buy(500, "plain")["response"]["code"] == "1016"


def test_an_inactive_source_pays_no_fee(club: Club) -> None:
    """With an inactive funding source, a balance that covers only the purchase and not the fee is not enough."""
    club.order(10, "ana")
    club.put("fundingsources/program/harbor_funding", active=False)
    assert club.buy(10)["response"]["code"] == "1016"
    assert club.buy(9)["state"] == "PENDING"


def test_fees_are_not_counted(club: Club) -> None:
    """Velocity controls do not count fees: a limit of 10 approves a purchase of 10 with a fee, and then not a cent more."""
    club.make("velocitycontrols", token="ten", amount_limit=10, velocity_window="DAY", **USD)
    assert club.buy(10)["state"] == "PENDING"
    assert club.buy(0.01)["response"]["code"] == "1834"


def test_a_charged_fee_is_refunded_once(club: Club) -> None:
    """A charged fee is refunded at most once. A reversal does not return a refunded fee again."""
    club.follow("clearing", club.buy(10), 10)
    (charged,) = club.listed(type="fee.charge")
    refund = {"original_fee_transaction_token": charged["token"]}
    club.make("feerefunds", **refund)
    assert club.money("ana") == (0.5, 0.5)
    assert problem_of(club.client.post("/feerefunds", refund)) == (422, "422004")

    club.clock("2035-06-02T09:00:00Z")
    paid = club.debit(20)
    (charged, _) = club.listed(type="fee.charge")
    assert charged["amount"] == 2
    club.make("feerefunds", original_fee_transaction_token=charged["token"])
    before = club.money("ana")
    club.follow("reversal", paid, 20)
    assert (club.fees("ana")[-1][0], club.money("ana")) == ("charge.refund", (before[0] + 0.5, before[1] + 0.5))

    club.clock("2035-06-03T09:00:00Z")
    club.follow("reversal", club.debit(20), 20)
    (charged, *_) = club.listed(type="fee.charge")
    refund = {"original_fee_transaction_token": charged["token"]}
    assert problem_of(club.client.post("/feerefunds", refund)) == (422, "422004")


def test_fees_change_for_purchases_to_come(club: Club) -> None:
    """A new amount, an inactive fee or group, and a user's new group apply to later purchases only."""
    first = club.buy(10)
    club.put("fees/half", amount=1)
    club.buy(10)
    club.put("fees/half", active=False)
    club.buy(10)
    club.put("fees/half", active=True)
    club.put("realtimefeegroups/fees", active=False)
    club.buy(10)
    club.put("realtimefeegroups/fees", active=True)
    club.put("accountholdergroups/members", config={"real_time_fee_group_token": ""})
    club.buy(10)
    club.put("accountholdergroups/members", config={"real_time_fee_group_token": "fees"})
    club.put("users/ana", account_holder_group_token="DEFAULT_AHG")
    club.buy(10)
    assert club.fees("ana") == [("charge.pending", "PENDING", -0.5), ("charge.pending", "PENDING", -1)]
    club.follow("reversal", first, 10)
    assert club.fees("ana")[-1] == ("charge.reversal", "CLEARED", 0.5)
    decision = read_of(club.client.get(f"{club.server.root_url}/sandbox/decisions/{first['token']}"))
    assert decision["replay_agrees"]
    assert decision["checks"][-1]["inputs"]["fee_amount"] == "0.50"


def test_a_fee_sets_off_an_auto_reload(club: Club) -> None:
    """Purchase and fee together bring the account below the trigger of 10, and the auto reload restores 20."""
    club.order(20)
    scope = {"gpa": {"trigger_amount": 10, "reload_amount": 20}}
    club.make("autoreloads", association={"user_token": "bo"}, funding_source_token="harbor_funding", order_scope=scope, **USD)
    club.buy(9.7, "plain")
    assert club.money("bo") == (30.2, 20)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"name": "Group", "fee_tokens": ["nobody"]}, "fee_tokens[0]"),
        ({"name": "Group", "fee_tokens": ["half", "monthly"]}, "fee_tokens[1]"),
        ({"name": "Group", "fee_tokens": ["euro"]}, "fee_tokens[0]"),
        ({"name": "Group", "fee_tokens": ["vague"]}, "fee_tokens[0]"),
        ({"name": "Group", "fee_tokens": ["inquiry"]}, "fee_tokens[0]"),
        ({"name": "Group", "fee_tokens": ["half", "half"]}, "fee_tokens"),
        ({"name": "Group", "fee_tokens": ["half", "again"]}, "fee_tokens"),
    ],
)
def test_groups_that_cannot_be(club: Club, body: dict[str, Any], named: str) -> None:
    """A group needs a name, and real-time fees in the program's currency for different types of transactions."""
    club.make("fees", token="monthly", name="Monthly", amount=1, **USD)
    club.make("fees", token="vague", name="Vague", amount=1, category="REALTIME", **USD)
    club.fee("euro", 1, "pindebit", currency_code="EUR")
    club.fee("inquiry", 1, "pindebit.balanceinquiry")
    club.fee("again", 1, "authorization")
    reply = club.client.post("/realtimefeegroups", body)
    assert problem_of(reply) == (400, "400001")
    assert named in reply.json["error_message"]
    put = club.client.request("PUT", "/realtimefeegroups/fees", body)
    assert put.status == (400 if body else 200)


def test_a_group_is_a_resource(club: Club) -> None:
    """A group is created, replayed, read, listed and changed. An account holder group cannot name an unknown one."""
    made = club.make("realtimefeegroups", token="none", name="None")
    assert (made["active"], "fee_tokens" in made) == (True, False)
    assert club.make("realtimefeegroups", token="none", name="None") == made
    assert problem_of(club.client.post("/realtimefeegroups", {"token": "none", "name": "Other"})) == (409, "409002")
    assert club.get("/realtimefeegroups/none") == made
    assert [group["token"] for group in club.listed("/realtimefeegroups")] == ["none", "fees"]
    club.put("realtimefeegroups/none", name="Some", fee_tokens=["tenth"])
    changed = club.get("/realtimefeegroups/none")
    assert (changed["name"], changed["fee_tokens"], changed["active"]) == ("Some", ["tenth"], True)
    assert problem_of(club.client.get("/realtimefeegroups/other")) == (404, "404022")
    assert club.get("/fees/cash")["category"] == "REALTIME"
    config = {"config": {"real_time_fee_group_token": "other"}}
    for reply in (
        club.client.post("/accountholdergroups", config), club.client.request("PUT", "/accountholdergroups/members", config),
    ):  # fmt: skip
        assert (problem_of(reply), "real_time_fee_group_token" in reply.json["error_message"]) == ((400, "400001"), True)
