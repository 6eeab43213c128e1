"""Backtests over HTTP: replays under changed controls, pages of flips, deletion, continuation, and refused requests."""

from typing import Any

import pytest
from sqlalchemy import update

from cardwright.resources.analysis.backtest_worker import MODULE
from cardwright.storage.database import Database
from cardwright.storage.tables import backtests
from tests.support.databases import chosen_databases, migrated_file
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import made_by, problem_of, read_of
from tests.support.server import RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until

WAIT_S = 60

server = shared_server(chosen_databases())
shop = program_fixture(Shop)


def limit(shop: Shop, token: str, amount: int, **fields: Any) -> dict[str, Any]:
    """Create a daily velocity control."""
    return shop.make("velocitycontrols", token=token, amount_limit=amount, velocity_window="DAY", currency_code="USD", **fields)


def ended(shop: Shop, token: str) -> dict[str, Any]:
    """Wait for the end of a backtest and return it."""
    path = f"/sandbox/backtests/{token}"
    until(lambda: shop.get(path)["state"] not in ("QUEUED", "RUNNING", "INTERRUPTED"), WAIT_S)
    return shop.get(path)


def tried(shop: Shop, **body: Any) -> dict[str, Any]:
    """Run a backtest to its end and return it. Raises AssertionError unless its state is DONE."""
    made = made_by(shop.client.post("/sandbox/backtests", body))
    assert made["state"] in ("QUEUED", "RUNNING")
    backtest = ended(shop, made["token"])
    assert backtest["state"] == "DONE", backtest
    return backtest


def test_a_lower_limit_is_tried(shop: Shop) -> None:
    """A lower limit declines two of the four approved purchases. Counts, amounts, rates and flips of the backtest agree."""
    limit(shop, "day", 100)
    bought = [shop.buy(amount) for amount in (30, 40, 20)]
    shop.follow("reversal", bought[1], 40)
    bought += [shop.buy(15), shop.buy(200)]
    backtest = tried(shop, name="Tighter", velocity_controls={"change": [{"token": "day", "amount_limit": 50}]})
    assert (backtest["name"], backtest["purchases"]) == ("Tighter", 5)
    assert backtest["before"] == {"approved": 4, "declined": 1, "approved_amount": "105.00", "approval_rate": 80.0}
    # 30 passes, 40 is too much, 20 uses up the limit. The reversal of the declined 40 gives nothing back, so 15 is declined.
    assert backtest["after"] == {"approved": 2, "declined": 3, "approved_amount": "50.00", "approval_rate": 40.0}
    assert backtest["approval_rate_change"] == -40.0
    assert backtest["flips"] == {
        "to_declined": 2, "to_declined_amount": "55.00", "to_approved": 0, "to_approved_amount": "0.00", "kept": 2,
    }  # fmt: skip
    assert backtest["declined_by"] == [
        {"control": "day", "control_type": "velocity_control", "purchases": 3, "request_amount": "255.00"}
    ]
    flips = shop.get(f"/sandbox/backtests/{backtest['token']}/flips")
    assert [flip["transaction_token"] for flip in flips["data"]] == [bought[1]["token"], bought[3]["token"]]
    first = flips["data"][0]
    assert (first["user_token"], first["card_token"], first["request_amount"]) == ("ana", "jit", "40.00")
    assert first["before"] == {
        "outcome": "APPROVED", "response": {"code": "0000", "memo": "Approved or completed successfully"}, "amount": "40.00"
    }  # fmt: skip
    assert first["after"]["response"]["code"] == "1834"
    assert (first["after"]["control"], first["after"]["used_before"], first["after"]["amount_limit"]) == ("day", "30.00", "50.00")
    assert shop.get(f"/sandbox/backtests/{backtest['token']}/flips", count=1, start_index=1)["data"] == flips["data"][1:]


