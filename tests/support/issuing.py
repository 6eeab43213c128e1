"""Issuing: new programs on a shared server, and short methods for their users and cards."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from tests.support.server import Client, Reply, RunningServer

_numbers = count(1)

TEXT = {"card_personalization": {"text": {"name_line_1": {"value": "ANA"}}}}
"""The smallest valid fulfillment."""


class Issuer:
    """A new program and methods that create products, users and cards. They raise AssertionError if a request fails."""

    def __init__(self, server: RunningServer) -> None:
        self.client = client_of(server, new_program(server))

    def product(self, *, life_cycle: dict[str, Any] | None = None, **fulfillment: Any) -> str:
        """Create a card product that is active since 2020; return its token."""
        config = {"fulfillment": {"payment_instrument": "VIRTUAL_PAN", **fulfillment}, "card_life_cycle": life_cycle or {}}
        body = {"name": "Product", "start_date": "2020-01-01", "config": config}
        return str(made_by(self.client.post("/cardproducts", body))["token"])

    def user(self, **fields: Any) -> str:
        """Create a user; return the token."""
        return str(made_by(self.client.post("/users", fields))["token"])

    def card(self, user: str | None = None, product: str | None = None, *, query: str = "", **fields: Any) -> dict[str, Any]:
        """Create a card, by default with a new user and a new product; return the answer."""
        body = {"user_token": user or self.user(), "card_product_token": product or self.product(), **fields}
        return made_by(self.client.post(f"/cards{query}", body))

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Return the answer of a GET."""
        return read_of(self.client.get(path, query=query))

    def transition(self, card: str, state: str, **fields: Any) -> Reply:
        """Send a card transition; return the reply with any status."""
        return self.client.post("/cardtransitions", {"card_token": card, "state": state, "channel": "API", **fields})

    def enter(self, card: str, state: str, **fields: Any) -> dict[str, Any]:
        """Move a card to a permitted state; return the transition."""
        return made_by(self.transition(card, state, **fields))

    def transitions(self, card: str) -> list[dict[str, Any]]:
        """Return a card's transitions, the oldest first."""
        return list(self.get(f"/cardtransitions/card/{card}", count=100, sort_by="createdTime")["data"])

    def suspend_user(self, user: str) -> None:
        """Suspend a user."""
        body = {"user_token": user, "status": "SUSPENDED", "reason_code": "05", "channel": "API"}
        made_by(self.client.post("/usertransitions", body))

    def set_clock(self, time: str) -> None:
        """Move the program's frozen clock forward."""
        read_of(self.client.post("/sandbox/clock", {"set": time}))


def new_program(server: RunningServer, **fields: Any) -> dict[str, Any]:
    """Create a program; return it with its credentials. Its token is random unless ``fields`` has one."""
    with server.client() as operator:
        return made_by(operator.post("/sandbox/programs", fields))


def client_of(server: RunningServer, program: Mapping[str, Any]) -> Client:
    """Return a client with a program's credentials."""
    return Client(server.root_url, program["application_token"], program["access_token"])


def made_by(reply: Reply) -> dict[str, Any]:
    """Return the body of a create's reply. Assert the status 201."""
    assert reply.status == 201, reply.text
    return dict(reply.json)


def read_of(reply: Reply) -> dict[str, Any]:
    """Return the body of a reply to a read or an update. Assert the status 200."""
    assert reply.status == 200, reply.text
    return dict(reply.json)


def problem_of(reply: Reply) -> tuple[int, str]:
    """Return status and code of an error. Assert that its body has two texts only."""
    assert set(reply.json) == {"error_code", "error_message"}, reply.text
    return reply.status, reply.json["error_code"]


def fresh(word: str) -> str:
    """Return a token that is unique in this process, for tests that share a program."""
    return f"{word}_{next(_numbers)}"
