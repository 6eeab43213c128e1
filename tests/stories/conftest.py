"""Stories share one server; each has a town, that is a program, of its own."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import chosen_databases, empty_database
from tests.support.server import RunningServer
from tests.support.town import Town


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on SQLite, or on PostgreSQL when only that is asked for: what differs between them is tested elsewhere."""
    kind, *_ = chosen_databases()
    with empty_database(kind, request, tmp_path_factory.mktemp("stories")) as address, RunningServer(db=address) as running:
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
