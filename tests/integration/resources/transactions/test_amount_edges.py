"""Extreme amounts on both databases: 0, and more than an account can hold. None of them gets 500."""

import json
from decimal import Decimal
from typing import Any

import pytest

from cardwright.resources.simulations.v2_card_transactions import EVENTS
from tests.integration.resources.analysis.test_backtests import tried
from tests.integration.resources.simulations.test_v2_card_transactions import FOLLOWERS, PATH
from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import problem_of
from tests.support.server import Reply
from tests.support.shop import Shop

TOO_LARGE = ("10000000000", "9999999999999999.99")
"""The smallest amount with more than twelve digits of cents, and the largest that a message may have."""

NO_AMOUNTS = ("10000000000000000", "1e30", "1" * 400)
"""Amounts with more than eighteen digits of cents."""

ROOTS = {event: root for root, event, *_ in FOLLOWERS}
"""The root event of each follow-up."""

AMOUNTS = sorted(event.name for event in EVENTS if event.name != "pindebit.balanceinquiry")
"""The events that have an amount."""

ASKS = {name for name in AMOUNTS if name not in ROOTS and "refund" not in name} | {"authorization.incremental"}
"""The events that request an approval, and so are declined with 1016 instead of 1810."""

VERIFIES = {
    "authorization", "authorization.cashback", "authorization.quasi.cash", "account.funding.authorization",
    "account.funding.auth_plus_capture", "pindebit", "pindebit.cashback", "pindebit.authorization", "pindebit.quasi.cash",
}  # fmt: skip
"""The events that accept an amount of 0."""

OLDER: dict[str, tuple[str, dict[str, Any]]] = {
    "a purchase": ("authorization", {}),
    "a PIN debit": ("financial", {"card_acceptor": {}}),
    "a PIN debit to be completed": ("financial", {"card_acceptor": {}, "is_pre_auth": True}),
    "a withdrawal": ("financial/withdrawal", {}),
    "an original credit": ("financial/originalcredit", {"type": "disbursement"}),
}
"""The older simulations that request an approval."""

FOLLOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "an advice": ("authorization/advice", {}),
    "a reversal": ("reversal", {}),
    "a clearing": ("clearing", {}),
    "a forced clearing": ("clearing", {"force_post": True}),
    "a refund": ("clearing", {"is_refund": True}),
}
"""The older simulations that name an authorization."""


class Till(Shop):
    """A shop whose card products allow quasi-cash."""

    def product(self, token: str, **config: Any) -> None:
        """Create a card product that allows quasi-cash."""
        controls = {"accepted_countries_token": "decline_ofac_countries", "allow_quasi_cash": True}
        super().product(token, transaction_controls=controls, **config)

    def event(self, name: str, amount: Any, original: str | None = None, card: str = "jit", **fields: Any) -> Reply:
        """Send an event of Simulations 2.0 and return the answer."""
        whose = {"card_token": card} if original is None else {"preceding_related_transaction_token": original}
        cash = {"cash_back_amount": 0} if name.endswith("cashback") else {}
        return self.client.post(PATH.format(name), {"amount": amount, **cash, **whose, **fields})

    def check_declined(self, reply: Reply, amount: str, code: str) -> None:
        """Check that a message is declined and stored, and that the replay of its decision agrees."""
        assert reply.status == 201, reply.text
        transaction = json.loads(reply.text, parse_float=Decimal)["transaction"]
        assert (transaction["state"], transaction["response"]["code"]) == ("DECLINED", code)
        assert (transaction["request_amount"], transaction["amount"]) == (Decimal(amount), Decimal(amount))
        assert {"gpa_order", "gpa_order_unload", "approval_code"} & transaction.keys() == set()
        assert "impacted_amount" not in transaction["gpa"]
        assert self.get(f"/transactions/{transaction['token']}")["state"] == "DECLINED"
        explained = self.client.get(f"/sandbox/decisions/{transaction['token']}").json
        assert (explained["outcome"], explained["replay_agrees"]) == ("DECLINED", True)
        if code == "1016":
            assert explained["would_pass_if"].startswith("the amount is less than 10000000000.00")


