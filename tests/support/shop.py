"""Shop: a program with a card with Managed JIT Funding and a card without it, and short methods for purchases."""

from typing import Any

from tests.support.issuing import client_of, made_by, new_program, read_of
from tests.support.server import Client, Reply, RunningServer

JIT = {"enabled": True, "funding_source_token": "harbor_funding", "refunds_destination": "PROGRAM_FUNDING_SOURCE"}

YEAR = "2035-06"
"""The month of the frozen clock of a shop."""


class Shop:
    """A new program with the card ``jit`` of user ``ana`` and the card ``plain`` (no JIT Funding) of user ``bo``."""

    def __init__(self, server: RunningServer, *, frozen: bool = True, **program: Any) -> None:
        self.server, self.program = server, new_program(server, **program)
        self.client = self.connect()
        if frozen:
            read_of(self.client.post("/sandbox/clock", {"freeze": True}))
            self.clock(f"{YEAR}-01T09:00:00Z")
        self.make("fundingsources/program", token="harbor_funding", name="Harbor Funding")
        self.product("jit", jit_funding={"program_funding_source": JIT})
        self.product("plain")
        self.make("users", token="ana", address1="12 Main Street", postal_code="94501")
        self.make("users", token="bo")
        self.made = self.make("cards?show_cvv_number=true", token="jit", user_token="ana", card_product_token="jit")
        self.make("cards", token="plain", user_token="bo", card_product_token="plain")

    def connect(self) -> Client:
        """Return a new client with the program's credentials for the server's current address."""
        return client_of(self.server, self.program)

    def product(self, token: str, **config: Any) -> None:
        """Create a card product for active cards, with online purchases and cash machines, except in OFAC countries."""
        life = {"activate_upon_issue": True, "expiration_offset": {"unit": "YEARS", "value": 5}}
        countries = {"accepted_countries_token": "decline_ofac_countries"}
        anywhere = {"transaction_controls": countries, "poi": {"ecommerce": True, "atm": True}}
        config = {"card_life_cycle": life, **anywhere, **config}
        self.make("cardproducts", token=token, name=token, start_date="2020-01-01", config=config)

    def make(self, path: str, **body: Any) -> dict[str, Any]:
        """Create a resource; return the answer."""
        return made_by(self.client.post(f"/{path}", body))

    def clock(self, time: str) -> None:
        """Set the program's clock, which only moves forward."""
        read_of(self.client.post("/sandbox/clock", {"set": time}))

    def simulate(self, path: str, **body: Any) -> Reply:
        """Send a simulation; return the reply with any status."""
        return self.client.post(f"/simulate/{path}", body)

    def auth(self, amount: Any = 10, card: str = "jit", **fields: Any) -> dict[str, Any]:
        """Make a purchase; return its transaction and its ISO 8583 response."""
        return made_by(self.simulate("authorization", card_token=card, amount=amount, **{"mid": "m1", **fields}))

    def buy(self, amount: Any = 10, card: str = "jit", **fields: Any) -> dict[str, Any]:
        """Make a purchase; return its transaction."""
        return dict(self.auth(amount, card, **fields)["transaction"])

    def follow(self, path: str, original: dict[str, Any], amount: Any, **fields: Any) -> dict[str, Any]:
        """Send a clearing, a reversal or an advice of a transaction; return its transaction."""
        body = {"original_transaction_token": original["token"], "amount": amount, **fields}
        return dict(made_by(self.simulate(path, **body))["transaction"])

    def fill(self, amount: Any) -> None:
        """Credit the account without JIT Funding by a refund, which stays on the account."""
        self.follow("clearing", self.buy(1, "plain"), amount, is_refund=True)

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Return the answer of a GET."""
        return read_of(self.client.get(path, query=query))

    def listed(self, path: str = "/transactions", **query: object) -> list[dict[str, Any]]:
        """Return the objects of a list, at most 100."""
        return list(self.get(path, count=100, **query)["data"])

    def money(self, user: str) -> tuple[float, float]:
        """Return ledger and available balance of a user."""
        gpa = self.get(f"/balances/{user}")["gpa"]
        return gpa["ledger_balance"], gpa["available_balance"]
