"""Simulations of financials over HTTP: fields of requests, refused input, answers, and effects on controls."""

from typing import Any

import pytest

from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import made_by, problem_of
from tests.support.shop import Shop

HERE: dict[str, Any] = {"card_token": "jit", "mid": "m1"}
ACCEPTOR: dict[str, Any] = {"name": "Corner", "mcc": "5411"}


server = shared_server()
# The tests share a program, because none of them leaves a hold.
shop = program_fixture(Shop, "module")


def decided(shop: Shop, path: str, **body: Any) -> dict[str, Any]:
    """Simulate a message, and return its transaction and raw message."""
    return made_by(shop.simulate(path, **HERE, **body))


BODIES: dict[str, dict[str, Any]] = {
    "financial": {"amount": 10, "card_acceptor": ACCEPTOR},
    "financial/withdrawal": {"amount": 10},
    "financial/balanceinquiry": {"account_type": "checking", "card_acceptor": ACCEPTOR},
    "financial/originalcredit": {"amount": 10, "type": "disbursement"},
}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *((path, {name: None}, name) for path, body in BODIES.items() for name in (*body, "card_token", "mid")),
    ("financial", {"amount": -1}, "amount"),
    ("financial", {"amount": "1.001"}, "amount"),
    ("financial", {"pin": "1" * 16}, "pin"),
    ("financial", {"is_pre_auth": True, "cash_back_amount": 5}, "cash_back_amount"),
    ("financial", {"card_acceptor": {"mcc": "abcd"}}, "card_acceptor.mcc"),
    ("financial/withdrawal", {"amount": 0}, "amount"),
    ("financial/withdrawal", {"account_type": "piggy"}, "account_type"),
    ("financial/balanceinquiry", {"account_type": "piggy"}, "account_type"),
    ("financial/originalcredit", {"amount": 0}, "amount"),
    ("financial/originalcredit", {"type": "present"}, "type"),
    ("financial/originalcredit", {"sender_data": {}}, "funding_source"),
    ("financial/originalcredit", {"sender_data": {"funding_source": "gold"}}, "funding_source"),
    (
        "financial/originalcredit", {"sender_data": {"funding_source": "ach", "unique_transaction_reference_number": "1" * 18}},
        "unique_transaction_reference_number",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "wrong", "field"), REFUSED)
def test_a_wrong_field_is_named(shop: Shop, path: str, wrong: dict[str, Any], field: str) -> None:
    """An invalid request gets 400 with a message that names the field, and nothing is written."""
    before = shop.listed(state="ALL")
    reply = shop.simulate(path, **{**HERE, **BODIES[path], **wrong})
    # The real platform answers an unknown enum value as malformed (observed), and any other error as invalid.
    assert problem_of(reply) in [(400, "400001"), (400, "400037")]
    assert field in reply.json["error_message"]
    assert shop.listed(state="ALL") == before


def test_an_unknown_card_is_told(shop: Shop) -> None:
    """Every simulation of a financial for an unknown card gets 400."""
    for path, body in BODIES.items():
        assert problem_of(shop.simulate(path, **{**body, "card_token": "nobody", "mid": "m"})) == (400, "400008")


@pytest.mark.parametrize(
    ("path", "body", "kind", "state", "codes"),
    [
        ("financial", {}, "pindebit", "COMPLETION", ("2210", "000000")),
        ("financial", {"cash_back_amount": "5"}, "pindebit.cashback", "COMPLETION", ("2210", "000000")),
        ("financial", {"amount": 0}, "pindebit", "CLEARED", ("2210", "000000")),
        ("financial", {"pin": 1234}, "pindebit", "DECLINED", ("2210", "000000")),
        ("financial/withdrawal", {"account_type": "savings"}, "pindebit.atm.withdrawal", "COMPLETION", ("2210", "010000")),
        ("financial/balanceinquiry", {}, "pindebit.balanceinquiry", "CLEARED", ("2110", "310000")),
        ("financial/originalcredit", {}, "original.credit.auth_plus_capture", "COMPLETION", ("2210", "260000")),
    ],
)
def test_type_state_and_raw_message(
    shop: Shop, path: str, body: dict[str, Any], kind: str, state: str, codes: tuple[str, str]
) -> None:
    """Each message has the type, the first state and the ISO 8583 codes of its row, and leaves no balance."""
    answer = decided(shop, path, **{**BODIES[path], **body})
    assert (answer["transaction"]["type"], answer["transaction"]["state"]) == (kind, state)
    assert (answer["raw_iso8583"]["0"], answer["raw_iso8583"]["3"]) == codes
    assert shop.get(f"/transactions/{answer['transaction']['token']}") == answer["transaction"]
    assert shop.money("ana") == (0, 0)