server = shared_server(chosen_databases())
till = program_fixture(Till, scope="module")
fresh = program_fixture(Till)


# --- Amount 0 ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in AMOUNTS if name not in ROOTS])
@pytest.mark.parametrize("card", ["jit", "plain"])
def test_an_amount_of_zero_verifies_the_card(till: Till, name: str, card: str) -> None:
    """An amount of 0 is approved as a verification, without order or impacted amount. Other events answer it with a 400."""
    reply = till.event(name, 0, card=card)
    if name not in VERIFIES:
        assert (problem_of(reply)[0], "amount" in reply.text) == (400, True)
        return
    transaction = reply.json["transaction"]
    assert transaction["response"] == {"code": "1830", "memo": "Card account verification success"}
    assert (transaction["state"], transaction["request_amount"], transaction["amount"]) == ("CLEARED", 0, 0)
    assert {"gpa_order", "gpa_order_unload"} & transaction.keys() == set()
    assert "impacted_amount" not in transaction["gpa"]
    assert "impacted_amount" not in transaction["gpa"]["balances"]["USD"]
    explained = till.client.get(f"/sandbox/decisions/{transaction['token']}").json
    assert (explained["outcome"], explained["replay_agrees"]) == ("APPROVED", True)


@pytest.mark.parametrize("name", OLDER)
def test_the_older_simulations_verify_too(till: Till, name: str) -> None:
    """A purchase or PIN debit of 0 is a verification, with 85 in the raw message. A withdrawal or credit of 0 gets 400."""
    path, body = OLDER[name]
    reply = till.simulate(path, card_token="jit", mid="m1", amount=0, **body)
    if name in ("a withdrawal", "an original credit"):
        assert problem_of(reply)[0] == 400
        return
    transaction, raw = reply.json["transaction"], reply.json["raw_iso8583"]
    assert (transaction["state"], transaction["response"]["code"], "impacted_amount" in transaction["gpa"]) == (
        "CLEARED", "1830", False,
    )  # fmt: skip
    assert (raw["39"], raw["44"]["3"]) == ("1830", "85")


def test_a_verification_counts_nowhere(fresh: Till) -> None:
    """No velocity control counts a verification, even after its limit of uses. A dry run approves a verification too."""
    association = {"user_token": "ana"}
    fresh.make("velocitycontrols", token="once", amount_limit=100, usage_limit=1, velocity_window="DAY", currency_code="USD",
               association=association)  # fmt: skip
    codes = [fresh.buy(0)["response"]["code"] for _ in range(3)]
    assert codes + [fresh.buy(10)["response"]["code"] for _ in range(2)] == ["1830"] * 3 + ["0000", "1817"]
    assert fresh.buy(0)["response"]["code"] == "1830"
    tried = fresh.client.post("/sandbox/whatif/authorization", {"card_token": "jit", "mid": "m1", "amount": 0}).json
    assert (tried["outcome"], tried["transaction"]["response"]["code"]) == ("APPROVED", "1830")


# --- Too large amounts ---------------------------------------------------------------------


@pytest.mark.parametrize("name", AMOUNTS)
def test_an_amount_that_no_account_can_hold_is_declined(till: Till, name: str) -> None:
    """From 10¹² cents on, a request is declined with 1016, and any other message with 1810. From 10¹⁸ cents on, both get 400."""
    root = None
    if name in ROOTS:
        root = till.event(ROOTS[name], 10, currency_code="USD").json["transaction"]["token"]
    for amount in TOO_LARGE:
        till.check_declined(till.event(name, amount, root), amount, "1016" if name in ASKS else "1810")
        if "clearing" in name:
            till.check_declined(till.event(name, amount, force_post=True), amount, "1810")
    for amount in NO_AMOUNTS:
        reply = till.event(name, amount, root)
        assert (problem_of(reply)[0], "amount" in reply.json["error_message"]) == (400, True)


