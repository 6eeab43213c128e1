"""Dry runs over HTTP: the answer is the transaction of the same real request with its checks, and nothing is written."""

import random
from pathlib import Path
from typing import Any

import pytest

from cardwright.resources.analysis.what_if import without_drawn
from cardwright.storage.database import Database
from cardwright.storage.tables import metadata
from tests.support.databases import migrated_file
from tests.support.fixtures import module_server, program_fixture
from tests.support.issuing import problem_of, read_of
from tests.support.server import MASTER_KEY, RunningServer
from tests.support.shop import Shop

server = module_server()
shop = program_fixture(Shop)


def whatif(shop: Shop, amount: Any = 10, card: str = "jit", **fields: Any) -> dict[str, Any]:
    """Dry-run a purchase and return the answer."""
    return read_of(
        shop.client.post("/sandbox/whatif/authorization", {"card_token": card, "amount": amount, "mid": "m1", **fields})
    )


def rows(file: Path) -> dict[str, list[str]]:
    """Return the rows of each table, sorted."""
    database = Database(str(file))
    with database.read() as db:
        tables = {table.name: sorted(map(repr, db.execute(table.select()))) for table in metadata.sorted_tables}
    database.close()
    return tables


def velocity(shop: Shop, token: str, amount: Any, **fields: Any) -> None:
    """Create a velocity control, by default for a day."""
    shop.make("velocitycontrols", **{"velocity_window": "DAY", **fields}, token=token, amount_limit=amount, currency_code="USD")


def test_the_answer_is_what_then_happens(shop: Shop) -> None:
    """A dry run has the transaction of the same real request, except generated fields, and the check that declines it."""
    velocity(shop, "day", 200, usage_limit=9)
    source = random.Random(3)
    outcomes = set[str]()
    for number in range(60):
        body: dict[str, Any] = {
            "amount": source.choice((0, 3, 25.5, 90)),
            "card": source.choice(("jit", "jit", "plain")),
            "card_acceptor": source.choice((None, {"country": "CUB"}, {"mcc": 5812}, {"partial_approval_capable": True})),
            "card_options": source.choice((None, None, {"cvv": "999"}, {"card_present": False})),
            "cash_back_amount": source.choice((None, None, 5)),
            "network_metadata": source.choice((None, {"product_id": "x"})),
        }
        would = whatif(shop, **body)
        made = shop.buy(**body)
        assert would["transaction"] == without_drawn(made), number
        assert would["outcome"] == ("DECLINED" if made["state"] == "DECLINED" else "APPROVED")
        refused = [step["response"] for step in would["checks"] if step["verdict"] == "refuse"]
        code_and_memo = {name: made["response"][name] for name in ("code", "memo")}
        assert refused == ([code_and_memo] if made["state"] == "DECLINED" else [])
        outcomes.add(made["response"]["code"])
        if number % 20 == 0:
            shop.fill(30)
    assert {"0000", "1016", "1834"} <= outcomes


def test_nothing_is_written(shop: Shop, database: Path) -> None:
    """A dry run leaves every table unchanged, approved or declined, even with a webhook. A chosen token stays unused."""
    velocity(shop, "day", 50)
    shop.buy(1)
    before = rows(database)
    chosen = {"transaction_options": {"transaction_token": "mine"}}
    hook = {"webhook": {"endpoint": "http://127.0.0.1:9/", "username": "u", "password": "p"}}
    for fields in ({}, {"amount": 60}, chosen, hook, {"pin": "1234"}, {"card": "plain"}):
        whatif(shop, **fields)
    assert rows(database) == before
    assert whatif(shop, **chosen)["outcome"] == "APPROVED"


def test_a_token_that_was_used_repeats(shop: Shop) -> None:
    """A dry run with the token of a transaction returns that transaction, or a 409 if the body differs."""
    chosen = {"transaction_options": {"transaction_token": "mine"}}
    made = shop.buy(10, **chosen)
    would = whatif(shop, 10, **chosen)
    assert (would["repeats"], would["transaction"]) == ("mine", made)
    reply = shop.client.post("/sandbox/whatif/authorization", {"card_token": "jit", "amount": 11, "mid": "m1", **chosen})
    assert problem_of(reply) == (409, "409002")


def step(answer: dict[str, Any], control: str) -> dict[str, Any]:
    """Return the check of a control in an answer."""
    return next(check for check in answer["checks"] if check["inputs"].get("control") == control)


