"""Scenario: people with cards, merchants, a funding source, a webhook listener, and a clock that only the test moves."""

from collections.abc import Mapping
from typing import Any

from tests.support.issuing import client_of, made_by, new_program, read_of
from tests.support.server import Reply, RunningServer

MONDAY = "2035-06-04T09:00:00Z"


class Visit:
    """The outcome of a message. Amounts are text, as on a receipt."""

    def __init__(self, scenario: "Scenario", transaction: Mapping[str, Any]) -> None:
        self._scenario, self.transaction = scenario, transaction
        self.token: str = transaction["token"]
        self.type: str = transaction["type"]
        self.code: str = transaction["response"]["code"]
        self.amount = scenario.text(transaction["amount"])
        self.approved = transaction["state"] != "DECLINED"

    @property
    def state(self) -> str:
        """The current state of the transaction. ``transaction`` has the first one."""
        return str(self._scenario.get(f"/transactions/{self.token}")["state"])

    @property
    def order(self) -> str | None:
        """The JIT load of this message, such as ``PENDING 10.00``, or None if no money was loaded or returned."""
        order = self.transaction.get("gpa_order") or self.transaction.get("gpa_order_unload")
        return None if order is None else f"{order['state']} {self._scenario.text(order['amount'])}"

    @property
    def family(self) -> list[str]:
        """The types of the chain's other transactions on the card's side, the oldest first."""
        related = self._scenario.get(f"/transactions/{self.token}/related", count=100, sort_by="createdTime")["data"]
        return [transaction["type"] for transaction in related if transaction["network"] != "MARQETA"]


class Person:
    """A user with a card."""

    def __init__(self, scenario: "Scenario", name: str, product: str) -> None:
        self._scenario, self.name, self.card = scenario, name, f"{name}s_card"
        scenario.make("users", token=name)
        scenario.make("cards", token=self.card, user_token=name, card_product_token=product)

    def _gpa(self) -> dict[str, Any]:
        return dict(self._scenario.get(f"/balances/{self.name}")["gpa"])

    @property
    def ledger(self) -> str:
        """The ledger balance."""
        return self._scenario.text(self._gpa()["ledger_balance"])

    @property
    def available(self) -> str:
        """The available balance."""
        return self._scenario.text(self._gpa()["available_balance"])

    @property
    def held(self) -> str:
        """The amount that holds reserve."""
        gpa = self._gpa()
        return self._scenario.text(gpa["ledger_balance"] - gpa["available_balance"])

    def gets(self, amount: str) -> Visit:
        """Simulate an original credit to the card."""
        body = {"type": "person_to_person", "sender_data": {"funding_source": "debit", "sender_name": "A friend"}}
        return self._scenario.say("financial/originalcredit", card_token=self.card, mid="friends", amount=amount, **body)

    def loses_card(self) -> None:
        """Terminate the card as lost."""
        self._scenario.make("cardtransitions", card_token=self.card, state="TERMINATED", reason_code="10", channel="API")


class Merchant:
    """A merchant. Its card acceptor is in every request."""

    def __init__(self, scenario: "Scenario", name: str, mcc: str, **terminal: Any) -> None:
        self._scenario, self.mid = scenario, name.lower().replace(" ", "_")
        self.acceptor = {"name": name, "mcc": mcc, "country": "USA", "partial_approval_capable": True, **terminal}

    def _ask(self, path: str, card: str, amount: str, fields: dict[str, Any]) -> Visit:
        return self._scenario.say(path, card_token=card, amount=amount, mid=self.mid, card_acceptor=self.acceptor, **fields)

    def authorize(self, card: str, amount: str, **fields: Any) -> Visit:
        """Simulate an authorization."""
        return self._ask("authorization", card, amount, fields)

    def debit(self, card: str, amount: str, **fields: Any) -> Visit:
        """Simulate a PIN debit, which settles at once unless it is a pre-authorization."""
        return self._ask("financial", card, amount, fields)

    def hands_out(self, card: str, amount: str, **fields: Any) -> Visit:
        """Simulate a cash withdrawal."""
        return self._ask("financial/withdrawal", card, amount, fields)

    def shows_balance(self, card: str) -> Visit:
        """Simulate a balance inquiry at a cash machine."""
        body = {"card_token": card, "mid": self.mid, "card_acceptor": self.acceptor, "account_type": "checking"}
        return self._scenario.say("financial/balanceinquiry", **body)

    def completes(self, visit: Visit, amount: str) -> Visit:
        """Complete a PIN debit pre-authorization with its final amount."""
        return self._follow("financial/advice", visit, amount)

    def clear(self, visit: Visit, amount: str, **fields: Any) -> Visit:
        """Simulate a clearing."""
        return self._follow("clearing", visit, amount, **fields)

    def refund(self, visit: Visit, amount: str) -> Visit:
        """Simulate a refund of a purchase."""
        return self._follow("clearing", visit, amount, is_refund=True)

    def reverse(self, visit: Visit, amount: str, **fields: Any) -> Visit:
        """Simulate a reversal of a hold, or of a purchase that was settled at once."""
        return self._follow("reversal", visit, amount, **fields)

    def lower(self, visit: Visit, amount: str) -> Visit:
        """Simulate an advice with a lower total."""
        return self._follow("authorization/advice", visit, amount)

    def grow(self, visit: Visit, amount: str) -> Visit:
        """Simulate an increment."""
        body = {"preceding_related_transaction_token": visit.token, "amount": amount}
        reply = self._scenario.client.post("/simulations/cardtransactions/authorization.incremental", body)
        return Visit(self._scenario, made_by(reply)["transaction"])

    def _follow(self, path: str, visit: Visit, amount: str, **fields: Any) -> Visit:
        return self._scenario.say(path, original_transaction_token=visit.token, amount=amount, **fields)


