"""Auto reloads on both databases: the resource, and the orders that they create if an account falls below its trigger."""

from typing import Any

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import problem_of, read_of
from tests.support.server import Reply, RunningServer
from tests.support.shop import Shop

USD = {"currency_code": "USD"}


class Filled(Shop):
    """A shop in which user ``bo`` has 100 and a card without JIT Funding."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.make("gpaorders", user_token="bo", amount=100, funding_source_token="harbor_funding", token="start", **USD)

    def reload(self, trigger: Any, goal: Any, **fields: Any) -> Reply:
        """Request an auto reload and return the answer."""
        scope = {"gpa": {"trigger_amount": trigger, "reload_amount": goal}}
        return self.client.post("/autoreloads", {"order_scope": scope, "funding_source_token": "harbor_funding", **USD, **fields})

    def reloaded(self) -> list[float]:
        """Return the amounts of the orders that auto reloads created, the oldest first."""
        made = [load for load in self.listed(type="gpa.credit", sort_by="created_time") if "auto_reload" in load]
        return [load["amount"] for load in made]


server = shared_server(chosen_databases())
shop = program_fixture(Filled)


def test_a_card_that_is_never_empty(shop: Filled) -> None:
    """Below the trigger of 20 an order that names the auto reload restores 50 at once. At exactly 20 there is no order."""
    reload = shop.reload(20, 50, token="never_empty", association={"user_token": "bo"}).json
    assert (shop.money("bo"), shop.reloaded()) == ((100, 100), [])

    shop.clock("2035-06-02T09:00:00Z")
    shop.buy(80, "plain")
    assert (shop.money("bo"), shop.reloaded()) == ((100, 20), [])

    shop.clock("2035-06-03T09:00:00Z")
    coffee = shop.buy(0.5, "plain")
    assert coffee["gpa"]["available_balance"] == 19.5
    assert (shop.money("bo"), shop.reloaded()) == ((130.5, 50), [30.5])
    (order, *_) = shop.listed(type="gpa.credit")
    assert (order["auto_reload"], order["gpa_order"]["funding"]["source"]["token"]) == (reload, "harbor_funding")
    assert shop.get(f"/gpaorders/{order['gpa_order']['token']}") == order["gpa_order"]

    # The order of an auto reload can be unloaded, and the unload triggers no auto reload.
    back = {"original_order_token": order["gpa_order"]["token"], "amount": 30.5}
    shop.make("gpaorders/unloads", **back)
    assert (shop.money("bo")[1], shop.reloaded()) == (19.5, [30.5])

    shop.clock("2035-06-04T09:00:00Z")
    read_of(shop.client.request("PUT", "/autoreloads/never_empty", {"active": False}))
    shop.buy(1, "plain")
    assert (shop.money("bo")[1], shop.reloaded()) == (18.5, [30.5])


@pytest.mark.parametrize(
    ("act", "left", "orders"),
    [
        (lambda shop: shop.buy(90, "plain"), 50, [40]),
        (lambda shop: shop.buy(500, "plain"), 50, [50]),
        (lambda shop: shop.follow("clearing", shop.buy(10, "plain"), 95), 50, [45]),
        (lambda shop: shop.follow("reversal", shop.buy(50, "plain"), 50), 100, []),
        (lambda shop: shop.make("feecharges", user_token="bo", fees=[{"token": "fee"}]), 50, [49]),
        (lambda shop: shop.make("peertransfers", sender_user_token="bo", recipient_user_token="ana", amount=99, **USD), 50, [49]),
        (lambda shop: shop.make("programtransfers", type_token="debts", user_token="bo", amount=99, **USD), 50, [49]),
        (lambda shop: shop.make("gpaorders/unloads", original_order_token="start", amount=99), 1, []),
        (lambda shop: shop.make("users", token="cy"), 100, []),
        (lambda shop: (shop.client.request("PUT", "/fundingsources/program/harbor_funding", {"active": False}),
                       shop.buy(90, "plain")), 10, []),
    ],
    ids=["purchase", "partial purchase", "clearing", "reversal", "fee", "peer", "program", "unload", "new user", "source closed"],
)  # fmt: skip
def test_what_sets_it_off(shop: Filled, act: Any, left: float, orders: list[float]) -> None:
    """Purchases, fees and transfers trigger an auto reload, unloads and new accounts do not. An inactive source loads nothing."""
    shop.make("fees", token="fee", name="Fee", amount=99, **USD)
    shop.make("programtransfers/types", token="debts", memo="Debts", program_funding_source_token="harbor_funding")
    assert shop.reload(20, 50, association={"user_token": "bo"}).status == 201
    act(shop)
    assert (shop.money("bo")[1], shop.reloaded()) == (left, orders)


def test_the_holders_own_comes_first(shop: Filled) -> None:
    """The order is the holder's auto reload, the product's, the program's. A fee has no card, so it skips the product's."""
    shop.make("fees", token="fee", name="Fee", amount=1, **USD)
    assert shop.reload(10, 11, token="everybodys").status == 201
    shop.buy(95, "plain")
    assert shop.money("bo")[1] == 11
    assert shop.reload(20, 22, token="products", association={"card_product_token": "plain"}).status == 201
    shop.buy(1, "plain")
    assert shop.money("bo")[1] == 22
    shop.make("feecharges", user_token="bo", fees=[{"token": "fee"}])
    assert shop.money("bo")[1] == 21
    assert shop.reload(30, 33, token="bos", association={"user_token": "bo"}).status == 201
    shop.buy(1, "plain")
    assert shop.money("bo")[1] == 33
    assert [reload["token"] for reload in shop.get("/autoreloads", user_token="bo")["data"]] == ["bos"]
    assert [reload["token"] for reload in shop.get("/autoreloads", card_product="plain")["data"]] == ["products"]
    assert len(shop.get("/autoreloads")["data"]) == 3


BO = {"association": {"user_token": "bo"}}


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"trigger": 0}, "400001", "trigger_amount"),
        ({"goal": 19.99}, "400001", "reload_amount"),
        ({"goal": "20.001"}, "400001", "reload_amount"),
        ({"funding_source_token": "none"}, "400009", "none"),
        ({"funding_source_token": None}, "400001", "funding_source_token"),
        ({"currency_code": "EUR"}, "400015", "EUR"),
        ({"order_scope": {"msa": {}}}, "400001", "gpa"),
        ({"association": {"user_token": "nobody"}}, "400003", "User"),
        ({"association": {"card_product_token": "none"}}, "400016", "product"),
        ({"association": {"business_token": "b"}}, "400004", "Business"),
        ({"association": {"user_token": "bo", "card_product_token": "plain"}}, "400001", "association"),
        (BO, "400001", "association"),
    ],
)
def test_bad_input(shop: Filled, change: dict[str, Any], code: str, named: str) -> None:
    """Invalid input is refused with the name of the field, and so is a second active auto reload for one account."""
    assert shop.reload(20, 50, token="first", **BO).status == 201
    known = {"trigger": 20, "goal": 50, "association": {"user_token": "ana"}, **change}
    reply = shop.reload(**known)
    assert problem_of(reply)[1] == code, reply.text
    assert named in reply.json["error_message"]
    assert [reload["token"] for reload in shop.get("/autoreloads")["data"]] == ["first"]
    put = shop.client.request("PUT", "/autoreloads/first", {"order_scope": {"gpa": {"trigger_amount": 60, "reload_amount": 50}}})
    assert problem_of(put) == (400, "400001")
