"""Scenarios share one server; each has a program for itself."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.databases import chosen_databases
from tests.support.fixtures import shared_server
from tests.support.scenario import Scenario
from tests.support.server import RunningServer

# On PostgreSQL only when only that is chosen: another test compares the two databases.
server = shared_server(chosen_databases()[:1])


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