def test_a_control_tells_all_of_itself(shop: Shop) -> None:
    """The check of a velocity control has scope, window, limits and usage. The answer lists each change that suffices alone."""
    velocity(shop, "week", 100, velocity_window="WEEK", name="A week", merchant_scope={"mcc": "5812"}, usage_limit=5)
    shop.buy(70, card_acceptor={"mcc": "5812"})
    would = whatif(shop, 40, card_acceptor={"mcc": "5812"})
    assert step(would, "week") == {
        "check": "velocity_has_room",
        "verdict": "refuse",
        "inputs": {
            "control": "week", "name": "A week", "level": "program", "mccs": ["5812"], "velocity_window": "WEEK",
            "window_start": "2035-05-27T00:00:00.000Z", "window_end": "2035-06-03T00:00:00.000Z", "amount_limit": "100.00",
            "used_before": "70.00", "this_purchase": "40.00", "left": "30.00", "usage_limit": 5, "uses_before": 1,
            "uses_left": 4, "has_room": False,
        },
        "response": {"code": "1834", "memo": "Exceeding amount limit"},
        "would_pass_if": "the amount is at most 30.00",
    }  # fmt: skip
    assert would["would_be_approved_with_any_of"] == {
        "request_amount_at_most": "30.00",
        "limits_at_least": [{"control": "week", "amount_limit": "110.00"}],
        "not_before": "2035-06-03T00:00:00.000Z",
    }


def test_the_smallest_change_is_enough_and_a_cent_less_is_not(shop: Shop) -> None:
    """The suggested amount and limits approve the purchase, and one cent more is declined."""
    velocity(shop, "day", 50, usage_limit=2)
    velocity(shop, "month", 80, velocity_window="MONTH", association={"user_token": "ana"})
    shop.buy(45)
    declined = shop.buy(60)
    changes = shop.get(f"/sandbox/decisions/{declined['token']}")["would_be_approved_with_any_of"]
    assert (
        changes
        == {
            "request_amount_at_most": "5.00",
            "limits_at_least": [{"control": "month", "amount_limit": "105.00"}, {"control": "day", "amount_limit": "105.00"}],
            "not_before": "2035-07-01T00:00:00.000Z",
        }
        or "not_before" not in changes
    )
    assert (whatif(shop, 5)["outcome"], whatif(shop, 5.01)["outcome"]) == ("APPROVED", "DECLINED")
    for change in changes["limits_at_least"]:
        read_of(shop.client.put(f"/velocitycontrols/{change['control']}", {"amount_limit": float(change["amount_limit"])}))
    assert (whatif(shop, 60)["outcome"], whatif(shop, 60.01)["outcome"]) == ("APPROVED", "DECLINED")


def test_no_change_of_a_control_helps_against_another_check(shop: Shop) -> None:
    """For a suspended card no change is suggested. The check of a control without room has the verdict ``not_reached``."""
    velocity(shop, "day", 50)
    shop.make("cardtransitions", card_token="jit", state="SUSPENDED", reason_code="00", channel="API")
    would = whatif(shop, 60)
    assert (would["first_refusal"], "would_be_approved_with_any_of" in would) == ("card_is_active", False)
    assert (step(would, "day")["verdict"], step(would, "day")["inputs"]["has_room"]) == ("not_reached", False)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "amount"), ({"amount": -1}, 400, "amount"), ({"card_token": "nobody"}, 400, "Card not found"),
        ({"webhook": {"endpoint": "ftp://x"}}, 400, "webhook.endpoint"), ({"card_acceptor": {"mcc": "abc"}}, 400, "mcc"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_cannot_be_tried(shop: Shop, body: dict[str, Any], status: int, text: str) -> None:
    """Dry run and simulation answer an invalid body with the same error."""
    whole = {"card_token": "jit", "amount": 10, "mid": "m1", **body} if body else {}
    tried = shop.client.post("/sandbox/whatif/authorization", whole)
    assert (tried.status, text in tried.json["error_message"]) == (status, True), tried.text
    assert tried.json == shop.client.post("/simulate/authorization", whole).json


def test_production_offers_no_trials(tmp_path: Path) -> None:
    """Production mode refuses dry runs with a 403, because a caller could guess security codes unnoticed."""
    keys = {"CARDWRIGHT_MASTER_KEY": MASTER_KEY}
    with RunningServer(db=migrated_file(tmp_path / "p.db"), mode="production", env=keys) as server, server.client() as client:
        reply = client.post("/sandbox/whatif/authorization", {"card_token": "c", "amount": 1, "mid": "m"})
        assert problem_of(reply) == (403, "403001")


@pytest.mark.parametrize("token", ['a"b', "a\\b", "a\tb", "a\r\nb"])
def test_a_chosen_token_may_hold_anything(shop: Shop, token: str) -> None:
    """A chosen token with quotation marks or control characters is accepted and returned unchanged, by a reversal too."""
    chosen = {"transaction_options": {"transaction_token": token}}
    assert whatif(shop, **chosen)["outcome"] == "APPROVED"
    made = shop.buy(**chosen)
    assert made["token"] == token
    assert shop.follow("reversal", made, 10)["preceding_related_transaction_token"] == token
