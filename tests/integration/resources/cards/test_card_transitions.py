"""Card transitions over HTTP: allowed states, validations, expiration, and effects on webhooks and purchases."""

import json
import sqlite3
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cardwright.kit.canonical import canonical
from cardwright.resources.cards.card_transitions import CardTransitionCreate
from tests.support.fixtures import module_server, program_fixture
from tests.support.issuing import TEXT, Issuer, made_by, problem_of, read_of

# With a seed, the clock of the server is frozen at noon of 1 January 2026.
server = module_server(seed=5)
issuer = program_fixture(Issuer)


NOTHING_VALIDATED = {"user": {"birth_date": False, "phone": False, "ssn": False, "random_name_line1_postfix": False}}

STATE_PATHS = {
    "UNACTIVATED": [],
    "ACTIVE": ["ACTIVE"],
    "LIMITED": ["ACTIVE", "LIMITED"],
    "SUSPENDED": ["SUSPENDED"],
    "TERMINATED": ["TERMINATED"],
}
"""The transitions that bring a new card into each state."""

STATES = """
    from        | to ACTIVE        | LIMITED       | SUSPENDED       | TERMINATED
    UNACTIVATED | state.activated  | 400           | state.suspended | state.terminated
    ACTIVE      | state.activated  | state.limited | state.suspended | state.terminated
    LIMITED     | state.activated  | state.limited | state.suspended | state.terminated
    SUSPENDED   | state.reinstated | 400           | state.suspended | state.terminated
    TERMINATED  | 400              | 400           | 400             | 400
"""


def machine() -> list[tuple[str, str, str]]:
    """Return the table as rows of current state, requested state and outcome."""
    rows = [[cell.strip() for cell in line.split("|")] for line in STATES.strip().splitlines()[1:]]
    targets = ("ACTIVE", "LIMITED", "SUSPENDED", "TERMINATED")
    return [(before, after, cell) for before, *cells in rows for after, cell in zip(targets, cells, strict=True)]


@pytest.mark.parametrize(("before", "after", "outcome"), machine())
def test_state_machine(issuer: Issuer, before: str, after: str, outcome: str) -> None:
    """An allowed change creates a transition of the type in the table. Any other change gets 400 and changes nothing."""
    issuer.card(token="c")
    for state in STATE_PATHS[before]:
        issuer.enter("c", state)
    steps = len(issuer.transitions("c"))
    reply = issuer.transition("c", after, reason="because")
    if outcome == "400":
        assert problem_of(reply) == (400, "400013")
        assert f"{before} to {after}" in reply.json["error_message"]
        assert (issuer.get("/cards/c")["state"], len(issuer.transitions("c"))) == (before, steps)
    else:
        assert (made_by(reply)["type"], reply.json["state"]) == (outcome, after)
        card = issuer.get("/cards/c")
        assert (card["state"], card["state_reason"]) == (after, "because")
        assert len(issuer.transitions("c")) == steps + 1


def test_first_transitions_tell_of_the_issue(issuer: Issuer) -> None:
    """A new card has a transition ``fulfillment.issued``. A card that is active at issue has ``state.activated`` after it."""
    product = issuer.product(life_cycle={"activate_upon_issue": True})
    card = issuer.card(issuer.user(metadata={"team": "blue"}), product, metadata={"purpose": "travel"})
    issued, activated = issuer.transitions(card["token"])
    for transition in (issued, activated):
        assert len(transition.pop("token")) == 36
    common = {
        "card_token": card["token"],
        "user_token": card["user_token"],
        "reason_code": "00",
        "channel": "SYSTEM",
        "fulfillment_status": "ISSUED",
        "validations": NOTHING_VALIDATED,
        "created_time": "2026-01-01T12:00:00Z",
        "card_product_token": product,
        "last_four": card["last_four"],
        "pan": card["pan"],
        "expiration": "0130",
        "expiration_time": "2030-01-31T23:59:59.000Z",
        "barcode": card["barcode"],
        "pin_is_set": False,
        "user": {"metadata": {"team": "blue"}},
        "card": {"metadata": {"purpose": "travel"}},
        "created_timestamp": "2026-01-01T12:00:00.000Z",
    }
    assert issued == {**common, "state": "UNACTIVATED", "reason": "New card", "type": "fulfillment.issued"}
    assert activated == {**common, "state": "ACTIVE", "reason": "New card activated", "type": "state.activated"}


