"""API fixtures: cards on Just-in-Time Funding and on preloaded accounts, made through the public API."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.server import Client, Reply

SOURCE = "bank"
"""The program funding source of every JIT-funded card."""

ALIVE: dict[str, Any] = {
    "fulfillment": {"payment_instrument": "VIRTUAL_PAN"},
    "card_life_cycle": {"activate_upon_issue": True},
}


@dataclass(frozen=True, slots=True)
class Card:
    """A card: its token and the token of its user."""

    token: str
    user: str


def made(reply: Reply) -> dict[str, Any]:
    """Return the object in the answer to a create. Raises AssertionError if the create failed."""
    assert reply.status in (200, 201), reply.text
    return dict(reply.json)


def build(client: Client, cards: int) -> list[Card]:
    """Create a funding source, products and ``cards`` cards, each with a separate account. Idempotent: tokens are fixed."""
    made(client.post("/fundingsources/program", {"token": SOURCE, "name": "Bank"}))
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": SOURCE, "refunds_destination": "GPA"}}
    for token, fields in (("jit", {"jit_funding": jit}), ("prepaid", {})):
        product = {"token": token, "name": token, "start_date": "2020-01-01", "config": {**ALIVE, **fields}}
        made(client.post("/cardproducts", product))
    return [card(client, f"{number}") for number in range(cards)]


def card(client: Client, name: str, product: str = "jit", user: str | None = None) -> Card:
    """Create a card of an existing user, or of a new user if ``user`` is None."""
    if user is None:
        made(client.post("/users", {"token": f"user-{name}"}))
    user = user or f"user-{name}"
    made(client.post("/cards", {"token": f"card-{name}", "user_token": user, "card_product_token": product}))
    return Card(f"card-{name}", user)


def preloaded(client: Client, name: str, cents: int) -> Card:
    """Create a card on an account that has exactly ``cents``.

    The money comes from a refund to another card of the same user, so the books balance from the start.
    """
    lender = card(client, f"{name}-lender")
    bought = made(client.post("/simulate/authorization", purchase(lender.token, cents, f"{name}-bought")))
    assert bought["transaction"]["response"]["code"] == "0000"
    refund = follow_up(f"{name}-bought", cents, f"{name}-refund") | {"is_refund": True}
    made(client.post("/simulate/clearing", refund))
    made(client.post("/simulate/reversal", follow_up(f"{name}-bought", cents, f"{name}-undone")))
    spender = card(client, name, "prepaid", lender.user)
    assert available_cents(client, spender.user) == cents
    return spender


def amount(cents: int) -> str:
    """Return cents as a decimal in text, which the wire accepts."""
    return f"{cents // 100}.{cents % 100:02d}"


def cents_of(number: float) -> int:
    """Return the cents of a JSON number."""
    return round(number * 100)


def purchase(card_token: str, cents: int, token: str) -> dict[str, Any]:
    """Return the body of an authorization with a chosen transaction token."""
    options = {"transaction_token": token}
    return {"card_token": card_token, "amount": amount(cents), "mid": "stress", "transaction_options": options}


def follow_up(original: str, cents: int, token: str) -> dict[str, Any]:
    """Return the body of a clearing, reversal or advice of an earlier transaction."""
    return {
        "original_transaction_token": original,
        "amount": amount(cents),
        "transaction_options": {"transaction_token": token},
    }


def ledger_cents(client: Client, user: str) -> int:
    """Return the ledger balance of a user's account."""
    return cents_of(made(client.get(f"/balances/{user}"))["gpa"]["ledger_balance"])


def available_cents(client: Client, user: str) -> int:
    """Return the available balance of a user's account."""
    return cents_of(made(client.get(f"/balances/{user}"))["gpa"]["available_balance"])


def held_cents(client: Client, users: Sequence[str]) -> int:
    """Return the total of the holds on these users' accounts."""
    return sum(ledger_cents(client, user) - available_cents(client, user) for user in users)