def test_a_control_is_taken_away_and_another_tried(shop: Shop) -> None:
    """A purchase passes without the control that declined it. A flip to declined names the added control and its code."""
    limit(shop, "day", 50)
    declined = shop.buy(60)
    approved = shop.buy(45)
    new = {"amount_limit": 200, "usage_limit": 1, "velocity_window": "DAY", "currency_code": "USD", "name": "Once a day"}
    backtest = tried(shop, velocity_controls={"remove": ["day"], "add": [new]})
    flips = shop.listed(f"/sandbox/backtests/{backtest['token']}/flips")
    assert {flip["transaction_token"]: flip["after"]["outcome"] for flip in flips} == {
        declined["token"]: "APPROVED", approved["token"]: "DECLINED",
    }  # fmt: skip
    assert flips[0]["before"]["declined_by"] == "day"
    assert (flips[1]["after"]["control"], flips[1]["after"]["control_name"]) == ("added 1", "Once a day")
    assert flips[1]["after"]["response"]["code"] == "1817"


def test_an_added_authorization_control_declines(shop: Shop) -> None:
    """An added authorization control declines purchases in its scope from its start time. Freed room approves a later one."""
    limit(shop, "day", 50)
    early = shop.buy(10, mid="bar")
    shop.clock("2035-06-01T12:00:00Z")
    bought = [shop.buy(20, mid="bar"), shop.buy(15), shop.buy(25)]
    assert [transaction["state"] for transaction in (early, *bought)] == ["PENDING", "PENDING", "PENDING", "DECLINED"]
    new = {"token": "dry", "name": "No bars", "merchant_scope": {"mid": "bar"}, "start_time": "2035-06-01T12:00:00Z"}
    backtest = tried(shop, auth_controls={"add": [new]})
    assert backtest["auth_controls"]["add"][0]["token"] == "dry"
    assert backtest["flips"] == {
        "to_declined": 1, "to_declined_amount": "20.00", "to_approved": 1, "to_approved_amount": "25.00", "kept": 2,
    }  # fmt: skip
    assert backtest["declined_by"] == [
        {"control": "dry", "control_type": "auth_control", "purchases": 1, "request_amount": "20.00"}
    ]
    first, second = shop.listed(f"/sandbox/backtests/{backtest['token']}/flips")
    assert (first["transaction_token"], second["transaction_token"]) == (bought[0]["token"], bought[2]["token"])
    assert first["after"] == {
        "outcome": "DECLINED", "response": {"code": "1821", "memo": "Invalid merchant"}, "control": "dry",
        "control_type": "auth_control", "control_name": "No bars",
    }  # fmt: skip
    assert (second["before"]["declined_by"], second["after"]["amount"]) == ("day", "25.00")


def test_an_authorization_control_is_taken_away(shop: Shop) -> None:
    """Without a control the purchases that it declined pass, as far as limits have room. They use up room of later ones."""
    limit(shop, "day", 50)
    shop.make("authcontrols", token="dry", name="No bars", merchant_scope={"mid": "bar"})
    bought = [shop.buy(30, mid="bar"), shop.buy(15), shop.buy(20, mid="bar"), shop.buy(10)]
    assert [transaction["response"]["code"] for transaction in bought] == ["1821", "0000", "1821", "0000"]
    backtest = tried(shop, auth_controls={"remove": ["dry"]})
    flips = shop.listed(f"/sandbox/backtests/{backtest['token']}/flips")
    # 30 and 15 fit. 20 does not, but the control had declined it, so it is no flip. 10 exceeds the 5 that are left.
    assert {flip["transaction_token"]: flip["after"]["outcome"] for flip in flips} == {
        bought[0]["token"]: "APPROVED", bought[3]["token"]: "DECLINED",
    }  # fmt: skip
    assert (flips[0]["before"]["declined_by"], flips[1]["after"]["control"]) == ("No bars", "day")
    assert backtest["declined_by"] == [
        {"control": "day", "control_type": "velocity_control", "purchases": 2, "request_amount": "30.00"}
    ]


