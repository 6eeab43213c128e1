"""The migrations make exactly the tables that the code works with."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cardwright.storage.database import Database
from cardwright.storage.migrate import migrate, newest, present, sql_of_all
from cardwright.storage.tables import metadata


def test_the_migrations_make_the_tables_of_the_code(database_url: str) -> None:
    """After all migrations Alembic finds no difference between database and metadata."""
    database = Database(database_url)
    assert migrate(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_a_second_run_does_nothing(database_url: str) -> None:
    """An up-to-date database is recognised and left alone."""
    database = Database(database_url)
    assert migrate(database)
    assert not migrate(database)
    assert present(database) == newest()
    database.close()


def test_the_sql_can_be_printed(database_url: str) -> None:
    """The migrations are also there as SQL, for either database, with the journal's guard in it."""
    database = Database(database_url)
    sql = sql_of_all(database)
    assert "CREATE TABLE journal" in sql
    assert "append-only" in sql
    database.close()


def test_the_journal_is_append_only(database_url: str) -> None:
    """A posting can neither be changed nor removed nor left unbalanced, whoever tries."""
    database = Database(database_url)
    migrate(database)
    columns = "id, program_id, holder_id, currency, booked_ms, available, held"
    insert = f"INSERT INTO journal ({columns}) VALUES ({{}}, 1, 1, 'USD', 0, {{}})"
    with database.write() as db:
        db.execute(text(insert.format(1, "-5, 5")))
    refused = 0
    for statement in ("UPDATE journal SET held = 6, available = -6", "DELETE FROM journal", insert.format(2, "-5, 6")):
        try:
            with database.write() as db:
                db.execute(text(statement))
        except DBAPIError:
            refused += 1
    assert refused == 3
    database.close()
