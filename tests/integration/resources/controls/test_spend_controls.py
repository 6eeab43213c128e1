"""Spend controls over HTTP on both databases: fields, lists, refused input, and purchases under each control."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import made_by, problem_of, read_of
from tests.support.server import RunningServer
from tests.support.shop import YEAR, Shop

server = shared_server(chosen_databases())
shop = program_fixture(Shop)


def change(shop: Shop, path: str, **body: Any) -> dict[str, Any]:
    """Change a resource and return the answer."""
    return read_of(shop.client.put(path, body))


def answer(shop: Shop, amount: Any = 10, card: str = "jit", mid: str = "m1", mcc: str = "5411", **fields: Any) -> str:
    """Return the code of a new purchase and the name of the control that declined it. The replay must agree."""
    merchant = {"mcc": mcc, "country": fields.pop("country", "USA")}
    transaction = shop.buy(amount, card, mid=mid, card_acceptor=merchant, **fields)
    decision = shop.get(f"/sandbox/decisions/{transaction['token']}")
    assert decision["replay_agrees"] is True, decision
    response = transaction["response"]
    assert decision["response"] == {name: response[name] for name in ("code", "memo")}
    return " ".join(filter(None, (response["code"], response.get("additional_information"))))


# --- Fields and lists --------------------------------------------------------------------


def test_an_authorization_control_is_shown_as_it_was_made(shop: Shop) -> None:
    """Authorization controls have defaults, UTC times, partial updates, lists by user, product and state, and no DELETE."""
    shop.make("mccgroups", token="drinks", name="Drinks", mccs=["5812-5814", "5921"])
    made = shop.make(
        "authcontrols", token="a", name="No drinks", association={"user_token": "ana", "card_product_token": None},
        merchant_scope={"mcc_group": "drinks"}, start_time="2035-06-01T11:00:00+02:00", end_time="2035-07-01",
    )  # fmt: skip
    assert made == {
        "token": "a", "name": "No drinks", "association": {"user_token": "ana"}, "merchant_scope": {"mcc_group": "drinks"},
        "start_time": "2035-06-01T09:00:00Z", "end_time": "2035-07-01T00:00:00Z", "active": True,
    }  # fmt: skip
    assert shop.get("/authcontrols/a") == made
    assert shop.get("/authcontrols/a", fields="name") == {"name": "No drinks"}
    changed = change(shop, "/authcontrols/a", token="a", end_time="Sun, 01 Jul 2035 00:00:00 GMT", merchant_scope={"mcc": "763"})
    assert (changed["end_time"], changed["merchant_scope"]) == ("2035-07-01T00:00:00Z", {"mcc": "763"})
    everybody = shop.make("authcontrols", token="b", name="Everybody", merchant_scope={"mid": "x"})
    assert everybody["association"] == {}
    shop.make("authcontrols", token="c", name="Product", association={"card_product_token": "jit"}, active=False)

    def listed(**query: str) -> list[str]:
        return sorted(row["token"] for row in shop.listed("/authcontrols", **query))

    assert listed() == ["a", "b"]
    assert listed(active="all") == ["a", "b", "c"]
    assert listed(active="false") == ["c"]
    assert listed(user="ana") == ["a"]
    assert listed(user="null", active="all") == ["b", "c"]
    assert listed(card_product="jit", active="all") == ["c"]
    assert listed(card_product="null") == ["a", "b"]
    assert problem_of(shop.client.get("/authcontrols", query={"user": "ana", "card_product": "jit"})) == (400, "400002")
    assert problem_of(shop.client.get("/authcontrols", query={"active": "maybe"})) == (400, "400002")
    assert shop.client.request("DELETE", "/authcontrols/a").status == 405


def test_an_exemption_is_shown_as_it_was_made(shop: Shop) -> None:
    """An exemption has ``created`` and ``last_updated``. A PUT sets only ``active``, answers 204, and deactivates if empty."""
    made = shop.make("authcontrols/exemptmids", token="e", name="Friend", mid="000123")
    times = {"created": f"{YEAR}-01T09:00:00Z", "last_updated": f"{YEAR}-01T09:00:00Z"}
    assert made == {"token": "e", "name": "Friend", "association": {}, "mid": "000123", "active": True, **times}
    shop.clock(f"{YEAR}-02T09:00:00Z")
    off = shop.client.put("/authcontrols/exemptmids/e", {})
    assert (off.status, off.text) == (204, "")
    assert shop.get("/authcontrols/exemptmids/e") == made | {"active": False, "last_updated": f"{YEAR}-02T09:00:00Z"}
    assert shop.listed("/authcontrols/exemptmids") == []
    assert shop.client.put("/authcontrols/exemptmids/e", {"active": True}).status == 204
    assert [exemption["token"] for exemption in shop.listed("/authcontrols/exemptmids", user="null")] == ["e"]
    assert shop.client.put("/authcontrols/exemptmids/x", {}).status == 404
    assert shop.client.get("/authcontrols/e").status == 404


def test_groups_are_shown_as_they_were_made(shop: Shop) -> None:
    """MCC groups keep ranges as sent and have no times. Lists filter by exact member. An update replaces all members."""
    increase = {"authorization_controls": {"hold_increase": {"type": "PERCENT", "value": 12.5}, "hold_expiration_days": 3}}
    made = shop.make("mccgroups", token="g", name="Food", mccs=["5812-5814", "5411"], config=increase)
    assert made == {"token": "g", "name": "Food", "mccs": ["5812-5814", "5411"], "active": True, "config": increase}
    assert "config" not in shop.make("mccgroups", token="h", name="EmptyBody", mccs=[])
    assert [group["token"] for group in shop.listed("/mccgroups", mcc="5813")] == ["g"]
    assert shop.listed("/mccgroups", mcc="5815") == []
    assert change(shop, "/mccgroups/g", mccs=["5815"])["mccs"] == ["5815"]
    assert [group["token"] for group in shop.listed("/mccgroups", mcc="5815")] == ["g"]
    made = shop.make("merchantgroups", token="m", name="Friends", mids=["Ab", "000123", "a%"])
    assert (made["active"], made["mids"], made["created_time"]) == (True, ["Ab", "000123", "a%"], f"{YEAR}-01T09:00:00Z")
    assert "mids" not in shop.make("merchantgroups", token="n", name="Nobody")
    for mid, tokens in (("Ab", ["m"]), ("ab", []), ("000123", ["m"]), ("0001", []), ("a%", ["m"]), ("%", []), ("", [])):
        assert [row["token"] for row in shop.listed("/merchantgroups", mid=mid)] == tokens, mid
    assert change(shop, "/merchantgroups/m", active=False)["mids"] == ["Ab", "000123", "a%"]


def test_two_lists_of_countries_and_a_group_of_holders_are_everywhere(shop: Shop) -> None:
    """Every program has the built-in lists and group. They cannot be changed or created again, and a reset keeps them."""
    shop.make("acceptedcountries", token="own", name="Own", is_whitelist=False, country_codes=["643"])
    shop.make("accountholdergroups", token="mine", name="Mine")
    for _ in range(2):
        assert {"accept_us_only", "decline_ofac_countries"} <= {row["token"] for row in shop.listed("/acceptedcountries")}
        us_only = shop.get("/acceptedcountries/accept_us_only")
        assert (us_only["is_whitelist"], us_only["country_codes"]) == (True, ["840"])
        assert problem_of(shop.client.put("/acceptedcountries/accept_us_only", {"name": "x"})) == (403, "403001")
        group = shop.get("/accountholdergroups/DEFAULT_AHG")
        assert (group["name"], group["config"]["kyc_required"]) == ("Default account holder group", "NEVER")
        assert group["config"]["pre_kyc_controls"]["balance_max"] == 1000
        assert problem_of(shop.client.put("/accountholdergroups/DEFAULT_AHG", {"name": "x"})) == (403, "403001")
        again = {"token": "accept_us_only", "name": "x", "is_whitelist": True, "country_codes": []}
        assert problem_of(shop.client.post("/acceptedcountries", again)) == (409, "409002")
        read_of(shop.client.post("/sandbox/reset", {}))
    assert [entry["token"] for entry in shop.listed("/acceptedcountries", whitelist="false")] == ["decline_ofac_countries"]
    assert [entry["token"] for entry in shop.listed("/acceptedcountries", name="Accept US only")] == ["accept_us_only"]
    assert [entry["token"] for entry in read_of(shop.client.get("/accountholdergroups"))["data"]] == ["DEFAULT_AHG"]


def test_a_repeated_create_is_the_same_object(shop: Shop) -> None:
    """The same token and body return the existing object. Another body is a conflict."""
    bodies: dict[str, dict[str, Any]] = {
        "mccgroups": {"name": "x", "mccs": ["5411"]}, "merchantgroups": {"name": "x", "mids": ["a"]},
        "authcontrols": {"name": "x", "merchant_scope": {"mid": "a"}}, "authcontrols/exemptmids": {"name": "x", "mid": "a"},
        "acceptedcountries": {"name": "x", "is_whitelist": True, "country_codes": ["840"]}, "accountholdergroups": {"name": "x"},
    }  # fmt: skip
    for path, body in bodies.items():
        made = shop.make(path, token="t", **body)
        assert shop.make(path, token="t", **body) == made
        assert problem_of(shop.client.post(f"/{path}", {"token": "t", **body, "name": "y"})) == (409, "409002"), path


# --- Refused input -----------------------------------------------------------------------

AUTH, EXEMPT = "authcontrols", "authcontrols/exemptmids"
MCCS, MIDS, LISTS, HOLDERS = "mccgroups", "merchantgroups", "acceptedcountries", "accountholdergroups"
CONFIG = {"name": "x", "mccs": []}
NOWHERE = {"association": {"user_token": "nobody"}}
LIST = {"name": "x", "is_whitelist": True}


def config(**controls: Any) -> dict[str, Any]:
    """Return the body of an MCC group with these authorization controls."""
    return {**CONFIG, "config": {"authorization_controls": controls}}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (AUTH, {"merchant_scope": {"mid": "x"}}, "name"),
        (AUTH, {"name": "x"}, "association, merchant_scope"),
        (AUTH, {"name": "x", "association": {}, "merchant_scope": {}}, "association, merchant_scope"),
        (AUTH, {"name": "x", "association": {"user_token": "ana", "card_product_token": "jit"}}, "association"),
        (AUTH, {"name": "x", "merchant_scope": {"mid": "x", "mcc": "5411"}}, "merchant_scope"),
        (AUTH, {"name": "x", "merchant_scope": {"mcc": "54a1"}}, "merchant_scope.mcc"),
        (AUTH, {"name": "x", "merchant_scope": {"mcc": "54111"}}, "mcc"),
        (AUTH, {"name": "x", "merchant_scope": {"mcc_group": "none"}}, "merchant_scope.mcc_group"),
        (AUTH, {"name": "x", "merchant_scope": {"merchant_group_token": "none"}}, "merchant_scope.merchant_group_token"),
        (AUTH, {"name": "x", **NOWHERE}, "User not found"),
        (AUTH, {"name": "x", "association": {"card_product_token": "nothing"}}, "Card product not found"),
        (AUTH, {"name": "x", "merchant_scope": {"mid": "x"}, "start_time": "soon"}, "start_time"),
        (AUTH, {"name": "x", "merchant_scope": {"mid": "x"}, "end_time": "2035-13-01"}, "end_time"),
        (AUTH, {"name": "x", "merchant_scope": {"mid": "x"}, "start_time": "2035-06-02", "end_time": "2035-06-02"}, "end_time"),
        (AUTH, {"name": "x" * 256, "merchant_scope": {"mid": "x"}}, "name"),
        (EXEMPT, {"name": "x"}, "mid, merchant_group_token"),
        (EXEMPT, {"mid": "x"}, "name"),
        (EXEMPT, {"name": "x", "mid": "x", "merchant_group_token": "y"}, "mid, merchant_group_token"),
        (EXEMPT, {"name": "x", "merchant_group_token": "none"}, "merchant_group_token"),
        (EXEMPT, {"name": "x", "mid": "x", **NOWHERE}, "User not found"),
        (EXEMPT, {"name": "x", "mid": "x", "start_time": "9999-12-31T23:59:59-01:00"}, "start_time"),
        (MCCS, {"name": "x"}, "mccs"),
        (MCCS, {"mccs": []}, "name"),
        (MCCS, {"name": "x", "mccs": ["541"]}, "mccs[0]"),
        (MCCS, {"name": "x", "mccs": ["5411", "5814-5812"]}, "mccs[1]"),
        (MCCS, {"name": "x", "mccs": ["5411-"]}, "mccs[0]"),
        (MCCS, {"name": "x", "mccs": ["٥٤١١"]}, "mccs[0]"),
        (MCCS, {"name": "x", "mccs": ["5411", "5411"]}, "mccs"),
        (MCCS, {"name": "x", "mccs": ["5411"] * 501}, "mccs"),
        (MCCS, config(hold_increase={"value": 1}), "type"),
        (MCCS, config(hold_increase={"type": "AMOUNT"}), "value"),
        (MCCS, config(hold_increase={"type": "AMOUNT", "value": -1}), "hold_increase.value"),
        (MCCS, config(hold_increase={"type": "PERCENT", "value": 1000.01}), "hold_increase.value"),
        (MCCS, config(hold_expiration_days=0), "hold_expiration_days"),
        (MCCS, config(hold_expiration_days=101), "hold_expiration_days"),
        (MIDS, {"mids": ["x"]}, "name"),
        (MIDS, {"name": "x", "mids": []}, "mids"),
        (MIDS, {"name": "x", "mids": ["a", "a"]}, "mids"),
        (MIDS, {"name": "x", "mids": ["a\nb"]}, "mids[0]"),
        (MIDS, {"name": "x", "mids": [""]}, "mids[0]"),
        (MIDS, {"name": "x" * 41, "mids": ["a"]}, "name"),
        (LISTS, {"name": "x", "country_codes": []}, "is_whitelist"),
        (LISTS, {**LIST, "country_codes": ["USA"]}, "country_codes[0]"),
        (LISTS, {**LIST, "country_codes": ["840", "999"]}, "country_codes[1]"),
        (LISTS, {**LIST, "country_codes": ["840", "840"]}, "country_codes"),
        (HOLDERS, {"name": ""}, "name"),
        (HOLDERS, {"config": {"kyc_required": "SOMETIMES"}}, "kyc_required"),
        (HOLDERS, {"config": {"pre_kyc_controls": {"balance_max": -1}}}, "balance_max"),
        ("velocitycontrols", {"amount_limit": 1, "velocity_window": "DAY", "currency_code": "USD",
                              "merchant_scope": {"mcc_group": "none"}}, "merchant_scope.mcc_group"),
        ("velocitycontrols", {"amount_limit": 1, "velocity_window": "DAY", "currency_code": "USD", "include_credits": True,
                              "money_in_transaction": {"include_credits_types": ["ALL"]}}, "money_in_transaction"),
        ("users", {"account_holder_group_token": "none"}, "Account holder group not found"),
        ("cardproducts", {"name": "x", "start_date": "2020-01-01",
                          "config": {"transaction_controls": {"accepted_countries_token": "none"}}}, "accepted_countries_token"),
        ("cardproducts", {"name": "x", "start_date": "2020-01-01",
                          "config": {"transaction_controls": {"quasi_cash_exempt_merchant_group_token": "none"}}},
         "quasi_cash_exempt_merchant_group_token"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(twenty: Shop, path: str, body: dict[str, Any], field: str) -> None:
    """Invalid input gets 400 with a message that names the field, and nothing is stored."""
    before = twenty.get(f"/{path}", count=10)
    reply = twenty.client.post(f"/{path}", body)
    assert reply.status == 400, reply.text
    assert field in reply.json["error_message"], reply.text
    assert twenty.get(f"/{path}", count=10) == before


@pytest.fixture(scope="module")
def twenty(server: RunningServer) -> Iterator[Shop]:
    """Yield one program for all refused requests."""
    shop = Shop(server)
    yield shop
    shop.client.close()


def test_a_program_has_ninety_controls_of_its_own_and_any_number_of_others(shop: Shop) -> None:
    """At most 90 controls of both kinds apply to a whole program. Inactive ones and those of a user do not count."""
    for number in range(45):
        shop.make("authcontrols", name=f"a{number}", merchant_scope={"mid": f"x{number}"})
        shop.make("velocitycontrols", amount_limit=1000, velocity_window="DAY", currency_code="USD")
    one_more = {"name": "x", "merchant_scope": {"mid": "x"}}
    limit = {"amount_limit": 1000, "velocity_window": "DAY", "currency_code": "USD"}
    for path, body in (("authcontrols", one_more), ("velocitycontrols", limit)):
        reply = shop.client.post(f"/{path}", body)
        assert (reply.status, "at most 90" in reply.json["error_message"]) == (400, True)
    off = shop.make("authcontrols", **one_more, active=False)
    assert shop.client.put(f"/authcontrols/{off['token']}", {"active": True}).status == 400
    shop.make("authcontrols", **one_more, association={"user_token": "ana"})
    read_of(shop.client.put(f"/authcontrols/{shop.listed('/authcontrols', user='null')[0]['token']}", {"active": False}))
    assert change(shop, f"/authcontrols/{off['token']}", active=True)["active"] is True


# --- Purchases under controls ------------------------------------------------------------


def test_a_bar_is_closed_to_one_and_a_friend_opens_it(shop: Shop) -> None:
    """A change of a control, its exemption or its group applies to the next purchase. Explanations show the old control."""
    shop.make("mccgroups", token="bars", name="Bars", mccs=["5813"])
    bars = {"mcc_group": "bars"}
    shop.make("authcontrols", token="sober", name="Sober", association={"user_token": "ana"}, merchant_scope=bars)
    assert answer(shop, mcc="5813") == "1821 Sober"
    assert answer(shop, mcc="5812") == "0000"
    refused = shop.buy(10, mid="m1", card_acceptor={"mcc": "5813", "country": "USA"})
    assert refused["response"]["memo"] == "Invalid merchant"
    assert refused["card_acceptor"]["mcc_groups"] == ["Bars"]
    assert "gpa_order" not in refused

    shop.make("authcontrols/exemptmids", token="pub", name="The Pub", mid="pub")
    assert answer(shop, mcc="5813", mid="pub") == "0000"
    assert shop.client.put("/authcontrols/exemptmids/pub", {"active": False}).status == 204
    assert answer(shop, mcc="5813", mid="pub") == "1821 Sober"

    change(shop, "/mccgroups/bars", mccs=["5812"])
    assert (answer(shop, mcc="5813"), answer(shop, mcc="5812")) == ("0000", "1821 Sober")
    change(shop, "/mccgroups/bars", active=False)
    assert answer(shop, mcc="5812") == "0000"
    change(shop, "/mccgroups/bars", active=True)
    change(shop, "/authcontrols/sober", active=False)
    assert answer(shop, mcc="5812") == "0000"

    decision = shop.get(f"/sandbox/decisions/{refused['token']}")
    assert (decision["first_refusal"], decision["replay_agrees"]) == ("merchant_is_allowed", True)
    step = next(check for check in decision["checks"] if check["check"] == "merchant_is_allowed")
    assert step["inputs"]["refused_by"] == "sober"
    assert step["inputs"]["authorization_controls"] == [
        {"token": "sober", "name": "Sober", "level": "user", "merchant_scope": {"mcc_group": "bars"}, "applies": True}
    ]


def test_a_week_of_closed_shops(shop: Shop) -> None:
    """Times with a UTC offset start and end a control to the second. It applies only to its merchant group and product."""
    shop.make("merchantgroups", token="toys", name="Toys", mids=["t1"])
    shop.make(
        "authcontrols", name="Weekend", association={"card_product_token": "jit"},
        merchant_scope={"merchant_group_token": "toys"},
        start_time="2035-06-02T00:00:00-05:00", end_time="2035-06-04T00:00:00-05:00",
    )  # fmt: skip
    moments = {"02T04:59:59": "0000", "02T05:00:00": "1821 Weekend", "04T04:59:59": "1821 Weekend", "04T05:00:00": "0000"}
    for time, expected in moments.items():
        shop.clock(f"{YEAR}-{time}Z")
        assert answer(shop, mid="t1") == expected, time
        assert answer(shop, mid="t2") == "0000"
        assert shop.buy(1, "plain", mid="t1")["response"]["code"] != "1821"


def test_a_budget_for_a_group_of_categories(shop: Shop) -> None:
    """A velocity control on an MCC group counts purchases in the group, and counts its window again if the group changes."""
    shop.make("mccgroups", token="food", name="Food", mccs=["5812-5814"])
    shop.make(
        "velocitycontrols", token="v", name="Food budget", association={"user_token": "ana"}, amount_limit=30,
        velocity_window="DAY", currency_code="USD", merchant_scope={"mcc_group": "food"},
    )  # fmt: skip
    assert [answer(shop, 20, mcc="5813"), answer(shop, 25, mcc="5411"), answer(shop, 11, mcc="5812")] == [
        "0000", "0000", "1834 Food budget",
    ]  # fmt: skip

    def left() -> float:
        return float(shop.get("/velocitycontrols/user/ana/available")["data"][0]["available"]["amount"])

    assert left() == 10
    change(shop, "/mccgroups/food", mccs=["5411"])
    assert left() == 5
    assert [answer(shop, 100, mcc="5812"), answer(shop, 6, mcc="5411"), answer(shop, 5, mcc="5411")] == [
        "0000", "1834 Food budget", "0000",
    ]  # fmt: skip
    change(shop, "/mccgroups/food", mccs=["5411", "5813"])
    assert left() == 0
    change(shop, "/mccgroups/food", active=False)
    assert left() == 30


def test_a_refund_gives_back_what_its_purchase_counted(shop: Shop) -> None:
    """A refund of a purchase or of its clearing gives back at most the usage that the purchase counted in this month."""
    shop.make("velocitycontrols", token="v", amount_limit=100, velocity_window="MONTH", currency_code="USD")

    def left() -> float:
        return float(shop.get("/velocitycontrols/user/ana/available")["data"][0]["available"]["amount"])

    old = shop.buy(80)
    shop.follow("clearing", old, 80)
    shop.clock("2035-07-01T09:00:00Z")
    cleared, open_hold = shop.buy(40), shop.buy(30)
    clearing = shop.follow("clearing", cleared, 40)
    assert left() == 30
    shop.follow("clearing", old, 80, is_refund=True)
    assert left() == 30
    shop.follow("clearing", clearing, 25, is_refund=True)
    assert left() == 55
    shop.follow("clearing", cleared, 25, is_refund=True)
    assert left() == 70
    shop.follow("clearing", open_hold, 20, is_refund=True)
    shop.follow("reversal", open_hold, 30)
    assert left() == 100
    assert [answer(shop, 100), answer(shop, 1)] == ["0000", "1834 v"]


def test_a_finer_choice_of_money_coming_in_is_kept(shop: Shop) -> None:
    """``money_in_transaction`` is returned as sent and absent by default. It cannot be combined with ``include_credits``."""
    window = {"amount_limit": 30, "velocity_window": "DAY", "currency_code": "USD"}
    chosen = {"include_credits_types": ["ALL"], "include_network_load_types": ["NONE"]}
    assert shop.make("velocitycontrols", token="v", money_in_transaction=chosen, **window)["money_in_transaction"] == chosen
    assert "money_in_transaction" not in shop.make("velocitycontrols", **window)
    assert problem_of(shop.client.put("/velocitycontrols/v", {"include_credits": True})) == (400, "400001")


def test_a_pump_holds_more_than_it_asks(shop: Shop) -> None:
    """A hold increase changes the hold, not the request. A full reversal releases the whole hold. A product can opt out."""
    increase = {"authorization_controls": {"hold_increase": {"type": "AMOUNT", "value": 25}}}
    shop.make("mccgroups", token="pumps", name="Pumps", mccs=["5542"], config=increase)
    pump = {"mid": "pump", "card_acceptor": {"mcc": "5542", "country": "USA"}}
    held = shop.buy(1, **pump)
    assert (held["request_amount"], held["amount"], held["gpa_order"]["amount"]) == (1, 26, 26)
    assert shop.money("ana") == (26, 0)
    step = next(
        check for check in shop.get(f"/sandbox/decisions/{held['token']}")["checks"] if check["check"] == "hold_is_raised"
    )
    assert step["inputs"] == {"mcc": "5542", "mcc_groups": ["Pumps"], "requested": "1.00", "held": "26.00"}
    back = shop.follow("reversal", held, 1)
    assert (back["amount"], shop.money("ana")) == (26, (0, 0))

    held = shop.buy(1, **pump)
    shop.follow("clearing", held, 20)
    assert shop.money("ana") == (6, 0)
    opted_out = {"transaction_controls": {"allow_mcc_group_authorization_controls": False}}
    change(shop, "/cardproducts/jit", config=opted_out)
    assert shop.buy(1, **pump)["amount"] == 1


def test_a_product_with_countries_of_its_own(shop: Shop) -> None:
    """A product accepts or declines the countries of its list. A change of the list applies to the next purchase."""
    shop.make("acceptedcountries", token="america", name="America", is_whitelist=True, country_codes=["840", "124"])
    controls = {"accepted_countries_token": "america"}
    change(shop, "/cardproducts/jit", config={"transaction_controls": controls})
    assert [answer(shop, country=country) for country in ("USA", "Canada", "MEX")] == ["0000", "0000", "1864"]
    change(shop, "/acceptedcountries/america", country_codes=["484"])
    assert [answer(shop, country=country) for country in ("USA", "MEX")] == ["1864", "0000"]
    change(shop, "/acceptedcountries/america", is_whitelist=False)
    assert [answer(shop, country=country) for country in ("USA", "MEX")] == ["0000", "1864"]
    change(shop, "/cardproducts/jit", config={"transaction_controls": {"accepted_countries_token": "accept_us_only"}})
    assert [answer(shop, country=country) for country in ("USA", "MEX")] == ["0000", "1864"]


def test_friends_may_sell_casino_chips(shop: Shop) -> None:
    """Merchants of the product's exempt group may sell quasi-cash. A change of the group applies to the next purchase."""
    shop.make("merchantgroups", token="friends", name="Friends", mids=["f1"])
    controls = {"quasi_cash_exempt_merchant_group_token": "friends"}
    assert answer(shop, mcc="7995", mid="f1") == "1956"
    change(shop, "/cardproducts/jit", config={"transaction_controls": controls})
    assert [answer(shop, mcc="7995", mid=mid) for mid in ("f1", "f2")] == ["0000", "1956"]
    change(shop, "/merchantgroups/friends", mids=["f2"])
    assert [answer(shop, mcc="7995", mid=mid) for mid in ("f1", "f2")] == ["1956", "0000"]
    change(shop, "/merchantgroups/friends", active=False)
    assert answer(shop, mcc="7995", mid="f2") == "1956"