def test_transition_tells_the_request_and_the_card(issuer: Issuer) -> None:
    """A transition has the fields of its request and a copy of the card's. A later change of the card does not alter it."""
    user, product = issuer.user(), issuer.product()
    issuer.card(user, product, token="old")
    issuer.card(user, product, token="c", expedite=True, fulfillment=TEXT, bulk_issuance_token="b", new_pan_from_card_token="old")
    issuer.set_clock("2026-01-01T12:00:03.217Z")
    made = issuer.enter("c", "SUSPENDED", token="t", reason="lost it", reason_code="10", channel="IVR", idempotentHash="x")
    assert (made["token"], made["reason"], made["reason_code"], made["channel"]) == ("t", "lost it", "10", "IVR")
    assert (made["created_time"], made["created_timestamp"]) == ("2026-01-01T12:00:03Z", "2026-01-01T12:00:03.217Z")
    assert (made["expedite"], made["fulfillment"], made["bulk_issuance_token"]) == (True, TEXT, "b")
    assert made["new_pan_from_card_token"] == "old"
    assert "last_modified_time" not in made
    read_of(issuer.client.put("/cards/c", {"metadata": {"later": "yes"}}))
    assert issuer.get("/cardtransitions/t") == made
    assert issuer.get("/cardtransitions/t", fields="card,metadata,token") == {"token": "t", "card": {"metadata": {}}}
    card = issuer.get("/cards/c")
    assert (card["state"], card["state_reason"], card["last_modified_time"]) == ("SUSPENDED", "lost it", "2026-01-01T12:00:03Z")


def test_card_has_a_state_reason_without_a_request_reason(issuer: Issuer) -> None:
    """Without a reason, or with an empty one, the card gets a default ``state_reason`` that names the change."""
    issuer.card(token="c", metadata={})
    assert "reason" not in issuer.enter("c", "ACTIVE")
    assert issuer.get("/cards/c")["state_reason"] == "Card activated"
    assert issuer.enter("c", "SUSPENDED", reason="")["reason"] == ""
    assert issuer.get("/cards/c")["state_reason"] == "Card suspended"


def test_repeat_with_token_moves_nothing(issuer: Issuer) -> None:
    """The same token and body replay the first answer, even after a final state. Another body is a conflict."""
    issuer.card(token="c")
    first = issuer.enter("c", "TERMINATED", token="t", validations={"user": {}})
    assert issuer.enter("c", "TERMINATED", token="t", validations={"user": {}}) == first
    assert len(issuer.transitions("c")) == 2
    assert problem_of(issuer.transition("c", "TERMINATED", token="t", reason="again")) == (409, "409002")
    assert problem_of(issuer.transition("nobody", "TERMINATED", token="t")) == (409, "409002")


BAD_BODIES: list[tuple[dict[str, Any], str, str]] = [
    ({"card_token": None}, "400001", "card_token may not be null"),
    ({"channel": None}, "400001", "channel may not be null"),
    ({"state": None}, "400001", "state may not be null"),
    ({"card_token": ""}, "400001", "card_token"),
    ({"card_token": "nobody"}, "400008", "Card not found"),
    ({"token": "t" * 37}, "400001", "token"),
    ({"state": "UNACTIVATED"}, "400037", "state"),
    ({"state": "UNSUPPORTED"}, "400037", "state"),
    ({"state": "active"}, "400037", "state"),
    ({"channel": "POST"}, "400037", "channel"),
    ({"reason_code": "33"}, "400037", "reason_code"),
    ({"reason_code": 1}, "400037", "reason_code"),
    ({"reason": "r" * 256}, "400001", "reason"),
    ({"sync_state_with_dwts": "maybe"}, "400037", "sync_state_with_dwts"),
    ({"validations": {"user": {"random_name_line1_postfix": "short"}}}, "400001", "validations.user.random_name_line1_postfix"),
    ({"validations": {"user": {"birth_date": "yesterday"}}}, "400001", "validations.user.birth_date"),
    ({"validations": {"user": {"phone": "1" * 256}}}, "400001", "validations.user.phone"),
    ({"validations": []}, "400037", "validations"),
]


