"""Simulations of authorizations and follow-ups over HTTP: fields of requests, answers and raw messages."""

from typing import Any

import pytest

from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import problem_of
from tests.support.server import Reply, RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until

ROOT_KEYS = {
    "type", "state", "identifier", "token", "user_token", "acting_user_token", "card_token", "card_product_token", "gpa",
    "gpa_order", "duration", "created_time", "user_transaction_time", "settlement_date", "request_amount", "amount",
    "issuer_interchange_amount", "currency_code", "approval_code", "response", "network", "acquirer_fee_amount", "acquirer",
    "user", "card", "issuer_received_time", "issuer_payment_node", "network_reference_id", "card_acceptor", "is_recurring",
    "is_installment",
}  # fmt: skip
"""The keys of the transaction in the tutorial's answer (wire reference, "The tutorial, executed")."""

ECHO_KEYS = {
    "0", "2", "3", "4", "7", "11", "12", "13", "14", "15", "17", "21", "24", "26", "37", "38", "39", "42", "43", "44", "54",
    "63", "112", "113", "180",
}  # fmt: skip
"""The keys of its raw message, without the optional "22" and "112.22", whose content is unknown."""

APPROVED = {"code": "0000", "memo": "Approved or completed successfully"}

server = shared_server()
shop = program_fixture(Shop, scope="module")


# --- The tutorial's purchase -------------------------------------------------------------


def test_the_tutorials_answer_field_by_field(shop: Shop) -> None:
    """The purchase of the tutorial has exactly the keys and the values of the reference."""
    purchase = shop.auth(10, mid="1234567890")["transaction"]
    source = shop.get("/fundingsources/program/harbor_funding")
    money = {
        "currency_code": "USD", "ledger_balance": purchase["gpa"]["ledger_balance"], "available_balance": 0, "credit_balance": 0,
        "pending_credits": 0, "impacted_amount": -10,
    }  # fmt: skip
    order = purchase["gpa_order"]
    assert set(purchase) == ROOT_KEYS
    drawn = ("identifier", "token", "duration", "approval_code", "acquirer", "issuer_payment_node", "network_reference_id")
    assert {name: value for name, value in purchase.items() if name not in drawn} == {
        "type": "authorization", "state": "PENDING", "user_token": "ana", "acting_user_token": "ana", "card_token": "jit",
        "card_product_token": "jit", "gpa": {**money, "balances": {"USD": money}},
        "gpa_order": {
            "token": order["token"], "amount": 10, "created_time": "2035-06-01T09:00:00Z",
            "last_modified_time": "2035-06-01T09:00:00Z", "transaction_token": order["transaction_token"], "state": "PENDING",
            "response": APPROVED,
            "funding": {
                "amount": 10,
                "source": {
                    "type": "program", "token": "harbor_funding", "active": True, "name": "Harbor Funding",
                    "is_default_account": False, "created_time": source["created_time"],
                    "last_modified_time": source["last_modified_time"],
                },
            },
            "funding_source_token": "harbor_funding", "user_token": "ana", "currency_code": "USD",
        },
        "created_time": "2035-06-01T09:00:00Z", "user_transaction_time": "2035-06-01T09:00:00Z",
        "settlement_date": "2035-06-01T00:00:00Z", "request_amount": 10, "amount": 10, "issuer_interchange_amount": 0,
        "currency_code": "USD", "response": APPROVED, "network": "DISCOVER", "acquirer_fee_amount": 0,
        "user": {"metadata": {}}, "card": {"last_four": shop.made["last_four"], "metadata": {}},
        "issuer_received_time": "2035-06-01T09:00:00.000Z",
        "card_acceptor": {
            "mid": "1234567890", "mcc": "6411", "network_mid": "1234567890", "mcc_groups": ["NONE"],
            "name": "Marqeta Storefront", "address": "330 Central Ave. St.", "city": "St. Petersburg", "state": "CA",
            "postal_code": "33705", "country": "USA", "poi": {"partial_approval_capable": "1"},
        },
        "is_recurring": False, "is_installment": False,
    }  # fmt: skip


