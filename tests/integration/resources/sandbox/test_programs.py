"""Sandbox over HTTP: clocks, programs, settings, resets, explanations, and seeds."""

from pathlib import Path
from typing import Any

import pytest

from cardwright.kit.clock import parse_instant, system_ms
from tests.support.databases import migrated_file
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import client_of, made_by, problem_of, read_of
from tests.support.server import Client, Reply, RunningServer
from tests.support.shop import Shop

server = shared_server()
shop = program_fixture(Shop)


# --- The clock ---------------------------------------------------------------------------


def clock(client: Client, **body: Any) -> dict[str, Any]:
    """Return the clock, after a change if there is one."""
    return read_of(client.post("/sandbox/clock", body) if body else client.get("/sandbox/clock"))


def test_a_clock_runs_with_the_real_one(client: Client) -> None:
    """The clock of a new program shows the real time."""
    before = system_ms()
    answer = clock(client)
    assert before <= parse_instant(answer["now"]) <= system_ms()
    assert (answer["frozen"], answer["offset_ms"]) == (False, 0)


def test_a_frozen_clock_stands_and_can_be_set(client: Client) -> None:
    """A frozen clock shows one instant until it is set. New objects have that time. Unfrozen, it continues from there."""
    frozen = clock(client, freeze=True)
    assert frozen["frozen"] is True
    assert clock(client) == frozen
    assert clock(client, set="2035-06-01T09:00:00.250Z")["now"] == "2035-06-01T09:00:00.250Z"
    assert made_by(client.post("/users", {}))["created_time"] == "2035-06-01T09:00:00Z"
    thawed = clock(client, freeze=False)
    assert thawed["frozen"] is False
    assert 0 <= parse_instant(clock(client)["now"]) - parse_instant("2035-06-01T09:00:00.250Z") < 60_000


def test_a_running_clock_goes_on_when_it_is_set(client: Client) -> None:
    """A running clock that is set continues from the new time, with an offset."""
    assert clock(client, set="2035-06-01")["frozen"] is False
    assert 0 <= parse_instant(clock(client)["now"]) - parse_instant("2035-06-01") < 60_000
    assert clock(client)["offset_ms"] > 0


@pytest.mark.parametrize(
    ("by", "now"),
    [
        ("250ms", "2035-06-01T09:00:00.250Z"), ("1500ms", "2035-06-01T09:00:01.500Z"), ("30s", "2035-06-01T09:00:30.000Z"),
        ("90m", "2035-06-01T10:30:00.000Z"), ("1h30m", "2035-06-01T10:30:00.000Z"), ("8d", "2035-06-09T09:00:00.000Z"),
        ("2w", "2035-06-15T09:00:00.000Z"), ("1d2h3m4s5ms", "2035-06-02T11:03:04.005Z"), ("0s", "2035-06-01T09:00:00.000Z"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/sandbox/clock", "/sandbox/clock/advance"])
def test_a_clock_is_moved_by_a_duration(client: Client, path: str, by: str, now: str) -> None:
    """A frozen clock advances exactly by the duration, through either path, and stays frozen."""
    clock(client, freeze=True)
    clock(client, set="2035-06-01T09:00:00Z")
    answer = read_of(client.post(path, {"by": by}))
    assert (answer["now"], answer["frozen"]) == (now, True)
    assert clock(client) == answer


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "set, by, freeze"),
        ({"freeze": True, "by": "1d"}, "set, by, freeze"),
        ({"set": "2036-01-01", "by": "1d"}, "set, by, freeze"),
        ({"set": "2035-06-01T08:59:59Z"}, "set must not be before"),
        ({"set": "tomorrow"}, "set"),
        ({"set": "9999-01-01"}, "set"),
        ({"by": "-1d"}, "by"),
        ({"by": "1"}, "by"),
        ({"by": "1y"}, "by"),
        ({"by": "1d "}, "by"),
        ({"by": ""}, "by"),
        ({"by": "999999999999w"}, "by"),
        ({"freeze": "perhaps"}, "freeze"),
    ],
)
def test_a_clock_refuses(client: Client, body: dict[str, Any], field: str) -> None:
    """An earlier time, an invalid value or several fields get 400 with a message that names the field. The clock is unchanged."""
    clock(client, freeze=True)
    stood = clock(client, set="2035-06-01T09:00:00Z")
    reply = client.post("/sandbox/clock", body)
    assert (reply.status, field in reply.json["error_message"]) == (400, True), reply.text
    assert clock(client) == stood


