"""Brings a database to the schema that this version works with."""

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from cardwright.storage.database import Database

if TYPE_CHECKING:
    # Alembic takes 0.2 s to import, which only a database that must be changed should cost.
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def newest() -> str:
    """The revision that this version works with: the last of the migration files' names."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def present(database: Database) -> str | None:
    """The revision that the database is at; None when it is empty."""
    with database.read() as db:
        if not inspect(db).has_table("alembic_version"):
            return None
        return db.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def migrate(database: Database) -> bool:
    """Runs what is missing; tells whether anything was. Two processes that start at once do it one after the other."""
    if present(database) == newest():
        return False
    from alembic import command

    with database.write() as db:
        if not database.is_sqlite:
            db.execute(text("SELECT pg_advisory_xact_lock(727274)"))
        command.upgrade(_config(db), "head")
    return True


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