def test_authorization_controls_are_as_they_were(shop: Shop) -> None:
    """A replay applies each control as it was then: inactive, with another scope, or exempted. Only a change causes flips."""
    shop.make("merchantgroups", token="pubs", name="Pubs", mids=["bar"])
    shop.make("authcontrols", token="dry", name="No bars", merchant_scope={"merchant_group_token": "pubs"})
    codes = [shop.buy(1, mid="bar")["response"]["code"]]
    for path, body in (
        ("merchantgroups/pubs", {"mids": ["club"]}), ("merchantgroups/pubs", {"mids": ["club", "bar"]}),
        ("authcontrols/dry", {"active": False}), ("authcontrols/dry", {"active": True}),
    ):  # fmt: skip
        read_of(shop.client.put(f"/{path}", body))
        codes.append(shop.buy(1, mid="bar")["response"]["code"])
    shop.make("authcontrols/exemptmids", token="ours", name="Our bar", mid="bar")
    codes.append(shop.buy(1, mid="bar")["response"]["code"])
    assert codes == ["1821", "0000", "1821", "0000", "1821", "0000"]
    assert tried(shop)["flips"]["kept"] == 0
    assert tried(shop, exempt_mids={"remove": ["ours"]})["flips"]["to_declined"] == 1
    assert tried(shop, exempt_mids={"add": [{"name": "Every bar", "mid": "bar"}]})["flips"]["to_approved"] == 3
    # With the bar itself as scope the control also declines purchase 2. It is inactive at purchase 4, and 6 is exempt.
    changed = {"token": "dry", "merchant_scope": {"mid": "bar"}}
    flips = tried(shop, auth_controls={"change": [changed]})["flips"]
    assert (flips["to_declined"], flips["to_approved"]) == (1, 0)
    flips = tried(shop, auth_controls={"change": [{**changed, "active": True}]})["flips"]
    assert (flips["to_declined"], flips["to_approved"]) == (2, 0)


BEGUN = {
    "authorization": ("authorization.advice", "authorization.clearing", "authorization.reversal"),
    "authorization.atm.withdrawal": ("authorization.clearing.atm.withdrawal",),
    "pindebit": ("pindebit.reversal",),
    "pindebit.authorization": ("pindebit.authorization.clearing", "pindebit.authorization.reversal"),
    "pindebit.balanceinquiry": (),
    "account.funding.authorization": ("account.funding.authorization.clearing", "account.funding.authorization.reversal"),
    "account.funding.auth_plus_capture": ("account.funding.auth_plus_capture.reversal",),
    "original.credit.authorization": ("original.credit.authorization.clearing", "original.credit.authorization.reversal"),
    "original.credit.auth_plus_capture": ("original.credit.auth_plus_capture.reversal",),
}
"""The events that start a chain, and the events that may follow each of them."""


@pytest.mark.parametrize("is_blocked", [True, False], ids=["blocked then", "blocked now"])
def test_everything_that_asks_is_blocked(shop: Shop, is_blocked: bool) -> None:
    """An authorization control declines every event that spends, whatever follows it. Removing or adding it flips them all."""
    dry = {"token": "dry", "name": "EmptyBody", "association": {"card_product_token": "jit"}}
    if is_blocked:
        shop.make("authcontrols", **dry)
    path, body = "/simulations/cardtransactions/", {"card_token": "jit", "amount": 10, "mid": "bank"}
    for event, followers in BEGUN.items():
        account = {"account_type": "checking"} if event == "pindebit.balanceinquiry" else {}
        begun = [made_by(shop.client.post(path + event, body | account))["transaction"] for _ in (*followers, "")]
        assert {transaction["response"]["code"] for transaction in begun} == {"1821" if is_blocked else "0000"}, begun
        for transaction, follower in zip(begun, followers, strict=False):
            shop.client.post(path + follower, {"preceding_related_transaction_token": transaction["token"], "amount": 10})
    backtest = tried(shop, auth_controls={"remove": ["dry"]} if is_blocked else {"add": [dry]})
    spends = [event for event in BEGUN if "credit" not in event and "inquiry" not in event]
    purchases = sum(len(BEGUN[event]) + 1 for event in spends)
    flips = (0, purchases) if is_blocked else (purchases, 0)
    assert (backtest["purchases"], backtest["flips"]["to_declined"], backtest["flips"]["to_approved"]) == (purchases, *flips)


