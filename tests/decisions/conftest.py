"""What the tables of a transaction's life share: one world for each database."""

import os
from collections.abc import Iterator

import pytest

from tests.support.chains import populate
from tests.support.world import World, new_world

CHOSEN = os.environ.get("CARDWRIGHT_TEST_DB", "").replace("postgresql", "postgres") or None


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with a product of each kind; every table takes an account of its own in it."""
    if CHOSEN not in (None, request.param):
        pytest.skip("CARDWRIGHT_TEST_DB leaves it out")
    sqlite = request.param == "sqlite"
    server = None if sqlite else request.getfixturevalue("postgres")
    address = tmp_path_factory.mktemp("life") / "life.db" if sqlite else server.new_database()
    with new_world(address) as world:
        populate(world)
        yield world
    if server is not None:
        server.drop_database(address)
