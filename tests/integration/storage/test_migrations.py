"""Migrations: they create the tables of the code, run once, and wait for one another up to a limit."""

import shutil
import sqlite3
import threading
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import DBAPIError

from cardwright.outbox.events import Delivery
from cardwright.storage import migrate as module
from cardwright.storage.credentials import Access, Credential, ensure_given, find_access, list_credentials
from cardwright.storage.database import Database
from cardwright.storage.migrate import LOCK_ID, MigrationBlocked, migrate, newest, present, revisions, sql_of_all
from cardwright.storage.tables import inbox_messages, metadata, outbox, transactions

NEXT = """
from alembic import op
revision, down_revision, branch_labels, depends_on = "9000", "{last}", None, None
def upgrade():
    op.execute("INSERT INTO meta (key, value) VALUES ('runs', '1')")
"""


def test_the_migrations_make_the_tables_of_the_code(database_url: str) -> None:
    """After all migrations Alembic finds no difference between database and metadata."""
    database = Database(database_url)
    assert migrate(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_upgrade_keeps_the_types_of_transactions(database_url: str) -> None:
    """An upgrade from schema 0001 keeps the types of transactions, although their column is renamed."""
    database = Database(database_url)
    with database.write() as db:
        command.upgrade(module._config(db), "0001")
        columns = ["kind" if column.name == "type_id" else column.name for column in transactions.c]
        values = ", ".join(f"'{number}'" for number in range(len(columns)))
        db.execute(text(f"INSERT INTO transactions ({', '.join(columns)}) VALUES ({values})"))
    assert migrate(database)
    with database.read() as db:
        assert db.execute(select(transactions.c.type_id)).scalar_one() == columns.index("kind")
    database.close()


def test_upgrade_keeps_the_credentials(database_url: str) -> None:
    """An upgrade from schema 0002 keeps all credentials, each with a token. Those of the default program count as given."""
    database = Database(database_url)
    digests = {1: [bytes([7] * 32), bytes([8] * 32)], 2: [bytes([9] * 32)]}
    with database.write() as db:
        command.upgrade(module._config(db), "0002")
        columns = "id, token, name, short_code, settings, revision, clock_offset_ms, created_ms"
        for program_id, token in ((1, "default"), (2, "other")):
            db.execute(text(f"INSERT INTO programs ({columns}) VALUES ({program_id}, '{token}', 'P', 'pppp', '{{}}', 1, 0, 5)"))
            for digest in digests[program_id]:
                values = {"digest": digest, "program_id": program_id}
                db.execute(text("INSERT INTO credentials (digest, program_id) VALUES (:digest, :program_id)"), values)
    assert migrate(database)
    with database.write() as db:
        assert list_credentials(db, 1) == [Credential("07" * 8, 5, True), Credential("08" * 8, 5, True)]
        assert list_credentials(db, 2) == [Credential("09" * 8, 5, False)]
        access = find_access(db, digests[2][0])
        assert access == Access(2, "1")
        assert list(ensure_given(db, 1, digests[1][1], 9)) == ["07" * 8], "the start revokes all given pairs but its own one"
        assert find_access(db, digests[1][0]) is None
        assert find_access(db, digests[1][1]) == Access(1, "2")
    database.close()


def test_upgrade_gives_waiting_notifications_a_queue(database_url: str) -> None:
    """An upgrade keeps notifications. Those that wait or are being sent get the queue of their webhook or of their program."""
    database = Database(database_url)
    columns = "program_id, webhook_id, target, category, refs, state, due_ms, tries, created_ms, attempts"
    rows = [(state, webhook_id) for state in Delivery for webhook_id in (9, None)]
    with database.write() as db:
        command.upgrade(module._config(db), "0002")
        for state, webhook_id in rows:
            values = {"state": int(state), "webhook_id": webhook_id}
            insert = f"INSERT INTO outbox ({columns}) VALUES (5, :webhook_id, NULL, 1, '[7]', :state, 11, 0, 10, '[]')"
            db.execute(text(insert), values)
    assert migrate(database)
    with database.read() as db:
        stored = db.execute(select(outbox).order_by(outbox.c.id)).all()
    assert [(row.state, row.webhook_id, row.refs, row.due_ms) for row in stored] == [(*row, "[7]", 11) for row in rows]
    assert [row.queue_id for row in stored] == [9, -5, 0, 0, 0, 0, 9, -5]
    database.close()


def test_upgrade_counts_the_messages_of_the_webhook_inbox(database_url: str) -> None:
    """An upgrade from schema 0002 keeps the newest 10,000 messages and 64 MB of each program, and numbers them."""
    database = Database(database_url)
    with database.write() as db:
        command.upgrade(module._config(db), "0002")
        program = "INSERT INTO programs (id, token, name, short_code, settings, revision, clock_offset_ms, created_ms) "
        for program_id in (1, 2, 3):
            db.execute(text(program + f"VALUES ({program_id}, 'p{program_id}', 'P', 'pppp', '{{}}', 1, 0, 0)"))
        insert = text(
            "INSERT INTO inbox_messages (program_id, box, received_ms, stored_ms, headers, body) "
            "VALUES (:program, 'b', 0, 0, '{}', :body)"
        )
        db.execute(insert, [{"program": 1 + number % 2, "body": b"x" * 8} for number in range(20_004)])
        db.execute(insert, [{"program": 3, "body": b"x" * (16_000_000 - 2)} for _ in range(5)])
    assert migrate(database)
    figures = select(
        inbox_messages.c.program_id, func.count(), func.min(inbox_messages.c.number), func.max(inbox_messages.c.number),
        func.min(inbox_messages.c.begin_bytes), func.max(inbox_messages.c.end_bytes),
    )  # fmt: skip
    with database.read() as db:
        rows = db.execute(figures.group_by(inbox_messages.c.program_id).order_by(inbox_messages.c.program_id)).all()
    assert [tuple(row) for row in rows] == [
        (1, 10_000, 3, 10_002, 20, 100_020), (2, 10_000, 3, 10_002, 20, 100_020), (3, 4, 2, 5, 16_000_000, 80_000_000),
    ]  # fmt: skip
    database.close()


def test_a_second_run_does_nothing(database_url: str) -> None:
    """A second run leaves an up-to-date database unchanged."""
    database = Database(database_url)
    assert migrate(database)
    assert not migrate(database)
    assert present(database) == newest()
    database.close()


def test_the_sql_can_be_printed(database_url: str) -> None:
    """The migrations are available as SQL for either database, including the guard of the journal."""
    database = Database(database_url)
    sql = sql_of_all(database)
    assert "CREATE TABLE journal" in sql
    assert "append-only" in sql
    database.close()


def test_the_journal_is_append_only(database_url: str) -> None:
    """The database rejects a change, a removal and an unbalanced insert of journal entries."""
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


def with_a_program(address: str) -> Database:
    """Create a database at the current schema, with a program at revision 1."""
    database = Database(address)
    migrate(database)
    columns = "token, name, short_code, settings, revision, clock_offset_ms, created_ms"
    with database.write() as db:
        db.execute(text(f"INSERT INTO programs ({columns}) VALUES ('p', 'P', 'pppp', '{{}}', 1, 0, 0)"))
    return database


def test_an_upgrade_counts_up_the_revisions_of_programs(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade increments the revision of each program, so that running servers reload it. A run without work does not."""
    database = with_a_program(database_url)
    folder = tmp_path / "migrations"
    shutil.copytree(module.MIGRATIONS, folder)
    (folder / "versions" / "9000_next.py").write_text(NEXT.format(last=newest()))
    monkeypatch.setattr(module, "MIGRATIONS", folder)
    revisions.cache_clear()
    try:
        for changed in (True, False):
            assert migrate(database) is changed
            with database.read() as db:
                assert db.scalar(text("SELECT revision FROM programs")) == 2
        assert present(database) == "9000"
    finally:
        revisions.cache_clear()
    database.close()


def test_migrations_that_start_at_once_run_one_after_the_other(database_url: str) -> None:
    """If two migrations start on an empty database, one creates the tables. The other waits and changes nothing."""
    barrier, changed = threading.Barrier(2), list[bool]()

    def run() -> None:
        database = Database(database_url)
        barrier.wait()
        changed.append(migrate(database))
        database.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(changed) == [False, True]


def test_a_wait_for_a_migration_has_a_limit(database_url: str) -> None:
    """A migration gives up at its limit while another one holds the lock. It reports the reason and changes nothing."""
    database = Database(database_url)
    if database.is_sqlite:
        event.listen(database.engine, "connect", lambda raw, _record: raw.execute("PRAGMA busy_timeout=50"))
        sqlite3.connect(database_url).execute("PRAGMA journal_mode=WAL")
        other: sqlite3.Connection | psycopg.Connection = sqlite3.connect(database_url, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
    else:
        other = psycopg.connect(database_url)
        other.execute(f"SELECT pg_advisory_xact_lock({LOCK_ID})")
    with pytest.raises(MigrationBlocked, match="another migration or a long transaction holds the database"):
        migrate(database, wait_s=0.05)
    other.rollback()
    assert present(database) is None
    assert migrate(database)
    other.close()
    database.close()
