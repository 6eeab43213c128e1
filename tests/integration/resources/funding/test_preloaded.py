"""Preloaded accounts on both databases: GPA orders, unloads, fees, transfers, their webhooks, replays, races and errors."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import program_fixture, shared_server
from tests.support.issuing import problem_of
from tests.support.server import Reply, RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until_all_are_delivered

USD = {"currency_code": "USD"}
ORDER = {"user_token": "bo", "amount": 1, "funding_source_token": "harbor_funding", **USD}
PEER = {"sender_user_token": "bo", "recipient_user_token": "ana", "amount": 1, **USD}
TRANSFER = {"type_token": "debts", "user_token": "bo", "amount": 1, **USD}
FEE = {"name": "Fee", "amount": 1, **USD}


class Bank(Shop):
    """A shop with helpers for movements. User ``bo`` has the card ``plain`` without JIT Funding, and ``ana`` the card ``jit``."""

    def order(self, user: str, amount: Any, **fields: Any) -> dict[str, Any]:
        """Load an account and return the order."""
        return self.make("gpaorders", user_token=user, amount=amount, funding_source_token="harbor_funding", **{**USD, **fields})

    def unload(self, order: str, amount: Any, **fields: Any) -> Reply:
        """Request an unload and return the answer."""
        return self.client.post("/gpaorders/unloads", {"original_order_token": order, "amount": amount, **fields})

    def pay(self, sender: str, recipient: str, amount: Any, **fields: Any) -> Reply:
        """Request a peer transfer and return the answer."""
        body = {"sender_user_token": sender, "recipient_user_token": recipient, "amount": amount, **USD, **fields}
        return self.client.post("/peertransfers", body)

    def at_once(self, requests: list[tuple[str, dict[str, Any]]]) -> list[Reply]:
        """Send POSTs concurrently, at most twelve at a time on separate connections, and return the answers in order."""
        mine = threading.local()

        def connect() -> None:
            mine.client = self.connect()

        def send(request: tuple[str, dict[str, Any]]) -> Reply:
            return mine.client.post(*request)  # type: ignore[no-any-return]

        with ThreadPoolExecutor(12, initializer=connect) as threads:
            return list(threads.map(send, requests))

    def notifications(self) -> list[dict[str, Any]]:
        """Wait for all deliveries, and return the transactions that the webhook has received, the oldest first."""
        until_all_are_delivered(self.client)
        box = self.listed("/sandbox/inbox/news")
        transactions = [transaction for message in box for transaction in message["body"]["transactions"]]
        return sorted(transactions, key=lambda transaction: int(transaction["identifier"]))


server = shared_server(chosen_databases())
bank = program_fixture(Bank)


def test_a_preloaded_card_from_first_to_last_cent(bank: Bank) -> None:
    """A preloaded account is loaded, spent, approved in part, and unloaded to its source. An unload needs available money."""
    order = bank.order("bo", 100, token="june", memo="Pocket money", tags="a,b")
    assert (order["state"], order["amount"], order["memo"], order["tags"]) == ("COMPLETION", 100, "Pocket money", "a,b")
    assert bank.money("bo") == (100, 100)

    bank.clock("2035-06-03T12:00:00Z")
    shoes = bank.buy(30, "plain")
    assert ("gpa_order" in shoes, bank.money("bo")) == (False, (100, 70))

    bank.clock("2035-06-05T12:00:00Z")
    bank.follow("clearing", shoes, 30)
    assert bank.money("bo") == (70, 70)

    bank.clock("2035-06-06T12:00:00Z")
    hotel = bank.buy(90, "plain")
    assert (hotel["response"]["code"], hotel["request_amount"], hotel["amount"]) == ("0002", 90, 70)
    assert bank.money("bo") == (70, 0)
    assert problem_of(bank.unload("june", 1)) == (422, "422001")
    bank.follow("reversal", hotel, 70)

    bank.clock("2035-07-20T12:00:00Z")
    back = bank.unload("june", 70, token="rest")
    assert (back.status, back.json["original_order_token"], bank.money("bo")) == (201, "june", (0, 0))
    assert problem_of(bank.unload("june", 30)) == (422, "422001")
    assert problem_of(bank.unload("june", 31)) == (412, "412002")
    assert bank.buy(1, "plain")["response"]["code"] == "1016"

    # The unload is listed although its order is outside the default window of thirty days.
    (newest,) = bank.listed(user_token="bo")
    assert (newest["type"], newest["preceding_related_transaction_token"]) == ("gpa.debit", order["transaction_token"])
    (related,) = bank.listed(f"/transactions/{order['transaction_token']}/related")
    assert related == newest
    sides = bank.listed("/transactions/fundingsource/harbor_funding", start_date="2035-06-01")
    assert [(side["type"], side["gpa"]["impacted_amount"]) for side in sides] == [("gpa.debit", -70), ("gpa.credit", 100)]
    assert [side["type"] for side in bank.listed("/transactions/fundingsource/harbor_funding", polarity="DEBIT")] == ["gpa.debit"]


def test_own_money_is_spent_before_the_programs(bank: Bank) -> None:
    """A JIT purchase uses the account balance first, and loads only the difference from the funding source."""
    order = bank.order("ana", 20)
    coffee = bank.buy(30, "jit")
    assert (coffee["gpa_order"]["amount"], coffee["gpa_order"]["token"] != order["token"]) == (10, True)
    bank.follow("clearing", coffee, 30)
    assert bank.money("ana") == (0, 0)
    types = [transaction["type"] for transaction in bank.listed("/transactions/fundingsource/harbor_funding")]
    assert types == ["gpa.credit.authorization", "gpa.credit"]


def test_two_friends_and_a_pizza(bank: Bank) -> None:
    """A peer transfer has a transaction for each user. Both are listed and sent to the webhook."""
    url = f"{bank.server.root_url}/sandbox/inbox/{bank.program['token']}/news"
    config = {"url": url, "basic_auth_username": "user", "basic_auth_password": "Password-of-20-letters"}
    bank.make("webhooks", name="News", events=["transaction.*"], config=config)
    bank.order("bo", 50)

    bank.clock("2035-06-02T20:00:00Z")
    paid = bank.pay("bo", "ana", 12.5, token="pizza", memo="Half")
    assert paid.status == 201
    assert (bank.money("bo"), bank.money("ana")) == ((37.5, 37.5), (12.5, 12.5))
    bos, anas = (bank.listed(user_token=user, type="transfer.peer") for user in ("bo", "ana"))
    assert [(side["gpa"]["impacted_amount"], side["polarity"], side["peer_transfer"]) for side in (*bos, *anas)] == [
        (-12.5, "DEBIT", paid.json), (12.5, "CREDIT", paid.json),
    ]  # fmt: skip
    assert anas[0]["preceding_related_transaction_token"] == bos[0]["token"]
    assert bank.notifications() == [*bank.listed(user_token="bo", type="gpa.credit"), *bos, *anas]

    assert bank.pay("ana", "bo", 2).status == 201
    for path, expected in (("", {"pizza", "back"}), ("/sender", {"pizza"}), ("/recipient", {"back"})):
        transfers = bank.listed(f"/peertransfers/user/bo{path}")
        assert {"pizza" if transfer["token"] == "pizza" else "back" for transfer in transfers} == expected
    assert problem_of(bank.client.get("/peertransfers/user/nobody")) == (404, "404004")


def test_a_childs_transfer_moves_the_parents_money(bank: Bank) -> None:
    """A child that shares its parent's account pays from that account. A transfer between the two gets 400."""
    bank.make("users", token="child", parent_token="bo", uses_parent_account=True)
    bank.order("child", 10)
    assert bank.pay("child", "ana", 4).status == 201
    (side,) = bank.listed(user_token="bo", type="transfer.peer")
    assert (side["user_token"], side["acting_user_token"], bank.money("bo")) == ("bo", "child", (6, 6))
    assert problem_of(bank.pay("child", "bo", 1)) == (400, "400001")


