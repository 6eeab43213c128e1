"""Simulations 2.0: every event type, the requests of official clients, and the fields of transaction model v2."""

from typing import Any

import pytest

from cardwright.resources.simulations.v2_card_transactions import EVENTS
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import problem_of
from tests.support.server import Reply
from tests.support.shop import Shop

PATH = "/simulations/cardtransactions/{}"


class Network(Shop):
    """A shop with helpers for Simulations 2.0. Its card products allow quasi-cash."""

    def product(self, token: str, **config: Any) -> None:
        """Create a card product that allows quasi-cash."""
        controls = {"accepted_countries_token": "decline_ofac_countries", "allow_quasi_cash": True}
        super().product(token, transaction_controls=controls, **config)

    def send(self, event: str, **body: Any) -> Reply:
        """Send an event and return the answer."""
        return self.client.post(PATH.format(event), body)

    def event(self, event: str, **body: Any) -> dict[str, Any]:
        """Send an event and return its transaction. Raises AssertionError if the answer is no transaction."""
        reply = self.send(event, **body)
        assert reply.status == 201, reply.text
        assert set(reply.json) == {"transaction"}
        return dict(reply.json["transaction"])

    def begin(self, event: str, amount: Any, **fields: Any) -> dict[str, Any]:
        """Send an event with the card ``jit``, and return its transaction."""
        return self.event(event, card_token="jit", amount=amount, **fields)

    def after(self, event: str, original: dict[str, Any], amount: Any, **fields: Any) -> dict[str, Any]:
        """Send an event that names an earlier transaction, and return its transaction."""
        return self.event(event, preceding_related_transaction_token=original["token"], amount=amount, **fields)


server = shared_server()
network = program_fixture(Network)


def brief(transaction: dict[str, Any]) -> tuple[str, str, float]:
    return transaction["type"], transaction["state"], transaction["amount"]


# --- Event types ---------------------------------------------------------------------------