def test_a_newcomer_passes_kyc(shop: Shop) -> None:
    """A group sets the first status of its members, and restricts cash and foreign countries until they pass KYC."""
    pre_kyc = {"cash_access_enabled": False, "international_enabled": False}
    made = shop.make("accountholdergroups", token="new", config={"kyc_required": "CONDITIONAL", "pre_kyc_controls": pre_kyc})
    assert made["config"]["is_reloadable"] is True
    shop.make("accountholdergroups", token="strict", config={"kyc_required": "ALWAYS"})
    cy = shop.make("users", token="cy", account_holder_group_token="new")
    assert (cy["status"], cy["active"], cy["account_holder_group_token"]) == ("LIMITED", True, "new")
    assert shop.make("users", account_holder_group_token="strict")["status"] == "UNVERIFIED"
    assert shop.make("users", account_holder_group_token="DEFAULT_AHG")["status"] == "ACTIVE"
    shop.make("cards", token="cy", user_token="cy", card_product_token="jit")
    assert [answer(shop, card="cy"), answer(shop, card="cy", country="GBR")] == ["0000", "1864"]
    assert answer(shop, card="cy", cash_back_amount=5) == "1955"
    change(shop, "/accountholdergroups/new", config={"pre_kyc_controls": {"international_enabled": True}})
    assert [answer(shop, card="cy", country="GBR"), answer(shop, card="cy", cash_back_amount=5)] == ["0000", "1955"]
    passed = {"user_token": "cy", "status": "ACTIVE", "reason_code": "00", "channel": "API"}
    made_by(shop.client.post("/usertransitions", passed))
    assert answer(shop, card="cy", cash_back_amount=5) == "0000"
    assert change(shop, "/users/cy", account_holder_group_token="strict")["account_holder_group_token"] == "strict"
    assert shop.get("/users/cy")["status"] == "ACTIVE"