@pytest.mark.parametrize(
    ("change", "code", "message"), BAD_BODIES, ids=[f"{sorted(body)}-{text}" for body, _, text in BAD_BODIES]
)
def test_bad_request_names_what_is_wrong(issuer: Issuer, change: dict[str, Any], code: str, message: str) -> None:
    """A wrong field gets 400 with a message that names it, and the card is unchanged."""
    before = issuer.card(token="c")
    body = {"card_token": "c", "state": "ACTIVE", "channel": "API", **change}
    reply = issuer.client.post("/cardtransitions", body)
    assert problem_of(reply) == (400, code)
    assert message in reply.json["error_message"]
    assert issuer.get("/cards/c") == before


def test_several_missing_fields_are_told_together(issuer: Issuer) -> None:
    """One message names all missing fields."""
    reply = issuer.client.post("/cardtransitions", {})
    assert problem_of(reply) == (400, "400001")
    for name in ("card_token", "channel", "state"):
        assert f"{name} may not be null" in reply.json["error_message"]


@pytest.mark.parametrize(
    ("claims", "outcome"),
    [
        ({}, []),
        ({"birth_date": "1991-05-17"}, ["birth_date"]),
        ({"birth_date": "1991-05-17T00:00:00Z"}, ["birth_date"]),
        ({"birth_date": "1991-05-18"}, "birth_date"),
        ({"phone": "+15105551212"}, ["phone"]),
        ({"phone": "+15105551213"}, "phone"),
        ({"phone": ""}, "phone"),
        ({"ssn": "6789"}, ["ssn"]),
        ({"ssn": "123456789"}, ["ssn"]),
        ({"ssn": "6780"}, "ssn"),
        ({"ssn": "789"}, "ssn"),
        ({"ssn": ""}, "ssn"),
        ({"random_name_line1_postfix": "ABC123"}, []),
        ({"birth_date": "1991-05-17", "phone": "+15105551212", "ssn": "6789"}, ["birth_date", "phone", "ssn"]),
        ({"birth_date": "1991-05-17", "phone": "+15105551212", "ssn": "0000"}, "ssn"),
    ],
)
def test_claims_about_the_holder_are_checked(issuer: Issuer, claims: dict[str, str], outcome: list[str] | str) -> None:
    """Correct values are shown as validated.

    A wrong value gets 400 with a message that names the field and hides the stored value.
    """
    issuer.card(issuer.user(birth_date="1991-05-17", phone="+15105551212", ssn="123456789"), token="c")
    reply = issuer.transition("c", "ACTIVE", validations={"user": claims})
    if isinstance(outcome, str):
        assert problem_of(reply) == (400, "400001")
        assert f"validations.user.{outcome}" in reply.json["error_message"]
        assert "6789" not in reply.text
        assert issuer.get("/cards/c")["state"] == "UNACTIVATED"
    else:
        names = ("birth_date", "phone", "ssn", "random_name_line1_postfix")
        assert made_by(reply)["validations"] == {"user": {name: name in outcome for name in names}}


def test_claims_about_what_is_not_known_are_wrong(issuer: Issuer) -> None:
    """A validation of a field that the user does not have fails."""
    issuer.card(token="c")
    for name, value in (("birth_date", "1991-05-17"), ("phone", "1"), ("ssn", "6789")):
        assert problem_of(issuer.transition("c", "ACTIVE", validations={"user": {name: value}})) == (400, "400001")


