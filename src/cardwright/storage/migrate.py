"""Schema of the database: revision, compatibility check, and migrations."""

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
    # The import of Alembic takes 0.2 s, so it happens only if a database must be migrated.
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"

LOCK_WAIT_S = 30.0
"""Maximum wait in seconds for another migration, and on PostgreSQL also for the lock of each table."""

LOCK_ID = 727274

SELECT_SCHEMA = "SELECT version_num FROM alembic_version"

PROBE = "UPDATE alembic_version SET version_num = version_num"
"""An update that changes nothing. If it can be committed, purchases can be too."""


class MigrationBlocked(Exception):
    """A migration that another migration or transaction blocked until the wait ended. Nothing was changed."""


@cache
def revisions() -> tuple[str, ...]:
    """Return the revisions that this version knows, oldest first. The names of the migration files contain them."""
    return tuple(sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))


def newest() -> str:
    """Return the revision that this version requires."""
    return revisions()[-1]


def check_schema(stored: Sequence[str]) -> None:
    """Raise SchemaChanged unless the database has the revision that this version requires."""
    if list(stored) != [newest()]:
        known = f"this version of Cardwright works with {newest()}; install the matching version and restart"
        text = f"the database has schema {', '.join(stored) or 'none'}, {known}"
        raise SchemaChanged(text)


def present(database: Database) -> str | None:
    """Return the revision of the database, or None if the database is empty."""
    with database.read() as db:
        return find_revision(db)


def find_revision(db: Connection) -> str | None:
    """Return the revision of the database in a transaction, or None if the database is empty."""
    if not inspect(db).has_table("alembic_version"):
        return None
    return db.execute(text(SELECT_SCHEMA)).scalar_one_or_none()


def migrate(database: Database, wait_s: float = LOCK_WAIT_S) -> bool:
    """Run the missing migrations in one transaction. Return True if there were any.

    A lock serializes processes that start at the same time. Raises MigrationBlocked after ``wait_s`` seconds on PostgreSQL, and
    after the connection's busy timeout on SQLite.
    """
    if present(database) == newest():
        return False
    with exclusive(database, wait_s) as db:
        # Read again under the lock: another process may have migrated during the wait.
        if (revision := find_revision(db)) == newest():
            return False
        upgrade(db)
        if revision is not None:
            # A new revision makes running servers reload the program's configuration and check the schema.
            db.execute(text("UPDATE programs SET revision = revision + 1"))
    return True


def upgrade(db: Connection, revision: str = "head") -> None:
    """Run the missing migrations up to a revision, in a transaction of ``exclusive``."""
    from alembic import command

    command.upgrade(_config(db), revision)


@contextmanager
def exclusive(database: Database, wait_s: float = LOCK_WAIT_S) -> Iterator[Connection]:
    """Yield a transaction without a time limit that excludes migrations and other restores. Raises MigrationBlocked."""
    try:
        with database.write() as db:
            if not database.is_sqlite:
                # A migration has no time limit, unlike other statements.
                db.execute(text("SET LOCAL statement_timeout = 0"))
                db.execute(text(f"SET LOCAL lock_timeout = {int(wait_s * 1000)}"))
                db.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_ID})"))
            yield db
    except Unavailable as error:
        if is_locked(error):
            raise MigrationBlocked("another migration or a long transaction holds the database; nothing was changed") from None
        raise


def sql_of_all(database: Database) -> str:
    """Return all migrations as SQL, for operators who run it manually."""
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