def test_a_range_is_tried(shop: Shop) -> None:
    """Only purchases of the range are replayed. Earlier ones still count in the window."""
    shop.buy(30)
    shop.clock("2035-06-01T15:00:00Z")
    second = shop.buy(30)
    shop.clock("2035-06-02T09:00:00Z")
    shop.buy(60)
    new = {"amount_limit": 50, "velocity_window": "DAY", "currency_code": "USD"}
    body = {"start_date": "2035-06-01T12:00:00Z", "end_date": "2035-06-01", "velocity_controls": {"add": [new]}}
    backtest = tried(shop, **body)
    assert (backtest["start_time"], backtest["end_time"]) == ("2035-06-01T12:00:00.000Z", "2035-06-02T00:00:00.000Z")
    assert backtest["purchases"] == 1
    assert [flip["transaction_token"] for flip in shop.listed(f"/sandbox/backtests/{backtest['token']}/flips")] == [
        second["token"]
    ]


def test_what_other_checks_declined_stays_declined(shop: Shop) -> None:
    """Purchases declined for their country or for lack of funds stay declined without the control."""
    limit(shop, "day", 10)
    shop.buy(5, card_acceptor={"country": "CUB"})
    shop.buy(5, "plain")
    shop.buy(20, "plain")
    backtest = tried(shop, velocity_controls={"remove": ["day"]})
    assert (backtest["purchases"], backtest["flips"]["kept"], backtest["after"]["approved"]) == (3, 0, 0)


def test_nothing_is_changed_by_it(shop: Shop) -> None:
    """A backtest changes no transaction, balance or usage. Without purchases its rates are null."""
    backtest = tried(shop)
    assert (backtest["purchases"], backtest["before"]["approval_rate"], backtest["approval_rate_change"]) == (0, None, None)
    limit(shop, "day", 100)
    shop.buy(10)
    before = [shop.get(path) for path in ("/transactions", "/balances/ana", "/velocitycontrols/user/ana/available")]
    tried(shop, velocity_controls={"change": [{"token": "day", "amount_limit": 1}]})
    assert [shop.get(path) for path in ("/transactions", "/balances/ana", "/velocitycontrols/user/ana/available")] == before


def test_the_same_request_is_one_backtest(shop: Shop) -> None:
    """The same token and body return the same backtest. Another body is a conflict."""
    body = {"token": "one", "velocity_controls": {}}
    made_by(shop.client.post("/sandbox/backtests", body))
    assert made_by(shop.client.post("/sandbox/backtests", body))["token"] == "one"
    assert problem_of(shop.client.post("/sandbox/backtests", {**body, "name": "another"})) == (409, "409002")


def test_a_backtest_is_taken_away(shop: Shop) -> None:
    """A deleted backtest, its flips, and a backtest of another program get 404."""
    backtest = tried(shop)
    assert shop.client.delete(f"/sandbox/backtests/{backtest['token']}").status == 204
    for path in (backtest["token"], f"{backtest['token']}/flips"):
        assert problem_of(shop.client.get(f"/sandbox/backtests/{path}")) == (404, "404041")
    other = Shop(shop.server)
    assert problem_of(shop.client.get(f"/sandbox/backtests/{tried(other)['token']}")) == (404, "404041")