def test_claimed_number_leaves_no_trace(issuer: Issuer, database: Path) -> None:
    """A validated number is stored neither in clear nor as an unkeyed hash. An equal request is still a replay."""
    issuer.card(issuer.user(ssn="918273645"), token="c")
    body = {"token": "t", "validations": {"user": {"ssn": "918273645"}}}
    assert issuer.enter("c", "ACTIVE", **body) == issuer.enter("c", "ACTIVE", **body)
    other = {"token": "t", "validations": {"user": {"ssn": "3645"}}}
    assert problem_of(issuer.transition("c", "ACTIVE", **other)) == (409, "409002")
    assert b"918273645" not in b"".join(file.read_bytes() for file in database.parent.glob(f"{database.name}*"))
    plain = {"card_token": "c", "state": "ACTIVE", "channel": "API", **body}
    with sqlite3.connect(database) as db:
        hashes = {digest for (digest,) in db.execute("SELECT request_hash FROM card_transitions WHERE token = 't'")}
    # An attacker can find nine digits from an unkeyed hash by trying all of them.
    assert hashes
    assert sha256(canonical(msgspec.convert(plain, CardTransitionCreate))).digest()[:16] not in hashes


def test_only_a_card_of_an_active_user_is_activated(issuer: Issuer) -> None:
    """A card of a suspended user cannot be activated. It can be suspended and terminated."""
    user = issuer.user()
    issuer.card(user, token="c")
    issuer.suspend_user(user)
    assert problem_of(issuer.transition("c", "ACTIVE")) == (422, "422002")
    issuer.enter("c", "SUSPENDED")
    assert problem_of(issuer.transition("c", "ACTIVE")) == (422, "422002")
    issuer.enter("c", "TERMINATED")


def test_parent_does_not_matter_to_an_activation(issuer: Issuer) -> None:
    """A child that shares the account of a suspended parent can activate its card."""
    parent = issuer.user()
    child = issuer.user(parent_token=parent, uses_parent_account=True)
    issuer.card(child, token="c")
    issuer.suspend_user(parent)
    assert issuer.enter("c", "ACTIVE")["user_token"] == child


def test_transitions_of_a_card_come_newest_first(issuer: Issuer) -> None:
    """A page has five transitions, newest first, even within one second. ``count=0`` is an empty page."""
    issuer.card(token="c")
    issuer.card(token="other")
    for state in ("ACTIVE", "SUSPENDED", "ACTIVE", "LIMITED", "TERMINATED"):
        issuer.enter("c", state)
    first = issuer.get("/cardtransitions/card/c")
    assert [t["state"] for t in first["data"]] == ["TERMINATED", "LIMITED", "ACTIVE", "SUSPENDED", "ACTIVE"]
    assert (first["count"], first["is_more"]) == (5, True)
    rest = issuer.get("/cardtransitions/card/c", start_index=5, fields="state,type")
    assert (rest["data"], rest["is_more"]) == ([{"state": "UNACTIVATED", "type": "fulfillment.issued"}], False)
    none = issuer.get("/cardtransitions/card/c", count=0)
    assert (none["count"], none["data"], none["is_more"]) == (0, [], True)
    assert problem_of(issuer.client.get("/cardtransitions/card/c?count=-1")) == (400, "400002")
    assert problem_of(issuer.client.get("/cardtransitions/card/nobody")) == (404, "404002")
    assert problem_of(issuer.client.get("/cardtransitions/nothing")) == (404, "404009")