def test_a_clock_is_its_programs_own(server: RunningServer, client: Client) -> None:
    """A change of one program's clock changes no other clock."""
    clock(client, set="2035-06-01")
    with server.client() as operator:
        assert clock(operator)["now"] < "2035"


def test_a_new_program_begins_at_the_present(server: RunningServer, client: Client) -> None:
    """The clock of the program that creates another has no effect on the clock of the new program."""
    clock(client, freeze=True)
    clock(client, set="2035-06-01")
    with client_of(server, made_by(client.post("/sandbox/programs", {}))) as created:
        answer = clock(created)
    assert (answer["now"] < "2035", answer["frozen"], answer["offset_ms"]) == (True, False, 0)


# --- Programs and their settings ---------------------------------------------------------


def test_a_program_is_made_with_credentials_of_its_own(server: RunningServer) -> None:
    """A program has the requested token and name. Its credentials give access to its data and to no other program's."""
    with server.client() as operator:
        made = made_by(operator.post("/sandbox/programs", {"token": "harbor", "name": "Harbor"}))
        assert (made["token"], made["name"], len({*made.values()})) == ("harbor", "Harbor", 4)
        with client_of(server, made) as client:
            made_by(client.post("/users", {"token": "ana"}))
            answer = read_of(client.get("/sandbox/program"))
        assert (answer["token"], answer["settings"]["currency"]) == ("harbor", "USD")
        assert operator.get("/users/ana").status == 404
        assert made["access_token"] not in operator.get("/sandbox/program").text
    with Client(server.root_url, made["application_token"], "wrong") as stranger:
        assert stranger.get("/ping").status == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [({"token": "twice"}, "token"), ({"currency": "XYZ"}, "currency"), ({"currency": "US"}, "currency"), ({"name": ""}, "name")],
)
def test_a_program_cannot_be_made_so(client: Client, body: dict[str, Any], field: str) -> None:
    """A token in use, an unknown currency or an empty name gets 400 with a message that names the field."""
    client.post("/sandbox/programs", {"token": "twice"})
    reply = client.post("/sandbox/programs", body)
    assert (reply.status, field in reply.json["error_message"]) == (400, True), reply.text


def source_tokens(transaction: dict[str, Any]) -> tuple[str, str]:
    """Return both tokens of the funding source in a transaction's order."""
    return transaction["gpa_order"]["funding_source_token"], transaction["gpa_order"]["funding"]["source"]["token"]


def test_masking_hides_the_funding_source_everywhere(shop: Shop) -> None:
    """Masked tokens show four characters, in new and old transactions, lists and loads. Without masking they are whole again."""
    full, masked = ("harbor_funding",) * 2, ("**********ding",) * 2
    old = shop.buy(10)
    assert source_tokens(old) == full
    answer = read_of(shop.client.put("/sandbox/program", {"mask_funding_source_tokens": True}))
    assert answer["settings"] == {
        "currency": "USD", "mask_funding_source_tokens": True, "mask_webhook_secrets": True, "transaction_model": "v1",
        "deposit_accounts": False,
    }  # fmt: skip
    assert read_of(shop.client.get("/sandbox/program"))["settings"] == answer["settings"]
    assert source_tokens(shop.buy(10)) == masked
    assert source_tokens(shop.get(f"/transactions/{old['token']}")) == masked
    assert source_tokens(shop.get(f"/transactions/{old['gpa_order']['transaction_token']}")) == masked
    assert {source_tokens(transaction) for transaction in shop.listed()} == {masked}
    read_of(shop.client.put("/sandbox/program", {"mask_funding_source_tokens": "false"}))
    assert source_tokens(shop.buy(10)) == source_tokens(shop.get(f"/transactions/{old['token']}")) == full