def test_identifiers_have_the_wires_forms(shop: Shop) -> None:
    """Transaction, order and load have different UUIDs. Codes, references and the payment node have fixed lengths."""
    transaction = shop.buy()
    order = transaction["gpa_order"]
    tokens = {transaction["token"], order["token"], order["transaction_token"]}
    assert len(tokens) == 3
    assert all(len(token) == 36 and token.count("-") == 4 for token in tokens)
    assert (transaction["approval_code"].isdigit(), len(transaction["approval_code"])) == (True, 6)
    assert set(transaction["acquirer"]) == {"system_trace_audit_number"}
    assert len(transaction["acquirer"]["system_trace_audit_number"]) == 6
    assert (len(transaction["network_reference_id"]), len(transaction["issuer_payment_node"])) == (12, 32)
    assert transaction["identifier"].isdigit()
    assert isinstance(transaction["duration"], int)


def test_amounts_are_exact_decimals_with_the_currencys_places(shop: Shop) -> None:
    """Amounts in the bytes of an answer have exactly two decimals."""
    text = shop.simulate("authorization", card_token="jit", amount=7.7, mid="m").text
    assert '"request_amount":7.70,"amount":7.70,' in text
    assert '"impacted_amount":-7.70' in text
    assert '"4":7.70,' in text


def test_the_raw_message_of_a_purchase(shop: Shop) -> None:
    """Each element of the raw ISO 8583 message agrees with the transaction."""
    answer = shop.auth(12.5, mid="1234567890")
    transaction, raw = answer["transaction"], answer["raw_iso8583"]
    assert set(raw) == ECHO_KEYS
    number = shop.get("/cards/jit/showpan")["pan"]
    trace, expiration = transaction["acquirer"]["system_trace_audit_number"], shop.made["expiration"]
    available, ledger = (f"{round(transaction['gpa'][name] * 100):012d}" for name in ("available_balance", "ledger_balance"))
    memo = APPROVED["memo"]
    assert raw == {
        "0": "2110", "2": number, "3": "000000", "4": 12.5, "7": "0601090000", "11": trace.zfill(12), "12": "20350601090000",
        "13": "350601", "14": expiration[2:] + expiration[:2], "15": "20350601", "17": "0601",
        "21": transaction["network_reference_id"], "24": "181", "26": "6411", "37": transaction["identifier"],
        "38": transaction["approval_code"], "39": "0000", "42": "1234567890",
        "43": {
            "2": "Marqeta Storefront", "3": "330 Central Ave. St.", "4": "St. Petersburg", "5": "CA", "6": "33705", "7": "840",
        },
        "44": {"1": memo, "3": "00", "4": memo}, "54": f"00028402C{available}00018402C{ledger}", "63": "DISCOVER",
        "112": {"101": "0.00", "102": f"{transaction['gpa']['ledger_balance']:.2f}", "103": "840"},
        "113": {"2": "106", "29": "Y", "34": "Y", "35": "API"}, "180": shop.program["token"].replace("-", "")[:4],
    }  # fmt: skip


def test_the_balances_of_the_raw_message_are_the_references_example(server: RunningServer) -> None:
    """Element 54 of a first purchase of 10 has the 42 characters of the reference: two groups of 21."""
    balances = Shop(server).auth(10)["raw_iso8583"]["54"]
    assert balances == "00028402C00000000000000018402C000000001000"
    assert [len(balances), balances[:9], balances[21:30]] == [42, "00028402C", "00018402C"]


def test_a_balance_below_zero_is_a_debit_in_the_raw_message(server: RunningServer) -> None:
    """Element 54 shows a negative balance with D and an amount without a sign."""
    shop = Shop(server)
    refused = shop.buy(1, "plain")
    body = {"original_transaction_token": refused["token"], "amount": 5, "force_post": "true"}
    assert shop.simulate("clearing", **body).json["raw_iso8583"]["54"] == "00028402D00000000050000018402D000000000500"


# --- Declines ----------------------------------------------------------------------------


def test_a_refusal_is_a_201_without_effect(shop: Shop) -> None:
    """A decline has no approval code, impacted amount or order, and its raw message no balances. All other keys are present."""
    answer = shop.auth(10, "plain", mid="m1")
    transaction, raw = answer["transaction"], answer["raw_iso8583"]
    assert set(transaction) == ROOT_KEYS - {"approval_code", "gpa_order"}
    assert "impacted_amount" not in transaction["gpa"]
    assert "impacted_amount" not in transaction["gpa"]["balances"]["USD"]
    assert (transaction["state"], transaction["request_amount"], transaction["amount"]) == ("DECLINED", 10, 10)
    assert transaction["response"] == {"code": "1016", "memo": "Not sufficient funds"}
    assert transaction["settlement_date"] == "2035-06-01T00:00:00Z"
    assert transaction["card_acceptor"]["mcc_groups"] == ["NONE"]
    assert set(raw) == ECHO_KEYS - {"38", "54"}
    assert (raw["39"], raw["44"]["3"]) == ("0051", "51")


