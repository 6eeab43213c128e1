"""Movements without a card, as a table on both databases: prior steps, message, answer, balances and journal entries."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from cardwright.storage.database import Database
from cardwright.storage.tables import journal
from tests.support.databases import chosen_databases
from tests.support.fixtures import module_server
from tests.support.server import Reply, RunningServer
from tests.support.shop import Shop

# `before` has steps like `message`; all of them succeed. Next come the type of the answer or the error, then ledger and available
# balance of the user and of a friend. The last column has the entries of the message (f: program funding, a: available, h: held,
# e: fees, t: transit). The fees are `one` (1.00), `tenth` (10 %), `off` (not active), `live` (real-time), `euro` (in EUR).
TABLE = """
    before                         | message                 | answer            | user     friend  | entries
    -                              | order 100               | gpa.credit        | 100 100  0 0     | f-100 a100
    -                              | order 0.01              | gpa.credit        | 0.01 0.01 0 0    | f-0.01 a0.01
    -                              | order 0                 | 400001 amount     | 0 0      0 0     |
    order 40                       | order 60                | gpa.credit        | 100 100  0 0     | f-60 a60
    -                              | order 100 one           | gpa.credit        | 100 100  0 0     | f-101 a101, a-1 e1
    -                              | order 50 one tenth      | gpa.credit        | 50 50    0 0     | f-56 a56, a-1 e1, a-5 e5
    -                              | order 50 one=3 tenth=0  | gpa.credit        | 50 50    0 0     | f-53 a53, a-3 e3
    -                              | order 0.05 tenth        | gpa.credit        | 0.05 0.05 0 0    | f-0.06 a0.06, a-0.01 e0.01
    -                              | order 10 off            | 422003 off        | 0 0      0 0     |
    -                              | order 10 live           | 422003 live       | 0 0      0 0     |
    -                              | order 10 euro           | 422003 euro       | 0 0      0 0     |
    -                              | order 10 nobody         | 400019 nobody     | 0 0      0 0     |
    suspend                        | order 10                | 422002            | 0 0      0 0     |
    close                          | order 10                | 400009            | 0 0      0 0     |
    close; open                    | order 10                | gpa.credit        | 10 10    0 0     | f-10 a10
    order 100                      | unload 100              | gpa.debit         | 0 0      0 0     | f100 a-100
    order 100                      | unload 30               | gpa.debit         | 70 70    0 0     | f30 a-30
    order 100; unload 30           | unload 70               | gpa.debit         | 0 0      0 0     | f70 a-70
    order 100; unload 30           | unload 71               | 412002            | 70 70    0 0     |
    order 50; order 50             | unload 51               | 412002            | 100 100  0 0     |
    order 100 one                  | unload 100              | gpa.debit         | 0 0      0 0     | f100 a-100
    order 100 one                  | unload 101              | 412002            | 100 100  0 0     |
    order 100                      | unload 100.01           | 412002            | 100 100  0 0     |
    order 100                      | unload 0                | 400001 amount     | 100 100  0 0     |
    order 100; buy 30              | unload 100              | 422001            | 100 70   0 0     |
    order 100; buy 30              | unload 70               | gpa.debit         | 30 0     0 0     | f70 a-70
    order 100; buy 30; clear 30    | unload 70               | gpa.debit         | 0 0      0 0     | f70 a-70
    order 100; suspend             | unload 100              | gpa.debit         | 0 0      0 0     | f100 a-100
    order 100; close               | unload 100              | gpa.debit         | 0 0      0 0     | f100 a-100
    order 10                       | fee one                 | fee.charge        | 9 9      0 0     | a-1 e1
    order 10                       | fee one one=4           | fee.charge        | 5 5      0 0     | a-1 e1, a-4 e4
    order 4                        | fee one one=4           | 422001            | 4 4      0 0     |
    order 4; buy 4                 | fee one                 | 422001            | 4 0      0 0     |
    -                              | fee one                 | 422001            | 0 0      0 0     |
    -                              | fee one=0               | fee.charge        | 0 0      0 0     |
    order 10                       | fee tenth               | 422003 tenth      | 10 10    0 0     |
    order 10                       | fee                     | 400001 fees       | 10 10    0 0     |
    order 10; suspend              | fee one                 | 422002            | 10 10    0 0     |
    order 10; fee one              | refund                  | fee.charge.refund | 10 10    0 0     | a1 e-1
    order 10; fee one=4            | refund                  | fee.charge.refund | 10 10    0 0     | a4 e-4
    order 10; fee one; refund      | refund                  | 422004            | 10 10    0 0     |
    order 10; fee one=0            | refund                  | 422004            | 10 10    0 0     |
    order 10 one                   | refund                  | fee.charge.refund | 11 11    0 0     | a1 e-1
    order 10; fee one; suspend     | refund                  | fee.charge.refund | 10 10    0 0     | a1 e-1
    order 10; buy 3                | refund buy              | 400020            | 10 7     0 0     |
    order 50                       | pay 20                  | transfer.peer     | 30 30    20 20   | a-20 t20, a20 t-20
    order 50                       | pay 50                  | transfer.peer     | 0 0      50 50   | a-50 t50, a50 t-50
    order 50                       | pay 50.01               | 422001            | 50 50    0 0     |
    order 50; buy 10               | pay 41                  | 422001            | 50 40    0 0     |
    order 50; pay 50               | repay 20                | transfer.peer     | 20 20    30 30   | a-20 t20, a20 t-20
    order 50; suspend              | pay 1                   | 422002            | 50 50    0 0     |
    order 50; suspend friend       | pay 1                   | 422002            | 50 50    0 0     |
    order 50                       | pay himself 1           | 400001 recipient_user_token | 50 50 0 0 |
    order 50                       | collect 20              | transfer.program  | 30 30    0 0     | f20 a-20
    order 50                       | collect 20 one tenth    | transfer.program  | 27 27    0 0     | f20 a-20, a-1 e1, a-2 e2
    order 50                       | collect 49.5 one        | 412004            | 50 50    0 0     |
    order 50; buy 10               | collect 41              | 412004            | 50 40    0 0     |
    order 50; collect 50           | unload 1                | 422001            | 0 0      0 0     |
    order 50; suspend              | collect 1               | 422002            | 50 50    0 0     |
    order 100                      | buy 30                  | authorization     | 100 70   0 0     | a-30 h30
    order 20                       | buy 30                  | authorization     | 20 0     0 0     | a-20 h20
    order 50; pay 50               | buy 1                   | authorization     | 0 0      50 50   |
