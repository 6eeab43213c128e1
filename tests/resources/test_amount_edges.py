"""Amounts at the edges: a purchase of nothing verifies the card."""

from typing import Any

import pytest

from cardwright.resources.simulations import EVENTS
from tests.resources.test_simulations import FOLLOWERS, PATH
from tests.support.databases import chosen_databases
from tests.support.fixtures import own, shared_server
from tests.support.issuing import problem_of
from tests.support.server import Reply
from tests.support.shop import Shop

ROOTS = {event: root for root, event, *_ in FOLLOWERS}
"""What an event follows."""

AMOUNTS = sorted(event.name for event in EVENTS if event.name != "pindebit.balanceinquiry")
"""Events that have an amount."""

VERIFIES = {
    "authorization", "authorization.cashback", "authorization.quasi.cash", "account.funding.authorization",
    "account.funding.auth_plus_capture", "pindebit", "pindebit.cashback", "pindebit.authorization", "pindebit.quasi.cash",
}  # fmt: skip
"""Events that may ask for nothing."""

OLDER: dict[str, tuple[str, dict[str, Any]]] = {
    "a purchase": ("authorization", {}),
    "a PIN debit": ("financial", {"card_acceptor": {}}),
    "a PIN debit to be completed": ("financial", {"card_acceptor": {}, "is_pre_auth": True}),
    "a withdrawal": ("financial/withdrawal", {}),
    "an original credit": ("financial/originalcredit", {"type": "disbursement"}),
}
"""Older simulations that ask."""


class Till(Shop):
    """A shop that pays for quasi-cash too."""

    def product(self, token: str, **config: Any) -> None:
        """A card product."""
        controls = {"accepted_countries_token": "decline_ofac_countries", "allow_quasi_cash": True}
        super().product(token, transaction_controls=controls, **config)

    def event(self, name: str, amount: Any, original: str | None = None, card: str = "jit", **more: Any) -> Reply:
        """The answer to an event of Simulations 2.0."""
        whose = {"card_token": card} if original is None else {"preceding_related_transaction_token": original}
        cash = {"cash_back_amount": 0} if name.endswith("cashback") else {}
        return self.client.post(PATH.format(name), {"amount": amount, **cash, **whose, **more})


server = shared_server(chosen_databases())
till = own(Till, scope="module")
fresh = own(Till)


# --- Nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in AMOUNTS if name not in ROOTS])
@pytest.mark.parametrize("card", ["jit", "plain"])
def test_an_amount_of_zero_verifies_the_card(till: Till, name: str, card: str) -> None:
    """Approved as a verification: no order, no effect, no hold. What cannot ask for nothing says so."""
    reply = till.event(name, 0, card=card)
    if name not in VERIFIES:
        assert (problem_of(reply)[0], "amount" in reply.text) == (400, True)
        return
    one = reply.json["transaction"]
    assert one["response"] == {"code": "1830", "memo": "Card account verification success"}
    assert (one["state"], one["request_amount"], one["amount"]) == ("CLEARED", 0, 0)
    assert {"gpa_order", "gpa_order_unload"} & one.keys() == set()
    assert "impacted_amount" not in one["gpa"]
    assert "impacted_amount" not in one["gpa"]["balances"]["USD"]
    explained = till.client.get(f"/sandbox/decisions/{one['token']}").json
    assert (explained["outcome"], explained["replay_agrees"]) == ("APPROVED", True)


@pytest.mark.parametrize("what", OLDER)
def test_the_older_simulations_verify_too(till: Till, what: str) -> None:
    """A purchase and a PIN debit of zero; the network is told that there is no reason to decline."""
    path, said = OLDER[what]
    reply = till.simulate(path, card_token="jit", mid="m1", amount=0, **said)
    if what in ("a withdrawal", "an original credit"):
        assert problem_of(reply)[0] == 400
        return
    one, raw = reply.json["transaction"], reply.json["raw_iso8583"]
    assert (one["state"], one["response"]["code"], "impacted_amount" in one["gpa"]) == ("CLEARED", "1830", False)
    assert (raw["39"], raw["44"]["3"]) == ("1830", "85")


def test_a_verification_counts_nowhere(fresh: Till) -> None:
    """No control counts it, no hold is left of it, and it is tried out without a trace like a purchase."""
    association = {"user_token": "ana"}
    fresh.make("velocitycontrols", token="once", amount_limit=100, usage_limit=1, velocity_window="DAY", currency_code="USD",
               association=association)  # fmt: skip
    codes = [fresh.buy(0)["response"]["code"] for _ in range(3)]
    assert codes + [fresh.buy(10)["response"]["code"] for _ in range(2)] == ["1830"] * 3 + ["0000", "1817"]
    assert fresh.buy(0)["response"]["code"] == "1830"
    tried = fresh.client.post("/sandbox/whatif/authorization", {"card_token": "jit", "mid": "m1", "amount": 0}).json
    assert (tried["outcome"], tried["transaction"]["response"]["code"]) == ("APPROVED", "1830")