def test_an_empty_change_changes_no_setting(client: Client) -> None:
    """An update keeps absent settings, and ignores the currency."""
    before = read_of(client.get("/sandbox/program"))["settings"]
    assert read_of(client.put("/sandbox/program", {"currency": "EUR"}))["settings"] == before


# --- Reset -------------------------------------------------------------------------------


def test_a_reset_leaves_nothing_but_the_credentials(shop: Shop) -> None:
    """A reset removes and counts all objects, transactions and journal entries, resets the clock, and keeps the settings."""
    read_of(shop.client.put("/sandbox/program", {"mask_funding_source_tokens": True}))
    auth = shop.buy(10)
    shop.follow("clearing", auth, 10)
    removed = read_of(shop.client.post("/sandbox/reset", {}))["removed"]
    assert (removed["transactions"], removed["journal"], removed["cards"], removed["users"]) == (2, 2, 2, 2)
    for path in ("/cards/jit", "/users/ana", "/cardproducts/jit", "/fundingsources/program/harbor_funding", "/balances/ana"):
        assert shop.client.get(path).status == 404
    assert shop.client.get(f"/transactions/{auth['token']}").status == 404
    assert shop.listed(state="ALL", start_date="2000-01-01", end_date="2040-01-01") == []
    assert shop.simulate("authorization", card_token="jit", amount=1, mid="m").status == 400
    assert shop.simulate("clearing", original_transaction_token=auth["token"], amount=1).status == 404
    answer = clock(shop.client)
    assert (answer["frozen"], answer["offset_ms"]) == (False, 0)
    assert shop.get("/sandbox/program")["settings"]["mask_funding_source_tokens"] is True
    assert read_of(shop.client.post("/sandbox/reset", {}))["removed"] == {}
    shop.make("users", token="ana")
    assert shop.money("ana") == (0, 0)


def test_a_reset_touches_no_other_program(server: RunningServer, shop: Shop) -> None:
    """A reset leaves the cards, transactions, balances and clock of another program unchanged."""
    other = Shop(server)
    transaction = other.buy(10)
    read_of(shop.client.post("/sandbox/reset", {}))
    assert other.get(f"/transactions/{transaction['token']}") == transaction
    assert other.money("ana") == (10, 0)
    assert other.buy(5)["gpa"]["ledger_balance"] == 15
    assert clock(other.client)["now"] == "2035-06-01T09:00:00.000Z"


def test_after_a_reset_the_same_tokens_begin_anew(server: RunningServer) -> None:
    """After a reset objects with the same tokens start anew: without balance, replay or cached card."""
    shop = Shop(server)
    chosen = {"transaction_options": {"transaction_token": "once"}}
    first = shop.buy(10, **chosen)
    read_of(shop.client.post("/sandbox/reset", {}))
    shop.make("fundingsources/program", token="harbor_funding", name="Harbor Funding")
    shop.product("jit")
    shop.make("users", token="ana")
    shop.make("cards", token="jit", user_token="ana", card_product_token="jit")
    second = shop.buy(10, **chosen)
    assert (first["response"]["code"], second["response"]["code"]) == ("0000", "1016")
    assert second["gpa"]["ledger_balance"] == 0


# --- Decisions ---------------------------------------------------------------------------


def decision(shop: Shop, transaction: dict[str, Any]) -> dict[str, Any]:
    """Return the explanation of a transaction, which must agree with the transaction and with its replay."""
    answer = shop.get(f"/sandbox/decisions/{transaction['token']}")
    assert answer["replay_agrees"] is True
    assert answer["response"] == {name: transaction["response"][name] for name in ("code", "memo")}
    assert (answer["transaction_token"], answer["type"]) == (transaction["token"], transaction["type"])
    return answer


def verdicts(answer: dict[str, Any]) -> dict[str, str]:
    """Return the verdict of each check."""
    return {step["check"]: step["verdict"] for step in answer["checks"]}


def step_of(answer: dict[str, Any], check: str) -> dict[str, Any]:
    """Return the step of a check."""
    return next(step for step in answer["checks"] if step["check"] == check)