"""

LETTERS = {"program_funding": "f", "available": "a", "held": "h", "settlement": "s", "fees": "e", "transit": "t"}
ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()[1:]]


class MovementShop(Shop):
    """A shop that also runs the steps of a table row. Each row has a new user, friend and funding source."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.database, self.rows = Database(server.db), 0
        usd = {"amount": 1, "currency_code": "USD"}
        self.make("fees", token="one", name="One", **usd)
        self.make("fees", token="tenth", name="A tenth", amount=10, currency_code="USD", type="PERCENTAGE")
        self.make("fees", token="off", name="Off", active=False, **usd)
        self.make("fees", token="live", name="Live", category="REALTIME", **usd)
        self.make("fees", token="euro", name="Euro", amount=1, currency_code="EUR")

    def play(self, steps: list[str]) -> Reply:
        """Run the steps for new users and return the answer to the last step."""
        self.rows += 1
        self.user, self.friend, self.source = f"user{self.rows}", f"friend{self.rows}", f"source{self.rows}"
        self.make("fundingsources/program", token=self.source, name="Source")
        self.make("programtransfers/types", token=self.source, memo="Debts", program_funding_source_token=self.source)
        for user in (self.user, self.friend):
            self.make("users", token=user)
            self.make("cards", token=user, user_token=user, card_product_token="plain")
        self.last: dict[str, Any] = {}
        for number, step in enumerate(steps):
            if number == len(steps) - 1:
                self.entries_before = self.entries()
            reply = self.step(*step.split())
            if number < len(steps) - 1:
                assert reply.status in (200, 201), (step, reply.text)
                self.last[step.split()[0]] = reply.json
        return reply

    def step(self, verb: str, *words: str) -> Reply:
        """Execute one step and return its answer."""
        usd = {"currency_code": "USD", "amount": words[0] if words else None}
        user, post = {"user_token": self.user}, self.client.post
        match verb:
            case "order":
                body = {"funding_source_token": self.source, "fees": fees_of(words[1:]), **usd, **user}
                return post("/gpaorders", {**body, "fees": body["fees"] or None})
            case "unload":
                return post("/gpaorders/unloads", {"original_order_token": self.last["order"]["token"], "amount": words[0]})
            case "fee":
                return post("/feecharges", {"fees": fees_of(words), **user})
            case "refund":
                return post("/feerefunds", {"original_fee_transaction_token": self.to_refund(*words)})
            case "pay" if words[0] == "himself":
                sides = {"sender_user_token": self.user, "recipient_user_token": self.user}
                return post("/peertransfers", {**usd, "amount": words[1], **sides})
            case "pay" | "repay":
                sides = [self.user, self.friend] if verb == "pay" else [self.friend, self.user]
                return post("/peertransfers", {"sender_user_token": sides[0], "recipient_user_token": sides[1], **usd})
            case "collect":
                return post("/programtransfers", {"type_token": self.source, "fees": fees_of(words[1:]), **usd, **user})
            case "buy":
                return self.simulate("authorization", card_token=self.user, amount=words[0], mid="m1")
            case "clear":
                named = {"original_transaction_token": self.last["buy"]["transaction"]["token"]}
                return self.simulate("clearing", amount=words[0], **named)
            case "suspend":
                body = {"status": "SUSPENDED", "reason_code": "05", "channel": "API"}
                return post("/usertransitions", {"user_token": self.friend if words else self.user, **body})
            case "close" | "open":
                return self.client.request("PUT", f"/fundingsources/program/{self.source}", {"active": verb == "open"})
            case _:
                raise AssertionError(verb)

    def to_refund(self, verb: str = "fee") -> str:
        """Return the token of the transaction that a refund names."""
        if verb == "buy":
            return str(self.last["buy"]["transaction"]["token"])
        return str((self.last.get("fee") or self.last["order"])["fees"][0]["transaction_token"])

    def entries(self) -> list[str]:
        """Return all journal entries in their order."""
        with self.database.read() as db:
            rows = db.execute(select(*(journal.c[name] for name in LETTERS)).order_by(journal.c.id)).all()
        return [" ".join(f"{letter}{amount / 100:g}" for letter, amount in zip(LETTERS.values(), row, strict=True) if amount)
                for row in rows]  # fmt: skip

    def new_entries(self) -> str:
        """Return the entries that the last step booked."""
        return ", ".join(self.entries()[len(self.entries_before) :])