BEGINNINGS = [
    # event, fields besides card and amount 10 | type, state, amount, ledger balance afterwards
    ("authorization", {}, "authorization", "PENDING", 10, 10),
    ("authorization", {"cash_back_amount": 5}, "authorization.cashback", "PENDING", 15, 15),
    ("authorization.cashback", {"cash_back_amount": 10}, "authorization.cashback", "PENDING", 20, 20),
    ("refund", {}, "refund", "COMPLETION", 10, 0),
    ("pindebit", {}, "pindebit", "COMPLETION", 10, 0),
    ("pindebit.cashback", {"cash_back_amount": 5}, "pindebit.cashback", "COMPLETION", 15, 0),
    ("pindebit.atm.withdrawal", {}, "pindebit.atm.withdrawal", "COMPLETION", 10, 0),
    ("pindebit.authorization", {}, "pindebit.authorization", "PENDING", 10, 10),
    ("pindebit.balanceinquiry", {"account_type": "checking"}, "pindebit.balanceinquiry", "CLEARED", 0, 0),
    ("original.credit.auth_plus_capture", {}, "original.credit.auth_plus_capture", "COMPLETION", 10, 0),
    ("authorization.clearing", {"force_post": "true"}, "authorization.clearing", "COMPLETION", 10, 0),
    ("authorization.atm.withdrawal", {}, "authorization.atm.withdrawal", "PENDING", 10, 10),
    ("authorization.quasi.cash", {}, "authorization.quasi.cash", "PENDING", 10, 10),
    ("account.funding.authorization", {}, "account.funding.authorization", "PENDING", 10, 10),
    ("account.funding.auth_plus_capture", {}, "account.funding.auth_plus_capture", "COMPLETION", 10, 0),
    ("refund.authorization", {}, "refund.authorization", "PENDING", 10, 0),
    ("pindebit.quasi.cash", {}, "pindebit.quasi.cash", "COMPLETION", 10, 0),
    ("pindebit.refund", {}, "pindebit.refund", "COMPLETION", 10, 0),
    ("original.credit.authorization", {}, "original.credit.authorization", "PENDING", 10, 0),
    *((name, {"force_post": True}, name, "COMPLETION", 10, 0) for name in (
        "authorization.clearing.atm.withdrawal", "authorization.clearing.quasi.cash", "account.funding.authorization.clearing",
        "refund.authorization.clearing", "pindebit.authorization.clearing", "original.credit.authorization.clearing",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("event", "fields", "kind", "state", "amount", "ledger"), BEGINNINGS)
def test_what_an_event_becomes(
    network: Network, event: str, fields: dict[str, Any], kind: str, state: str, amount: float, ledger: float
) -> None:
    """The event type in the path determines the type of the transaction, its state, its amount and the balance."""
    transaction = network.begin(event, "10", **fields)
    assert (*brief(transaction), network.money("ana")[0]) == (kind, state, amount, ledger)
    assert network.get(f"/transactions/{transaction['token']}", version="v2") == transaction


FOLLOWERS = [
    # root event | event, amount | state
    ("authorization", "authorization.incremental", 4, "PENDING"),
    ("authorization", "authorization.advice", 4, "PENDING"),
    ("authorization", "authorization.clearing", 10, "COMPLETION"),
    ("authorization", "authorization.reversal", 10, "CLEARED"),
    ("pindebit", "pindebit.reversal", 10, "CLEARED"),
    ("pindebit.authorization", "pindebit.authorization.clearing", 10, "COMPLETION"),
    ("pindebit.authorization", "pindebit.authorization.reversal", 10, "CLEARED"),
    ("original.credit.auth_plus_capture", "original.credit.auth_plus_capture.reversal", 10, "COMPLETION"),
    ("authorization.atm.withdrawal", "authorization.clearing.atm.withdrawal", 9, "COMPLETION"),
    ("authorization.quasi.cash", "authorization.clearing.quasi.cash", 9, "COMPLETION"),
    ("account.funding.authorization", "account.funding.authorization.clearing", 10, "COMPLETION"),
    ("account.funding.authorization", "account.funding.authorization.reversal", 10, "CLEARED"),
    ("account.funding.auth_plus_capture", "account.funding.auth_plus_capture.reversal", 10, "COMPLETION"),
    ("refund.authorization", "refund.authorization.advice", 4, "PENDING"),
    ("refund.authorization", "refund.authorization.clearing", 10, "COMPLETION"),
    ("refund.authorization", "refund.authorization.reversal", 10, "CLEARED"),
    ("pindebit.refund", "pindebit.refund.reversal", 10, "CLEARED"),
    ("original.credit.authorization", "original.credit.authorization.clearing", 10, "COMPLETION"),
    ("original.credit.authorization", "original.credit.authorization.reversal", 10, "CLEARED"),
]  # fmt: skip


@pytest.mark.parametrize(("root", "event", "amount", "state"), FOLLOWERS)
def test_what_follows(network: Network, root: str, event: str, amount: int, state: str) -> None:
    """A follow-up names its root and has the same network. A follow-up that names a root of another family gets 404."""
    begun = network.begin(root, 10, network="MASTERCARD", sub_network="MAESTRO")
    transaction = network.after(event, begun, amount)
    assert (transaction["type"], transaction["state"], transaction["preceding_related_transaction_token"]) == (
        event, state, begun["token"],
    )  # fmt: skip
    assert (transaction["network"], transaction["subnetwork"]) == ("MASTERCARD", "MAESTRO")
    # Advice and reversal of an authorization also follow withdrawals and quasi-cash.
    shared = {"authorization.advice", "authorization.reversal"}
    akin = {"authorization.atm.withdrawal", "authorization.quasi.cash"} if event in shared else set()
    for other in {family for family, *_ in FOLLOWERS} - {root} - akin:
        stranger = network.begin(other, 10)
        reply = network.send(event, preceding_related_transaction_token=stranger["token"], amount=1)
        assert problem_of(reply) == (404, "404014")


def test_every_event_type_is_tested() -> None:
    """The tables of roots and follow-ups together have every event type."""
    assert {event.name for event in EVENTS} == {event for event, *_ in BEGINNINGS} | {event for _, event, *_ in FOLLOWERS}


CARD_PATHS = """
    account.funding.auth_plus_capture account.funding.auth_plus_capture.reversal account.funding.authorization
    account.funding.authorization.clearing account.funding.authorization.reversal authorization authorization.advice
    authorization.atm.withdrawal authorization.cashback authorization.clearing authorization.clearing.atm.withdrawal
    authorization.clearing.quasi.cash authorization.incremental authorization.quasi.cash authorization.reversal
    original.credit.auth_plus_capture original.credit.auth_plus_capture.reversal original.credit.authorization
    original.credit.authorization.clearing pindebit pindebit.atm.withdrawal pindebit.authorization
    pindebit.authorization.clearing pindebit.authorization.reversal pindebit.balanceinquiry pindebit.cashback
    pindebit.quasi.cash pindebit.refund refund refund.authorization refund.authorization.clearing refund.authorization.reversal
"""
"""The card event types that have a path on the wire. Two more paths are direct deposits."""


def test_the_wires_paths_are_there() -> None:
    """All 32 card events of the wire exist. The only additions are three reversals and an advice."""
    wire, ours = set(CARD_PATHS.split()), {event.name for event in EVENTS}
    assert len(wire) == 32
    assert ours >= wire
    assert ours - wire == {
        "pindebit.reversal", "pindebit.refund.reversal", "refund.authorization.advice", "original.credit.authorization.reversal",
    }  # fmt: skip


def test_the_rest_of_cash_goes_back_at_once(network: Network) -> None:
    """The clearing of a withdrawal or of quasi-cash releases the rest of the hold and shows it. Account funding keeps it."""
    for root, clearing, held in (
        ("authorization.atm.withdrawal", "authorization.clearing.atm.withdrawal", 0),
        ("authorization.quasi.cash", "authorization.clearing.quasi.cash", 0),
        ("account.funding.authorization", "account.funding.authorization.clearing", 4),
    ):
        transaction = network.after(clearing, begun := network.begin(root, 10), 6)
        assert transaction.get("amount_to_be_released", 0) == 4 - held
        assert network.money("ana") == (held, 0)
        if held:
            network.after("account.funding.authorization.reversal", begun, held)


FUNDING_DATA = {
    "first_name": "Ana", "funding_source": "DEBIT", "receiver_account_type": "IBAN", "transaction_type": "PERSON_TO_PERSON",
}  # fmt: skip
CREDIT_DATA = {"transaction_type": "DISBURSEMENT", "funding_source": "CASH", "sender_name": "Ben", "screening_score": "999"}
NAMES = {"request": {"first_name": "Ana", "last_name": "Lopez"}, "request_type": "SENDER"}
CONVERSION = {"original_amount": 8.10, "conversion_rate": 1.2346, "original_currency_code": "826"}


@pytest.mark.parametrize(
    ("event", "field", "value"),
    [
        ("account.funding.authorization", "account_funding", FUNDING_DATA),
        ("account.funding.auth_plus_capture", "account_funding", FUNDING_DATA),
        ("original.credit.authorization", "original_credit", CREDIT_DATA),
        ("original.credit.auth_plus_capture", "original_credit", CREDIT_DATA),
        ("authorization", "account_name_verification", NAMES),
        ("pindebit", "account_name_verification", NAMES),
        ("refund.authorization", "currency_conversion", CONVERSION),
        ("authorization", "currency_conversion", CONVERSION),
        ("pindebit", "currency_conversion", {"original_amount": 8.105, "original_currency_code": "414"}),
        ("original.credit.authorization", "currency_conversion", {"original_amount": 8, "original_currency_code": "yen"}),
        ("account.funding.authorization", "currency_conversion", {"conversion_rate": 1.23456789012345}),
    ],
)
def test_what_is_shown_as_it_was_sent(network: Network, event: str, field: str, value: dict[str, Any]) -> None:
    """Data on a transfer, a name or a currency conversion is returned as sent, by the simulation and by a later GET."""
    transaction = network.begin(event, 10, **{field: value})
    assert transaction[field] == value
    assert network.get(f"/transactions/{transaction['token']}", version="v2") == transaction
    older = network.get(f"/transactions/{transaction['token']}", version="v1")[field]
    assert older == ({"network": value} if field == "currency_conversion" else value)


def test_what_belongs_to_another_family_is_ignored(network: Network) -> None:
    """A refund ignores the data of account funding, original credits and name verification."""
    transaction = network.begin(
        "refund", 10, account_funding=FUNDING_DATA, original_credit=CREDIT_DATA, account_name_verification=NAMES
    )
    assert {"account_funding", "original_credit", "account_name_verification"} & set(transaction) == set()


@pytest.mark.parametrize("event", ["refund.authorization", "original.credit.authorization"])
def test_announced_money_has_an_unload_that_waits(network: Network, event: str) -> None:
    """A pending credit has a PENDING unload. Its clearing sets COMPLETION, and its full reversal sets REVERSED."""
    transaction = network.begin(event, 10)
    unload = transaction["gpa_order_unload"]
    assert (unload["state"], unload["amount"], unload["funding"]["source"]["type"]) == ("PENDING", 10, "program")
    assert ({"gpa_order"} & transaction.keys(), "transaction_token" in unload) == (set(), False)
    assert (transaction["gpa"]["impacted_amount"], network.money("ana")) == (0, (0, 0))
    cleared = network.after(f"{event}.clearing", transaction, 10)["gpa_order_unload"]
    assert (cleared["token"], cleared["state"], cleared["amount"]) == (unload["token"], "COMPLETION", 10)

    transaction = network.begin(event, 10)
    part = network.after(f"{event}.reversal", transaction, 4)["gpa_order_unload"]
    assert (part["state"], part["amount"]) == ("PENDING", 4)
    rest = network.after(f"{event}.reversal", transaction, 6)["gpa_order_unload"]
    assert (rest["state"], rest["amount"], rest["token"]) == ("REVERSED", 6, transaction["gpa_order_unload"]["token"])

    # Without JIT Funding the money stays on the account, so there is no unload.
    assert "gpa_order_unload" not in network.event(event, card_token="plain", amount=10)


def test_announced_money_is_told_and_explained(network: Network) -> None:
    """A pending credit is sent to the webhook under its type, and its decision is explained like any other."""
    inbox = f"{network.server.root_url}/sandbox/inbox/{network.program['token']}/listener"
    transaction = network.begin("original.credit.authorization", 10, webhook={"endpoint": inbox})
    path, query = "/sandbox/inbox/listener", {"type": transaction["type"], "wait": "30s", "count": 1}
    (message,) = network.get(path, **query)["data"]
    assert [row["token"] for row in message["body"]["transactions"]] == [transaction["token"]]
    explained = network.client.get(f"/sandbox/decisions/{transaction['token']}").json
    assert (explained["outcome"], explained["replay_agrees"]) == ("APPROVED", True)


# --- Requests of official clients ----------------------------------------------------------


def test_a_clearing_with_more_than_it_needs(network: Network) -> None:
    """A clearing with a card, a ``mid`` at the root and a merchant's address is accepted, and shows the address."""
    transaction = network.begin("authorization", 12)
    cleared = network.after(
        "authorization.clearing",
        transaction,
        12,
        card_token="jit",
        mid="11111",
        card_acceptor={"mid": "11111", "address": "1 Main"},
    )
    assert brief(cleared) == ("authorization.clearing", "COMPLETION", 12)
    assert cleared["card_acceptor"]["street_address"] == "1 Main"


@pytest.mark.parametrize(
    "steps",
    [
        [("clearing", 15, 0)],
        [("clearing", 50, 0), ("clearing", 50, 0)],
        [("reversal", 12, 0)],
        [("advice", 40, 0), ("clearing", 40, 1)],
        [("advice", 40, 0), ("clearing", 40, 0)],
        [("incremental", 40, 0), ("clearing", 140, 1)],
        [("incremental", 40, 0), ("incremental", 20, 1), ("clearing", 160, 2)],
        [("clearing", 25, 0), ("reversal", 25, 0)],
    ],
)
def test_what_official_clients_do_to_an_authorization(network: Network, steps: list[tuple[str, int, int]]) -> None:
    """Each message names an earlier one of the chain and is approved. At the end nothing is on hold."""
    amounts = {"clearing": 15, "reversal": 12, "advice": 100, "incremental": 100}
    first = amounts[steps[0][0]] if len(steps) == 1 else 50 if steps[-1][0] == "reversal" else 100
    chain = [network.begin("authorization", 12 if steps == [("clearing", 15, 0)] else first)]
    for event, amount, named in steps:
        transaction = network.after(f"authorization.{event}", chain[named], amount)
        assert transaction["response"]["code"] == "0000"
        chain.append(transaction)
    assert network.money("ana") == (0, 0)


def test_a_forced_clearing_with_nothing_else(network: Network) -> None:
    """A forced clearing needs only a card and an amount. Flag and amount may be texts."""
    transaction = network.event("authorization.clearing", force_post="true", amount="7.70", card_token="jit")
    assert brief(transaction) == ("authorization.clearing", "COMPLETION", 7.70)
    named = network.after("authorization.clearing", transaction, 2, force_post=True)
    assert (named["amount"], named["card_acceptor"]["mid"]) == (2, transaction["card_acceptor"]["mid"])


def test_a_refund_after_the_bill(network: Network) -> None:
    """A refund needs only a card and an amount. The money returns to the funding source."""
    transaction = network.begin("authorization", 12)
    network.after("authorization.clearing", transaction, 12)
    assert brief(network.begin("refund", 12)) == ("refund", "COMPLETION", 12)
    assert network.money("ana") == (0, 0)


def test_a_refusal_is_an_answer(network: Network) -> None:
    """A request that is declined gets 201, for insufficient funds and for a wrong PIN."""
    declined = network.event("authorization", card_token="plain", amount=5)
    assert (declined["state"], declined["response"]["code"]) == ("DECLINED", "1016")
    wrong = network.begin("pindebit", 5, card_options={"pin": "9999"})
    assert (wrong["state"], wrong["response"]["code"]) == ("DECLINED", "1809")


# --- Transaction model v2 ------------------------------------------------------------------


def test_model_v2_by_its_names(network: Network) -> None:
    """The fields of merchant and terminal have different names in transaction models v1 and v2. All other fields are equal."""
    transaction = network.begin(
        "authorization", 10, pos={"pan_entry_mode": "MANUAL", "partial_approval_capable": True},
        card_acceptor={
            "mid": "1000200030", "mcc": "5814", "name": "Corner", "address": "1 Main", "zip": 94501, "country_code": "USA",
        },
        card_options={"card_present": False},
    )  # fmt: skip
    assert transaction["card_acceptor"] == {
        "mid": "1000200030", "mcc": "5814", "mcc_groups": ["NONE"], "name": "Corner", "street_address": "1 Main",
        "city": "St. Petersburg", "state": "CA", "postal_code": "94501", "country_code": "USA",
    }  # fmt: skip
    assert transaction["pos"] == {
        "pan_entry_mode": "MANUAL", "card_holder_presence": False, "card_presence": False, "pin_present": False,
        "partial_approval_capable": True, "purchase_amount_only": False, "is_recurring": False, "is_installment": False,
    }  # fmt: skip
    assert transaction["transaction_metadata"] == {"payment_channel": "ECOMMERCE"}
    assert (transaction["network"], transaction["subnetwork"]) == ("VISA", "VISANET")
    assert {"is_recurring", "is_installment"} & set(transaction) == set()
    older = network.get(f"/transactions/{transaction['token']}", version="v1")
    assert older["card_acceptor"]["address"] == "1 Main"
    assert older["card_acceptor"]["poi"] == {"partial_approval_capable": "1"}
    assert "pos" not in older
    same = set(transaction) - {"pos", "transaction_metadata", "card_acceptor"}
    assert {name: older[name] for name in same} == {name: transaction[name] for name in same}


def test_silence_is_a_card_at_a_visa_terminal(network: Network) -> None:
    """By default the card is present, the terminal takes no partial approvals, and the network is VISA."""
    transaction = network.begin("authorization", 10)
    assert (transaction["pos"]["card_presence"], transaction["pos"]["partial_approval_capable"]) == (True, False)
    assert (network.begin("pindebit", 10)["subnetwork"], transaction["subnetwork"]) == ("VISANETDEBIT", "VISANET")
    assert "subnetwork" not in network.begin("authorization", 10, network="PULSE")


def test_the_programs_model(network: Network) -> None:
    """The program's setting is the default model of lists and single transactions. ``version`` overrides it."""
    transaction = network.buy(10)
    network.client.put("/sandbox/program", {"transaction_model": "v2"})
    assert "pos" in network.get(f"/transactions/{transaction['token']}")
    listed = network.listed(type="authorization,gpa.credit.authorization")
    assert [("pos" in row, "card_acceptor" in row) for row in listed] == [(False, False), (True, True)]
    assert "pos" not in network.get(f"/transactions/{transaction['token']}", version="v1")
    assert network.client.put("/sandbox/program", {"transaction_model": "v3"}).status == 400


@pytest.mark.parametrize("path", ["/transactions", "/transactions/{}", "/transactions/{}/related",
                                  "/transactions/fundingsource/harbor_funding"])  # fmt: skip
def test_an_unknown_model_is_named(network: Network, path: str) -> None:
    """Every path that shows transactions answers 400 to an unknown ``version`` or an invalid ``verbose``.

    The message names it.
    """
    for query in ({"version": "v3"}, {"verbose": "perhaps"}):
        reply = network.client.get(path.format(network.buy(10)["token"]), query=query)
        assert (reply.status, next(iter(query)) in reply.json["error_message"]) == (400, True)


# --- Refused input -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "body", "status", "named"),
    [
        ("authorization", {"amount": 1}, 400, "card_token"),
        ("authorization", {"card_token": "jit"}, 400, "amount"),
        ("authorization", {"card_token": "jit", "amount": -1}, 400, "amount"),
        ("authorization", {"card_token": "jit", "amount": "x"}, 400, "amount"),
        ("authorization", {"card_token": "nobody", "amount": 1}, 404, "Card not found"),
        ("authorization", {"card_token": "jit", "amount": 1, "network": "AMEX"}, 400, "network"),
        ("authorization", {"card_token": "jit", "amount": 1, "sub_network": "X"}, 400, "sub_network"),
        ("authorization", {"card_token": "jit", "amount": 1, "currency_code": "EUR"}, 400, "currency_code"),
        ("authorization", {"card_token": "jit", "amount": 1, "pos": {"pan_entry_mode": "SHOUTED"}}, 400, "pan_entry_mode"),
        ("authorization", {"card_token": "jit", "amount": 1, "card_acceptor": {"mcc": "food"}}, 400, "card_acceptor.mcc"),
        ("authorization", {"card_token": "jit", "amount": 1, "fees": [{"type": "TIP", "amount": 1, "credit_debit": "D"}]},
         400, "fees[0].type"),
        ("authorization.cashback", {"card_token": "jit", "amount": 1}, 400, "cash_back_amount"),
        ("pindebit.atm.withdrawal", {"card_token": "jit", "amount": 0}, 400, "amount"),
        ("pindebit.atm.withdrawal", {"card_token": "jit", "amount": 1, "cash_back_amount": 1}, 400, "cash_back_amount"),
        ("pindebit.balanceinquiry", {"card_token": "jit"}, 400, "account_type"),
        ("pindebit.balanceinquiry", {"card_token": "jit", "account_type": "sock"}, 400, "account_type"),
        ("authorization.reversal", {"amount": 1}, 400, "preceding_related_transaction_token"),
        ("authorization.reversal", {"amount": 1, "preceding_related_transaction_token": "nobody"}, 404, "Original transaction"),
        ("authorization.clearing", {"amount": 1}, 400, "preceding_related_transaction_token"),
        ("authorization.clearing", {"amount": 1, "force_post": True}, 400, "card_token"),
        ("authorization.clearing", {"amount": 0, "force_post": True, "card_token": "jit"}, 400, "amount"),
        ("refund", {"amount": 1, "card_token": "nobody"}, 404, "Card not found"),
        ("refund", {"amount": 0, "card_token": "jit"}, 400, "amount"),
        ("refund.authorization", {"amount": 0, "card_token": "jit"}, 400, "amount"),
        ("pindebit.refund", {"amount": 1, "card_token": "nobody"}, 404, "Card not found"),
        ("original.credit.authorization", {"card_token": "jit", "amount": 0}, 400, "amount"),
        ("authorization.atm.withdrawal", {"card_token": "jit", "amount": 0}, 400, "amount"),
        ("authorization.quasi.cash", {"card_token": "jit", "amount": 1, "cash_back_amount": 1}, 400, "cash_back_amount"),
        ("account.funding.authorization", {"card_token": "jit", "amount": 1, "account_funding": {}}, 400, "first_name"),
        ("account.funding.authorization", {"card_token": "jit", "amount": 1,
         "account_funding": {**FUNDING_DATA, "funding_source": "GOLD"}}, 400, "funding_source"),
        ("original.credit.authorization", {"card_token": "jit", "amount": 1, "original_credit": {"transaction_type": "GIFT"}},
         400, "transaction_type"),
        *((event, {"card_token": "jit", "amount": 1, "currency_conversion": {field: value, **fields}}, 400, field)
          for event in ("authorization", "refund") for field, value, fields in (
            ("conversion_rate", "x", {}), ("conversion_rate", "NaN", {}), ("conversion_rate", "-Infinity", {}),
            ("conversion_rate", -0.5, {}), ("conversion_rate", "1234567890.123456789", {}), ("conversion_rate", "1e18", {}),
            ("conversion_rate", "0e-999999", {}), ("original_amount", "Infinity", {}), ("original_amount", "1e999999", {}),
            ("original_amount", -1, {}), ("original_amount", "8.105", {}),
            ("original_amount", 8.5, {"original_currency_code": "JPY"}),
            ("original_amount", "8.1055", {"original_currency_code": 414}),
            ("original_currency_code", 8400, {}),
        )),
        ("authorization.standin", {"card_token": "jit", "amount": 1}, 404, "no such path"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(network: Network, event: str, body: dict[str, Any], status: int, named: str) -> None:
    """An invalid request is refused with the name of the field or object, and nothing is written."""
    reply = network.send(event, **body)
    assert (reply.status, named in reply.text) == (status, True), reply.text
    assert network.listed(state="ALL") == []
