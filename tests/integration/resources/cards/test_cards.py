"""Cards over HTTP: creation, look-ups, updates, reissues, PINs, and the secrecy of card numbers."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cardwright.core.pan import passes_luhn
from cardwright.storage.tables import cards as cards_table
from tests.support.fixtures import module_server, program_fixture
from tests.support.in_process_platform import new_platform
from tests.support.issuing import TEXT, Issuer, made_by, problem_of, read_of
from tests.support.server import RunningServer

# With a seed, the clock of the server is frozen at noon of 1 January 2026.
server = module_server(seed=4)
issuer = program_fixture(Issuer)


LISTENER = {
    "name": "listener",
    "events": ["cardtransition.*"],
    "config": {
        "url": "http://127.0.0.1:9/nobody", "basic_auth_username": "listener", "basic_auth_password": "Aa1!Aa1!Aa1!Aa1!Aa1!",
    },
}  # fmt: skip
"""A webhook without a listener: its events stay in the outbox."""


# --- Creation -----------------------------------------------------------------------------


def test_new_card_says_what_the_reference_says(issuer: Issuer) -> None:
    """A new card has exactly the fields that are always present, in the form of the reference."""
    product, user = issuer.product(), issuer.user(token="ana")
    card = issuer.card(user, product, token="card_01")
    pan, barcode = card.pop("pan"), card.pop("barcode")
    assert card.pop("last_four") == pan[-4:]
    assert (pan[:12], len(pan), pan[12:].isdigit()) == ("111111______", 16, True)
    assert (len(barcode), barcode.isdigit()) == (20, True)
    assert card == {
        "created_time": "2026-01-01T12:00:00Z",
        "last_modified_time": "2026-01-01T12:00:00Z",
        "token": "card_01",
        "user_token": "ana",
        "card_product_token": product,
        "expiration": "0130",
        "expiration_time": "2030-01-31T23:59:59Z",
        "pin_is_set": False,
        "state": "UNACTIVATED",
        "state_reason": "New card",
        "fulfillment_status": "ISSUED",
        "instrument_type": "VIRTUAL_PAN",
        "expedite": False,
        "metadata": {},
    }
    assert issuer.get("/cards/card_01") == {**card, "pan": pan, "last_four": pan[-4:], "barcode": barcode}


def test_what_was_asked_for_comes_back(issuer: Issuer) -> None:
    """Optional fields are returned as sent, metadata as text, and activation_actions with its default."""
    wishes = {**TEXT, "card_fulfillment_reason": "NEW", "shipping": {"method": "GROUND", "return_address": {"city": "Oslo"}}}
    card = issuer.card(
        expedite=True, fulfillment=wishes, metadata={"site": 1, "vip": True, "none": None}, activation_actions={},
        bulk_issuance_token="bulk_1", account_token="account_1", reissue_pan_from_card_token="", new_pan_from_card_token=None,
    )  # fmt: skip
    assert card["expedite"] is True
    assert card["fulfillment"] == wishes
    assert card["metadata"] == {"site": "1", "vip": "true"}
    assert card["activation_actions"] == {"terminate_reissued_source_card": True}
    assert (card["bulk_issuance_token"], card["account_tokens"]) == ("bulk_1", ["account_1"])
    assert "reissue_pan_from_card_token" not in card


def test_equal_requests_without_token_make_two_cards(issuer: Issuer) -> None:
    """Equal requests without a token create two cards with different tokens, numbers and barcodes."""
    body = {"user_token": issuer.user(), "card_product_token": issuer.product()}
    first, second = (made_by(issuer.client.post("/cards?show_pan=true", body)) for _ in range(2))
    for name in ("token", "pan", "barcode"):
        assert first[name] != second[name]


def test_repeat_with_token_makes_nothing_new(issuer: Issuer) -> None:
    """The same body returns the card as it is now, with its number only on request. Another body is a conflict."""
    body = {"user_token": issuer.user(), "card_product_token": issuer.product(), "token": "c"}
    first = made_by(issuer.client.post("/cards?show_pan=true", body))
    issuer.enter("c", "ACTIVE")
    again = made_by(issuer.client.post("/cards", {**body, "metadata": None}))
    assert (again["state"], again["barcode"]) == ("ACTIVE", first["barcode"])
    assert again["pan"] == f"111111______{first['last_four']}"
    assert made_by(issuer.client.post("/cards?show_pan=true", body))["pan"] == first["pan"]
    assert len(issuer.transitions("c")) == 2
    assert problem_of(issuer.client.post("/cards", {**body, "expedite": True})) == (409, "409002")


@pytest.mark.parametrize(
    ("pan", "code", "status"),
    [
        (False, False, "ISSUED"),
        (True, False, "ISSUED"),
        (False, True, "ISSUED"),
        (True, True, "DIGITALLY_PRESENTED"),
    ],
)
def test_new_card_shows_what_is_asked_for(issuer: Issuer, pan: bool, code: bool, status: str) -> None:
    """Each flag shows its value in this answer only. Both flags together set DIGITALLY_PRESENTED."""
    card = issuer.card(query=f"?show_pan={str(pan).lower()}&show_cvv_number={str(code).lower()}")
    assert passes_luhn(card["pan"]) is pan
    assert ("cvv_number" in card) is code
    assert not code or (len(card["cvv_number"]), card["cvv_number"].isdigit()) == (3, True)
    assert card["fulfillment_status"] == status
    later = issuer.get(f"/cards/{card['token']}")
    assert later == {name: value for name, value in card.items() if name != "cvv_number"} | {"pan": later["pan"]}
    assert later["pan"] == f"111111______{card['last_four']}"
    assert [t["fulfillment_status"] for t in issuer.transitions(card["token"])] == [status]


def test_only_a_chip_has_a_chip_code(issuer: Issuer) -> None:
    """Chip and contactless cards have a separate chip code. Virtual cards and magnetic stripe cards have none."""
    chips = [
        issuer.card(product=issuer.product(payment_instrument=kind), query="?show_cvv_number=true")
        for kind in ("PHYSICAL_ICC", "PHYSICAL_CONTACTLESS", "PHYSICAL_COMBO")
    ]
    assert any(card["chip_cvv_number"] != card["cvv_number"] for card in chips)
    assert "chip_cvv_number" not in issuer.card(query="?show_cvv_number=true")
    strip = issuer.card(product=issuer.product(payment_instrument="PHYSICAL_MSR"), query="?show_cvv_number=true")
    assert (strip["instrument_type"], "chip_cvv_number" in strip) == ("PHYSICAL_MSR", False)


EXPIRIES = """
    now                  | product        | card         | expiration | expiration_time
    2026-01-01T12:00:00Z | YEARS 1        | -            | 0127       | 2027-01-31T23:59:59Z   # an example of the reference
    2026-06-02T08:00:00Z | YEARS 4        | -            | 0630       | 2030-06-30T23:59:59Z
    2026-01-15T00:00:00Z | MONTHS 1       | -            | 0226       | 2026-02-28T23:59:59Z
    2026-05-01T00:00:00Z | MONTHS 1       | -            | 0626       | 2026-06-30T23:59:59Z
    2026-03-01T10:00:00Z | DAYS 1         | -            | 0326       | 2026-03-02T23:59:59Z
    2026-03-01T10:00:00Z | HOURS 5        | -            | 0326       | 2026-03-01T15:00:00Z
    2026-03-01T10:00:00Z | MINUTES 90     | -            | 0326       | 2026-03-01T11:30:00Z
    2026-12-31T23:59:50Z | SECONDS 15     | -            | 0127       | 2027-01-01T00:00:05Z
    2027-10-31T12:00:00Z | MONTHS 4       | -            | 0228       | 2028-02-29T23:59:59Z   # a leap year
    2026-03-01T10:00:00Z | YEARS 4        | MONTHS 2     | 0526       | 2026-05-31T23:59:59Z   # the card has precedence
    2026-03-01T10:00:00Z | DAYS 1 MONTHS 1 | -           | 0426       | 2026-04-30T23:59:59Z   # the minimum is later
    2026-03-01T10:00:00Z | MONTHS 1 DAYS 2 | -           | 0426       | 2026-04-30T23:59:59Z   # the minimum is earlier
    2026-03-01T10:00:00Z | DAYS 1 MONTHS 1 | HOURS 1     | 0326       | 2026-03-01T11:00:00Z   # no minimum for the card's