class Scenario:
    """A new program on a shared server. Its frozen clock begins on Monday, 4 June 2035, at 09:00 UTC."""

    def __init__(self, server: RunningServer, currency: str = "USD") -> None:
        self.server, self.places = server, {"JPY": 0, "KWD": 3}.get(currency, 2)
        self.program = new_program(server, currency=currency)
        self.client = client_of(server, self.program)
        read_of(self.client.post("/sandbox/clock", {"freeze": True}))
        self.until(MONDAY)
        self.make("fundingsources/program", token="bank", name="The bank")

    # --- People and merchants --------------------------------------------------------------

    def person(self, name: str, *, jit: str | None = "PROGRAM_FUNDING_SOURCE", **config: Any) -> Person:
        """Create a user with a card. ``jit`` is the destination of refunds, or None for a card without JIT Funding."""
        funding = {"enabled": jit is not None, "refunds_destination": jit or "", "funding_source_token": "bank" if jit else ""}
        life, where = {"activate_upon_issue": True}, {"ecommerce": True, "atm": True}
        config = {"card_life_cycle": life, "poi": where, "jit_funding": {"program_funding_source": funding}, **config}
        self.make("cardproducts", token=f"{name}s_product", name="Card", start_date="2020-01-01", config=config)
        return Person(self, name, f"{name}s_product")

    def merchant(self, name: str, mcc: str = "5411", **terminal: Any) -> Merchant:
        """Return a new merchant."""
        return Merchant(self, name, mcc, **terminal)

    # --- Time ------------------------------------------------------------------------------

    def until(self, time: str) -> None:
        """Move the clock to this time."""
        read_of(self.client.post("/sandbox/clock", {"set": time}))

    def wait(self, time: str) -> None:
        """Move the clock forward. Everything that is due then has happened afterwards."""
        read_of(self.client.post("/sandbox/clock/advance", {"by": time}))

    # --- Requests --------------------------------------------------------------------------

    def make(self, path: str, **body: Any) -> dict[str, Any]:
        """Create a resource; return the answer."""
        return made_by(self.client.post(f"/{path}", body))

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Return the answer of a GET."""
        return read_of(self.client.get(path, query=query))

    def try_to(self, path: str, **body: Any) -> Reply:
        """Send a simulation; return the reply with any status."""
        return self.client.post(f"/simulate/{path}", body)

    def say(self, path: str, **body: Any) -> Visit:
        """Send a simulation that leads to a transaction, approved or declined; return its outcome."""
        return Visit(self, made_by(self.try_to(path, **body))["transaction"])

    def text(self, amount: float) -> str:
        """Return an amount with the decimals of the currency."""
        return f"{amount:.{self.places}f}"

    def listens(self) -> None:
        """Create a webhook for all transaction events that posts to the listener's box."""
        config = {"url": self.box(), "basic_auth_username": "scenario", "basic_auth_password": "Receiver_7421!Lantern"}
        self.make("webhooks", name="Listener", active=True, events=["transaction.*"], config=config)

    def box(self) -> str:
        """Return the URL of the listener's box in the webhook inbox."""
        return f"{self.server.root_url}/sandbox/inbox/{self.program['token']}/listener"

    def hears(self, kind: str) -> dict[str, Any]:
        """Wait for a notification of a transaction type; return the transaction."""
        (message,) = self.get("/sandbox/inbox/listener", type=kind, wait="30s", count=1)["data"]
        return next(transaction for transaction in message["body"]["transactions"] if transaction["type"] == kind)
