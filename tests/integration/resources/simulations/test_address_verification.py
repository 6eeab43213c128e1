"""Address verification over HTTP: compared parts, declines, and the places that show outcome and address on file."""

from typing import Any

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import made_by, read_of
from tests.support.shop import Shop

EVENTS = "/simulations/cardtransactions/"

WAYS = (
    "/simulate/authorization", "/simulate/financial", f"{EVENTS}authorization", f"{EVENTS}pindebit",
    f"{EVENTS}pindebit.authorization", f"{EVENTS}account.funding.authorization", f"{EVENTS}account.funding.auth_plus_capture",
)  # fmt: skip
"""The paths that accept an amount of 0 and a billing address."""

STRICT = {"validate": True, "decline_on_address_number_mismatch": True, "decline_on_postal_code_mismatch": True}
LENIENT = {"validate": True, "decline_on_address_number_mismatch": False, "decline_on_postal_code_mismatch": False}
OFF = {**STRICT, "validate": False}

RULES = {
    "strict": STRICT, "lenient": LENIENT, "off": OFF, "street": {**STRICT, "decline_on_postal_code_mismatch": False},
    "zip": {**STRICT, "decline_on_address_number_mismatch": False},
}  # fmt: skip
"""The rules of the card products, each for account verifications and for authorizations."""


