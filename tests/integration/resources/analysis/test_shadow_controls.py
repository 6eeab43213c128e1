"""Shadow controls: they count like velocity controls, record declines, decline nothing, and can be promoted."""

from typing import Any

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import made_by, problem_of, read_of
from tests.support.shop import Shop

server = shared_server(chosen_databases())
shop = program_fixture(Shop)


def shadow(shop: Shop, amount: int = 50, **fields: Any) -> dict[str, Any]:
    """Create a daily shadow control."""
    body = {"token": "quiet", "amount_limit": amount, "velocity_window": "DAY", "currency_code": "USD", **fields}
    return made_by(shop.client.post("/sandbox/shadow-controls", body))


def summary(shop: Shop) -> tuple[str, int, str]:
    """Return the state of the shadow control, and the number and amount of its recorded declines."""
    control = shop.get("/sandbox/shadow-controls/quiet")
    return control["state"], control["would_have_declined"]["purchases"], control["would_have_declined"]["amount"]


def left(shop: Shop) -> float:
    """Return the amount left under the only velocity control of ``ana``."""
    (control,) = shop.listed("/velocitycontrols/user/ana/available")
    return float(control["available"]["amount"])


def promote(shop: Shop) -> dict[str, Any]:
    return read_of(shop.client.post("/sandbox/shadow-controls/quiet/promote", {}))


def test_a_shadow_control_declines_nothing_and_lists_hits(shop: Shop) -> None:
    """A purchase above the limit is approved and recorded. A purchase that another check declines is not recorded."""
    made = shadow(shop, name="Fifty")
    assert (made["state"], made["control"]["name"], made["control"]["amount_limit"]) == ("ACTIVE", "Fifty", 50)
    fitting, too_much = shop.buy(40), shop.buy(20)
    shop.buy(20, card_acceptor={"country": "CUB"})
    assert (fitting["state"], too_much["state"], too_much["response"]["code"]) == ("PENDING", "PENDING", "0000")
    assert summary(shop) == ("ACTIVE", 1, "20.00")
    (decline,) = shop.listed("/sandbox/shadow-controls/quiet/declines")
    assert decline == {
        "transaction_token": too_much["token"], "created_time": "2035-06-01T09:00:00.000Z", "user_token": "ana",
        "card_token": "jit", "mid": "m1", "mcc": "6411", "amount": "20.00", "currency_code": "USD",
    }  # fmt: skip
    shop.follow("reversal", fitting, 40)
    shop.buy(30)
    assert summary(shop) == ("ACTIVE", 1, "20.00"), "the reversal gives the usage back"
    assert [control["token"] for control in shop.listed("/sandbox/shadow-controls")] == ["quiet"]


def test_the_decision_shows_the_shadow(shop: Shop) -> None:
    """Explanation and dry run show the verdict ``would_refuse`` of a shadow control. It is not the first refusal."""
    shadow(shop)
    transaction = shop.buy(60)
    for answer in (
        shop.get(f"/sandbox/decisions/{transaction['token']}"),
        read_of(shop.client.post("/sandbox/whatif/authorization", {"card_token": "jit", "amount": 60, "mid": "m1"})),
    ):
        step = next(step for step in answer["checks"] if step["check"] == "shadow_control_has_room")
        assert (step["verdict"], step["inputs"]["control"], step["response"]["code"]) == ("would_refuse", "quiet", "1834")
        assert (answer["outcome"], "first_refusal" in answer) == ("APPROVED", False)


def test_a_promoted_shadow_refuses_with_its_usage_intact(shop: Shop) -> None:
    """A promoted shadow control becomes a velocity control with its usage so far, and declines purchases."""
    shadow(shop, velocity_window="LIFETIME")
    shop.buy(40)
    assert shop.listed("/velocitycontrols") == []
    assert shop.client.get("/velocitycontrols/quiet").status == 404
    assert promote(shop)["state"] == "PROMOTED"
    assert left(shop) == 10.0
    assert shop.buy(11)["response"]["code"] == "1834"
    assert shop.buy(10)["response"]["code"] == "0000"
    assert shop.get("/velocitycontrols/quiet")["amount_limit"] == 50
    assert summary(shop) == ("PROMOTED", 0, "0.00")
    assert promote(shop)["state"] == "PROMOTED"


def test_a_deleted_shadow_control_is_not_evaluated(shop: Shop) -> None:
    """A deleted shadow control keeps its records and adds none. If it is promoted later, it counts the current day again."""
    shadow(shop)
    shop.buy(60)
    assert read_of(shop.client.delete("/sandbox/shadow-controls/quiet"))["state"] == "OFF"
    shop.buy(70)
    assert summary(shop) == ("OFF", 1, "60.00")
    promote(shop)
    assert left(shop) == 0.0
    assert shop.buy(1)["response"]["code"] == "1834"


def test_a_shadow_is_no_velocity_control_yet(shop: Shop) -> None:
    """Neither a shadow control nor a velocity control can be listed, changed, deleted or created again as the other kind."""
    shadow(shop)
    body = {"token": "quiet", "amount_limit": 50, "velocity_window": "DAY", "currency_code": "USD"}
    assert problem_of(shop.client.post("/velocitycontrols", body)) == (409, "409002")
    assert problem_of(shop.client.put("/velocitycontrols/quiet", {"amount_limit": 1})) == (404, "404015")
    assert problem_of(shop.client.delete("/velocitycontrols/quiet")) == (404, "404015")
    assert shop.listed("/velocitycontrols/user/ana/available") == []
    real = {**body, "token": "real"}
    made_by(shop.client.post("/velocitycontrols", real))
    assert problem_of(shop.client.post("/sandbox/shadow-controls", real)) == (409, "409002")
    for verb, path in (("GET", ""), ("DELETE", ""), ("POST", "/promote"), ("GET", "/declines")):
        reply = shop.client.request(verb, f"/sandbox/shadow-controls/real{path}", {} if verb == "POST" else None)
        assert problem_of(reply) == (404, "404042")


def test_a_backtest_knows_no_shadows(shop: Shop) -> None:
    """A backtest that removes a shadow control gets 400 with a message that names the entry."""
    shadow(shop)
    reply = shop.client.post("/sandbox/backtests", {"velocity_controls": {"remove": ["quiet"]}})
    assert (reply.status, "remove[0]" in reply.json["error_message"]) == (400, True)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"amount_limit": -1}, "amount_limit"), ({"active": False}, "active"), ({"currency_code": "XYZ"}, "currency_code"),
        ({"velocity_window": "EON"}, "velocity_window"), ({"association": {"user_token": "nobody"}}, "User not found"),
    ],
)  # fmt: skip
def test_what_is_no_shadow(shop: Shop, fields: dict[str, Any], text: str) -> None:
    """An invalid field, or ``active: false``, gets 400 with its cause, and no shadow control is created."""
    body = {"amount_limit": 50, "velocity_window": "DAY", "currency_code": "USD", **fields}
    reply = shop.client.post("/sandbox/shadow-controls", body)
    assert (reply.status, text in reply.json["error_message"]) == (400, True), reply.text
    assert shop.listed("/sandbox/shadow-controls") == []
