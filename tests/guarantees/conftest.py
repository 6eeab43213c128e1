"""Fixtures of the guarantees: one shared server, one object of every kind on it, and row counts of its database."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, select

from cardwright.storage.tables import metadata
from tests.stress.check import database_at
from tests.stress.object_graph import ObjectGraph
from tests.support.databases import migrated_file
from tests.support.server import RunningServer


@pytest.fixture(scope="package")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of the shared database."""
    return migrated_file(tmp_path_factory.mktemp("shared") / "cardwright.db")


@pytest.fixture(scope="package")
def server(address: str) -> Iterator[RunningServer]:
    """Yield the shared server. A test leaves it running and creates objects with unique tokens."""
    with RunningServer(db=address) as running:
        yield running
        output = running.output()
    assert "Traceback" not in output, output[-8000:]


@pytest.fixture(scope="package")
def object_graph(server: RunningServer) -> Iterator[ObjectGraph]:
    """Yield one object of every kind in the default program."""
    with server.client() as client:
        made = ObjectGraph(client, server.root_url, "default", "shared")
        made.make()
        yield made


@pytest.fixture
def rows(address: str) -> Callable[[], dict[str, int]]:
    """Return a function that counts the rows of each table except the webhook inbox, which deliveries fill in the background."""

    def count() -> dict[str, int]:
        with database_at(address) as database, database.read() as db:
            tables = [table for table in metadata.sorted_tables if table.name != "inbox_messages"]
            return {table.name: db.scalar(select(func.count()).select_from(table)) or 0 for table in tables}

    return count