def test_many_users_with_controls_of_their_own(shop: Shop) -> None:
    """The controls of each of twelve users decline that user's purchases, and no purchase of another user."""
    users = [f"u{number}" for number in range(12)]
    for user in users:
        shop.make("users", token=user)
        shop.make("cards", token=user, user_token=user, card_product_token="jit")
        scope = {"mid": f"shut-{user}"}
        shop.make("authcontrols", name=f"Not for {user}", association={"user_token": user}, merchant_scope=scope)
        window = {"velocity_window": "DAY", "currency_code": "USD"}
        shop.make("velocitycontrols", name=f"Limit {user}", association={"user_token": user}, amount_limit=20, **window)
    for user in users:
        assert answer(shop, card=user, mid=f"shut-{user}") == f"1821 Not for {user}"
        assert answer(shop, 20, card=user, mid="shut-u0x") == "0000"
        assert answer(shop, 0.01, card=user) == f"1834 Limit {user}"
    assert answer(shop, 500, mid="shut-u0") == "0000"


FORCED = [
    # The named transaction, the forced clearing, and the amounts left of 100 for purchases and for withdrawals.
    ("credit", "v1", (10, 100)),
    ("withdrawal", "v1", (10, 99)),
    ("credit", "authorization.clearing", (10, 100)),
    ("purchase", "authorization.clearing.atm.withdrawal", (99, 10)),
    ("purchase", "original.credit.authorization.clearing", (99, 100)),
]