class Checkout(Shop):
    """A shop with card products for each rule: ``av-strict`` is strict for account verifications, lenient otherwise."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.make("users", token="nobody")
        for name, rule in RULES.items():
            self.checking(f"av-{name}", av_messages=rule, auth_messages=LENIENT)
            self.checking(f"auth-{name}", av_messages=LENIENT, auth_messages=rule)
        self.checking("unset")

    def checking(self, token: str, **rules: Any) -> None:
        """Create a card product with these rules, a card of it for ``ana``, and one for a user without an address."""
        controls = {"accepted_countries_token": "decline_ofac_countries", "address_verification": rules}
        jit = {"enabled": True, "funding_source_token": "harbor_funding", "refunds_destination": "GPA"}
        self.product(token, transaction_controls=controls, jit_funding={"program_funding_source": jit})
        self.make("cards", token=token, user_token="ana", card_product_token=token)
        self.make("cards", token=f"{token} nobody", user_token="nobody", card_product_token=token)

    def pay(self, way: str, amount: Any, card: str, **fields: Any) -> dict[str, Any]:
        """Make a purchase, with a billing address or without, and return its transaction."""
        address = {name: fields.pop(name) for name in ("address", "zip", "compressed_zip", "first_name") if name in fields}
        options = {"card_options": {"billing_address": address, "card_present": False}} if address else {}
        body = {"card_token": card, "amount": amount, "card_acceptor": {"name": "Kiosk"}, **options, **fields}
        if way.startswith("/simulate/"):
            body |= {"mid": "m1"}
        return dict(made_by(self.client.post(way, body))["transaction"])


server = shared_server(chosen_databases())
checkout = program_fixture(Checkout, scope="module")


def outcome(transaction: dict[str, Any]) -> tuple[str, str | None]:
    """Return the response code and the code of the address verification."""
    verification = transaction.get("address_verification")
    return transaction["response"]["code"], None if verification is None else verification["response"]["code"]


# On file: "12 Main Street" and "94501". Columns: sent address, verification code, street differs, postal code differs.
ADDRESSES = [
    ({"address": "12 Main St", "zip": "94501"}, "0000", False, False),
    ({"address": "12 MAIN ST.", "zip": "94501-1234"}, "0000", False, False),
    ({"address": "12 Main St", "zip": "945011234"}, "0000", False, False),
    ({"address": "12 Main St", "zip": 94501}, "0000", False, False),
    ({"address": "12 Main St", "zip": 945011234}, "0000", False, False),
    ({"address": "12 Main St", "compressed_zip": "94501"}, "0000", False, False),
    ({"address": "12 Main St", "zip": " ", "compressed_zip": "94501"}, "0000", False, False),
    ({"address": "13 Main St", "zip": "94501"}, "0100", True, False),
    ({"address": "12 Main St", "zip": "94502"}, "0001", False, True),
    ({"address": "13 Main St", "zip": "10000"}, "0101", True, True),
    ({"zip": "94501"}, "0200", False, False),
    ({"zip": "94502"}, "0201", False, True),
    ({"address": "12 Main St"}, "0002", False, False),
    ({"address": "13 Main St"}, "0102", True, False),
    ({"address": " ", "zip": "94501"}, "0200", False, False),
    ({"address": "12 Main St", "zip": "-"}, "0002", False, False),
    ({"address": " ", "zip": ""}, None, False, False),
    ({"first_name": "Ana"}, None, False, False),
    ({}, None, False, False),
]
DIFFERENT = [row for row in ADDRESSES if row[2] or row[3]]
FULLY = ("/simulate/authorization", f"{EVENTS}authorization")
"""The paths that are tested with every address. All other paths are tested only with the addresses in ``DIFFERENT``."""


@pytest.mark.parametrize("way", WAYS)
def test_what_declines(checkout: Checkout, way: str) -> None:
    """A rule declines only its mismatch, and only in the messages that it is for. Without ``validate`` the code is 0303."""
    for name, rule in RULES.items():
        for sent, verdict, wrong_street, wrong_zip in ADDRESSES if way in FULLY else DIFFERENT:
            declines = rule["validate"] and (
                (wrong_street and rule["decline_on_address_number_mismatch"])
                or (wrong_zip and rule["decline_on_postal_code_mismatch"])
            )
            for which, amount, other in (("av", 0, 10), ("auth", 10, 0)):
                verdicts = outcome(checkout.pay(way, amount, f"{which}-{name}", **sent))
                shown = "0303" if verdict is not None and not rule["validate"] else verdict
                assert (verdicts[0] == "1953", verdicts[1]) == (declines, shown), (name, which, sent, verdicts)
                verdicts = outcome(checkout.pay(way, other, f"{which}-{name}", **sent))
                assert (verdicts[0] == "1953", verdicts[1]) == (False, verdict), (name, which, sent, verdicts)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_on_file_declines_nothing(checkout: Checkout, way: str) -> None:
    """If no address is on file, each sent part is unavailable. Even strict rules approve, and ``on_file`` is empty."""
    expected = [
        ({"address": "12 Main St", "zip": "94501"}, "0303"), ({"address": "12 Main St"}, "0302"), ({"zip": "94501"}, "0203"),
    ]  # fmt: skip
    for sent, verdict in expected:
        for card, amount in (("av-strict nobody", 0), ("auth-strict nobody", 10)):
            transaction = checkout.pay(way, amount, card, **sent)
            assert outcome(transaction)[1] == verdict
            assert transaction["state"] != "DECLINED"
            assert transaction["address_verification"]["on_file"] == {}


def test_the_defaults_of_a_product(checkout: Checkout) -> None:
    """By default a wrong postal code declines an account verification, but no authorization. A wrong street declines neither."""
    way, wrong = "/simulate/authorization", {"address": "13 Main St", "zip": "10000"}
    assert outcome(checkout.pay(way, 0, "unset", **wrong)) == ("1953", "0101")
    assert outcome(checkout.pay(way, 10, "unset", **wrong)) == ("0000", "0101")
    assert checkout.pay(way, 0, "unset", address="13 Main St", zip="94501")["state"] != "DECLINED"


@pytest.mark.parametrize("way", WAYS)
def test_every_place_shows_the_same(checkout: Checkout, way: str) -> None:
    """Answer, transaction in both models, list and notification show sent address, address on file and outcome."""
    box = way.replace("/", ".").strip(".")
    inbox = f"{checkout.server.root_url}/sandbox/inbox/{checkout.program['token']}/{box}"
    hook = {"endpoint": inbox, "username": "u", "password": "p"}
    transaction = checkout.pay(way, 10, "jit", address="13 Main St.", zip="94501-1234", webhook=hook)
    expected = {
        "request": {"street_address": "13 Main St.", "postal_code": "94501-1234"},
        "on_file": {"street_address": "12 Main Street", "postal_code": "94501"},
        "response": {"code": "0100", "memo": "Address does not match and postal code matches"},
    }
    path = f"/transactions/{transaction['token']}"
    shown = [transaction, checkout.get(path), checkout.get(path, version="v2")]
    shown += [row for row in checkout.listed(card_token="jit", state="ALL") if row["token"] == transaction["token"]]
    (message,) = checkout.get(f"/sandbox/inbox/{box}", wait="30s", count=1)["data"]
    shown += message["body"]["transactions"]
    assert [row["address_verification"] for row in shown] == [expected] * 5
    inputs = next(
        step["inputs"] for step in checkout.get(f"/sandbox/decisions/{transaction['token']}")["checks"]
        if step["check"] == "address_is_right"
    )  # fmt: skip
    assert (inputs["address_verdict"], inputs["street_address_on_file"], inputs["validate"]) == ("0100", "12 Main Street", True)


def test_the_address_on_file_is_the_one_that_was_compared(checkout: Checkout) -> None:
    """A transaction keeps the compared address if the user's changes. A child is compared with its own address."""
    way = "/simulate/authorization"
    checkout.make("users", token="mover", address1="1 Old Road", zip="10001")
    family = {"parent_token": "mover", "uses_parent_account": True}
    checkout.make("users", token="child", address1="7 Mill Road", postal_code="K1A 0B1", **family)
    for user in ("mover", "child"):
        checkout.make("cards", token=user, user_token=user, card_product_token="auth-strict")
    before = checkout.pay(way, 1, "mover", address="1 Old Rd", zip="10001")
    read_of(checkout.client.put("/users/mover", {"address1": "2 New Road", "postal_code": "20002-0001"}))
    after = checkout.pay(way, 1, "mover", address="2 New Rd", zip="20002")
    own_address = checkout.pay(way, 1, "child", address="7 Mill Road", zip="k1a0b1")
    refused = checkout.pay(way, 1, "mover", address="1 Old Rd", zip="10001")
    assert [outcome(transaction) for transaction in (before, after, own_address, refused)] == [
        ("0000", "0000"), ("0000", "0000"), ("0000", "0000"), ("1953", "0101"),
    ]  # fmt: skip
    on_file = {
        before["token"]: {"street_address": "1 Old Road", "postal_code": "10001"},
        after["token"]: {"street_address": "2 New Road", "postal_code": "20002-0001"},
        own_address["token"]: {"street_address": "7 Mill Road", "postal_code": "K1A 0B1"},
        refused["token"]: {"street_address": "2 New Road", "postal_code": "20002-0001"},
    }
    for token, expected in on_file.items():
        assert checkout.get(f"/transactions/{token}")["address_verification"]["on_file"] == expected
    assert checkout.get(f"/sandbox/decisions/{refused['token']}")["replay_agrees"] is True


