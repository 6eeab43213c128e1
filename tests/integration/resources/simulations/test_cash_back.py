"""Cash back over HTTP: a partial approval pays only goods, and lists, explanations and controls agree on its amount."""

from typing import Any

import pytest

from cardwright.resources.analysis.what_if import without_drawn
from tests.integration.resources.analysis.test_backtests import tried
from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import made_by, read_of
from tests.support.shop import Shop

EVENTS = "/simulations/cardtransactions/"

WAYS = (
    "/simulate/authorization", "/simulate/financial", f"{EVENTS}authorization", f"{EVENTS}authorization.cashback",
    f"{EVENTS}pindebit", f"{EVENTS}pindebit.cashback",
)  # fmt: skip
"""The paths that accept a purchase with cash back."""


class Till(Shop):
    """A shop in which user ``bo`` has two preloaded cards: ``plain``, and ``whole`` without partial approvals."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        controls = {"accepted_countries_token": "decline_ofac_countries", "enable_partial_auth_approval": False}
        self.product("whole", transaction_controls=controls)
        self.make("cards", token="whole", user_token="bo", card_product_token="whole")

    def pay(self, way: str, goods: Any, cash: Any, card: str = "plain", *, capable: bool = True, **fields: Any) -> dict[str, Any]:
        """Make a purchase with cash back, and return its transaction in model v1."""
        body = {"card_token": card, "amount": goods, "cash_back_amount": cash, **fields}
        if way.startswith("/simulate/"):
            body |= {"mid": "m1", "card_acceptor": {"partial_approval_capable": capable}}
        else:
            body |= {"card_acceptor": {"mid": "m1"}, "pos": {"partial_approval_capable": capable}}
        answer = made_by(self.client.post(way, body))["transaction"]
        version = "v1" if way.startswith("/simulate/") else "v2"
        assert self.get(f"/transactions/{answer['token']}", version=version) == answer
        return self.get(f"/transactions/{answer['token']}")

    def fill(self, amount: Any) -> None:
        """Load the account of ``bo`` with an original credit, which the velocity controls of this module do not count."""
        made_by(self.client.post(f"{EVENTS}original.credit.auth_plus_capture", {"card_token": "plain", "amount": amount}))

    def spend_the_rest(self) -> None:
        """Spend the balance of ``bo``."""
        ledger, _ = self.money("bo")
        if ledger:
            self.pay("/simulate/financial", ledger, 0)

    def limit(self, token: str, amount: Any, *, purchases: bool = True, cash: bool = True, **fields: Any) -> None:
        """Create a daily velocity control that counts purchases, cash back, or both."""
        self.make(
            "velocitycontrols", token=token, amount_limit=amount, velocity_window="DAY", currency_code="USD",
            include_purchases=purchases, include_cashback=cash, association={"user_token": "bo"}, **fields,
        )  # fmt: skip

    def left(self) -> dict[str, tuple[float, int]]:
        """Return the remaining amount and uses of each control."""
        rows = self.listed("/velocitycontrols/user/bo/available")
        return {row["token"]: (row["available"]["amount"], row["available"]["uses"]) for row in rows}


server = shared_server(chosen_databases())
till = program_fixture(Till)


def brief(transaction: dict[str, Any]) -> tuple[str, float, float | None]:
    """Return response code, amount and cash back of a transaction."""
    return transaction["response"]["code"], transaction["amount"], transaction.get("cash_back_amount")


# Balance, goods, cash back, card, terminal with partial approvals, acquirer fee | code, amount, cash back.
TABLE = [
    ((15, 20, 20, "plain", True, 0), ("0002", 15, 0)),
    ((20, 20, 20, "plain", True, 0), ("0002", 20, 0)),
    ((39.99, 20, 20, "plain", True, 0), ("0002", 20, 0)),
    ((40, 20, 20, "plain", True, 0), ("0000", 40, 20)),
    ((15, 10, 20, "plain", True, 0), ("0002", 10, 0)),
    ((15, 10, 20, "plain", True, 2), ("0002", 12, 0)),
    ((11, 10, 20, "plain", True, 2), ("0002", 11, 0)),
    ((2, 10, 20, "plain", True, 2), ("1016", 32, 20)),
    ((15, 0, 20, "plain", True, 0), ("1016", 20, 20)),
    ((15, 20, 20, "plain", False, 0), ("1016", 40, 20)),
    ((30, 20, 20, "plain", False, 0), ("1016", 40, 20)),
    ((15, 20, 20, "whole", True, 0), ("1016", 40, 20)),
    ((40, 20, 20, "whole", True, 0), ("0000", 40, 20)),
    ((0, 20, 20, "jit", True, 0), ("0000", 40, 20)),
    ((0, 20, 20, "jit", False, 0), ("0000", 40, 20)),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_part_is_of_the_goods(till: Till, way: str) -> None:
    """A partial approval has no cash back, through every path. Transaction, list and explanation have the same amounts."""
    for (money, goods, cash, card, capable, fee), expected in TABLE:
        name = (way, money, goods, cash, card, capable, fee)
        if money:
            till.fill(money)
        fees = "network_fees" if way.startswith("/simulate/") else "fees"
        options = {fees: [{"type": "ACQUIRER_FEE", "amount": fee, "credit_debit": "D"}]} if fee else {}
        transaction = till.pay(way, goods, cash, card, capable=capable, **options)
        assert brief(transaction) == expected, name
        assert transaction["type"].endswith(".cashback"), name
        assert (transaction["request_amount"], transaction["acquirer_fee_amount"]) == (goods + cash + fee, fee), name
        is_approved = transaction["state"] != "DECLINED"
        assert transaction["gpa"].get("impacted_amount") == (-transaction["amount"] if is_approved else None), name
        listed = [row for row in till.listed(card_token=card, state="ALL") if row["token"] == transaction["token"]]
        assert listed == [transaction], name

        explained = till.get(f"/sandbox/decisions/{transaction['token']}")
        funds = explained["checks"][-1]["inputs"]
        assert (explained["replay_agrees"], explained["response"]["code"]) == (True, expected[0]), name
        amounts = transaction["amount"], transaction["request_amount"]
        assert (float(explained["amount"]), float(explained["request_amount"])) == amounts, name
        if is_approved:
            assert (float(funds["approved"]), float(funds["cash_back_approved"])) == expected[1:], name
            till.follow("reversal", transaction, transaction["amount"])
        till.spend_the_rest()


def test_what_if_says_the_same(till: Till) -> None:
    """A dry run of each purchase without a fee has the same transaction as the purchase."""
    for (money, goods, cash, card, capable, fee), expected in TABLE:
        if fee:
            continue
        if money:
            till.fill(money)
        body = {
            "card_token": card, "amount": goods, "cash_back_amount": cash, "mid": "m1",
            "card_acceptor": {"partial_approval_capable": capable},
        }  # fmt: skip
        would = read_of(till.client.post("/sandbox/whatif/authorization", body))
        made = made_by(till.simulate("authorization", **body))["transaction"]
        assert would["transaction"] == without_drawn(made)
        assert brief(would["transaction"]) == expected
        if made["state"] != "DECLINED":
            till.follow("reversal", made, made["amount"])
        till.spend_the_rest()


@pytest.mark.parametrize("way", WAYS)
def test_controls_count_what_was_approved(till: Till, way: str) -> None:
    """Cash that is not paid out counts neither as an amount nor as a use. A control created later counts the same."""
    till.limit("both", 100, usage_limit=9)
    till.limit("goods", 100, usage_limit=9, cash=False)
    till.limit("cash", 100, usage_limit=9, purchases=False)
    till.fill(15)
    transaction = till.pay(way, 20, 20)
    assert brief(transaction) == ("0002", 15, 0)
    assert till.left() == {"both": (85, 8), "goods": (85, 8), "cash": (100, 9)}
    for name, (purchases, cash) in {"both": (True, True), "goods": (True, False), "cash": (False, True)}.items():
        till.limit(f"late {name}", 100, usage_limit=9, purchases=purchases, cash=cash)
    # A new control counts earlier purchases of an account at the next purchase of that account.
    assert till.pay("/simulate/authorization", 1, 0)["response"]["code"] == "1016"
    left = till.left()
    assert {name: left[f"late {name}"] for name in ("both", "goods", "cash")} == {
        name: left[name] for name in ("both", "goods", "cash")
    }

    till.follow("reversal", transaction, 15)
    assert till.left()["both"] == till.left()["goods"] == (100, 9)
    till.fill(25)
    assert brief(till.pay(way, 20, 20)) == ("0000", 40, 20)
    assert {name: balance for name, balance in till.left().items() if "late" not in name} == {
        "both": (60, 8), "goods": (80, 8), "cash": (80, 8),
    }  # fmt: skip


def test_a_control_of_either_part_refuses_the_whole(till: Till) -> None:
    """Controls check the requested amount before the funds. No partial approval is made to fit a limit."""
    till.limit("cash", 15, purchases=False)
    till.fill(15)
    assert brief(till.pay("/simulate/authorization", 20, 20)) == ("1834", 40, 20)
    till.limit("goods", 15, cash=False)
    assert brief(till.pay("/simulate/financial", 20, 15)) == ("1834", 35, 15)
    assert brief(till.pay("/simulate/financial", 15, 15)) == ("0002", 15, 0)


def test_what_follows_a_part(till: Till) -> None:
    """The clearing of a partial approval shows no cash back. A reversal releases at most the approved amount."""
    till.fill(15)
    transaction = till.pay("/simulate/authorization", 20, 20)
    refused = till.follow("reversal", transaction, 20)
    assert (refused["state"], refused["response"]["code"]) == ("DECLINED", "1810")
    cleared = till.follow("clearing", transaction, 10)
    assert (cleared["type"], brief(cleared)) == ("authorization.clearing.cashback", ("0000", 10, None))
    released = till.follow("reversal", transaction, 5)
    assert (released["state"], brief(released), till.money("bo")) == ("CLEARED", ("0000", 5, None), (5, 5))


def test_a_backtest_counts_what_was_approved(till: Till) -> None:
    """A backtest counts the approved goods under a limit on purchases, and nothing under a limit on cash back."""
    till.fill(15)
    assert brief(till.pay("/simulate/authorization", 20, 20)) == ("0002", 15, 0)
    till.fill(20)
    bought = [till.pay("/simulate/authorization", amount, 0) for amount in (5, 1)]
    assert [transaction["response"]["code"] for transaction in bought] == ["0000", "0000"]
    new = {"amount_limit": 20, "velocity_window": "DAY", "currency_code": "USD", "association": {"user_token": "bo"}}
    for name, flags, declined in (("goods", {"include_cashback": False}, 1), ("cash", {"include_purchases": False}, 0)):
        backtest = tried(till, velocity_controls={"add": [{**new, **flags, "token": name}]})
        assert backtest["before"]["approved_amount"] == "21.00"
        assert (backtest["flips"]["to_declined"], backtest["flips"]["to_approved"]) == (declined, 0)


def test_a_shadow_sees_the_request(till: Till) -> None:
    """A shadow control of cash back checks the requested cash, even if no cash is paid out."""
    path = "/sandbox/shadow-controls"
    body = {
        "token": "shadow", "amount_limit": 15, "velocity_window": "DAY", "currency_code": "USD", "include_purchases": False,
        "association": {"user_token": "bo"},
    }  # fmt: skip
    made_by(till.client.post(path, body))
    till.fill(15)
    assert brief(till.pay("/simulate/authorization", 20, 20)) == ("0002", 15, 0)
    assert read_of(till.client.get(f"{path}/shadow"))["would_have_declined"]["purchases"] == 1