def test_a_fee_is_charged_and_given_back(bank: Bank) -> None:
    """A charged fee keeps its amount if the fee changes later. It is refunded once, and the refund names the charge."""
    bank.order("bo", 10)
    bank.make("fees", token="monthly", name="Monthly", amount=1.5, tags="regular", **USD)
    charged = bank.make("feecharges", user_token="bo", fees=[{"token": "monthly", "memo": "June"}], tags="june")
    (detail,) = charged["fees"]
    assert (detail["memo"], detail["fee"]["amount"], detail["fee"]["tags"], charged["tags"]) == ("June", 1.5, "regular", "june")

    bank.clock("2035-07-01T09:00:00Z")
    bank.client.request("PUT", "/fees/monthly", {"amount": 2, "name": "Dearer"})
    assert bank.make("feetransfers", user_token="bo", fees=[{"token": "monthly"}])["fees"][0]["fee"]["amount"] == 2
    assert bank.money("bo") == (6.5, 6.5)
    refunded = bank.make("feerefunds", original_fee_transaction_token=detail["transaction_token"], tags="sorry")
    assert (refunded["state"], refunded["fee"], refunded["tags"]) == ("COMPLETION", detail["fee"], "sorry")
    assert bank.money("bo") == (8, 8)
    again = bank.client.post("/feerefunds", {"original_fee_transaction_token": detail["transaction_token"]})
    assert problem_of(again) == (422, "422004")
    (refund,) = bank.listed(type="fee.charge.refund")
    assert (refund["preceding_related_transaction_token"], refund["fee"]) == (detail["transaction_token"], detail["fee"])
    assert bank.get(f"/sandbox/decisions/{refund['token']}")["outcome"] == "APPROVED"