def test_fees_and_cash_are_in_the_total(shop: Shop) -> None:
    """An acquirer fee is part of the amount, except for inquiries and credits. An interchange fee is only shown."""
    fees = [
        {"type": "ACQUIRER_FEE", "amount": 2, "credit_debit": "D"},
        {"type": "INTERCHANGE_FEE", "amount": "0.35", "credit_debit": "C"},
    ]  # fmt: skip
    transaction = decided(shop, "financial", amount=10, card_acceptor=ACCEPTOR, cash_back_amount=5, network_fees=fees)[
        "transaction"
    ]
    assert (transaction["amount"], transaction["cash_back_amount"], transaction["acquirer_fee_amount"]) == (17, 5, 2)
    assert transaction["issuer_interchange_amount"] == 0.35
    for path in ("financial/balanceinquiry", "financial/originalcredit"):
        other = decided(shop, path, **BODIES[path], network_fees=fees)["transaction"]
        assert (other["amount"], other["acquirer_fee_amount"]) == (BODIES[path].get("amount", 0), 2)


def test_what_the_network_says_is_echoed(shop: Shop) -> None:
    """The transaction has network metadata, account type and sender, but not the sender's account number."""
    metadata = {"product_id": "F", "spend_qualifier": "Y"}
    transaction = decided(shop, "financial/withdrawal", amount=1, account_type="credit", network_metadata=metadata)["transaction"]
    assert (transaction["network_metadata"], transaction["from_account"]) == (metadata, "credit")
    sender = {
        "funding_source": "deposit_account", "sender_account_type": "iban", "sender_account_number": "DE02120300000000202051",
        "sender_name": "Ben", "sender_country": "DEU", "fast_funds_enabled": True, "deferred_hold_by": "absent",
    }  # fmt: skip
    body = {"amount": 5, "type": "person_to_person", "sender_data": sender, "screening_score": 12, "transactionPurpose": "gifts"}
    credit = decided(shop, "financial/originalcredit", **body)["transaction"]
    assert credit["original_credit"] == {
        "transaction_type": "person_to_person", "funding_source": "DEPOSIT_ACCOUNT", "sender_account_type": "IBAN",
        "sender_name": "Ben", "sender_country": "DEU", "fast_funds_enabled": True, "deferred_hold_by": "absent",
        "screening_score": "12", "transaction_purpose": "gifts",
    }  # fmt: skip


def test_the_expiry_that_is_sent_is_compared(shop: Shop) -> None:
    """An expiration date in ``transaction_options`` is compared with that of the card."""
    month, year = shop.made["expiration"][:2], shop.made["expiration"][2:]
    for sent, code in ((f"{year}{month}", "0000"), (int(f"{year}{month}"), "0000"), ("2001", "1001")):
        options = {"card_expiration_date_yymm": sent, "send_expiration_date": True}
        transaction = decided(shop, "financial", **BODIES["financial"], transaction_options=options)["transaction"]
        assert transaction["response"]["code"] == code


def test_every_decision_is_explained(shop: Shop) -> None:
    """The replay of each decision from the history has the same result."""
    for path, body in [*BODIES.items()] * 3:
        decided(shop, path, **body)
    tokens = [transaction["token"] for transaction in shop.listed(state="ALL") if transaction["network"] != "MARQETA"]
    assert len(tokens) > 10
    assert all(shop.get(f"/sandbox/decisions/{token}")["replay_agrees"] for token in tokens)


def test_velocity_controls_count_what_they_are_told_to(shop: Shop) -> None:
    """A control can count withdrawals without purchases. With ``include_credits``, credits are uses too."""
    base = {"velocity_window": "DAY", "currency_code": "USD", "association": {"user_token": "bo"}}
    shop.make("velocitycontrols", token="cash", amount_limit=50, include_purchases=False, include_cashback=False, **base)
    shop.make("velocitycontrols", token="uses", amount_limit=5000, usage_limit=3, include_credits=True, **base)
    card = {"card_token": "plain", "mid": "m1"}
    codes = [
        made_by(shop.simulate(path, **{**BODIES[path], **card, "amount": amount}))["transaction"]["response"]["code"]
        for path, amount in (
            ("financial/originalcredit", 200), ("financial/withdrawal", 40), ("financial/withdrawal", 20), ("financial", 30),
            ("financial", 1),
        )
    ]  # fmt: skip
    assert codes == ["0000", "0000", "1834", "0000", "1817"]
