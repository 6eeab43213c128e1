"""Amounts of every message: the tables of docs/reference/amounts.md, sent through both interfaces and read back."""

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cardwright.resources.simulations.v2_card_transactions import EVENTS
from tests.support.databases import chosen_databases
from tests.support.fixtures import shared_server
from tests.support.server import Reply, RunningServer
from tests.support.shop import JIT, YEAR, Shop
from tests.support.waiting import until_all_are_delivered

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "amounts.md"

V2 = "/simulations/cardtransactions/{}"
EXPIRY = "authorization.reversal.issuerexpiration"

# The path of the older simulations for each root event, and its fields besides card, merchant and amount.
OLDER: dict[str, tuple[str, dict[str, Any]]] = {
    "authorization": ("authorization", {}),
    "authorization.cashback": ("authorization", {}),
    "pindebit": ("financial", {"card_acceptor": {}}),
    "pindebit.cashback": ("financial", {"card_acceptor": {}}),
    "pindebit.authorization": ("financial", {"card_acceptor": {}, "is_pre_auth": True}),
    "pindebit.atm.withdrawal": ("financial/withdrawal", {}),
    "pindebit.balanceinquiry": ("financial/balanceinquiry", {"card_acceptor": {}, "account_type": "checking"}),
    "original.credit.auth_plus_capture": ("financial/originalcredit", {"type": "disbursement"}),
}


class Line(NamedTuple):
    """A row of a table: the message, and the expected values of its transaction."""

    number: str
    message: str
    state: str
    request_amount: str
    amount: str
    order: str
    impacted_amount: str
    settlement_date: str
    source: str

    @property
    def states(self) -> tuple[str, str]:
        """The first state and the last one, each with the response code if it is not 0000."""
        first, _, last = self.state.partition(", then ")
        code = first.partition(" ")[2]
        return first, f"{last or first.partition(' ')[0]}{f' {code}' if code else ''}"

    def with_state(self, state: str) -> dict[str, str]:
        """Return the row as a dictionary, with the given state."""
        return {**self._asdict(), "state": state}


def tables_of(page: str) -> dict[str, list[Line]]:
    """Return the tables of amounts of a page by their headings."""
    tables = {}
    for section in page.split("\n## ")[1:]:
        cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in section.splitlines() if line.startswith("|")]
        tables[section.splitlines()[0]] = [Line(*row) for row in cells if row[0].isdigit()]
    return {heading: lines for heading, lines in tables.items() if lines}


TABLES = tables_of(PAGE.read_text(encoding="utf-8"))


class Stage(Shop):
    """A program for one table, with its account, a webhook, and one of the two interfaces for messages."""

    def __init__(self, server: RunningServer, heading: str, way: str) -> None:
        super().__init__(server)
        self.way, self.days, self.sent = way, 1, dict[str, str]()
        url = f"{server.root_url}/sandbox/inbox/{self.program['token']}/news"
        config = {"url": url, "basic_auth_username": "user", "basic_auth_password": "Password-of-20-letters"}
        self.make("webhooks", name="News", events=["transaction.*"], config=config)
        self.card = "jit"
        if heading == "Preloaded account":
            self.card, usd = "plain", {"currency_code": "USD"}
            self.make("gpaorders", user_token="bo", amount=250, funding_source_token="harbor_funding", **usd)
        elif heading == "JIT Funding with an account balance":
            self.product("keeps", jit_funding={"program_funding_source": {**JIT, "refunds_destination": "GPA"}})
            self.make("users", token="keeps")
            self.make("cards", token="keeps", user_token="keeps", card_product_token="keeps")
            self.card = "keeps"
        elif heading == "Inactive funding source":
            assert self.client.put("/fundingsources/program/harbor_funding", {"active": False}).status == 200
        elif heading == "Suspended card":
            self.make("cardtransitions", card_token="jit", state="SUSPENDED", channel="API", reason_code="01")

    def product(self, token: str, **config: Any) -> None:
        """Create a card product that allows quasi-cash."""
        controls = {"accepted_countries_token": "decline_ofac_countries", "allow_quasi_cash": True}
        super().product(token, transaction_controls=controls, **config)

    def send(self, line: Line) -> dict[str, Any]:
        """Send the message of a row, and return its transaction from the answer."""
        parts = re.fullmatch(
            r"(\S+?)(?: ([0-9.]+)(?:\+(\d+))?)?(?: of (\d+))?( with force_post)?( with partial approval)?", line.message
        )
        assert parts is not None, line.message
        event, amount, cash, of, forced, capable = parts.groups()
        original = None if of is None else self.sent[of]
        if event == EXPIRY:
            assert original is not None
            transaction = self.expired(original)
        else:
            fields = {} if amount is None else {"amount": amount}
            if cash is not None:
                fields["cash_back_amount"] = cash
            reply = self.older(event, fields, original, bool(forced), bool(capable)) if self.way == "v1" else None
            reply = reply or self.newer(event, fields, original, bool(forced), bool(capable))
            assert reply.status == 201, reply.text
            transaction = exact(reply)["transaction"]
        self.sent[line.number] = transaction["token"]
        return transaction

    def older(self, event: str, fields: dict[str, Any], original: str | None, forced: bool, capable: bool) -> Reply | None:
        """Send a message through the older simulations, and return the answer; None if they do not have the message."""
        named = {"original_transaction_token": original, **fields}
        if event == "refund":
            return None if original is None else self.simulate("clearing", **named, is_refund=True)
        if forced:
            knows = event == "authorization.clearing" and original is not None
            return self.simulate("clearing", **named, force_post=True) if knows else None
        if original is not None:
            if event == "pindebit.authorization.clearing":
                return self.simulate("financial/advice", **named)
            kinds = {"reversal": "reversal", "advice": "authorization/advice", "clearing": "clearing"}
            path = next((path for word, path in kinds.items() if word in event.split(".")), None)
            return None if path is None else self.simulate(path, **named)
        if event not in OLDER:
            return None
        path, defaults = OLDER[event]
        terminal = {} if capable else {"card_acceptor": {"partial_approval_capable": False}}
        return self.simulate(path, **{"card_token": self.card, "mid": "m1", **terminal, **defaults, **fields})

    def newer(self, event: str, fields: dict[str, Any], original: str | None, forced: bool, capable: bool) -> Reply:
        """Send a message through Simulations 2.0, which have every message, and return the answer."""
        body = dict(fields)
        if original is not None and event != "refund" and not forced:
            body["preceding_related_transaction_token"] = original
        else:
            body |= {"card_token": self.card, **({"force_post": True} if forced else {})}
        if capable:
            body["pos"] = {"partial_approval_capable": True}
        if event == "pindebit.balanceinquiry":
            body["account_type"] = "checking"
        return self.client.post(V2.format(event), body)

    def expired(self, original: str) -> dict[str, Any]:
        """Advance the clock by eight days, and return the expiry of a hold."""
        self.days += 8
        self.clock(f"{YEAR}-{self.days:02}T09:00:00Z")
        (expiry,) = self.rows(f"/transactions/{original}/related", type=EXPIRY, version="v1")
        return expiry

    def read(self, token: str, version: str) -> dict[str, Any]:
        """Return a transaction by its token."""
        return exact(self.client.get(f"/transactions/{token}", query={"version": version}))

    def rows(self, path: str = "/transactions", **query: object) -> list[dict[str, Any]]:
        """Return a list's transactions in all states."""
        return list(exact(self.client.get(path, query={"count": 100, "state": "ALL", **query}))["data"])

    def notifications(self) -> list[dict[str, Any]]:
        """Wait for all deliveries, and return the transactions that the webhook has received."""
        until_all_are_delivered(self.client)
        box = exact(self.client.get("/sandbox/inbox/news", query={"count": 100}))["data"]
        return [transaction for message in box for transaction in message["body"]["transactions"]]