def test_lists_of_unloads_and_program_transfers(bank: Bank) -> None:
    """Unloads are listed by user and order, program transfers by user and type. An unknown filter value has an empty list."""
    for user in ("ana", "bo"):
        bank.order(user, 50, token=f"order_{user}")
        assert bank.unload(f"order_{user}", 5, token=f"unload_{user}").status == 201
    for kind, user in (("debts", "bo"), ("gifts", "bo"), ("gifts", "ana")):
        body = {"token": kind, "memo": kind, "program_funding_source_token": "harbor_funding"}
        bank.make("programtransfers/types", **body)
        bank.make("programtransfers", token=f"{kind}_{user}", type_token=kind, user_token=user, amount=1, **USD)

    def tokens(path: str, **query: str) -> list[str]:
        return sorted(row["token"] for row in bank.listed(path, **query))

    unloads, transfers = "/gpaorders/unloads", "/programtransfers"
    assert tokens(unloads) == ["unload_ana", "unload_bo"]
    assert tokens(unloads, user_token="bo") == tokens(unloads, original_order_token="order_bo") == ["unload_bo"]
    assert tokens(unloads, user_token="nobody") == tokens(unloads, original_order_token="none") == []
    assert tokens(unloads, user_token="ana", original_order_token="order_bo") == tokens(unloads, business_token="x") == []
    assert tokens(transfers, type_token="gifts") == ["gifts_ana", "gifts_bo"]
    assert tokens(transfers, user_token="bo") == ["debts_bo", "gifts_bo"]
    assert tokens(transfers, user_token="ana", type_token="debts") == tokens(transfers, type_token="none") == []
    assert tokens("/programtransfers/types") == ["debts", "gifts"]