def test_half_an_address_on_file(checkout: Checkout) -> None:
    """Only the part that is on file is compared and shown."""
    checkout.make("users", token="half", postal_code="94501")
    checkout.make("cards", token="half", user_token="half", card_product_token="auth-strict")
    transaction = checkout.pay("/simulate/authorization", 1, "half", address="99 Any Street", zip="94501")
    assert outcome(transaction) == ("0000", "0300")
    assert transaction["address_verification"]["on_file"] == {"postal_code": "94501"}


def test_what_follows_shows_no_verification(checkout: Checkout) -> None:
    """Clearings and reversals have no verification. An original credit with a wrong address has one and is approved."""
    transaction = checkout.pay("/simulate/authorization", 10, "auth-strict", address="12 Main", zip="94501")
    for event, amount in (("clearing", 4), ("reversal", 6)):
        assert "address_verification" not in checkout.follow(event, transaction, amount)
    wrong = {"address": "13 Main", "zip": "10000"}
    credit = checkout.pay(f"{EVENTS}original.credit.auth_plus_capture", 10, "auth-strict", **wrong)
    assert outcome(credit) == ("0000", "0101")
    sent = {"type": "disbursement"}
    assert outcome(checkout.pay("/simulate/financial/originalcredit", 10, "auth-strict", **wrong, **sent)) == ("0000", "0101")


def test_what_if_shows_it_too(checkout: Checkout) -> None:
    """A dry run has the same verification as the purchase, and names the check that declines."""
    options = {"billing_address": {"address": "13 Main St", "zip": "94501"}}
    body = {"card_token": "auth-street", "amount": 10, "mid": "m1", "card_options": options}
    would = read_of(checkout.client.post("/sandbox/whatif/authorization", body))
    made = made_by(checkout.simulate("authorization", **body))["transaction"]
    assert would["transaction"]["address_verification"] == made["address_verification"]
    assert (would["first_refusal"], made["response"]["code"]) == ("address_is_right", "1953")
