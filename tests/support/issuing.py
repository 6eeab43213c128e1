"""A program of its own on a server that tests share, and short words for what they do with its cards."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from tests.support.server import Client, Reply, RunningServer

_numbers = count(1)

TEXT = {"card_personalization": {"text": {"name_line_1": {"value": "ANA"}}}}
"""The least that a fulfilment may say."""


class Issuer:
    """Makes products, users and cards. What goes wrong where a test expects nothing to go wrong is an AssertionError."""

    def __init__(self, server: RunningServer) -> None:
        self.client = client_of(server, new_program(server))

    def product(self, *, life_cycle: dict[str, Any] | None = None, **fulfillment: Any) -> str:
        """The token of a new card product that is in force for a hundred years."""
        config = {"fulfillment": {"payment_instrument": "VIRTUAL_PAN", **fulfillment}, "card_life_cycle": life_cycle or {}}
        body = {"name": "Product", "start_date": "2020-01-01", "config": config}
        return str(made_by(self.client.post("/cardproducts", body))["token"])

    def user(self, **fields: Any) -> str:
        """The token of a new user."""
        return str(made_by(self.client.post("/users", fields))["token"])

    def card(self, user: str | None = None, product: str | None = None, *, query: str = "", **fields: Any) -> dict[str, Any]:
        """A new card; of a new user or product where none is given."""
        body = {"user_token": user or self.user(), "card_product_token": product or self.product(), **fields}
        return made_by(self.client.post(f"/cards{query}", body))

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """What a GET answers."""
        return read_of(self.client.get(path, query=query))

    def transition(self, card: str, state: str, **fields: Any) -> Reply:
        """The answer to a transition, whatever it is."""
        return self.client.post("/cardtransitions", {"card_token": card, "state": state, "channel": "API", **fields})

    def enter(self, card: str, state: str, **fields: Any) -> dict[str, Any]:
        """The transition of a card into a state that it may enter."""
        return made_by(self.transition(card, state, **fields))

    def transitions(self, card: str) -> list[dict[str, Any]]:
        """A card's transitions, the oldest first."""
        return list(self.get(f"/cardtransitions/card/{card}", count=100, sort_by="createdTime")["data"])

    def suspend_user(self, user: str) -> None:
        """Makes a user inactive."""
        body = {"user_token": user, "status": "SUSPENDED", "reason_code": "05", "channel": "API"}
        made_by(self.client.post("/usertransitions", body))

    def set_clock(self, time: str) -> None:
        """Moves the program's frozen clock forward."""
        read_of(self.client.post("/sandbox/clock", {"set": time}))


def new_program(server: RunningServer, **fields: Any) -> dict[str, Any]:
    """A program with its credentials; its token is drawn unless it is among the ``fields``."""
    with server.client() as operator:
        return made_by(operator.post("/sandbox/programs", fields))


def client_of(server: RunningServer, program: Mapping[str, Any]) -> Client:
    """A connection with a program's credentials."""
    return Client(server.root_url, program["application_token"], program["access_token"])


def made_by(reply: Reply) -> dict[str, Any]:
    """What a create answered."""
    assert reply.status == 201, reply.text
    return dict(reply.json)


def read_of(reply: Reply) -> dict[str, Any]:
    """What a read or an update answered."""
    assert reply.status == 200, reply.text
    return dict(reply.json)


def problem_of(reply: Reply) -> tuple[int, str]:
    """Status and code of an error; its body has two texts and nothing else."""
    assert set(reply.json) == {"error_code", "error_message"}, reply.text
    return reply.status, reply.json["error_code"]


def fresh(word: str) -> str:
    """A token that no other test uses, for those who share a program."""
    return f"{word}_{next(_numbers)}"
