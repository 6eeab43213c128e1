"""Fixture of the tables of transaction chains: one populated program for each database."""

from collections.abc import Iterator

import pytest

from tests.support.chains import populate
from tests.support.databases import chosen_databases, migrated_database
from tests.support.in_process_platform import InProcessPlatform, new_platform


@pytest.fixture(scope="session", params=chosen_databases())
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessPlatform]:
    """Yield a program with a product of each kind. Each table opens a new account in it."""
    with migrated_database(request.param, request, tmp_path_factory.mktemp("life")) as address, new_platform(address) as platform:
        populate(platform)
        yield platform
