"""Fixtures of the resources: the database of the server, a client of a program for a module, and one for a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.issuing import client_of, new_program
from tests.support.server import Client, RunningServer


@pytest.fixture(scope="module")
def database(server: RunningServer) -> Path:
    """The file of the server's database, which is SQLite."""
    return Path(server.db)


@pytest.fixture(scope="module")
def api(server: RunningServer) -> Iterator[Client]:
    """A client of a program for the module. All tests of a module share it, so each makes objects with different tokens."""
    with client_of(server, new_program(server)) as client:
        yield client


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """A client of a program of the test's own, with nothing in it."""
    with client_of(server, new_program(server)) as client:
        yield client