def test_an_approval_passes_every_check(shop: Shop) -> None:
    """An approval passes all checks. The inputs of ``funds_are_found`` are those before the purchase."""
    shop.buy(4)
    answer = decision(shop, shop.buy(10))
    assert (answer["outcome"], answer["request_amount"], answer["amount"]) == ("APPROVED", "10.00", "10.00")
    assert answer["decided_time"] == "2035-06-01T09:00:00.000Z"
    assert set(verdicts(answer).values()) == {"pass"}
    assert "first_refusal" not in answer
    inputs = step_of(answer, "funds_are_found")["inputs"]
    assert (inputs["ledger_balance"], inputs["on_hold"], inputs["loaded"]) == ("4.00", "4.00", "10.00")


def test_a_refusal_names_its_check_and_what_would_pass(shop: Shop) -> None:
    """The first check that declines is named. The checks before it pass, and those after it are not reached."""
    transaction = shop.buy(10, card_acceptor={"country": "CUB"}, card_options={"cvv": "x"})
    answer = decision(shop, transaction)
    assert (answer["outcome"], answer["first_refusal"]) == ("DECLINED", "country_is_accepted")
    assert "accepted countries" in answer["would_pass_if"]
    results = list(verdicts(answer).values())
    place = results.index("refuse")
    assert (set(results[:place]), set(results[place + 1 :])) == ({"pass"}, {"not_reached"})
    assert step_of(answer, "country_is_accepted")["inputs"]["merchant.country"] == "CUB"


@pytest.mark.parametrize(
    "fields",
    [
        {"cash_back_amount": 5},
        {"network_fees": [{"type": "ACQUIRER_FEE", "amount": 1.5, "credit_debit": "D"}]},
        {"network_fees": [{"type": "ACQUIRER_FEE", "amount": 1.5, "credit_debit": "C"}]},
        {"card_options": {"billing_address": {"address": "12 Main", "zip": "10000"}}},
        {"card_options": {"expiration": "0101"}},
        {"transaction_options": {"transaction_token": "chosen"}},
        {"amount": 0},
        {"card": "plain"},
    ],
)
def test_every_purchase_can_be_explained(shop: Shop, fields: dict[str, Any]) -> None:
    """The replay of a purchase from stored data gives the same decision, for every kind of field in its request."""
    decision(shop, shop.buy(**fields))


def test_a_partial_approval_can_be_explained(shop: Shop) -> None:
    """The explanation of a partial approval has the requested amount, the approved amount and the balance."""
    shop.fill(40)
    answer = decision(shop, shop.buy(100, "plain"))
    assert (answer["outcome"], answer["request_amount"], answer["amount"]) == ("APPROVED", "100.00", "40.00")
    assert step_of(answer, "funds_are_found")["inputs"]["ledger_balance"] == "40.00"


def test_a_follow_up_is_checked_against_its_chain(shop: Shop) -> None:
    """Clearing, reversal and refund have one check, ``chain_has_room``. A declined reversal has its reason in would_pass_if."""
    auth = shop.buy(10)
    cleared = shop.follow("clearing", auth, 10)
    refused = shop.follow("reversal", auth, 10)
    refunded = shop.follow("clearing", auth, 10, is_refund=True)
    assert [verdicts(decision(shop, transaction)) for transaction in (cleared, refused, refunded)] == [
        {"chain_has_room": "pass"}, {"chain_has_room": "refuse"}, {"chain_has_room": "pass"},
    ]  # fmt: skip
    answer = decision(shop, refused)
    assert (answer["outcome"], answer["first_refusal"]) == ("DECLINED", "chain_has_room")
    assert "its hold was cleared" in answer["would_pass_if"]