def fees_of(words: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the fees that words like ``one`` and ``one=4`` stand for."""
    pairs = [word.partition("=") for word in words]
    return [{"token": name, **({"overrideAmount": amount} if is_set else {})} for name, is_set, amount in pairs]


server = module_server(chosen_databases())


@pytest.fixture(scope="module")
def shop(server: RunningServer) -> Iterator[MovementShop]:
    """One program for the whole table, on each database."""
    shop = MovementShop(server)
    yield shop
    shop.client.close()
    shop.database.close()


@pytest.mark.parametrize(("before", "message", "answer", "balances", "entries"), ROWS, ids=lambda cell: cell or "none")
def test_movement(shop: MovementShop, before: str, message: str, answer: str, balances: str, entries: str) -> None:
    """The message of each row gets the answer, balances and entries in the row. A GET returns a created resource unchanged."""
    reply = shop.play([*(step.strip() for step in before.split(";") if step != "-"), message])
    money = [f"{amount:g}" for user in (shop.user, shop.friend) for amount in shop.money(user)]
    assert (money, shop.new_entries()) == (balances.split(), entries)
    expected, *named = answer.split()
    if expected.isdigit():
        assert reply.json["error_code"] == expected, reply.text
        assert all(name in reply.json["error_message"] for name in named), reply.text
        return
    assert reply.status == 201, reply.text
    check_told(shop, message.split()[0], expected, reply.json)


PATHS = {
    "order": "/gpaorders", "unload": "/gpaorders/unloads", "fee": "/feecharges", "pay": "/peertransfers",
    "repay": "/peertransfers", "collect": "/programtransfers",
}  # fmt: skip
OBJECTS = {
    "order": "gpa_order", "unload": "gpa_order_unload", "fee": "fee_transfer", "pay": "peer_transfer", "repay": "peer_transfer",
    "collect": "program_transfer",
}  # fmt: skip


def check_told(shop: MovementShop, verb: str, kind: str, answer: dict[str, Any]) -> None:
    """Check that GET returns the created object, and that its transaction is listed, has the type and shows the object."""
    if verb == "buy":
        assert answer["transaction"]["type"] == kind
        return
    if verb in PATHS:
        assert shop.get(f"{PATHS[verb]}/{answer['token']}") == answer
    listed = [
        transaction
        for transaction in shop.listed(user_token=shop.friend if verb == "repay" else shop.user)
        if transaction["type"] == kind
    ]
    (newest, *_) = listed
    assert shop.get(f"/transactions/{newest['token']}") == newest
    assert (newest["state"], newest["response"]["code"]) == ("COMPLETION", "0000")
    assert newest["polarity"] == ("CREDIT" if newest["gpa"]["impacted_amount"] > 0 else "DEBIT")
    if verb in OBJECTS:
        assert newest[OBJECTS[verb]] == answer
    else:
        assert newest["token"] == answer["transaction_token"]
        assert newest["fee"] == answer["fee"]
    for detail in answer.get("fees", ()):
        charged = shop.get(f"/transactions/{detail['transaction_token']}")
        assert (charged["type"], charged["fee"]) == ("fee.charge", detail["fee"])


def test_the_table_is_long_enough() -> None:
    """The table has at least 55 rows."""
    assert len(ROWS) >= 55