def exact(reply: Reply) -> Any:
    """Return the JSON of an answer, with exact decimals."""
    assert reply.status < 300, reply.text
    return json.loads(reply.text, parse_float=Decimal)


def plain(number: Any, sign: str = "") -> str:
    """Return a number as a table shows it."""
    value = Decimal(number)
    whole = value == value.to_integral_value()
    return f"{int(value) if whole else value:{sign if value else ''}}"


def line_of(line: Line, transaction: dict[str, Any]) -> dict[str, str]:
    """Return the amounts of a transaction in the form of a row on the page."""
    code = transaction["response"]["code"]
    unload, order = transaction.get("gpa_order_unload"), transaction.get("gpa_order")
    assert unload is None or order is None
    shown = unload or order
    assert shown is None or shown["amount"] == shown["funding"]["amount"]
    impacted, date = transaction["gpa"].get("impacted_amount"), transaction.get("settlement_date")
    assert {balance.get("impacted_amount") for balance in transaction["gpa"]["balances"].values()} == {impacted}
    assert date in (None, f"{transaction['created_time'][:10]}T00:00:00Z")
    return {
        **line._asdict(),
        "state": f"{transaction['state']}{'' if code == '0000' else f' {code}'}",
        "request_amount": plain(transaction["request_amount"]),
        "amount": plain(transaction["amount"]),
        "order": "-" if shown is None else f"{'unload ' if unload else ''}{shown['state']} {plain(shown['amount'])}",
        "impacted_amount": "none" if impacted is None else plain(impacted, "+"),
        "settlement_date": "none" if date is None else "day",
    }


def by_token(transactions: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {transaction["token"]: transaction for transaction in transactions}


server = shared_server(chosen_databases())


@pytest.mark.parametrize("way", ["v1", "2.0"])
@pytest.mark.parametrize("heading", TABLES)
def test_every_message_shows_the_amounts_of_the_table(server: RunningServer, heading: str, way: str) -> None:
    """Answer, single read, list and notification have the amounts on the page, in both transaction models."""
    stage, lines = Stage(server, heading, way), TABLES[heading]
    for line in lines:
        answered = stage.send(line)
        first = line.with_state(line.states[0])
        for transaction in (answered, stage.read(answered["token"], "v1"), stage.read(answered["token"], "v2")):
            assert line_of(line, transaction) == first
    notifications = by_token(stage.notifications())
    for version in ("v1", "v2"):
        listed = by_token(stage.rows(version=version))
        for line in lines:
            token, last = stage.sent[line.number], line.with_state(line.states[1])
            assert line_of(line, listed[token]) == last
            assert line_of(line, stage.read(token, version)) == last
            assert line_of(line, notifications[token]) == line.with_state(line.states[0])
    stage.client.close()


def test_the_page_has_every_message() -> None:
    """Every event has a row, and every row has a source and a consecutive number."""
    lines = [line for table in TABLES.values() for line in table]
    assert {event.name for event in EVENTS} - {line.message.split(" ")[0] for line in lines} == set()
    assert [line for line in lines if not line.source] == []
    assert all([line.number for line in table] == [str(index + 1) for index in range(len(table))] for table in TABLES.values())