def test_a_source_that_is_off_refuses_the_order_too(server: RunningServer) -> None:
    """A purchase declined by an inactive funding source has an order, which is declined with 1842 and has no load."""
    shop = Shop(server)
    assert shop.client.put("/fundingsources/program/harbor_funding", {"active": False}).status == 200
    transaction = shop.buy(10)
    order = transaction["gpa_order"]
    assert (transaction["state"], transaction["response"]["code"]) == ("DECLINED", "1016")
    assert (order["state"], order["amount"], order["response"]) == (
        "DECLINED", 10, {"code": "1842", "memo": "Account load failed"},
    )  # fmt: skip
    assert "transaction_token" not in order
    assert order["funding"]["source"]["active"] is False


# --- Fields of a request -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"mid": 1234567890}, {"card_acceptor.mid": "1234567890", "card_acceptor.network_mid": "1234567890"}),
        ({"amount": "7.70"}, {"amount": 7.7, "request_amount": 7.7}),
        (
            {"amount": 0},
            {"amount": 0, "state": "CLEARED", "gpa.impacted_amount": None, "gpa_order": None, "response.code": "1830"},
        ),
        ({"is_pre_auth": True}, {"is_preauthorization": True}),
        ({"is_pre_auth": "true"}, {"is_preauthorization": True}),
        ({"is_pre_auth": False}, {"is_preauthorization": None}),
        (
            {"cash_back_amount": 5},
            {"type": "authorization.cashback", "amount": 15, "request_amount": 15, "cash_back_amount": 5,
             "gpa.impacted_amount": -15, "gpa_order.amount": 15},
        ),
        ({"cash_back_amount": 0}, {"type": "authorization", "amount": 10, "cash_back_amount": None}),
        (
            {"network_fees": [{"type": "ACQUIRER_FEE", "amount": 1.5, "credit_debit": "D"}]},
            {"request_amount": 11.5, "amount": 11.5, "acquirer_fee_amount": 1.5, "issuer_interchange_amount": 0,
             "fees": [{"type": "ACQUIRER_FEE", "amount": 1.5, "credit_debit": "D"}]},
        ),
        (
            {"network_fees": [{"type": "INTERCHANGE_FEE", "amount": "0.25", "credit_debit": "C"}]},
            {"request_amount": 10, "amount": 10, "acquirer_fee_amount": 0, "issuer_interchange_amount": 0.25,
             "fees": [{"type": "INTERCHANGE_FEE", "amount": 0.25, "credit_debit": "C"}]},
        ),
        ({"network_fees": []}, {"fees": None, "acquirer_fee_amount": 0}),
        (
            {"network_metadata": {"product_id": "P1", "installment_payment": {"plan": [1, 2.5]}, "unknown": 1}},
            {"network_metadata": {"product_id": "P1", "installment_payment": {"plan": [1, 2.5]}}},
        ),
        ({"card_acceptor": None, "no_such_field": {"a": 1}}, {"card_acceptor.poi.partial_approval_capable": "1"}),
        ({"card_acceptor": {}}, {"card_acceptor.poi.partial_approval_capable": "0"}),
        ({"card_acceptor": {"partial_approval_capable": "true"}}, {"card_acceptor.poi.partial_approval_capable": "1"}),
        ({"card_acceptor": {"mcc": 742}}, {"card_acceptor.mcc": "0742", "card_acceptor.name": "Marqeta Storefront"}),
        (
            {"card_acceptor": {"ecommerce_security_level_indicator": "05"}},
            {"cardholder_authentication_data.electronic_commerce_indicator": "05", "state": "PENDING"},
        ),
        ({"card_options": {"card_present": "false"}}, {"state": "PENDING"}),
        ({"card_options": {}}, {"card_security_code_verification": None, "address_verification": None, "state": "PENDING"}),
        ({"pin": "1234"}, {"response.code": "1809"}),
    ],
)  # fmt: skip
def test_a_field_of_the_request_shows_in_the_answer(shop: Shop, sent: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field of a request sets the values of its row in the answer. None stands for an absent key."""
    transaction = shop.auth(**sent)["transaction"]
    assert {path: value_at(transaction, path) for path in expected} == expected


def test_the_merchant_is_echoed(shop: Shop) -> None:
    """The merchant fields of a request are returned under the names of the answer, and in the raw message."""
    sent = {
        "mcc": "5411", "name": "Grünbaum & Söhne", "address": "1 \"Quay\" St", "city": "Köln", "state": "NW", "zip": 50667,
        "country": "DEU", "phone": "+49 221 1", "url": "https://shop.example", "customer_service_phone": "+49 221 2",
    }  # fmt: skip
    answer = shop.auth(10, mid="m7", card_acceptor=sent)
    renamed = {name: value for name, value in sent.items() if name != "zip"}
    assert answer["transaction"]["card_acceptor"] == {
        **renamed, "postal_code": "50667", "mid": "m7", "network_mid": "m7", "mcc_groups": ["NONE"],
        "poi": {"partial_approval_capable": "0"},
    }  # fmt: skip
    assert answer["raw_iso8583"]["43"] == {
        "2": sent["name"], "3": sent["address"], "4": "Köln", "5": "NW", "6": "50667", "7": "276",
    }  # fmt: skip
    assert answer["raw_iso8583"]["26"] == "5411"


def value_at(tree: dict[str, Any], path: str) -> Any:
    """Return the value at a dotted path, None if there is none."""
    here: Any = tree
    for name in path.split("."):
        here = here.get(name) if isinstance(here, dict) else None
    return here


def test_the_security_code_is_compared(shop: Shop) -> None:
    """The security code of the card is accepted as a text or as a number. Another code is declined with 1952."""
    right = shop.made["cvv_number"]
    wrong = f"{(int(right) + 1) % 1000:03d}"
    for typed, code, verdict in ((right, "0000", "0000"), (int(right), "0000", "0000"), (wrong, "1952", "0001")):
        transaction = shop.buy(card_options={"cvv": typed})
        assert transaction["response"]["code"] == code
        assert transaction["card_security_code_verification"]["type"] == "CVV2"
        assert transaction["card_security_code_verification"]["response"]["code"] == verdict
    assert right not in str(shop.get(f"/transactions/{transaction['token']}", fields="card_security_code_verification"))


def test_the_expiration_is_compared(shop: Shop) -> None:
    """The expiration of the card (MMyy) is accepted. Another one is declined with 1001."""
    expiration = shop.made["expiration"]
    other = f"{int(expiration[:2]) % 12 + 1:02d}{expiration[2:]}"
    assert [shop.buy(card_options={"expiration": typed})["response"]["code"] for typed in (expiration, other)] == ["0000", "1001"]


@pytest.mark.parametrize(
    ("typed", "verdict"),
    [
        ({"address": "12 Main St", "zip": "94501"}, "0000"),
        ({"address": "12 Main St", "zip": 94501}, "0000"),
        ({"address": "12 Main St", "compressed_zip": "94501"}, "0000"),
        ({"address": "13 Main St", "zip": "94501"}, "0100"),
        ({"address": "12 Main St", "zip": "10000"}, "0001"),
        ({"zip": "94501"}, "0200"),
        ({"address": "12 Main St"}, "0002"),
        ({"first_name": "Ana"}, None),
    ],
)
def test_the_billing_address_is_compared(shop: Shop, typed: dict[str, Any], verdict: str | None) -> None:
    """The answer has the verification of street and postal code with the sent address. Without either it has none."""
    transaction = shop.buy(card_options={"billing_address": typed})
    assert value_at(transaction, "address_verification.response.code") == verdict
    assert transaction["state"] == "PENDING"
    if verdict is not None:
        postal_code = typed.get("zip") or typed.get("compressed_zip")
        address = {"street_address": typed.get("address"), "postal_code": str(postal_code) if postal_code else None}
        assert transaction["address_verification"]["request"] == {name: text for name, text in address.items() if text}


def test_a_terminal_that_can_gets_a_part(server: RunningServer) -> None:
    """With a balance of 40, a purchase of 100 is approved for 40 with 0002 at a capable terminal, and declined at another."""
    shop = Shop(server)
    shop.fill(40)
    assert shop.buy(100, "plain", card_acceptor={"name": "Kiosk"})["response"]["code"] == "1016"
    answer = shop.auth(100, "plain", card_acceptor={"partial_approval_capable": True})
    transaction = answer["transaction"]
    assert (transaction["request_amount"], transaction["amount"], transaction["response"]["code"]) == (100, 40, "0002")
    assert (transaction["gpa"]["impacted_amount"], transaction["gpa"]["available_balance"], "gpa_order" in transaction) == (
        -40, 0, False,
    )  # fmt: skip
    assert (answer["raw_iso8583"]["39"], answer["raw_iso8583"]["44"]["3"]) == ("0002", "10")


def test_a_chosen_token_makes_a_purchase_repeatable(shop: Shop) -> None:
    """The same request with a chosen token gives the same bytes and no second transaction. Another request gets 409."""
    body = {"card_token": "jit", "mid": "m1", "transaction_options": {"transaction_token": "chosen-1"}}
    first, again = (shop.simulate("authorization", amount=10, **body) for _ in range(2))
    assert (first.status, first.json["transaction"]["token"]) == (201, "chosen-1")
    assert (again.status, again.text) == (first.status, first.text)
    assert problem_of(shop.simulate("authorization", amount=11, **body)) == (409, "409002")
    assert shop.get("/transactions/chosen-1")["amount"] == 10
    assert [transaction["token"] for transaction in shop.listed() if transaction["token"] == "chosen-1"] == ["chosen-1"]
    cleared = shop.follow("clearing", first.json["transaction"], 10)
    assert cleared["preceding_related_transaction_token"] == "chosen-1"


def test_without_a_token_every_call_is_a_purchase(shop: Shop) -> None:
    """Equal requests without a token make two transactions."""
    assert shop.buy(10)["token"] != shop.buy(10)["token"]


@pytest.mark.parametrize(
    ("credentials", "header"),
    [({}, None), ({"username": "harbor", "password": "Harb0r-Hook-Passw0rd!"}, "Basic ")],
)
def test_the_requests_own_webhook_is_told(shop: Shop, credentials: dict[str, str], header: str | None) -> None:
    """The webhook of a request receives the answered transaction. Without credentials it gets no Authorization header."""
    box = f"box-{len(credentials)}"
    address = f"{shop.server.root_url}/sandbox/inbox/{shop.program['token']}/{box}"
    transaction = shop.buy(webhook={"endpoint": address, **credentials})
    messages = until(lambda: shop.get(f"/sandbox/inbox/{box}")["data"])
    assert messages[0]["body"] == {"transactions": [transaction]}
    sent = messages[0]["headers"].get("authorization")
    assert sent is None if header is None else sent.startswith(header)


@pytest.mark.parametrize(
    ("changes", "status", "name"),
    [
        ({"card_token": None}, 400, "card_token"),
        ({"amount": None}, 400, "amount"),
        ({"mid": None}, 400, "mid"),
        ({"amount": -1}, 400, "amount"),
        ({"amount": 1.234}, 400, "amount"),
        ({"amount": "ten"}, 400, "amount"),
        ({"mid": "m" * 51}, 400, "mid"),
        ({"card_token": "nobody"}, 400, "Card not found"),
        ({"cash_back_amount": -1}, 400, "cash_back_amount"),
        ({"network_fees": [{"type": "TIP", "amount": 1, "credit_debit": "D"}]}, 400, "network_fees[0].type"),
        ({"network_fees": [{"type": "ACQUIRER_FEE", "amount": 1, "credit_debit": "X"}]}, 400, "network_fees[0].credit_debit"),
        ({"network_fees": [{"type": "ACQUIRER_FEE", "amount": -1, "credit_debit": "D"}]}, 400, "network_fees[0].amount"),
        ({"card_options": {"cvv": "1234"}}, 400, "card_options.cvv"),
        ({"card_options": {"expiration": "123"}}, 400, "card_options.expiration"),
        ({"card_acceptor": {"mcc": "54a1"}}, 400, "card_acceptor.mcc"),
        ({"webhook": {}}, 400, "endpoint"),
        ({"webhook": {"endpoint": "ftp://x.example"}}, 400, "webhook.endpoint"),
        ({"transaction_options": {"transaction_token": "t" * 37}}, 400, "transaction_options.transaction_token"),
    ],
)
def test_a_bad_field_is_named(shop: Shop, changes: dict[str, Any], status: int, name: str) -> None:
    """An invalid field gets 400 with a message that names it."""
    reply = shop.simulate("authorization", **{"card_token": "jit", "amount": 10, "mid": "m1", **changes})
    assert (reply.status, name in reply.json["error_message"]) == (status, True), reply.text


# --- Follow-ups --------------------------------------------------------------------------


Answer = tuple[dict[str, Any], dict[str, Any]]


def answer_to(shop: Shop, path: str, original: dict[str, Any], amount: float, **fields: Any) -> Answer:
    """Simulate a follow-up, and return its transaction and raw message."""
    reply: Reply = shop.simulate(path, original_transaction_token=original["token"], amount=amount, **fields)
    assert reply.status == 201, reply.text
    return reply.json["transaction"], reply.json["raw_iso8583"]


def test_a_clearing(server: RunningServer) -> None:
    """A clearing copies approval code and purchase time, has a new settlement date, and completes the same order."""
    shop = Shop(server)
    auth = shop.buy(10)
    shop.clock("2035-06-03T10:00:00Z")
    transaction, raw = answer_to(shop, "clearing", auth, 10, mid="77")
    assert set(transaction) == ROOT_KEYS | {"preceding_related_transaction_token"}
    assert (transaction["type"], transaction["state"], transaction["request_amount"], transaction["amount"]) == (
        "authorization.clearing", "COMPLETION", 10, 10,
    )  # fmt: skip
    assert transaction["preceding_related_transaction_token"] == auth["token"]
    assert transaction["token"] != auth["token"]
    same = ("approval_code", "user_transaction_time", "network_reference_id", "card_token", "user_token")
    assert [transaction[name] for name in same] == [auth[name] for name in same]
    assert (transaction["created_time"], transaction["settlement_date"]) == ("2035-06-03T10:00:00Z", "2035-06-03T00:00:00Z")
    gpa, order, first = transaction["gpa"], transaction["gpa_order"], auth["gpa_order"]
    assert (gpa["ledger_balance"], gpa["available_balance"], gpa["impacted_amount"]) == (0, 0, -10)
    assert (order["token"], order["created_time"]) == (first["token"], first["created_time"])
    assert order["transaction_token"] != first["transaction_token"]
    assert (order["state"], order["amount"], order["last_modified_time"]) == ("COMPLETION", 10, "2035-06-03T10:00:00Z")
    assert (transaction["acquirer"]["institution_id_code"], len(transaction["acquirer"]["system_trace_audit_number"])) == (
        "000000", 6,
    )  # fmt: skip
    assert "mcc_groups" not in transaction["card_acceptor"]
    assert (transaction["card_acceptor"]["mid"], transaction["card_acceptor"]["poi"]) == ("77", {"partial_approval_capable": "0"})
    assert (raw["0"], raw["3"], raw["25"], raw["32"], raw["38"]) == ("2210", "900000", "9000", "000000", auth["approval_code"])
    assert shop.get(f"/transactions/{auth['token']}")["state"] == "CLEARED"


def test_what_a_clearing_leaves_out_is_the_originals(shop: Shop) -> None:
    """A clearing without a merchant has the merchant of its authorization."""
    auth = shop.buy(10, mid="m42", card_acceptor={"name": "Pier 9", "mcc": "5812"})
    transaction = shop.follow("clearing", auth, 10)
    assert [transaction["card_acceptor"][name] for name in ("mid", "name", "mcc")] == ["m42", "Pier 9", "5812"]


def test_a_reversal_in_parts(server: RunningServer) -> None:
    """A partial reversal leaves the chain open, and the last part closes it. The fields equal the reference's example."""
    shop = Shop(server)
    auth = shop.buy(250)
    part, raw = answer_to(shop, "reversal", auth, 100)
    assert set(part) == (ROOT_KEYS | {"preceding_related_transaction_token"}) - {"settlement_date"}
    assert (part["type"], part["state"], part["request_amount"], part["amount"]) == (
        "authorization.reversal", "PENDING", 250, 100,
    )  # fmt: skip
    assert (part["gpa"]["ledger_balance"], part["gpa"]["impacted_amount"]) == (150, 100)
    assert (part["gpa_order"]["amount"], part["gpa_order"]["state"]) == (100, "PENDING")
    assert part["approval_code"] == auth["approval_code"]
    assert "institution_id_code" not in part["acquirer"]
    assert (raw["0"], raw["4"], raw["25"], raw["95"]) == ("2430", 250, "0000", {"1": 150})
    assert raw["56"] == {
        "1": "2100", "2": auth["acquirer"]["system_trace_audit_number"].zfill(12), "3": "20350601090000", "7": auth["token"],
    }  # fmt: skip
    second, raw = answer_to(shop, "reversal", part, 50)
    assert (second["state"], second["request_amount"], second["amount"], raw["95"]) == ("PENDING", 250, 50, {"1": 100})
    rest, raw = answer_to(shop, "reversal", part, 100)
    assert (rest["state"], rest["amount"], rest["gpa_order"]["state"]) == ("CLEARED", 100, "REVERSED")
    assert raw["95"] == {"1": 0}
    assert (rest["gpa"]["ledger_balance"], rest["gpa"]["impacted_amount"]) == (0, 100)
    assert rest["preceding_related_transaction_token"] == auth["token"]
    refused, raw = answer_to(shop, "reversal", auth, 1)
    assert (refused["state"], refused["response"]["code"], "approval_code" in refused) == ("DECLINED", "1017", False)
    assert {"38", "54"} & set(raw) == set()


def test_a_reversal_of_more_than_is_held(shop: Shop) -> None:
    """A reversal of more than the hold is declined with 1810, and one after the clearing with 1018."""
    auth = shop.buy(10)
    assert shop.follow("reversal", auth, 10.01)["response"]["code"] == "1810"
    shop.follow("clearing", auth, 10)
    assert shop.follow("reversal", auth, 10)["response"]["code"] == "1018"


def test_an_advice(server: RunningServer) -> None:
    """An advice of 40 lowers an authorization of 100 and leaves it open. A clearing may name the advice."""
    shop = Shop(server)
    auth = shop.buy(100)
    transaction, raw = answer_to(shop, "authorization/advice", auth, 40)
    assert (transaction["type"], transaction["state"], transaction["response"]["code"]) == (
        "authorization.advice", "PENDING", "0000",
    )  # fmt: skip
    assert (transaction["gpa"]["ledger_balance"], transaction["gpa"]["available_balance"]) == (40, 0)
    assert (transaction["request_amount"], transaction["amount"], transaction["gpa_order"]["amount"]) == (40, 40, 60)
    assert (transaction["settlement_date"], raw["95"]) == ("2035-06-01T00:00:00Z", {"1": 40})
    assert shop.follow("authorization/advice", auth, 41)["response"]["code"] == "1810"
    cleared = shop.follow("clearing", transaction, 40)
    assert (cleared["state"], cleared["preceding_related_transaction_token"]) == ("COMPLETION", auth["token"])
    assert shop.money("ana") == (0, 0)


def test_a_refund(server: RunningServer) -> None:
    """A refund belongs to no chain. With JIT Funding the money returns to the source at once, as an unload."""
    shop = Shop(server)
    cleared = shop.follow("clearing", shop.buy(10), 10)
    transaction, raw = answer_to(shop, "clearing", cleared, 10, is_refund="true")
    assert "gpa_order" not in transaction
    assert "preceding_related_transaction_token" not in transaction
    assert (transaction["type"], transaction["state"], transaction["gpa"]["impacted_amount"]) == ("refund", "COMPLETION", 10)
    assert (transaction["gpa"]["ledger_balance"], transaction["gpa"]["available_balance"]) == (0, 0)
    order = transaction["gpa_order_unload"]
    assert (order["amount"], order["state"], order["funding"]["source"]["type"]) == (10, "COMPLETION", "program")
    assert transaction["acquirer"]["institution_id_code"] == "000000"
    assert (raw["0"], raw["3"]) == ("2210", "200000")


def test_a_refund_without_jit_funding_stays(server: RunningServer) -> None:
    """Without JIT Funding a refund stays on the account, even if the purchase that it names was declined."""
    shop = Shop(server)
    refused = shop.buy(5, "plain")
    assert refused["state"] == "DECLINED"
    transaction = shop.follow("clearing", refused, 20, is_refund=True)
    assert ("gpa_order_unload" in transaction, transaction["gpa"]["available_balance"]) == (False, 20)


def test_a_forced_clearing(server: RunningServer) -> None:
    """A forced clearing leaves the hold of the transaction that it names unchanged, and has a separate load."""
    shop = Shop(server)
    auth = shop.buy(10)
    transaction = shop.follow("clearing", auth, 7.7, force_post="true")
    assert (transaction["type"], transaction["state"], transaction["amount"]) == ("authorization.clearing", "COMPLETION", 7.7)
    assert transaction["gpa_order"]["token"] != auth["gpa_order"]["token"]
    assert shop.money("ana") == (10, 0)
    assert shop.get(f"/transactions/{auth['token']}")["state"] == "PENDING"


@pytest.mark.parametrize("path", ["clearing", "reversal", "authorization/advice"])
@pytest.mark.parametrize("token", ["nobody", "00000000-0000-4000-8000-000000000000"])
def test_an_unknown_original_is_not_found(shop: Shop, path: str, token: str) -> None:
    """A follow-up of an unknown transaction gets 404, for a token of any form."""
    reply = shop.simulate(path, original_transaction_token=token, amount=1)
    assert problem_of(reply) == (404, "404014")
    assert reply.json["error_message"] == "Original transaction not found"


@pytest.mark.parametrize("path", ["clearing", "reversal", "authorization/advice"])
def test_a_refused_purchase_and_another_programs_cannot_be_followed(server: RunningServer, shop: Shop, path: str) -> None:
    """A follow-up of a declined authorization, or of an authorization of another program, gets 404."""
    refused, foreign = shop.buy(10, "plain"), Shop(server).buy(10)
    for original in (refused, foreign):
        reply = shop.simulate(path, original_transaction_token=original["token"], amount=1)
        assert problem_of(reply) == (404, "404014")


@pytest.mark.parametrize(
    ("path", "changes", "name"),
    [
        ("clearing", {"amount": 0}, "amount"),
        ("clearing", {"amount": -1}, "amount"),
        ("clearing", {"is_refund": True, "force_post": True}, "is_refund"),
        ("clearing", {"original_transaction_token": None}, "original_transaction_token"),
        ("reversal", {"amount": 0}, "amount"),
        ("reversal", {"amount": None}, "amount"),
        ("authorization/advice", {"amount": -0.01}, "amount"),
        ("authorization/advice", {"original_transaction_token": "t" * 37}, "original_transaction_token"),
    ],
)
def test_a_bad_field_of_a_follow_up_is_named(shop: Shop, path: str, changes: dict[str, Any], name: str) -> None:
    """An invalid field of a follow-up gets 400 with a message that names it. Only an advice may have the amount 0."""
    body = {"original_transaction_token": shop.buy(10)["token"], "amount": 1, **changes}
    reply = shop.simulate(path, **body)
    assert (reply.status, name in reply.json["error_message"]) == (400, True), reply.text


def test_a_follow_up_with_a_chosen_token_is_repeatable(shop: Shop) -> None:
    """A clearing with a chosen token is idempotent. Another body gets 409."""
    auth = shop.buy(10)
    body = {"original_transaction_token": auth["token"], "transaction_options": {"transaction_token": f"c-{auth['identifier']}"}}
    first, again = (shop.simulate("clearing", amount=4, **body) for _ in range(2))
    assert (first.status, first.text) == (201, again.text)
    assert problem_of(shop.simulate("clearing", amount=5, **body))[0] == 409


# --- Other currencies --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("currency", "amount", "bad", "shown", "zero", "balances"),
    [
        ("JPY", 1200, 1.5, "1200", "0", "00023920C00000000000000013920C000000001200"),
        ("KWD", 1.234, 1.2345, "1.234", "0.000", "00024143C00000000000000014143C000000001234"),
    ],
)  # fmt: skip
def test_a_currency_has_its_own_decimals(
    server: RunningServer, currency: str, amount: float, bad: float, shown: str, zero: str, balances: str
) -> None:
    """Amounts have the decimals of their currency, in transaction and raw message. An amount with more decimals gets 400."""
    shop = Shop(server, currency=currency)
    reply = shop.simulate("authorization", card_token="jit", amount=amount, mid="m1")
    assert f'"request_amount":{shown},"amount":{shown},' in reply.text
    assert f'"ledger_balance":{shown},"available_balance":{zero},' in reply.text
    transaction, raw = reply.json["transaction"], reply.json["raw_iso8583"]
    assert {transaction["currency_code"], transaction["gpa_order"]["currency_code"], *transaction["gpa"]["balances"]} == {
        currency
    }
    assert (raw["54"], raw["112"]["101"], raw["112"]["102"]) == (balances, zero, shown)
    refused = shop.simulate("authorization", card_token="jit", amount=bad, mid="m1")
    assert (refused.status, "amount" in refused.json["error_message"]) == (400, True)
    assert shop.money("ana") == (amount, 0)


def test_integers_beyond_64_bits_in_free_json(shop: Shop) -> None:
    """Free JSON may have integers from -2**63 to 2**64 - 1. Any other integer gets 400 with a message that names the field."""
    for number in (2**64, -(2**63) - 1):
        metadata = {"installment_payment": {"plans": [number]}}
        reply = shop.simulate("authorization", card_token="jit", mid="m", amount=1, network_metadata=metadata)
        assert (reply.status, "network_metadata.installment_payment" in reply.text) == (400, True)
    metadata = {"installment_payment": {"plans": [2**64 - 1, -(2**63)]}}
    assert shop.buy(1, network_metadata=metadata)["response"]["code"] == "0000"
