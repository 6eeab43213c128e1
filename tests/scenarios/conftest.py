"""Scenarios share one server; each has a program for itself."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import chosen_databases, empty_database
from tests.support.scenario import Scenario
from tests.support.server import RunningServer


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on SQLite, or on PostgreSQL when only that is asked for: what differs between them is tested elsewhere."""
    kind, *_ = chosen_databases()
    with empty_database(kind, request, tmp_path_factory.mktemp("stories")) as address, RunningServer(db=address) as running:
        yield running


@pytest.fixture
def scenario_in(server: RunningServer) -> Iterator[Callable[[str], Scenario]]:
    """Build a program whose money is of a currency."""
    scenarios: list[Scenario] = []

    def build(currency: str) -> Scenario:
        scenarios.append(Scenario(server, currency))
        return scenarios[-1]

    yield build
    for scenario in scenarios:
        scenario.client.close()


@pytest.fixture
def scenario(scenario_in: Callable[[str], Scenario]) -> Scenario:
    """A program that pays in dollars."""
    return scenario_in("USD")
