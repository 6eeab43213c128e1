"""What a decision costs follows from the controls that are for its card: all others are not even read."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from cardwright.core.snapshot import ProductFact
from cardwright.core.spend_controls import NO_SPEND
from cardwright.engine.batch import CardResult
from cardwright.engine.config_cache import ProgramEntry
from tests.support.world import World, asked

USERS = tuple(f"u{number}" for number in range(6))


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """Six users with cards of a Managed JIT product."""
    world = World(database_url)
    world.make("fundingsources/program", name="Bank", token="bank")
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": "bank"}}
    config = {"card_life_cycle": {"activate_upon_issue": True}, "jit_funding": jit}
    world.make("cardproducts", name="p", token="p", start_date="2025-01-01", config=config)
    for user in USERS:
        world.make("users", token=user)
        world.make("cards", token=user, user_token=user, card_product_token="p")
    yield world
    world.close()


def entry_of(world: World) -> ProgramEntry:
    """What the process knows of the program."""
    return asyncio.run(world.cache.program(world.program_id, 0))


def buy(world: World, *users: str, seed: int = 0) -> list[str]:
    """The codes of purchases in one batch."""
    results: list[Any] = world.run([[asked(world, user, 100, seed=seed + number) for number, user in enumerate(users)]])
    assert all(isinstance(result, CardResult) for result in results)
    return [f"{result.row.code:04d}" for result in results]


def block(world: World, user: str) -> None:
    """Closes all shops to a user, and limits him too."""
    association = {"user_token": user}
    world.make("authcontrols", name=user, association=association)
    world.make("velocitycontrols", amount_limit=1000, velocity_window="DAY", currency_code="USD", association=association)
    world.make("authcontrols/exemptmids", name=user, mid="m2", association=association)


def test_a_users_controls_are_read_when_he_buys(world: World) -> None:
    """Six users have controls; of those who bought nothing the process knows nothing, whatever changes meanwhile."""
    for user in USERS:
        block(world, user)
    assert buy(world, "u1", "u3") == ["1821", "1821"]
    entry = entry_of(world)
    bought = {("user", "u1"), ("user", "u3")}
    assert entry.spend.users == {"u1", "u3"}
    assert set(entry.controls) == set(entry.spend.controls) == set(entry.spend.exemptions) == bought
    world.make("authcontrols", name="x", association={"user_token": "u4"})
    assert buy(world, "u4", seed=10) == ["1821"]
    assert entry_of(world).spend.users == {"u4"}


def test_controls_of_products_and_of_everybody_are_there_from_the_start(world: World) -> None:
    """They are few, and every purchase may need them; nobody asks for users' controls where there are none."""
    world.make("authcontrols", name="x", association={"card_product_token": "p"}, merchant_scope={"mid": "m9"})
    world.make("authcontrols", name="y", merchant_scope={"mid": "m8"})
    assert buy(world, "u1") == ["0000"]
    entry = entry_of(world)
    assert set(entry.spend.controls) == {("product", "p"), ("program", "")}
    assert (entry.spend.users, entry.spend.has_user_controls) == (set(), False)


def test_without_controls_there_is_nothing_to_do(world: World) -> None:
    """A program without any gives every purchase the same empty rules, and a second batch asks the database for nothing of it."""
    assert buy(world, *USERS) == ["0000"] * len(USERS)
    entry = entry_of(world)
    product: ProductFact = entry.products["p"]
    found = [asyncio.run(world.card((world.program_id, user))) for user in USERS]
    assert all(entry.spend_of(one.card, one.user, product, "5411") is NO_SPEND for one in found)
    assert all(entry.controls_of(one.card) == () for one in found)
    said = list[str]()

    def listen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        said.append(statement)

    event.listen(world.database.engine, "before_cursor_execute", listen)
    assert buy(world, *USERS, seed=10) == ["0000"] * len(USERS)
    about_controls = ("control", "group", "exempt")
    assert [text for text in said if any(word in text for word in about_controls)] == []
    # With one of somebody's own there is something to ask, and it would have been heard.
    world.make("authcontrols", name="x", association={"user_token": "u1"}, merchant_scope={"mid": "m9"})
    said.clear()
    assert buy(world, *USERS, seed=20) == ["0000"] * len(USERS)
    assert [text for text in said if any(word in text for word in about_controls)] != []


def test_a_category_is_worked_out_once(world: World) -> None:
    """The MCC groups are gone through for the first purchase in a category, and not again before they change."""
    world.make("mccgroups", token="g", name="Groceries", mccs=("5411",))
    assert buy(world, "u1", "u2") == ["0000", "0000"]
    entry = entry_of(world)
    categories = dict(entry.spend.categories)
    assert [one.names for one in categories.values()] == [()]
    assert buy(world, "u3", seed=10) == ["0000"]
    assert entry_of(world).spend.categories["6411"] is categories["6411"]