@pytest.mark.parametrize(("named", "forced", "left"), FORCED)
def test_a_forced_clearing_counts_as_what_it_is(shop: Shop, named: str, forced: str, left: tuple[int, int]) -> None:
    """A forced clearing takes card and merchant from the transaction that it names, but counts by its own type."""
    window = {"velocity_window": "DAY", "currency_code": "USD", "amount_limit": 100, "association": {"user_token": "ana"}}
    shop.make("velocitycontrols", token="purchases", include_withdrawals=False, **window)
    shop.make("velocitycontrols", token="withdrawals", include_purchases=False, include_cashback=False, **window)
    if named == "purchase":
        original = shop.buy(1)["token"]
    elif named == "credit":
        body = {"card_token": "jit", "mid": "m1", "amount": 50, "type": "person_to_person"}
        original = made_by(shop.simulate("financial/originalcredit", **body))["transaction"]["token"]
    else:
        original = made_by(shop.simulate("financial/withdrawal", card_token="jit", mid="m1", amount=0.01))["transaction"]["token"]
    if forced == "v1":
        made_by(shop.simulate("clearing", original_transaction_token=original, amount=90, force_post=True))
    else:
        body = {"preceding_related_transaction_token": original, "amount": 90, "force_post": True}
        made_by(shop.client.post(f"/simulations/cardtransactions/{forced}", body))
    available = {
        control["token"]: control["available"]["amount"] for control in shop.listed("/velocitycontrols/user/ana/available")
    }
    assert (int(available["purchases"]), int(available["withdrawals"])) == left
