"""Which kinds of database a test runs on, an empty one of either kind, and the proof that its books balance."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cardwright.ledger.invariants import verify
from cardwright.storage.database import Database

DATABASES = ("sqlite", "postgresql")


def chosen_databases() -> tuple[str, ...]:
    """All kinds, or the one that CARDWRIGHT_TEST_DB names."""
    name = os.environ.get("CARDWRIGHT_TEST_DB", "").strip().lower().replace("postgresql", "postgres")
    chosen = {"": DATABASES, "sqlite": ("sqlite",), "postgres": ("postgresql",)}.get(name)
    if chosen is None:
        raise pytest.UsageError(f"CARDWRIGHT_TEST_DB is {name!r}, but there are only: sqlite, postgres")
    return chosen


@contextmanager
def empty_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The address of an empty database: a file in ``folder`` for SQLite, a DSN for PostgreSQL, where it is dropped at the end."""
    if kind == "sqlite":
        yield str(folder / "cardwright.db")
        return
    server = request.getfixturevalue("postgres")
    dsn = server.new_database()
    try:
        yield dsn
    finally:
        server.drop_database(dsn)


def check_books(database: Database) -> None:
    """Raises AssertionError when an invariant of the ledger is broken."""
    report = verify(database)
    assert report.is_sound, report.violations
