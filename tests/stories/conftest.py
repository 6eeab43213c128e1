"""Stories share one server; each has a town, that is a program, of its own."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.support.server import RunningServer
from tests.support.town import Town


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on SQLite, or on PostgreSQL when only that is asked for: what differs between them is tested elsewhere."""
    chosen = os.environ.get("CARDWRIGHT_TEST_DB", "").startswith("postgres")
    address = request.getfixturevalue("postgres").new_database() if chosen else tmp_path_factory.mktemp("stories") / "town.db"
    with RunningServer(db=str(address)) as running:
        yield running


@pytest.fixture
def town_in(server: RunningServer) -> Iterator[Callable[[str], Town]]:
    """Builds a town whose money is of a currency."""
    towns: list[Town] = []

    def build(currency: str) -> Town:
        towns.append(Town(server, currency))
        return towns[-1]

    yield build
    for town in towns:
        town.client.close()


@pytest.fixture
def town(town_in: Callable[[str], Town]) -> Town:
    """A town that pays in dollars."""
    return town_in("USD")