def test_a_decision_is_explained_as_of_then(shop: Shop) -> None:
    """Later changes of card, user, product, source, controls and clock do not change an explanation."""
    approved, refused = shop.buy(10), shop.buy(10, card_acceptor={"country": "CUB"})
    before = [decision(shop, transaction) for transaction in (approved, refused)]
    controls = {"config": {"transaction_controls": {"accepted_countries_token": "accept_us_only", "allow_gpa_auth": False}}}
    read_of(shop.client.put("/cardproducts/jit", controls))
    read_of(shop.client.put("/fundingsources/program/harbor_funding", {"active": False, "name": "Renamed"}))
    limit = {"token": "limit", "card_product_token": "jit", "currency_code": "USD", "amount_limit": 1, "velocity_window": "DAY"}
    made_by(shop.client.post("/velocitycontrols", limit))
    read_of(shop.client.put("/users/ana", {"postal_code": "10000", "metadata": {"k": "v"}}))
    shop.make("cardtransitions", card_token="jit", state="SUSPENDED", reason_code="00", channel="API")
    shop.make("usertransitions", user_token="ana", status="SUSPENDED", reason_code="05", channel="API")
    shop.clock("2045-01-01T00:00:00Z")
    assert [decision(shop, transaction) for transaction in (approved, refused)] == before
    # Only the state differs, because the hold has expired.
    assert shop.get(f"/transactions/{approved['token']}") == {**approved, "state": "CLEARED"}
    assert decision(shop, shop.buy(10))["first_refusal"] == "card_is_active"


def test_a_load_is_explained_by_its_purchase(shop: Shop) -> None:
    """The token of a JIT load has the explanation of its purchase."""
    purchase = shop.buy(10)
    assert shop.get(f"/sandbox/decisions/{purchase['gpa_order']['transaction_token']}") == decision(shop, purchase)


def test_an_unknown_decision(server: RunningServer, shop: Shop) -> None:
    """An unknown token and a token of another program get 404."""
    for token in ("nobody", Shop(server).buy(10)["token"]):
        assert problem_of(shop.client.get(f"/sandbox/decisions/{token}")) == (404, "404011")


# --- Seeds -------------------------------------------------------------------------------


def told_by(server: RunningServer) -> list[str]:
    """Send the requests of a session, and return the text of each answer."""
    replies = list[Reply]()
    with server.client() as client:

        def say(verb: str, path: str, body: object = None) -> Any:
            replies.append(client.request(verb, path, body))
            return replies[-1].json

        jit = {"enabled": True, "funding_source_token": "bank", "refunds_destination": "PROGRAM_FUNDING_SOURCE"}
        config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": {"program_funding_source": jit}}
        say("POST", "/fundingsources/program", {"token": "bank", "name": "Bank"})
        product = say("POST", "/cardproducts", {"name": "P", "start_date": "2020-01-01", "config": config})["token"]
        user = say("POST", "/users", {"first_name": "Ana"})["token"]
        card = say("POST", "/cards?show_pan=true&show_cvv_number=true", {"user_token": user, "card_product_token": product})
        first = say("POST", "/simulate/authorization", {"card_token": card["token"], "amount": 10, "mid": "m1"})
        token = first["transaction"]["token"]
        say("POST", "/sandbox/clock", {"by": "1d"})
        say("POST", "/simulate/clearing", {"original_transaction_token": token, "amount": 10})
        say("GET", f"/transactions/{token}/related")
        say("GET", f"/sandbox/decisions/{token}")
        say("GET", f"/balances/{user}")
        say("GET", "/users/nobody")
    assert [reply.status for reply in replies] == [201] * 5 + [200, 201] + [200] * 3 + [404]
    return [reply.text for reply in replies]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Servers with the same seed answer the same requests with the same bytes. With another seed most answers differ."""
    runs = []
    for number, seed in enumerate((7, 7, 8)):
        with RunningServer(db=migrated_file(tmp_path / f"{number}.db"), seed=seed) as server:
            runs.append(told_by(server))
    assert runs[0] == runs[1]
    assert [text == other_text for text, other_text in zip(runs[0], runs[2], strict=True)].count(True) < len(runs[0]) / 2


def test_a_reset_begins_the_seed_anew(tmp_path: Path) -> None:
    """After a reset a seeded server gives the same answers again, except for the program revision."""
    with RunningServer(db=migrated_file(tmp_path / "again.db"), seed=7) as server:
        first = told_by(server)
        with server.client() as client:
            read_of(client.post("/sandbox/reset", {}))
        again = told_by(server)
    differing = [text for text, other_text in zip(first, again, strict=True) if text != other_text]
    assert ['"program_revision"' in text for text in differing] == [True], differing
