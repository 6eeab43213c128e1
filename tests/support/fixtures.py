"""Fixtures that many modules of tests want, each a line there: a server for all its tests, and a program for each of them."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Literal

import pytest

from cardwright.storage.database import Database
from tests.support.databases import check_books, empty_database
from tests.support.issuing import Issuer
from tests.support.server import RunningServer
from tests.support.shop import Shop


def shared_server(databases: Sequence[str] | None = None, **options: Any) -> Any:
    """The fixture ``server``: one for all tests of a module, on SQLite or on each of some databases.

    ``options`` are those of ``RunningServer``. When the server has stopped, its books must balance.
    """

    @pytest.fixture(scope="module", params=databases)
    def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
        kind = getattr(request, "param", "sqlite")
        with empty_database(kind, request, tmp_path_factory.mktemp("server")) as address:
            with RunningServer(db=address, **options) as running:
                yield running
            with closing(Database(address)) as database:
                check_books(database)

    return server


def program_fixture(kind: type[Shop] | type[Issuer], scope: Literal["function", "module"] = "function") -> Any:
    """A fixture that makes a program of this kind on the module's server, for each test or, by ``scope``, for all of them."""

    @pytest.fixture(scope=scope)
    def made(server: RunningServer) -> Iterator[Shop | Issuer]:
        program = kind(server)
        yield program
        program.client.close()

    return made
