"""Fixtures of the resources: the database of the server, a client of a program for a module, and one for a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.issuing import client_of, new_program
from tests.support.server import Client, RunningServer


@pytest.fixture(scope="module")
def database(server: RunningServer) -> Path:
    """Return the SQLite file of the server's database."""
    return Path(server.db)


@pytest.fixture(scope="module")
def api(server: RunningServer) -> Iterator[Client]:
    """Yield a client of a program that the tests of a module share. Each test creates objects with different tokens."""
    with client_of(server, new_program(server)) as client:
        yield client


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """Yield a client of a new, empty program."""
    with client_of(server, new_program(server)) as client:
        yield client