# --- Expiration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "last", "first_without"),
    [
        ({"unit": "DAYS", "value": 1}, "2026-01-02T23:59:59.999Z", "2026-01-03T00:00:00Z"),
        ({"unit": "MONTHS", "value": 1}, "2026-02-28T23:59:59.999Z", "2026-03-01T00:00:00Z"),
        ({"unit": "HOURS", "value": 2}, "2026-01-01T13:59:59.999Z", "2026-01-01T14:00:00Z"),
        ({"unit": "SECONDS", "value": 5}, "2026-01-01T12:00:04.999Z", "2026-01-01T12:00:05Z"),
    ],
)
def test_expired_card_is_not_activated(issuer: Issuer, offset: dict[str, Any], last: str, first_without: str) -> None:
    """The expiration second is valid for a lifetime in days or months, not in hours or seconds. Expiry changes no state."""
    issuer.set_clock("2026-01-01T12:00:00.700Z")
    user, product = issuer.user(), issuer.product()
    for token in ("in_time", "too_late", "active"):
        issuer.card(user, product, token=token, expiration_offset=offset)
    issuer.enter("active", "ACTIVE")
    issuer.set_clock(last)
    issuer.enter("in_time", "ACTIVE")
    issuer.set_clock(first_without)
    reply = issuer.transition("too_late", "ACTIVE")
    assert problem_of(reply) == (400, "400013")
    assert "expired" in reply.json["error_message"]
    assert issuer.get("/cards/active")["state"] == "ACTIVE"
    issuer.enter("active", "ACTIVE")
    issuer.enter("too_late", "TERMINATED")


def test_life_can_begin_with_the_first_activation(issuer: Issuer) -> None:
    """With update_expiration_upon_activation, the first activation restarts the lifetime, and later ones do not.

    The code changes too.
    """
    product = issuer.product(life_cycle={"update_expiration_upon_activation": True})
    issuer.card(product=product, token="own", expiration_offset={"unit": "HOURS", "value": 1})
    made = issuer.card(product=product, token="c", query="?show_cvv_number=true")
    assert made["expiration"] == "0130"
    issuer.set_clock("2027-05-20T10:00:00Z")
    # More than an hour has passed since the issue, but the activation restarts the hour.
    assert issuer.enter("own", "ACTIVE")["expiration_time"] == "2027-05-20T11:00:00.000Z"
    issuer.enter("c", "SUSPENDED")
    assert issuer.get("/cards/c")["expiration"] == "0130"
    activated = issuer.enter("c", "ACTIVE")
    assert (activated["expiration"], activated["expiration_time"]) == ("0531", "2031-05-31T23:59:59.000Z")
    shown = issuer.get("/cards/c/showpan", show_cvv_number="true")
    assert (shown["expiration"], shown["expiration_time"]) == ("0531", "2031-05-31T23:59:59Z")
    body = {"pan": shown["pan"], "expiration": "0531", "cvv_number": shown["cvv_number"]}
    assert read_of(issuer.client.post("/cards/getbypan", body))["card_token"] == "c"
    issuer.set_clock("2028-05-20T10:00:00Z")
    issuer.enter("c", "SUSPENDED")
    issuer.enter("c", "ACTIVE")
    assert issuer.get("/cards/c")["expiration"] == "0531"
    issuer.enter("own", "SUSPENDED")
    assert problem_of(issuer.transition("own", "ACTIVE")) == (400, "400013")


def test_life_cycle_is_that_of_the_card_s_own_day(issuer: Issuer) -> None:
    """Life-cycle settings of a product apply only to cards issued after the change."""
    product = issuer.product(life_cycle={"update_expiration_upon_activation": True})
    issuer.card(product=product, token="before")
    change = {"update_expiration_upon_activation": False, "expiration_offset": {"unit": "YEARS", "value": 1}}
    read_of(issuer.client.put(f"/cardproducts/{product}", {"config": {"card_life_cycle": change}}))
    issuer.card(product=product, token="after")
    issuer.set_clock("2026-06-01T00:00:00Z")
    assert issuer.enter("before", "ACTIVE")["expiration"] == "0630"
    assert issuer.enter("after", "ACTIVE")["expiration"] == "0127"


# --- Webhooks and purchases ---------------------------------------------------------------