"""


def table(text: str) -> list[tuple[str, ...]]:
    """Return the rows of a table without its heading and its comments."""
    lines = [line.split("#")[0] for line in text.strip().splitlines()[1:]]
    return [tuple(cell.strip() for cell in line.split("|")) for line in lines]


@pytest.mark.parametrize(("now", "product", "period", "expiration", "expiration_time"), table(EXPIRIES))
def test_expiry_is_rounded_up(issuer: Issuer, now: str, product: str, period: str, expiration: str, expiration_time: str) -> None:
    """A lifetime in years or months ends with a month, one in days with a day. A shorter one ends to the second."""
    issuer.set_clock(now)
    unit, value, *least = product.split()
    offset: dict[str, Any] = {"unit": unit, "value": int(value)}
    if least:
        offset["min_offset"] = {"unit": least[0], "value": int(least[1])}
    fields = {} if period == "-" else {"expiration_offset": {"unit": period.split()[0], "value": int(period.split()[1])}}
    card = issuer.card(product=issuer.product(life_cycle={"expiration_offset": offset}), **fields)
    assert (card["expiration"], card["expiration_time"]) == (expiration, expiration_time)


def test_card_of_an_active_user_can_be_active_at_issue(issuer: Issuer) -> None:
    """With activate_upon_issue a card is active at issue. The card of a suspended user stays UNACTIVATED."""
    product, user = issuer.product(life_cycle={"activate_upon_issue": True}), issuer.user()
    card = issuer.card(user, product)
    assert (card["state"], card["state_reason"]) == ("ACTIVE", "New card activated")
    assert [t["type"] for t in issuer.transitions(card["token"])] == ["fulfillment.issued", "state.activated"]
    issuer.suspend_user(user)
    waiting = issuer.card(user, product)
    assert (waiting["state"], waiting["state_reason"]) == ("UNACTIVATED", "New card")
    assert [t["type"] for t in issuer.transitions(waiting["token"])] == ["fulfillment.issued"]


def test_numbers_follow_the_product(issuer: Issuer) -> None:
    """A card number has the prefix and the length that the product sets."""
    card = issuer.card(product=issuer.product(bin_prefix="65000012", pan_length="19"), query="?show_pan=true")
    assert (card["pan"][:8], len(card["pan"]), passes_luhn(card["pan"])) == ("65000012", 19, True)
    masked = issuer.get(f"/cards/{card['token']}")["pan"]
    assert masked == f"650000{'_' * 9}{card['last_four']}"


def test_numbers_of_a_small_range_are_all_used_and_then_none(issuer: Issuer) -> None:
    """A prefix of 14 digits leaves room for ten card numbers.

    All ten are issued, and the request for an eleventh card gets 400.
    """
    user, product = issuer.user(), issuer.product(bin_prefix="11111155555555")
    pans = {issuer.card(user, product, query="?show_pan=true")["pan"] for _ in range(10)}
    assert len(pans) == 10
    reply = issuer.client.post("/cards", {"user_token": user, "card_product_token": product})
    assert problem_of(reply) == (400, "400001")
    assert "no card number left" in reply.json["error_message"]


BAD_BODIES: list[tuple[dict[str, Any], str, str]] = [
    ({"user_token": None}, "400001", "user_token may not be null"),
    ({"card_product_token": None}, "400001", "card_product_token may not be null"),
    ({"user_token": ""}, "400001", "user_token"),
    ({"token": "t" * 37}, "400001", "token"),
    ({"token": ""}, "400001", "token"),
    ({"user_token": 7}, "400037", "user_token"),
    ({"expedite": "soon"}, "400037", "expedite"),
    ({"metadata": {"a": "x" * 256}}, "400001", "metadata.a"),
    ({"metadata": {str(number): "" for number in range(21)}}, "400001", "metadata"),
    ({"metadata": "text"}, "400037", "metadata"),
    ({"expiration_offset": {"unit": "YEARS"}}, "400001", "expiration_offset.value"),
    ({"expiration_offset": {"value": 1}}, "400001", "expiration_offset.unit"),
    ({"expiration_offset": {"unit": "EONS", "value": 1}}, "400037", "expiration_offset.unit"),
    ({"expiration_offset": {"unit": "YEARS", "value": 0}}, "400001", "expiration_offset.value"),
    ({"expiration_offset": {"unit": "YEARS", "value": -1}}, "400001", "expiration_offset.value"),
    ({"expiration_offset": {"unit": "YEARS", "value": 9000}}, "400001", "expiration_offset.value"),
    ({"expiration_offset": {"unit": "SECONDS", "value": 10**400}}, "4000", "expiration_offset.value"),
    ({"expiration_offset": {"unit": "DAYS", "value": 1.5}}, "400037", "expiration_offset.value"),
    ({"fulfillment": {}}, "400001", "fulfillment.card_personalization"),
    ({"fulfillment": {"card_personalization": {}}}, "400001", "fulfillment.card_personalization.text"),
    ({"fulfillment": {"card_personalization": {"text": {}}}}, "400001", "text.name_line_1"),
    ({"fulfillment": {**TEXT, "card_fulfillment_reason": "OLD"}}, "400037", "fulfillment.card_fulfillment_reason"),
    ({"fulfillment": {**TEXT, "shipping": {"method": "PIGEON"}}}, "400037", "fulfillment.shipping.method"),
    ({"fulfillment": {**TEXT, "shipping": {"return_address": {"zip": "1" * 11}}}}, "400001", "shipping.return_address.zip"),
    ({"activation_actions": {"swap_digital_wallet_tokens_from_card_token": ""}}, "400001", "activation_actions.swap"),
    ({"activation_actions": {"swap_digital_wallet_tokens_from_card_token": "nobody"}}, "400008", "Card not found"),
    ({"reissue_pan_from_card_token": "nobody"}, "400008", "Card not found"),
    ({"new_pan_from_card_token": "nobody"}, "400008", "Card not found"),
    ({"translate_pin_from_card_token": "nobody"}, "400008", "Card not found"),
    ({"reissue_pan_from_card_token": "a", "new_pan_from_card_token": "b"}, "400001", "new_pan_from_card_token"),
    ({"reissue_pan_from_card_token": "a", "translate_pin_from_card_token": "b"}, "400001", "translate_pin_from_card_token"),
    ({"bulk_issuance_token": "b" * 37}, "400001", "bulk_issuance_token"),
    ({"user_token": "nobody"}, "400003", "User not found"),
    ({"card_product_token": "nothing"}, "400016", "Card product not found"),
]


@pytest.mark.parametrize(
    ("change", "code", "message"), BAD_BODIES, ids=[f"{sorted(body)}-{text}" for body, _, text in BAD_BODIES]
)
def test_bad_request_names_what_is_wrong(issuer: Issuer, change: dict[str, Any], code: str, message: str) -> None:
    """A wrong field gets 400 with a message that names it, and no card is created."""
    user, product = issuer.user(), issuer.product()
    reply = issuer.client.post("/cards", {"user_token": user, "card_product_token": product, **change})
    assert reply.status == 400, reply.text
    assert reply.json["error_code"].startswith(code)
    assert message in reply.json["error_message"]
    assert issuer.get(f"/cards/user/{user}")["count"] == 0


def test_several_missing_fields_are_told_together(issuer: Issuer) -> None:
    """One message names all missing fields."""
    reply = issuer.client.post("/cards", {})
    assert problem_of(reply) == (400, "400001")
    assert "user_token may not be null" in reply.json["error_message"]
    assert "card_product_token may not be null" in reply.json["error_message"]


def test_bad_flag_names_the_parameter(issuer: Issuer) -> None:
    """A flag other than true or false gets 400 with a message that names it."""
    reply = issuer.client.post("/cards?show_pan=perhaps", {"user_token": "u", "card_product_token": "p"})
    assert problem_of(reply) == (400, "400002")
    assert "show_pan" in reply.json["error_message"]


def test_product_may_make_no_cards(issuer: Issuer) -> None:
    """A product without ``allow_card_creation`` issues no card. An inactive product with it does."""
    product = issuer.product(allow_card_creation=False)
    reply = issuer.client.post("/cards", {"user_token": issuer.user(), "card_product_token": product})
    assert problem_of(reply) == (400, "400012")
    change = {"active": False, "config": {"fulfillment": {"allow_card_creation": True}}}
    read_of(issuer.client.put(f"/cardproducts/{product}", change))
    issuer.card(product=product)


# --- Look-ups -----------------------------------------------------------------------------


def test_cards_are_found_by_their_last_four(issuer: Issuer) -> None:
    """Four digits match the cards that end in them, and other text matches none. A missing parameter gets 400."""
    user, product = issuer.user(), issuer.product(bin_prefix="111111777777")
    made = [issuer.card(user, product) for _ in range(12)]
    wanted = made[0]["last_four"]
    same = [card["token"] for card in made if card["last_four"] == wanted]
    page = issuer.get("/cards", last_four=wanted, count=100)
    assert sorted(card["token"] for card in page["data"]) == sorted(same)
    for text in ("AAAA", "", wanted[:3], f"{wanted}0"):
        empty = issuer.get("/cards", last_four=text)
        assert (empty["count"], empty["data"], empty["is_more"]) == (0, [], False)
    reply = issuer.client.get("/cards")
    assert problem_of(reply) == (400, "400002")
    assert "last_four" in reply.json["error_message"]


def test_cards_of_a_user_come_in_pages(issuer: Issuer) -> None:
    """The cards of a user are listed in pages, the last changed first. An unknown user gets 404."""
    user, product = issuer.user(), issuer.product()
    tokens = [issuer.card(user, product)["token"] for _ in range(7)]
    issuer.card(product=product)
    issuer.set_clock("2026-01-02T00:00:00Z")
    issuer.enter(tokens[2], "ACTIVE")
    page = issuer.get(f"/cards/user/{user}")
    expected = [tokens[2], *(token for token in reversed(tokens) if token != tokens[2])]
    assert [card["token"] for card in page["data"]] == expected[:5]
    assert (page["count"], page["start_index"], page["end_index"], page["is_more"]) == (5, 0, 4, True)
    rest = issuer.get(f"/cards/user/{user}", start_index=5)
    assert [card["token"] for card in rest["data"]] == expected[5:]
    oldest = issuer.get(f"/cards/user/{user}", sort_by="createdTime", fields="token", count=1)
    assert oldest["data"] == [{"token": tokens[0]}]
    assert problem_of(issuer.client.get("/cards/user/nobody")) == (404, "404004")


def test_card_is_found_by_its_barcode(issuer: Issuer) -> None:
    """A barcode finds its card. An unknown barcode gets 404."""
    card = issuer.card()
    assert issuer.get(f"/cards/barcode/{card['barcode']}") == card
    reply = issuer.client.get("/cards/barcode/0")
    assert (problem_of(reply), reply.json["error_message"]) == ((404, "404002"), "Card does not exist")


def test_user_and_product_can_be_embedded(issuer: Issuer) -> None:
    """``expand`` adds the user and the product to each card that a GET returns. An unknown name gets 400."""
    card = issuer.card(token="c")
    user, product = issuer.get(f"/users/{card['user_token']}"), issuer.get(f"/cardproducts/{card['card_product_token']}")
    assert issuer.get("/cards/c", expand="user") == {**card, "user": user}
    assert issuer.get("/cards/c", expand="cardproduct") == {**card, "cardproduct": product}
    both = {**card, "user": user, "cardproduct": product}
    assert issuer.get("/cards/c", expand="cardproduct,user") == both
    assert issuer.get("/cards", last_four=card["last_four"], expand="user,cardproduct")["data"] == [both]
    assert issuer.get(f"/cards/user/{user['token']}", expand="user,cardproduct")["data"] == [both]
    assert issuer.get(f"/cards/barcode/{card['barcode']}", expand="user,cardproduct") == both
    assert issuer.get("/cards/c", expand="user", fields="user,status,token") == {
        "token": "c", "user": {"token": user["token"], "status": "ACTIVE"},
    }  # fmt: skip
    reply = issuer.client.get("/cards/c?expand=business")
    assert (problem_of(reply), "expand" in reply.json["error_message"]) == ((400, "400002"), True)


def test_cards_of_another_program_do_not_exist(issuer: Issuer, server: RunningServer) -> None:
    """A card of another program is found by no path, and no body can name it."""
    card = issuer.card(token="theirs", query="?show_pan=true")
    stranger = Issuer(server)
    for path in ("/cards/theirs", "/cards/theirs/showpan", f"/cards/barcode/{card['barcode']}", "/cardtransitions/card/theirs"):
        assert problem_of(stranger.client.get(path))[0] == 404
    assert problem_of(stranger.client.put("/cards/theirs", {"expedite": True})) == (404, "404002")
    assert stranger.get("/cards", last_four=card["last_four"])["count"] == 0
    assert problem_of(stranger.client.post("/cards/getbypan", {"pan": card["pan"]})) == (400, "400008")
    assert problem_of(stranger.transition("theirs", "ACTIVE")) == (400, "400008")
    body = {"user_token": stranger.user(), "card_product_token": stranger.product(), "reissue_pan_from_card_token": "theirs"}
    assert problem_of(stranger.client.post("/cards", body)) == (400, "400008")
    stranger.client.close()


# --- Card numbers -------------------------------------------------------------------------


def test_showpan_shows_the_number_and_presents_the_card(issuer: Issuer) -> None:
    """The first showpan adds a transition and sets DIGITALLY_PRESENTED. A second one shows the same and changes nothing."""
    made = issuer.card(token="c", query="?show_pan=true")
    issuer.set_clock("2026-01-02T00:00:00Z")
    shown = issuer.get("/cards/c/showpan")
    assert (shown["pan"], shown["fulfillment_status"], "cvv_number" in shown) == (made["pan"], "DIGITALLY_PRESENTED", False)
    assert shown["last_modified_time"] == "2026-01-02T00:00:00Z"
    issuer.set_clock("2026-01-03T00:00:00Z")
    with_code = issuer.get("/cards/c/showpan", show_cvv_number="true")
    assert len(with_code.pop("cvv_number")) == 3
    assert with_code == shown
    assert issuer.get("/cards/c/showpan", fields="pan") == {"pan": made["pan"]}
    types = [(t["type"], t["state"], t["fulfillment_status"]) for t in issuer.transitions("c")]
    assert types == [
        ("fulfillment.issued", "UNACTIVATED", "ISSUED"),
        ("fulfillment.digitally_presented", "UNACTIVATED", "DIGITALLY_PRESENTED"),
    ]
    assert issuer.get("/cards/c")["pan"].startswith("111111______")
    assert problem_of(issuer.client.get("/cards/nobody/showpan")) == (404, "404002")


def test_number_is_shown_in_every_state(issuer: Issuer) -> None:
    """showpan returns the same number and security code in every state, even for a terminated card."""
    made = issuer.card(token="c", query="?show_pan=true&show_cvv_number=true")
    for state in ("ACTIVE", "SUSPENDED", "TERMINATED"):
        issuer.enter("c", state)
        shown = issuer.get("/cards/c/showpan", show_cvv_number="true")
        assert (shown["pan"], shown["cvv_number"], shown["state"]) == (made["pan"], made["cvv_number"], state)


def test_code_stays_when_the_product_changes(issuer: Issuer) -> None:
    """A new service code of the product leaves the security codes of issued cards unchanged, as they may be printed."""
    product = issuer.product()
    made = issuer.card(product=product, token="c", query="?show_cvv_number=true")
    for service_code in (121, 201, 999):
        config = {"card_life_cycle": {"card_service_code": service_code}}
        read_of(issuer.client.put(f"/cardproducts/{product}", {"config": config}))
        assert issuer.get("/cards/c/showpan", show_cvv_number="true")["cvv_number"] == made["cvv_number"]


def test_shown_code_is_the_one_that_a_purchase_is_checked_by(issuer: Issuer) -> None:
    """A purchase accepts only the security code that the issue has shown. The service code 201 makes no difference."""
    product = issuer.product(life_cycle={"card_service_code": 201, "activate_upon_issue": True})
    card = issuer.card(product=product, query="?show_cvv_number=true")
    verdicts = {}
    for code in (card["cvv_number"], f"{(int(card['cvv_number']) + 1) % 1000:03d}"):
        purchase = {"card_token": card["token"], "amount": 10, "mid": "shop", "card_options": {"cvv": code}}
        transaction = made_by(issuer.client.post("/simulate/authorization", purchase))["transaction"]
        verdicts[code == card["cvv_number"]] = transaction["card_security_code_verification"]["response"]["code"]
    assert verdicts == {True: "0000", False: "0001"}


def test_card_is_found_by_its_number(issuer: Issuer) -> None:
    """A number finds its card if a given code and expiration are correct. No answer contains the number."""
    card = issuer.card(token="c", query="?show_pan=true&show_cvv_number=true")
    pan, code = card["pan"], card["cvv_number"]
    owner = {
        "created_time": card["created_time"], "last_modified_time": card["last_modified_time"],
        "user_token": card["user_token"], "card_token": "c",
    }  # fmt: skip
    for fields in ({}, {"cvv_number": code}, {"expiration": "0130"}, {"cvv_number": code, "expiration": "0130"}):
        assert read_of(issuer.client.post("/cards/getbypan", {"pan": pan, **fields})) == owner
    wrong = f"{(int(code) + 1) % 1000:03d}"
    table: list[tuple[dict[str, Any], str, str]] = [
        ({"pan": pan, "cvv_number": wrong}, "400001", "cvv_number"),
        ({"pan": pan, "cvv_number": ""}, "400001", "cvv_number"),
        ({"pan": pan, "expiration": "0131"}, "400001", "expiration"),
        ({"pan": pan, "expiration": "0131", "cvv_number": code}, "400001", "expiration"),
        ({"pan": pan[:-1] + str((int(pan[-1]) + 1) % 10)}, "400008", "Card not found"),
        ({"pan": "no digits"}, "400008", "Card not found"),
        ({"pan": ""}, "400008", "Card not found"),
        ({"cvv_number": code}, "400001", "pan may not be null"),
        ({"pan": int(pan)}, "400037", "pan"),
    ]
    for body, error, message in table:
        reply = issuer.client.post("/cards/getbypan", body)
        assert problem_of(reply) == (400, error)
        assert message in reply.json["error_message"]
        assert pan not in reply.text


def test_two_hundred_numbers_stay_in(server: RunningServer, database: Path) -> None:
    """No clear number of 200 cards is in a table, in the bytes of the database files or in the server's output.

    All cards were activated, with a webhook subscribed. Ten were also shown, suspended, reissued and found by number.
    """
    issuer = Issuer(server)
    made_by(issuer.client.post("/webhooks", LISTENER))
    user, product = issuer.user(), issuer.product(life_cycle={"activate_upon_issue": True})
    pans = [issuer.card(user, product, query="?show_pan=true", token=f"canary-{number}")["pan"] for number in range(200)]
    assert len(set(pans)) == 200
    assert all(passes_luhn(pan) and len(pan) == 16 and pan.startswith("111111") for pan in pans)
    for number in range(10):
        issuer.get(f"/cards/canary-{number}/showpan", show_cvv_number="true")
        issuer.enter(f"canary-{number}", "SUSPENDED")
        issuer.card(user, product, reissue_pan_from_card_token=f"canary-{number}")
        read_of(issuer.client.post("/cards/getbypan", {"pan": pans[number]}))
        issuer.client.post("/cards/getbypan", {"pan": pans[number], "cvv_number": "x"})
    issuer.client.close()
    with sqlite3.connect(database) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        cells = {name: [cell for row in db.execute(f'SELECT * FROM "{name}"') for cell in row] for name in names}
    texts = {name: "\n".join(str(cell) for cell in values if isinstance(cell, str | int)) for name, values in cells.items()}
    bytes_of = b"".join(cell for values in cells.values() for cell in values if isinstance(cell, bytes))
    files = b"".join(file.read_bytes() for file in database.parent.glob(f"{database.name}*"))
    for pan in pans:
        assert not [name for name, text in texts.items() if pan in text]
        assert pan.encode() not in bytes_of
        assert pan.encode() not in files
        assert pan not in server.output()
    assert "cvv_number" not in "".join(texts.values())
    # The search was not empty: the tables have all cards, by masked number or by token.
    for name in ("cards", "card_transitions"):
        assert texts[name].count("111111______") >= 200
    assert texts["config_history"].count("canary-") >= 200
    assert texts["outbox"].count("[") >= 400


# --- Updates ------------------------------------------------------------------------------


def test_update_changes_what_it_names(issuer: Issuer) -> None:
    """An update replaces metadata and merges the fulfillment leaf by leaf. Absent and equal fields change nothing."""
    before = issuer.card(token="c", metadata={"a": "1", "b": "2"}, fulfillment={**TEXT, "shipping": {"method": "GROUND"}})
    issuer.set_clock("2026-01-05T00:00:00Z")
    same = {"metadata": {"a": "1", "b": "2"}, "user_token": before["user_token"], "expedite": False}
    for body in ({}, {"token": "c"}, {"expedite": None}, same):
        assert read_of(issuer.client.put("/cards/c", body)) == before
    change = {"shipping": {"care_of_line": "Bo"}, "card_personalization": {"perso_type": "LASER"}}
    after = read_of(issuer.client.put("/cards/c", {"expedite": True, "metadata": {"a": 3}, "fulfillment": change}))
    assert after == {
        **before,
        "last_modified_time": "2026-01-05T00:00:00Z",
        "expedite": True,
        "metadata": {"a": "3"},
        "fulfillment": {
            "card_personalization": {"text": {"name_line_1": {"value": "ANA"}}, "perso_type": "LASER"},
            "shipping": {"method": "GROUND", "care_of_line": "Bo"},
        },
    }
    assert issuer.get("/cards/c") == after
    assert read_of(issuer.client.put("/cards/c", {"metadata": {}}))["metadata"] == {}


@pytest.mark.parametrize(
    ("body", "problem", "message"),
    [
        ({"token": "d"}, (400, "400001"), "token"),
        ({"user_token": "nobody"}, (400, "400003"), "User not found"),
        ({"user_token": ""}, (400, "400001"), "user_token"),
        ({"fulfillment": {"shipping": {"method": "GROUND"}}}, (400, "400001"), "fulfillment.card_personalization"),
        ({"metadata": {"": "x"}}, (400, "400001"), "metadata"),
        ({"expedite": []}, (400, "400037"), "expedite"),
    ],
)
def test_bad_update_names_what_is_wrong(issuer: Issuer, body: dict[str, Any], problem: tuple[int, str], message: str) -> None:
    """A wrong field gets 400 with a message that names it, and the card is unchanged."""
    before = issuer.card(token="c")
    reply = issuer.client.put("/cards/c", body)
    assert problem_of(reply) == problem
    assert message in reply.json["error_message"]
    assert issuer.get("/cards/c") == before


def test_update_of_an_unknown_card(issuer: Issuer) -> None:
    """An update of an unknown card gets 404."""
    assert problem_of(issuer.client.put("/cards/nobody", {})) == (404, "404002")


def test_card_changes_hands_until_it_is_activated(issuer: Issuer) -> None:
    """Until its activation a card can move between users. Purchases use the account of the user who has it at activation."""
    inventory, ana, _ = (issuer.user(token=name) for name in ("inventory", "ana", "bo"))
    card = issuer.card(inventory, token="c")
    # This declined purchase puts the card with its first user into the engine's cache.
    purchase = {"card_token": "c", "amount": 10, "mid": "shop"}
    declined = made_by(issuer.client.post("/simulate/authorization", purchase))["transaction"]
    assert (declined["state"], declined["user_token"]) == ("DECLINED", "inventory")
    for holder in ("ana", "inventory", "ana"):
        # These cards increase the revision of the first account. The newest state of the card must still have the highest
        # revision.
        issuer.card(inventory)
        issuer.card(inventory)
        moved = read_of(issuer.client.put("/cards/c", {"user_token": holder, "metadata": {"of": holder}}))
        assert moved == {**card, "user_token": holder, "metadata": {"of": holder}}
    assert "c" not in [row["token"] for row in issuer.get(f"/cards/user/{inventory}", count=100)["data"]]
    assert [row["token"] for row in issuer.get(f"/cards/user/{ana}")["data"]] == ["c"]
    issuer.enter("c", "ACTIVE")
    later = made_by(issuer.client.post("/simulate/authorization", purchase))["transaction"]
    assert (later["user_token"], later["card"]["metadata"]) == ("ana", {"of": "ana"})
    assert later["response"]["code"] != declined["response"]["code"]
    reply = issuer.client.put("/cards/c", {"user_token": "bo"})
    assert problem_of(reply) == (400, "400001")
    assert "user_token" in reply.json["error_message"]


def test_number_belongs_to_one_user(issuer: Issuer) -> None:
    """Neither a reissue nor its source can move to another user, because both have the same number."""
    user, other = issuer.user(), issuer.user()
    issuer.card(user, token="source")
    issuer.card(user, token="reissue", reissue_pan_from_card_token="source")
    for token in ("source", "reissue"):
        reply = issuer.client.put(f"/cards/{token}", {"user_token": other})
        assert problem_of(reply) == (400, "400001")
        assert "user_token" in reply.json["error_message"]


# --- Reissues -----------------------------------------------------------------------------


def test_reissue_with_the_same_number_ends_its_source_when_activated(issuer: Issuer) -> None:
    """A reissue has the same number and a new lifetime. The source stays active until the reissue is activated."""
    user, product = issuer.user(), issuer.product()
    source = issuer.card(user, product, token="old", query="?show_pan=true&show_cvv_number=true")
    issuer.enter("old", "ACTIVE")
    issuer.set_clock("2027-03-01T00:00:00Z")
    renewed = issuer.card(
        user, product, token="new", reissue_pan_from_card_token="old", query="?show_pan=true&show_cvv_number=true"
    )
    assert (renewed["pan"], renewed["reissue_pan_from_card_token"]) == (source["pan"], "old")
    assert (source["expiration"], renewed["expiration"]) == ("0130", "0331")
    assert renewed["barcode"] != source["barcode"]
    assert issuer.get("/cards/old")["state"] == "ACTIVE"
    # The number alone finds the newest card. With the old expiration it finds the old card.
    pan = source["pan"]
    assert read_of(issuer.client.post("/cards/getbypan", {"pan": pan}))["card_token"] == "new"
    assert read_of(issuer.client.post("/cards/getbypan", {"pan": pan, "expiration": "0130"}))["card_token"] == "old"
    issuer.enter("new", "ACTIVE")
    assert issuer.get("/cards/old")["state"] == "TERMINATED"
    last = issuer.transitions("old")[-1]
    assert (last["type"], last["channel"], last["reason"]) == ("state.terminated", "SYSTEM", "Card reissued")
    assert issuer.transitions("new")[0]["reissue_pan_from_card_token"] == "old"
    # Another activation adds no transition to the source.
    issuer.enter("new", "SUSPENDED")
    issuer.enter("new", "ACTIVE")
    assert len(issuer.transitions("old")) == 3


@pytest.mark.parametrize(
    ("fields", "same_number", "at_once", "in_the_end"),
    [
        ({"reissue_pan_from_card_token": "old"}, True, "ACTIVE", "TERMINATED"),
        ({"reissue_pan_from_card_token": "old", "generate_new_pan": False}, True, "ACTIVE", "TERMINATED"),
        ({"reissue_pan_from_card_token": "old", "generate_new_pan": True}, False, "ACTIVE", "TERMINATED"),
        ({"reissue_pan_from_card_token": "old", "activation_actions": {}}, True, "ACTIVE", "TERMINATED"),
        (
            {"reissue_pan_from_card_token": "old", "activation_actions": {"terminate_reissued_source_card": False}},
            True, "ACTIVE", "ACTIVE",
        ),
        ({"new_pan_from_card_token": "old"}, False, "TERMINATED", "TERMINATED"),
        (
            {"new_pan_from_card_token": "old", "activation_actions": {"terminate_reissued_source_card": False}},
            False, "TERMINATED", "TERMINATED",
        ),
        ({"translate_pin_from_card_token": "old"}, False, "ACTIVE", "ACTIVE"),
        ({"activation_actions": {"swap_digital_wallet_tokens_from_card_token": "old"}}, False, "ACTIVE", "ACTIVE"),
    ],
)  # fmt: skip
def test_what_a_reissue_does_to_its_source(
    issuer: Issuer, fields: dict[str, Any], same_number: bool, at_once: str, in_the_end: str
) -> None:
    """Each kind of reissue keeps or changes the number, and terminates its source at creation, at activation or never."""
    user, product = issuer.user(), issuer.product()
    source = issuer.card(user, product, token="old", query="?show_pan=true")
    issuer.enter("old", "ACTIVE")
    new = issuer.card(user, product, token="new", query="?show_pan=true", **fields)
    assert (new["pan"] == source["pan"]) is same_number
    assert issuer.get("/cards/old")["state"] == at_once
    issuer.enter("new", "SUSPENDED")
    assert issuer.get("/cards/old")["state"] == at_once
    issuer.enter("new", "ACTIVE")
    assert issuer.get("/cards/old")["state"] == in_the_end


def test_reissue_that_is_active_at_once_ends_its_source_at_once(issuer: Issuer) -> None:
    """A reissue that is active at issue terminates its source at once. A replay returns the same card."""
    user, product = issuer.user(), issuer.product(life_cycle={"activate_upon_issue": True})
    issuer.card(user, product, token="old")
    body = {"user_token": user, "card_product_token": product, "token": "new", "reissue_pan_from_card_token": "old"}
    made = made_by(issuer.client.post("/cards", body))
    assert issuer.get("/cards/old")["state"] == "TERMINATED"
    assert made_by(issuer.client.post("/cards", body)) == made


def test_source_must_be_the_users_own_and_alive(issuer: Issuer) -> None:
    """A card of another user cannot be a source. A terminated card can be replaced, but not with the same number."""
    user, product = issuer.user(), issuer.product()
    issuer.card(product=product, token="theirs")
    issuer.card(user, product, token="dead")
    issuer.enter("dead", "TERMINATED")
    body = {"user_token": user, "card_product_token": product}
    for field in ("reissue_pan_from_card_token", "new_pan_from_card_token", "translate_pin_from_card_token"):
        assert problem_of(issuer.client.post("/cards", {**body, field: "theirs"})) == (400, "400018")
    swap = {"activation_actions": {"swap_digital_wallet_tokens_from_card_token": "theirs"}}
    assert problem_of(issuer.client.post("/cards", {**body, **swap})) == (400, "400018")
    assert problem_of(issuer.client.post("/cards", {**body, "reissue_pan_from_card_token": "dead"})) == (400, "400018")
    issuer.card(user, product, reissue_pan_from_card_token="dead", generate_new_pan=True)
    issuer.card(user, product, new_pan_from_card_token="dead")
    assert issuer.get("/cards/theirs")["state"] == "UNACTIVATED"
    assert len(issuer.transitions("dead")) == 2


@pytest.mark.parametrize(
    ("fields", "has_pin"),
    [
        ({"reissue_pan_from_card_token": "old"}, True),
        ({"reissue_pan_from_card_token": "old", "generate_new_pan": True}, True),
        ({"reissue_pan_from_card_token": "old", "copy_pin_from_source_card": False}, False),
        ({"new_pan_from_card_token": "old"}, False),
        ({"new_pan_from_card_token": "old", "translate_pin_from_card_token": "old"}, True),
        ({"translate_pin_from_card_token": "old"}, True),
        ({"translate_pin_from_card_token": "plain"}, False),
        ({}, False),
    ],
)
def test_pin_goes_along_when_it_should(tmp_path: Path, fields: dict[str, Any], has_pin: bool) -> None:
    """A copied PIN has the same four digits, encrypted for the new card alone."""
    with new_platform(tmp_path / "cardwright.db") as platform:
        platform.make("cardproducts", token="p", name="P", start_date="2020-01-01")
        platform.make("users", token="u")
        for token in ("old", "plain"):
            platform.make("cards", token=token, user_token="u", card_product_token="p")
        vault, by_token = platform.app.vault, select(cards_table).where
        with platform.database.write() as db:
            old = db.execute(by_token(cards_table.c.token == "old")).one()
            sealed = vault.seal("2580", f"pin:{old.id}")
            db.execute(cards_table.update().where(cards_table.c.id == old.id).values(pin_sealed=sealed))
        made = platform.make("cards", token="new", user_token="u", card_product_token="p", **fields)
        with platform.database.read() as db:
            new = db.execute(by_token(cards_table.c.token == "new")).one()
    assert made["pin_is_set"] is has_pin
    assert (new.pin_sealed is not None) is has_pin
    assert not has_pin or vault.open(bytes(new.pin_sealed), f"pin:{new.id}") == "2580"
