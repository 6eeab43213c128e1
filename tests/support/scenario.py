"""A scenario for stories: people with cards, merchants, a bank, a listener, and a clock that only the story moves."""

from collections.abc import Mapping
from typing import Any

from tests.support.issuing import client_of, made_by, new_program, read_of
from tests.support.server import Reply, RunningServer

MONDAY = "2035-06-04T09:00:00Z"


class Visit:
    """What became of a message, in the words of a story. Amounts are text, as on a receipt."""

    def __init__(self, scenario: "Scenario", transaction: Mapping[str, Any]) -> None:
        self._scenario, self.transaction = scenario, transaction
        self.token: str = transaction["token"]
        self.type: str = transaction["type"]
        self.code: str = transaction["response"]["code"]
        self.amount = scenario.text(transaction["amount"])
        self.approved = transaction["state"] != "DECLINED"

    @property
    def state(self) -> str:
        """The state of the transaction now; the receipt has the first one."""
        return str(self._scenario.get(f"/transactions/{self.token}")["state"])

    @property
    def order(self) -> str | None:
        """The funding order of this message, such as ``PENDING 10.00``; None when no money was loaded or sent back."""
        order = self.transaction.get("gpa_order") or self.transaction.get("gpa_order_unload")
        return None if order is None else f"{order['state']} {self._scenario.text(order['amount'])}"

    @property
    def family(self) -> list[str]:
        """The types of the chain's other transactions on the card's side, the oldest first."""
        related = self._scenario.get(f"/transactions/{self.token}/related", count=100, sort_by="createdTime")["data"]
        return [transaction["type"] for transaction in related if transaction["network"] != "MARQETA"]


class Person:
    """Somebody with a card."""

    def __init__(self, scenario: "Scenario", name: str, product: str) -> None:
        self._scenario, self.name, self.card = scenario, name, f"{name}s_card"
        scenario.make("users", token=name)
        scenario.make("cards", token=self.card, user_token=name, card_product_token=product)

    def _gpa(self) -> dict[str, Any]:
        return dict(self._scenario.get(f"/balances/{self.name}")["gpa"])

    @property
    def ledger(self) -> str:
        """All the money on the account."""
        return self._scenario.text(self._gpa()["ledger_balance"])

    @property
    def available(self) -> str:
        """What a purchase could use."""
        return self._scenario.text(self._gpa()["available_balance"])

    @property
    def held(self) -> str:
        """What open authorizations hold."""
        gpa = self._gpa()
        return self._scenario.text(gpa["ledger_balance"] - gpa["available_balance"])

    def gets(self, amount: str) -> Visit:
        """A friend sends money to the card."""
        body = {"type": "person_to_person", "sender_data": {"funding_source": "debit", "sender_name": "A friend"}}
        return self._scenario.say("financial/originalcredit", card_token=self.card, mid="friends", amount=amount, **body)

    def loses_card(self) -> None:
        """The card is reported lost and ended."""
        self._scenario.make("cardtransitions", card_token=self.card, state="TERMINATED", reason_code="10", channel="API")


class Merchant:
    """Somebody who takes cards; what it says of itself goes into every message."""

    def __init__(self, scenario: "Scenario", name: str, mcc: str, **terminal: Any) -> None:
        self._scenario, self.mid = scenario, name.lower().replace(" ", "_")
        self.acceptor = {"name": name, "mcc": mcc, "country": "USA", "partial_approval_capable": True, **terminal}

    def _ask(self, path: str, card: str, amount: str, fields: dict[str, Any]) -> Visit:
        return self._scenario.say(path, card_token=card, amount=amount, mid=self.mid, card_acceptor=self.acceptor, **fields)

    def authorize(self, card: str, amount: str, **fields: Any) -> Visit:
        """Asks for a hold."""
        return self._ask("authorization", card, amount, fields)

    def debit(self, card: str, amount: str, **fields: Any) -> Visit:
        """Takes a PIN debit: held and settled at once."""
        return self._ask("financial", card, amount, fields)

    def hands_out(self, card: str, amount: str, **fields: Any) -> Visit:
        """Counts out cash, as a machine does."""
        return self._ask("financial/withdrawal", card, amount, fields)

    def shows_balance(self, card: str) -> Visit:
        """Shows the balance on the screen of a machine."""
        body = {"card_token": card, "mid": self.mid, "card_acceptor": self.acceptor, "account_type": "checking"}
        return self._scenario.say("financial/balanceinquiry", **body)

    def completes(self, visit: Visit, amount: str) -> Visit:
        """Names the final amount of a PIN debit that was authorized before."""
        return self._follow("financial/advice", visit, amount)

    def clear(self, visit: Visit, amount: str, **fields: Any) -> Visit:
        """Sends the bill."""
        return self._follow("clearing", visit, amount, **fields)

    def refund(self, visit: Visit, amount: str) -> Visit:
        """Gives money back."""
        return self._follow("clearing", visit, amount, is_refund=True)

    def reverse(self, visit: Visit, amount: str, **fields: Any) -> Visit:
        """Lets go of a hold, or undoes what was settled at once."""
        return self._follow("reversal", visit, amount, **fields)

    def lower(self, visit: Visit, amount: str) -> Visit:
        """Tells of a new, lower total."""
        return self._follow("authorization/advice", visit, amount)

    def grow(self, visit: Visit, amount: str) -> Visit:
        """Asks for more on top."""
        body = {"preceding_related_transaction_token": visit.token, "amount": amount}
        reply = self._scenario.client.post("/simulations/cardtransactions/authorization.incremental", body)
        return Visit(self._scenario, made_by(reply)["transaction"])

    def _follow(self, path: str, visit: Visit, amount: str, **fields: Any) -> Visit:
        return self._scenario.say(path, original_transaction_token=visit.token, amount=amount, **fields)