NEW = {"amount_limit": 1, "velocity_window": "DAY", "currency_code": "USD"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"start_date": "yesterday"}, "start_date"),
        ({"start_date": "2099-01-01"}, "start_date"),
        ({"start_date": "2035-05-01", "end_date": "2035-04-01"}, "end_date"),
        ({"velocity_controls": []}, "velocity_controls"),
        ({"velocity_controls": {"remove": ["nobody"]}}, "velocity_controls.remove[0]"),
        ({"velocity_controls": {"remove": ["day", "day"]}}, "velocity_controls"),
        ({"velocity_controls": {"change": [{"amount_limit": 1}]}}, "velocity_controls.change[0].token"),
        ({"velocity_controls": {"change": [{"token": "nobody"}]}}, "velocity_controls.change[0].token"),
        ({"velocity_controls": {"change": [{"token": "day", "amount_limit": -1}]}}, "velocity_controls.change[0].amount_limit"),
        ({"velocity_controls": {"change": [{"token": "day", "velocity_window": "EON"}]}}, "change[0].velocity_window"),
        ({"velocity_controls": {"add": [{**NEW, "merchant_scope": {"mid": "m", "mcc": "1"}}]}}, "velocity_controls.add[0].merch"),
        ({"velocity_controls": {"add": [{**NEW, "currency_code": "XYZ"}]}}, "velocity_controls.add[0].currency_code"),
        ({"velocity_controls": {"add": [NEW] * 101}}, "velocity_controls.add"),
        ({"auth_controls": {"remove": ["day"]}}, "auth_controls.remove[0]"),
        ({"auth_controls": {"remove": ["dry"], "change": [{"token": "dry"}]}}, "auth_controls"),
        ({"auth_controls": {"change": [{"name": "n"}]}}, "auth_controls.change[0].token"),
        ({"auth_controls": {"change": [{"token": "dry", "start_time": "soon"}]}}, "auth_controls.change[0].start_time"),
        ({"auth_controls": {"add": [{"name": "Everything"}]}}, "auth_controls.add[0].association, merchant_scope"),
        ({"auth_controls": {"add": [{"name": "n", "merchant_scope": {"mcc_group": "none"}}]}}, "add[0].merchant_scope.mcc_group"),
        ({"auth_controls": {"add": [{"merchant_scope": {"mid": "m"}}]}}, "auth_controls.add[0].name"),
        ({"exempt_mids": {"remove": ["dry"]}}, "exempt_mids.remove[0]"),
        ({"exempt_mids": {"add": [{"name": "n"}]}}, "exempt_mids.add[0].mid"),
        ({"exempt_mids": {"add": [{"name": "n", "merchant_group_token": "none"}]}}, "exempt_mids.add[0].merchant_group_token"),
        # An unknown field is refused: if it were ignored, the backtest would answer another question.
        (
            {"exempt_mids": {"change": [{"token": "x", "active": True}]}},
            "exempt_mids.change is an unknown field; the fields are: add",
        ),
        ({"mcc_groups": {"change": []}}, "velocity_controls, auth_controls, exempt_mids"),
        (
            {"velocity_controls": {"remvoe": ["day"]}},
            "velocity_controls.remvoe is an unknown field; the fields are: add, change, remove",
        ),
    ],
)
def test_what_is_no_backtest(shop: Shop, body: dict[str, Any], field: str) -> None:
    """An empty range, an unknown control or an invalid change gets 400 with a message that names the field with its index."""
    limit(shop, "day", 100)
    shop.make("authcontrols", token="dry", name="No bars", merchant_scope={"mid": "bar"})
    reply = shop.client.post("/sandbox/backtests", body)
    assert (reply.status, field in reply.json["error_message"]) == (400, True), reply.text


def test_an_unknown_user_in_a_control(shop: Shop) -> None:
    """An added control for an unknown user gets 400."""
    body = {"velocity_controls": {"add": [{**NEW, "association": {"user_token": "nobody"}}]}}
    assert problem_of(shop.client.post("/sandbox/backtests", body)) == (400, "400003")


def test_a_list_has_one_order(shop: Shop) -> None:
    """Flips are listed only in the order in which they were found.

    Any other ``sort_by`` gets 400 with a message that names the parameter.
    """
    backtest = tried(shop)
    reply = shop.client.get(f"/sandbox/backtests/{backtest['token']}/flips?sort_by=-createdTime")
    assert (reply.status, "sort_by" in reply.json["error_message"]) == (400, True)


def test_an_interrupted_backtest_goes_on(tmp_path: Any) -> None:
    """A GET of a backtest whose process has ended continues it from its cursor. The results are the same."""
    address = migrated_file(tmp_path / "cardwright.db")
    with RunningServer(db=address) as server:
        shop = Shop(server)
        limit(shop, "day", 100)
        bought = shop.buy(60)
        backtest = tried(shop, token="mine", velocity_controls={"change": [{"token": "day", "amount_limit": 50}]})
        server.kill()
        database = Database(address)
        with database.write() as db:
            # The row that a server leaves if it is killed after the start of the backtest.
            db.execute(update(backtests).values(state="RUNNING", lease_ms=1, cursor=0, sums="{}"))
            db.exec_driver_sql("DELETE FROM backtest_flips")
        database.close()
        server.start()
        shop.client.close()
        shop.client = shop.connect()
        again = ended(shop, "mine")
        assert again == backtest
        assert [flip["transaction_token"] for flip in shop.listed("/sandbox/backtests/mine/flips")] == [bought["token"]]
        assert read_of(shop.client.get("/sandbox/backtests/mine"))["state"] == "DONE"
        assert MODULE not in server.output()
