"""Databases of tests: the selected kinds, an empty or a migrated database of either kind, and the check of its books."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cardwright.ledger.invariants import verify
from cardwright.storage.database import Database
from cardwright.storage.migrate import migrate

DATABASES = ("sqlite", "postgresql")


def chosen_databases() -> tuple[str, ...]:
    """Return all kinds, or only the kind in CARDWRIGHT_TEST_DB. Raises UsageError for an unknown one."""
    name = os.environ.get("CARDWRIGHT_TEST_DB", "").strip().lower().replace("postgresql", "postgres")
    chosen = {"": DATABASES, "sqlite": ("sqlite",), "postgres": ("postgresql",)}.get(name)
    if chosen is None:
        raise pytest.UsageError(f"CARDWRIGHT_TEST_DB is {name!r}; accepted: sqlite, postgres")
    return chosen


@contextmanager
def empty_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Yield the address of an empty database: a file in ``folder`` for SQLite, a DSN for PostgreSQL, dropped at the end."""
    if kind == "sqlite":
        yield str(folder / "cardwright.db")
        return
    server = request.getfixturevalue("postgres")
    dsn = server.new_database()
    try:
        yield dsn
    finally:
        server.drop_database(dsn)


@contextmanager
def migrated_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Yield the address of a database with all tables and no rows. Otherwise like ``empty_database``.

    It is a copy of a template. A copy takes a tenth of the time of the migrations.
    """
    if kind == "sqlite":
        yield migrated_file(folder / "cardwright.db")
        return
    server = request.getfixturevalue("postgres")
    dsn = server.new_database(migrate_address)
    try:
        yield dsn
    finally:
        server.drop_database(dsn)


def migrated_file(path: Path) -> str:
    """Write a SQLite database with all tables and no rows; return its address."""
    path.write_bytes(_migrated_bytes())
    return str(path)


@cache
def _migrated_bytes() -> bytes:
    with TemporaryDirectory(prefix="cardwright-template-") as folder:
        path = Path(folder, "template.db")
        migrate_address(str(path))
        return path.read_bytes()


def migrate_address(address: str) -> None:
    """Run the migrations on a database that no process uses."""
    with closing(Database(address)) as database:
        migrate(database)


def check_books(database: Database) -> None:
    """Assert all invariants of the ledger."""
    report = verify(database)
    assert report.is_sound, report.violations