class Scenario:
    """A program of the story's own on a shared server; it is Monday, 4 June 2035, nine o'clock."""

    def __init__(self, server: RunningServer, currency: str = "USD") -> None:
        self.server, self.places = server, {"JPY": 0, "KWD": 3}.get(currency, 2)
        self.program = new_program(server, currency=currency)
        self.client = client_of(server, self.program)
        read_of(self.client.post("/sandbox/clock", {"freeze": True}))
        self.until(MONDAY)
        self.make("fundingsources/program", token="bank", name="The bank")

    # --- Who lives there -------------------------------------------------------------------

    def person(self, name: str, *, jit: str | None = "PROGRAM_FUNDING_SOURCE", **config: Any) -> Person:
        """Somebody new; ``jit`` is where refunds go, None for a card with money of its own."""
        funding = {"enabled": jit is not None, "refunds_destination": jit or "", "funding_source_token": "bank" if jit else ""}
        life, where = {"activate_upon_issue": True}, {"ecommerce": True, "atm": True}
        config = {"card_life_cycle": life, "poi": where, "jit_funding": {"program_funding_source": funding}, **config}
        self.make("cardproducts", token=f"{name}s_product", name="Card", start_date="2020-01-01", config=config)
        return Person(self, name, f"{name}s_product")

    def merchant(self, name: str, mcc: str = "5411", **terminal: Any) -> Merchant:
        """Somebody new who takes cards."""
        return Merchant(self, name, mcc, **terminal)

    # --- Time ------------------------------------------------------------------------------

    def until(self, time: str) -> None:
        """Lets time pass until then."""
        read_of(self.client.post("/sandbox/clock", {"set": time}))

    def wait(self, time: str) -> None:
        """Lets time pass; what is due has happened afterwards."""
        read_of(self.client.post("/sandbox/clock/advance", {"by": time}))

    # --- Words -----------------------------------------------------------------------------

    def make(self, path: str, **body: Any) -> dict[str, Any]:
        """Creates a resource."""
        return made_by(self.client.post(f"/{path}", body))

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """What a GET answers."""
        return read_of(self.client.get(path, query=query))

    def try_to(self, path: str, **body: Any) -> Reply:
        """The answer to a simulation, whatever it is."""
        return self.client.post(f"/simulate/{path}", body)

    def say(self, path: str, **body: Any) -> Visit:
        """A simulation that is decided, one way or the other."""
        return Visit(self, made_by(self.try_to(path, **body))["transaction"])

    def text(self, amount: float) -> str:
        """An amount as a receipt has it."""
        return f"{amount:.{self.places}f}"

    def listens(self) -> None:
        """Subscribes the scenario's listener to everything that happens with cards' money."""
        config = {"url": self.box(), "basic_auth_username": "scenario", "basic_auth_password": "Receiver_7421!Lantern"}
        self.make("webhooks", name="Listener", active=True, events=["transaction.*"], config=config)

    def box(self) -> str:
        """The listener's address."""
        return f"{self.server.root_url}/sandbox/inbox/{self.program['token']}/listener"

    def hears(self, kind: str) -> dict[str, Any]:
        """The news of a type, as soon as they are there."""
        (message,) = self.get("/sandbox/inbox/listener", type=kind, wait="30s", count=1)["data"]
        return next(transaction for transaction in message["body"]["transactions"] if transaction["type"] == kind)