# --- Replays and races -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "change"),
    [
        ("/gpaorders", {"user_token": "bo", "amount": 1, "funding_source_token": "harbor_funding", **USD}, {"amount": 2}),
        ("/gpaorders/unloads", {"original_order_token": "start", "amount": 1}, {"memo": "other"}),
        ("/feecharges", {"user_token": "bo", "fees": [{"token": "fee"}]}, {"fees": [{"token": "fee", "memo": "other"}]}),
        ("/peertransfers", {"sender_user_token": "bo", "recipient_user_token": "ana", "amount": 1, **USD}, {"amount": "1.01"}),
        ("/programtransfers", {"type_token": "debts", "user_token": "bo", "amount": 1, **USD}, {"user_token": "ana"}),
    ],
)
def test_a_repeat_moves_nothing_twice(bank: Bank, path: str, body: dict[str, Any], change: dict[str, Any]) -> None:
    """Eight concurrent equal requests have one answer and one effect. Another body is a conflict."""
    bank.order("bo", 100, token="start")
    bank.make("fees", token="fee", name="Fee", amount=1, **USD)
    bank.make("programtransfers/types", token="debts", memo="Debts", program_funding_source_token="harbor_funding")
    body = {"token": "once", **body}
    replies = bank.at_once([(path, body)] * 8)
    assert {reply.status for reply in replies} == {201}
    assert len({reply.text for reply in replies}) == 1
    assert bank.client.post(path, body).text == replies[0].text
    assert problem_of(bank.client.post(path, {**body, **change})) == (409, "409002")
    assert bank.money("bo") == ((101, 101) if path == "/gpaorders" else (99, 99))
    assert bank.order("bo", 5, token="once2")["token"] == "once2"


def test_the_last_cent_goes_one_way(bank: Bank) -> None:
    """Concurrent purchases, transfers, fees and unloads of 4 spend a balance of 10 exactly twice."""
    bank.order("bo", 10, token="ten")
    bank.make("fees", token="fee", name="Fee", amount=4, **USD)
    bank.make("programtransfers/types", token="debts", memo="Debts", program_funding_source_token="harbor_funding")
    capable = {"partial_approval_capable": False, "name": "Till"}
    purchase = {"card_token": "plain", "amount": 4, "mid": "m", "card_acceptor": capable}
    ways: list[tuple[str, dict[str, Any]]] = [
        ("/simulate/authorization", purchase),
        ("/peertransfers", {**PEER, "amount": 4}),
        ("/feecharges", {"user_token": "bo", "fees": [{"token": "fee"}]}),
        ("/gpaorders/unloads", {"original_order_token": "ten", "amount": 4}),
        ("/programtransfers", {**TRANSFER, "amount": 4}),
    ]
    replies = bank.at_once(ways * 2)
    taken = [reply for reply in replies if reply.status == 201 and reply.json.get("transaction", {}).get("state") != "DECLINED"]
    assert (len(taken), bank.money("bo")[1]) == (2, 2)
    refused = {problem_of(reply)[1] for reply in replies if reply.status != 201}
    assert refused <= {"422001", "412004"}


def test_transfers_in_a_circle_neither_block_nor_lose(bank: Bank) -> None:
    """Concurrent transfers among three users in every direction, along with purchases, all succeed and lose no money."""
    bank.make("users", token="cy")
    for user in ("ana", "bo", "cy"):
        bank.order(user, 100)
    people = ("ana", "bo", "cy")
    pairs = [(sender, recipient) for sender in people for recipient in people if sender != recipient] * 8
    requests = [
        ("/peertransfers", {**PEER, "sender_user_token": sender, "recipient_user_token": recipient})
        for sender, recipient in pairs
    ]
    requests += [("/simulate/authorization", {"card_token": "plain", "amount": 1, "mid": "m"})] * 20
    assert {reply.status for reply in bank.at_once(requests)} == {201}
    assert sum(bank.money(user)[0] for user in people) == 300
    assert [bank.money(user)[0] for user in people] == [100, 100, 100]


