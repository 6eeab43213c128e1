"""Lookup of controls: a decision loads only the controls that apply to its card."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from cardwright.core.snapshot import ProductFact
from cardwright.core.spend_controls import NO_SPEND
from cardwright.engine.batch import CardResult
from cardwright.engine.config_cache import ProgramEntry
from tests.support.in_process_platform import InProcessPlatform, card_request

USERS = tuple(f"u{number}" for number in range(6))


@pytest.fixture
def platform(migrated_url: str) -> Iterator[InProcessPlatform]:
    """Six users with cards of a Managed JIT product."""
    platform = InProcessPlatform(migrated_url)
    platform.make("fundingsources/program", name="Bank", token="bank")
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": "bank"}}
    config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": jit}
    platform.make("cardproducts", name="p", token="p", start_date="2025-01-01", config=config)
    for user in USERS:
        platform.make("users", token=user)
        platform.make("cards", token=user, user_token=user, card_product_token="p")
    yield platform
    platform.close()


def entry_of(platform: InProcessPlatform) -> ProgramEntry:
    """Return the program's entry in the cache of the process."""
    return asyncio.run(platform.cache.program(platform.program_id, 0))


def buy(platform: InProcessPlatform, *users: str, seed: int = 0) -> list[str]:
    """Return the response codes of purchases in one batch."""
    results: list[Any] = platform.run(
        [[card_request(platform, user, 100, seed=seed + number) for number, user in enumerate(users)]]
    )
    assert all(isinstance(result, CardResult) for result in results)
    return [f"{result.row.code:04d}" for result in results]


def block(platform: InProcessPlatform, user: str) -> None:
    """Block all merchants for a user, and add a velocity control and an exemption for the user."""
    association = {"user_token": user}
    platform.make("authcontrols", name=user, association=association)
    platform.make("velocitycontrols", amount_limit=1000, velocity_window="DAY", currency_code="USD", association=association)
    platform.make("authcontrols/exemptmids", name=user, mid="m2", association=association)


def test_a_users_controls_are_read_at_the_first_purchase(platform: InProcessPlatform) -> None:
    """The cache contains the controls of exactly the users who bought something under the current revision."""
    for user in USERS:
        block(platform, user)
    assert buy(platform, "u1", "u3") == ["1821", "1821"]
    entry = entry_of(platform)
    bought = {("user", "u1"), ("user", "u3")}
    assert entry.spend.users == {"u1", "u3"}
    assert set(entry.controls) == set(entry.spend.controls) == set(entry.spend.exemptions) == bought
    platform.make("authcontrols", name="x", association={"user_token": "u4"})
    assert buy(platform, "u4", seed=10) == ["1821"]
    assert entry_of(platform).spend.users == {"u4"}


def test_controls_for_products_and_for_all_users_are_loaded_first(platform: InProcessPlatform) -> None:
    """Controls of products and of the program are loaded with the program. Controls of users are not looked up if none exist."""
    platform.make("authcontrols", name="x", association={"card_product_token": "p"}, merchant_scope={"mid": "m9"})
    platform.make("authcontrols", name="y", merchant_scope={"mid": "m8"})
    assert buy(platform, "u1") == ["0000"]
    entry = entry_of(platform)
    assert set(entry.spend.controls) == {("product", "p"), ("program", "")}
    assert (entry.spend.users, entry.spend.has_user_controls) == (set(), False)


def test_without_controls_there_is_nothing_to_do(platform: InProcessPlatform) -> None:
    """Without controls every purchase gets the same empty rules, and a second batch executes no statement about controls."""
    assert buy(platform, *USERS) == ["0000"] * len(USERS)
    entry = entry_of(platform)
    product: ProductFact = entry.products["p"]
    card_entries = [asyncio.run(platform.card((platform.program_id, user))) for user in USERS]
    assert all(entry.spend_of(card_entry.card, card_entry.user, product, "5411") is NO_SPEND for card_entry in card_entries)
    assert all(entry.controls_of(card_entry.card) == () for card_entry in card_entries)
    statements = list[str]()

    def listen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(platform.database.engine, "before_cursor_execute", listen)
    assert buy(platform, *USERS, seed=10) == ["0000"] * len(USERS)
    about_controls = ("control", "group", "exempt")
    assert [text for text in statements if any(word in text for word in about_controls)] == []
    # With a control of one user, a statement about controls appears. This shows that the listener detects them.
    platform.make("authcontrols", name="x", association={"user_token": "u1"}, merchant_scope={"mid": "m9"})
    statements.clear()
    assert buy(platform, *USERS, seed=20) == ["0000"] * len(USERS)
    assert [text for text in statements if any(word in text for word in about_controls)] != []


def test_a_category_is_worked_out_once(platform: InProcessPlatform) -> None:
    """The MCC groups are evaluated once for a category. A later purchase reuses the result."""
    platform.make("mccgroups", token="g", name="Groceries", mccs=("5411",))
    assert buy(platform, "u1", "u2") == ["0000", "0000"]
    entry = entry_of(platform)
    categories = dict(entry.spend.categories)
    assert [category.names for category in categories.values()] == [()]
    assert buy(platform, "u3", seed=10) == ["0000"]
    assert entry_of(platform).spend.categories["6411"] is categories["6411"]