def test_every_transition_sends_one_event(issuer: Issuer, database: Path) -> None:
    """A webhook for all card transitions gets one event for each, in order. A webhook for one type gets only that type."""
    auth = {"basic_auth_username": "listener", "basic_auth_password": "Aa1!Aa1!Aa1!Aa1!Aa1!"}
    for name, event in (("all", "cardtransition.*"), ("some", "cardtransition.state.terminated")):
        config = {"url": f"http://127.0.0.1:9/{name}", **auth}
        made_by(issuer.client.post("/webhooks", {"token": name, "name": name, "events": [event], "config": config}))
    user, product = issuer.user(), issuer.product()
    issuer.card(user, product, token="old")
    issuer.card(user, product, token="c", reissue_pan_from_card_token="old")
    issuer.get("/cards/c/showpan")
    for state in ("ACTIVE", "SUSPENDED", "ACTIVE", "LIMITED", "TERMINATED"):
        issuer.enter("c", state)
    happened = issuer.transitions("old") + issuer.transitions("c")
    assert sorted({t["type"] for t in happened}) == [
        "fulfillment.digitally_presented", "fulfillment.issued", "state.activated", "state.limited", "state.reinstated",
        "state.suspended", "state.terminated",
    ]  # fmt: skip
    tokens = {name: events_of(database, issuer, name) for name in ("all", "some")}
    assert sorted(tokens["all"]) == sorted(t["token"] for t in happened)
    assert sorted(tokens["some"]) == sorted(t["token"] for t in happened if t["type"] == "state.terminated")
    order = [token for token in tokens["all"] if token in {t["token"] for t in issuer.transitions("c")}]
    assert order == [t["token"] for t in issuer.transitions("c")]


def events_of(database: Path, issuer: Issuer, webhook: str) -> list[str]:
    """Return the transition tokens in the outbox for a webhook of the program, in the order of the rows."""
    program = issuer.get("/sandbox/program")["token"]
    query = (
        "SELECT o.refs FROM outbox o JOIN webhooks w ON w.id = o.webhook_id JOIN programs p ON p.id = o.program_id "
        "WHERE p.token = ? AND w.token = ? AND o.category = 2 ORDER BY o.id"
    )
    with sqlite3.connect(database) as db:
        return [token for (refs,) in db.execute(query, (program, webhook)) for token in json.loads(refs)]


def test_purchases_follow_the_state_at_once(issuer: Issuer) -> None:
    """Only an active card approves purchases. The decline code depends on the state, for TERMINATED on the reason code."""
    user, source = issuer.user(), made_by(issuer.client.post("/fundingsources/program", {"name": "Bank"}))["token"]
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": source}}
    body = {"name": "JIT", "start_date": "2020-01-01", "config": {"jit_funding": jit}}
    product = made_by(issuer.client.post("/cardproducts", body))["token"]
    issuer.card(user, product, token="c")

    def purchase(card: str = "c") -> tuple[str, str]:
        answer = made_by(issuer.client.post("/simulate/authorization", {"card_token": card, "amount": 10, "mid": "m"}))
        return answer["transaction"]["state"], answer["transaction"]["response"]["code"]

    outcomes = {"UNACTIVATED": purchase()}
    for state in ("ACTIVE", "LIMITED", "SUSPENDED"):
        issuer.enter("c", state)
        outcomes[state] = purchase()
    issuer.enter("c", "ACTIVE")
    read_of(issuer.client.put("/cards/c", {"metadata": {"a": "b"}}))
    outcomes["ACTIVE again"] = purchase()
    for code in ("10", "23", "08", "02"):
        issuer.card(user, product, token=f"ended-{code}")
        issuer.enter(f"ended-{code}", "ACTIVE")
        issuer.enter(f"ended-{code}", "TERMINATED", reason_code=code)
        # showpan adds a transition too. It must not replace the reason code of the termination.
        issuer.get(f"/cards/ended-{code}/showpan")
        outcomes[code] = purchase(f"ended-{code}")
    assert {name for name, (state, _) in outcomes.items() if state == "PENDING"} == {"ACTIVE", "ACTIVE again"}
    declined = {name: code for name, (state, code) in outcomes.items() if state == "DECLINED"}
    assert len(set(declined.values())) == 6, declined
    assert declined["LIMITED"] == declined["SUSPENDED"]
