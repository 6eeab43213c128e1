"""Shared fixtures, each a single line in a module of tests: a server for all its tests, and a program for each test."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Literal

import pytest

from cardwright.storage.database import Database
from tests.support.databases import check_books, migrated_database
from tests.support.issuing import Issuer
from tests.support.server import RunningServer
from tests.support.shop import Shop


def shared_server(databases: Sequence[str] | None = None, **options: Any) -> Any:
    """Return the fixture ``server``: one server for all modules of a run, on SQLite or on each of ``databases``.

    Tests create their own programs, because all modules share the default program. A module that needs a separate database
    uses ``module_server`` instead. With ``options`` this function returns that fixture.
    """
    if options:
        return module_server(databases, **options)

    @pytest.fixture(scope="module", params=databases)
    def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
        running: RunningServer = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_server")
        start = len(running.output())
        yield running
        # Later modules share the server, so the failure appears in the module that caused it.
        output = running.output()[start:]
        assert not running.ends_within(0), output[-8000:]
        assert "Traceback" not in output, output[-8000:]

    return server


def module_server(databases: Sequence[str] | None = None, **options: Any) -> Any:
    """Return the fixture ``server``: one server for the tests of a single module, on SQLite or on each of ``databases``.

    ``options`` are those of ``RunningServer``. When the server has stopped, all invariants of its books must hold.
    """

    @pytest.fixture(scope="module", params=databases)
    def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
        with audited_server(getattr(request, "param", "sqlite"), request, tmp_path_factory, **options) as running:
            yield running

    return server


@contextmanager
def audited_server(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, **options: Any
) -> Iterator[RunningServer]:
    """Yield a server on a database without rows. Assert all invariants of its books after it has stopped."""
    with migrated_database(kind, request, tmp_path_factory.mktemp("server")) as address:
        with RunningServer(db=address, **options) as running:
            yield running
        with closing(Database(address)) as database:
            check_books(database)


def program_fixture(kind: type[Shop] | type[Issuer], scope: Literal["function", "module"] = "function") -> Any:
    """Return a fixture that creates a program of this kind on the module's server, for each test or for the whole module."""

    @pytest.fixture(scope=scope)
    def made(server: RunningServer) -> Iterator[Shop | Issuer]:
        program = kind(server)
        yield program
        program.client.close()

    return made