# --- Bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "code", "named"),
    [
        ("gpaorders", {**ORDER, "user_token": None}, "400014", "user_token"),
        ("gpaorders", {**ORDER, "business_token": "b"}, "400014", "business_token"),
        ("gpaorders", {**ORDER, "user_token": None, "business_token": "b"}, "400004", "Business"),
        ("gpaorders", {**ORDER, "user_token": "nobody"}, "400003", "User"),
        ("gpaorders", {**ORDER, "funding_source_token": "none"}, "400009", "none"),
        ("gpaorders", {**ORDER, "funding_source_token": None}, "400001", "funding_source_token"),
        ("gpaorders", {**ORDER, "currency_code": "EUR"}, "400015", "EUR"),
        ("gpaorders", {**ORDER, "currency_code": "USDX"}, "400001", "currency_code"),
        ("gpaorders", {**ORDER, "amount": -1}, "400001", "amount"),
        ("gpaorders", {**ORDER, "amount": "1.001"}, "400001", "amount"),
        ("gpaorders", {**ORDER, "amount": 10**13}, "400001", "amount"),
        ("gpaorders", {**ORDER, "memo": "x" * 100}, "400001", "memo"),
        ("gpaorders", {**ORDER, "tags": ""}, "400001", "tags"),
        ("gpaorders", {**ORDER, "token": "x" * 37}, "400001", "token"),
        ("gpaorders", {**ORDER, "fees": [{"token": "fee"}] * 21}, "400001", "fees"),
        ("gpaorders", {**ORDER, "fees": [{"token": "fee", "overrideAmount": -1}]}, "400001", "overrideAmount"),
        ("gpaorders", {**ORDER, "fees": [{}]}, "400001", "token"),
        ("gpaorders/unloads", {"original_order_token": "none", "amount": 1}, "404008", "order"),
        ("gpaorders/unloads", {"amount": 1}, "400001", "original_order_token"),
        ("feecharges", {"user_token": "bo"}, "400001", "fees"),
        ("feecharges", {"fees": [{"token": "fee"}]}, "400014", "user_token"),
        ("feecharges", {"user_token": "nobody", "fees": [{"token": "fee"}]}, "400003", "User"),
        ("feerefunds", {"original_fee_transaction_token": "none"}, "400020", "Fee"),
        ("feerefunds", {}, "400001", "original_fee_transaction_token"),
        ("peertransfers", {**PEER, "sender_user_token": None}, "400001", "sender_user_token"),
        ("peertransfers", {**PEER, "sender_business_token": "b"}, "400001", "sender_business_token"),
        ("peertransfers", {**PEER, "recipient_user_token": "nobody"}, "400003", "User"),
        ("peertransfers", {**PEER, "recipient_user_token": None, "recipient_business_token": "b"}, "400004", "Business"),
        ("peertransfers", {**PEER, "amount": 0}, "400001", "amount"),
        ("programtransfers", {**TRANSFER, "type_token": "none"}, "404010", "type"),
        ("programtransfers", {**TRANSFER, "currency_code": "JPY"}, "400015", "JPY"),
        ("programtransfers/types", {"memo": "m", "program_funding_source_token": "none"}, "404007", "source"),
        ("programtransfers/types", {"memo": "", "program_funding_source_token": "harbor_funding"}, "400001", "memo"),
        ("fees", {**FEE, "currency_code": "XXZ"}, "400015", "XXZ"),
        ("fees", {**FEE, "name": ""}, "400001", "name"),
        ("fees", {**FEE, "amount": -1}, "400001", "amount"),
        ("fees", {**FEE, "type": "ODD"}, "400037", "type"),
        ("fees", {**FEE, "category": "SOMETIMES"}, "400037", "category"),
    ],
)
def test_bad_input_moves_nothing(server: RunningServer, path: str, body: dict[str, Any], code: str, named: str) -> None:
    """Invalid input is refused with the name of the field, and leaves balances and lists unchanged."""
    bank = REFUSING.setdefault(server.root_url, None) or refusing(server)
    reply = bank.client.post(f"/{path}", body)
    assert problem_of(reply)[1] == code, reply.text
    assert named in reply.json["error_message"]
    assert (bank.money("bo"), len(bank.listed(state="ALL"))) == ((10, 10), 1)


REFUSING: dict[str, Bank | None] = {}
"""The shared program of the refused requests, by server."""


def refusing(server: RunningServer) -> Bank:
    """Create the program of the refused requests, in which ``bo`` has 10."""
    bank = REFUSING[server.root_url] = Bank(server)
    bank.order("bo", 10)
    bank.make("fees", token="fee", **FEE)
    bank.make("programtransfers/types", token="debts", memo="Debts", program_funding_source_token="harbor_funding")
    return bank
