"""Schema of a database: its revision, the check that this version works with it, and the migrations to it."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from cardwright.storage.database import Database
from cardwright.storage.failures import SchemaChanged, Unavailable, is_locked

if TYPE_CHECKING:
    # Alembic takes 0.2 s to import, which only a database that must be changed should cost.
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"

LOCK_WAIT_S = 30.0
"""The longest wait for another migration, and on PostgreSQL for each table that a transaction holds."""

LOCK_ID = 727274

SELECT_SCHEMA = "SELECT version_num FROM alembic_version"

PROBE = "UPDATE alembic_version SET version_num = version_num"
"""Write a row without a change: if this can be committed, purchases can."""


class MigrationBlocked(Exception):
    """Another migration, or a transaction, held a lock until the wait ended; nothing was changed."""


@cache
def revisions() -> tuple[str, ...]:
    """Return the revisions that this version knows, oldest first: they are in the names of the migration files."""
    return tuple(sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))


def newest() -> str:
    """Return the revision that this version works with."""
    return revisions()[-1]


def check_schema(stored: Sequence[str]) -> None:
    """Raise SchemaChanged unless the database has the revision that this version works with."""
    if list(stored) != [newest()]:
        known = f"this version of Cardwright works with {newest()}; install the matching version and restart"
        text = f"the database has schema {', '.join(stored) or 'none'}, {known}"
        raise SchemaChanged(text)


def present(database: Database) -> str | None:
    """Return the revision of the database; None when it is empty."""
    with database.read() as db:
        return _present(db)


def _present(db: Connection) -> str | None:
    if not inspect(db).has_table("alembic_version"):
        return None
    return db.execute(text(SELECT_SCHEMA)).scalar_one_or_none()


def migrate(database: Database, wait_s: float = LOCK_WAIT_S) -> bool:
    """Run the migrations that are missing in one transaction; return whether there were any.

    Two processes that start at once do it one after the other. Raises MigrationBlocked, after ``wait_s`` on PostgreSQL and
    after the connection's busy timeout on SQLite.
    """
    if present(database) == newest():
        return False
    from alembic import command

    with _locked(database, wait_s) as db:
        # Looked up under the lock: another process may have migrated while this one waited.
        if (revision := _present(db)) == newest():
            return False
        command.upgrade(_config(db), "head")
        if revision is not None:
            # Running servers read a program's configuration again, and with it the schema, when its revision has changed.
            db.execute(text("UPDATE programs SET revision = revision + 1"))
    return True


@contextmanager
def _locked(database: Database, wait_s: float) -> Iterator[Connection]:
    """A transaction that no other migration runs beside. Raises MigrationBlocked."""
    try:
        with database.write() as db:
            if not database.is_sqlite:
                # A migration may take longer than any other statement is allowed to.
                db.execute(text("SET LOCAL statement_timeout = 0"))
                db.execute(text(f"SET LOCAL lock_timeout = {int(wait_s * 1000)}"))
                db.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_ID})"))
            yield db
    except Unavailable as error:
        if is_locked(error):
            raise MigrationBlocked("another migration or a long transaction holds the database; nothing was changed") from None
        raise


def sql_of_all(database: Database) -> str:
    """The migrations as SQL, for those who run it themselves."""
    from alembic import command

    config, output = _config(None), io.StringIO()
    config.set_main_option("sqlalchemy.url", "sqlite://" if database.is_sqlite else "postgresql+psycopg://")
    config.output_buffer = output
    command.upgrade(config, "head", sql=True)
    return output.getvalue()


def _config(connection: Connection | None) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
