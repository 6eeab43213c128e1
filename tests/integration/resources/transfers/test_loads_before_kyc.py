"""Loads before KYC on both databases: orders, transfers and deposits that ``pre_kyc_controls`` allow or refuse."""

from typing import Any

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import read_of
from tests.support.server import RunningServer
from tests.support.shop import Shop

USD = {"currency_code": "USD"}
ANY = {"enable_non_program_loads": True, "is_reloadable_pre_kyc": True}
TODAY = "2035-06-01T00:00:00Z"


class Bank(Shop):
    """A shop in which ``bo`` has 500. ``newcomer`` adds ``cy``, a LIMITED user with a deposit account."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.load("order", 500, "bo")

    def newcomer(self, **controls: Any) -> None:
        """Create ``cy`` in a group with these ``pre_kyc_controls``."""
        config = {"kyc_required": "CONDITIONAL", "pre_kyc_controls": controls}
        self.make("accountholdergroups", token="newcomers", config=config)
        assert self.make("users", token="cy", account_holder_group_token="newcomers")["status"] == "LIMITED"
        self.number = self.make("depositaccounts", token="cys", user_token="cy")["account_number"]

    def load(self, how: str, amount: Any, user: str = "cy") -> str:
        """Request a load and return its result: OK, an error code, or the reason code of a rejected deposit."""
        if how == "order":
            body = {"user_token": user, "amount": amount, "funding_source_token": "harbor_funding", **USD}
            reply = self.client.post("/gpaorders", body)
        elif how == "peer":
            body = {"sender_user_token": "bo", "recipient_user_token": user, "amount": amount, **USD}
            reply = self.client.post("/peertransfers", body)
        else:
            body = {"account_number": self.number, "amount": amount, "type": "CREDIT", "settlement_date": TODAY}
            reply = self.simulate("directdeposits", **body)
        if reply.status >= 300:
            return str(reply.json["error_code"])
        return str(reply.json.get("state_reason_code", "OK"))


server = shared_server(chosen_databases())
bank = program_fixture(Bank)


@pytest.mark.parametrize(
    ("controls", "loads"),
    [
        # By default: one load of at most 1000, from a program funding source.
        ({}, "order 1000 OK, order 1 422006"),
        ({}, "order 1000.01 422006, order 5 OK"),
        ({}, "peer 5 422006, deposit 5 R23, order 5 OK"),
        # Further loads, or one load of another kind.
        ({"is_reloadable_pre_kyc": True}, "order 5 OK, order 5 OK, peer 5 422006"),
        ({"enable_non_program_loads": True}, "peer 5 OK, order 5 422006, deposit 5 R23"),
        ({"enable_non_program_loads": True}, "deposit 5 OK, deposit 5 R23, peer 5 422006"),
        # The maximum balance after the load.
        ({**ANY, "balance_max": 20}, "order 12 OK, peer 8.01 422006, deposit 8.01 R23, peer 8 OK, order 0.01 422006"),
        ({**ANY, "balance_max": 0}, "order 0.01 422006, deposit 0.01 R23"),
        (ANY, "order 5 OK, peer 5 OK, deposit 5 OK"),
    ],
)  # fmt: skip
def test_what_is_let_in(bank: Bank, controls: dict[str, Any], loads: str) -> None:
    """Each load in turn has the result of its row. A refused load changes no balance on either side."""
    bank.newcomer(**controls)
    came, paid = 0.0, 0.0
    for load in loads.split(", "):
        how, amount, expected = load.split(" ")
        assert (load, bank.load(how, amount)) == (load, expected)
        came += float(amount) if expected == "OK" else 0
        paid += float(amount) if (how, expected) == ("peer", "OK") else 0
    assert (bank.money("cy")[0], bank.money("bo")[0]) == (came, 500 - paid)


def test_who_has_passed_kyc_is_free(bank: Bank) -> None:
    """The limits end with the status LIMITED. They do not apply to the sender of a transfer."""
    bank.newcomer()
    assert (bank.load("order", 10), bank.load("order", 10)) == ("OK", "422006")
    back = {"sender_user_token": "cy", "recipient_user_token": "bo", "amount": 4, **USD}
    bank.make("peertransfers", **back)
    bank.make("usertransitions", user_token="cy", status="ACTIVE", reason_code="00", channel="API")
    assert [bank.load(how, 2000 if how == "order" else 20) for how in ("order", "peer", "deposit")] == ["OK"] * 3


def test_a_reload_by_itself_is_a_reload(bank: Bank) -> None:
    """Before KYC an auto reload loads an account only if its group allows reloads."""
    bank.newcomer()
    bank.make("cards", token="cys", user_token="cy", card_product_token="plain")
    scope = {"gpa": {"trigger_amount": 10, "reload_amount": 20}}
    bank.make("autoreloads", association={"user_token": "cy"}, funding_source_token="harbor_funding", order_scope=scope, **USD)
    bank.load("order", 15)
    bank.buy(6, "cys")
    assert bank.money("cy") == (15, 9)
    path = "/accountholdergroups/newcomers"
    read_of(bank.client.request("PUT", path, {"config": {"pre_kyc_controls": {"is_reloadable_pre_kyc": True}}}))
    bank.buy(1, "cys")
    assert bank.money("cy") == (27, 20)