@pytest.mark.parametrize("name", [*OLDER, *FOLLOWS, "a completion"])
def test_the_older_simulations_decline_it_too(till: Till, name: str) -> None:
    """The older simulations decline too large amounts with the same codes."""
    if name in OLDER:
        path, body = OLDER[name]
        body = {"card_token": "jit", "mid": "m1", **body}
    elif name in FOLLOWS:
        path, body = FOLLOWS[name]
        body = {"original_transaction_token": till.buy(10)["token"], **body}
    else:
        hold = till.simulate("financial", card_token="jit", mid="m1", amount=10, card_acceptor={}, is_pre_auth=True)
        path, body = "financial/advice", {"original_transaction_token": hold.json["transaction"]["token"]}
    for amount in TOO_LARGE:
        till.check_declined(till.simulate(path, amount=amount, **body), amount, "1016" if name in OLDER else "1810")
    for amount in NO_AMOUNTS:
        reply = till.simulate(path, amount=amount, **body)
        assert (problem_of(reply)[0], "amount" in reply.json["error_message"]) == (400, True)


def test_the_total_is_what_counts(till: Till) -> None:
    """The limit applies to the sum of purchase, cash back and acquirer fee. An interchange fee may be larger."""
    most, fee = "9999999999.99", {"type": "ACQUIRER_FEE", "credit_debit": "D"}
    till.check_declined(till.simulate("authorization", card_token="jit", mid="m", amount=most, cash_back_amount="0.01"),
                        "10000000000", "1016")  # fmt: skip
    fees = [{**fee, "amount": "0.01"}]
    till.check_declined(till.simulate("authorization", card_token="jit", mid="m", amount=most, network_fees=fees),
                        "10000000000", "1016")  # fmt: skip
    for fields in ({"cash_back_amount": TOO_LARGE[0]}, {"network_fees": [{**fee, "amount": TOO_LARGE[0]}]}):
        reply = till.simulate("authorization", card_token="jit", mid="m", amount=1, **fields)
        till.check_declined(reply, "10000000001", "1016")
    interchange = [{"type": "INTERCHANGE_FEE", "amount": TOO_LARGE[1], "credit_debit": "C"}]
    assert till.buy(1, network_fees=interchange)["state"] == "PENDING"
    reply = till.simulate("authorization", card_token="jit", mid="m", amount=TOO_LARGE[1], cash_back_amount=TOO_LARGE[1])
    assert (problem_of(reply)[0], "cash back" in reply.json["error_message"]) == (400, True)


def test_an_increase_cannot_lift_a_hold_beyond_it(fresh: Till) -> None:
    """The limit applies to the hold with its increase. The transaction shows the requested amount."""
    increase = {"type": "AMOUNT", "value": 1}
    fresh.make("mccgroups", token="pumps", name="Pumps", mccs=["5542"], config={"authorization_controls": {
        "hold_increase": increase}})  # fmt: skip
    transaction = fresh.buy("9999999999.99", card_acceptor={"mcc": "5542"})
    assert (transaction["state"], transaction["response"]["code"], transaction["request_amount"]) == (
        "DECLINED", "1016", 9999999999.99,
    )  # fmt: skip


def test_many_of_them_overflow_nothing(fresh: Till) -> None:
    """Twenty declines of the largest amount overflow neither a control that counts declines nor a backtest."""
    limits = {"velocity_window": "DAY", "currency_code": "USD", "association": {"user_token": "ana"}}
    fresh.make("velocitycontrols", token="fails", amount_limit=1000, approvals_only=False, **limits)
    codes = {fresh.buy(TOO_LARGE[1])["response"]["code"] for _ in range(20)}
    assert (codes, fresh.buy(10)["state"]) == ({"1834"}, "PENDING")
    fresh.get("/velocitycontrols/user/ana/available")
    backtest = tried(fresh, velocity_controls={"remove": ["fails"], "add": [{**limits, "amount_limit": 1}]})
    assert (backtest["purchases"], backtest["flips"]["to_declined"], backtest["flips"]["to_approved"]) == (21, 1, 0)
