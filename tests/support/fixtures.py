"""Fixtures that many modules of tests want, each a line there: a server for all its tests, and a program for each of them."""

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
    """The fixture ``server``: one for all modules of a run, on SQLite or on each of some databases.

    Tests make programs for themselves, because the default program belongs to all modules. A module that needs the database for
    itself takes ``module_server`` instead; with ``options`` this is the same.
    """
    if options:
        return module_server(databases, **options)

    @pytest.fixture(scope="module", params=databases)
    def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
        running: RunningServer = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_server")
        start = len(running.output())
        yield running
        # Later modules share the server, so this names the module that broke it.
        output = running.output()[start:]
        assert not running.ends_within(0), output[-8000:]
        assert "Traceback" not in output, output[-8000:]

    return server


def module_server(databases: Sequence[str] | None = None, **options: Any) -> Any:
    """The fixture ``server``: one for all tests of a module and for no other, on SQLite or on each of some databases.

    ``options`` are those of ``RunningServer``. When the server has stopped, its books must balance.
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
    """A server on a database without rows. Raises AssertionError when its books do not balance after it has stopped."""
    with migrated_database(kind, request, tmp_path_factory.mktemp("server")) as address:
        with RunningServer(db=address, **options) as running:
            yield running
        with closing(Database(address)) as database:
            check_books(database)


def program_fixture(kind: type[Shop] | type[Issuer], scope: Literal["function", "module"] = "function") -> Any:
    """A fixture that makes a program of this kind on the server of a module, for each test or, by ``scope``, for all of them."""

    @pytest.fixture(scope=scope)
    def made(server: RunningServer) -> Iterator[Shop | Issuer]:
        program = kind(server)
        yield program
        program.client.close()

    return made
