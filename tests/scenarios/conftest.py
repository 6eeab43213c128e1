"""Fixtures of the scenarios: one shared server, and a new program for each scenario."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import shared_server
from tests.support.scenario import Scenario
from tests.support.server import RunningServer

# On PostgreSQL only if SQLite is excluded: another test compares the two databases.
server = shared_server(chosen_databases()[:1])


@pytest.fixture
def scenario_in(server: RunningServer) -> Iterator[Callable[[str], Scenario]]:
    """Yield a function that builds a program with a currency."""
    scenarios: list[Scenario] = []

    def build(currency: str) -> Scenario:
        scenarios.append(Scenario(server, currency))
        return scenarios[-1]

    yield build
    for scenario in scenarios:
        scenario.client.close()


@pytest.fixture
def scenario(scenario_in: Callable[[str], Scenario]) -> Scenario:
    """Return a program in US dollars."""
    return scenario_in("USD")
