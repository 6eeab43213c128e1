"""What the tests of promises share: one server with one object of every kind on it, and a way to count what it has stored."""

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
    """The file of the shared database."""
    return migrated_file(tmp_path_factory.mktemp("shared") / "cardwright.db")


@pytest.fixture(scope="package")
def server(address: str) -> Iterator[RunningServer]:
    """The shared server. Whoever uses it leaves it running and makes objects with names of his own."""
    with RunningServer(db=address) as running:
        yield running
        output = running.output()
    assert "Traceback" not in output, output[-8000:]


@pytest.fixture(scope="package")
def object_graph(server: RunningServer) -> Iterator[ObjectGraph]:
    """One object of every kind in the default program."""
    with server.client() as client:
        made = ObjectGraph(client, server.root_url, "default", "shared")
        made.make()
        yield made


@pytest.fixture
def rows(address: str) -> Callable[[], dict[str, int]]:
    """Counts the rows of every table but those that fill by themselves: what was delivered to the sandbox's own inbox."""

    def count() -> dict[str, int]:
        with database_at(address) as database, database.read() as db:
            tables = [table for table in metadata.sorted_tables if table.name != "inbox_messages"]
            return {table.name: db.scalar(select(func.count()).select_from(table)) or 0 for table in tables}

    return count
