"""Restore: the rows of a backup, loaded into an empty database in one transaction."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, delete, func, inspect, select, table, text
from sqlalchemy.exc import DBAPIError

from cardwright.kit.failpoints import failpoint
from cardwright.storage.backup.backup_file import BackupReader, Header, TableSpec
from cardwright.storage.builtin_resources import BUILT_IN
from cardwright.storage.database import Database
from cardwright.storage.failures import is_away_error, reason_of
from cardwright.storage.migrate import MigrationBlocked, exclusive, find_revision, newest, revisions, upgrade
from cardwright.storage.tables import (
    POSTGRES_ID_BLOCK,
    accepted_countries,
    account_holder_groups,
    credentials,
    data_keys,
    meta,
    programs,
)

FIRST_TABLES = (accepted_countries, account_holder_groups, credentials, programs, meta, data_keys)
"""The tables in which migrations and the first start of a server insert rows: a program without objects, its credentials,
built-in resources, the key check and the data keys. A table comes before the tables that its foreign keys refer to.
"""

SCHEMA_TABLE = "alembic_version"

CACHE_KIB = 128 << 10
"""Cache of SQLite during a restore. Indexes of random keys would be written again and again with a small one."""

OTHER_DATABASE = "name another database with --db: a new file, or an empty PostgreSQL database"


class RestoreRefused(Exception):
    """The reason why a backup is not restored; ``advice`` is the next step. The database is as before."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


def check_revision(header: Header) -> None:
    """Check that this version knows the schema of a backup. Raises RestoreRefused."""
    if header.revision not in revisions():
        reason = f"the backup has schema {header.revision}, and this version of Cardwright knows schemas up to {newest()}"
        raise RestoreRefused(reason, f"install Cardwright {header.cardwright}, which made the backup, or a later version")


def restore(database: Database, backup: BackupReader, *, before_commit: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Load all rows of a backup in one transaction and return their number by table.

    A database without tables gets those of the backup's schema; a backup of an earlier version is then migrated. All
    constraints and triggers are active. ``before_commit`` is called when all rows are loaded. Raises RestoreRefused,
    Unreadable, and Unavailable; after each of them, and after a kill, the database is as before.
    """
    check_revision(backup.header)
    try:
        with exclusive(database) as db:
            _prepare(db, backup.header)
            counts = {}
            for spec in backup.header.tables:
                failpoint("restore.table")
                counts[spec.name] = _load(db, spec, backup.blocks(spec))
            backup.finish()
            if not database.is_sqlite:
                _set_sequences(db)
            upgrade(db)
            before_commit()
            failpoint("restore.commit")
    except MigrationBlocked:
        reason = f"--db {database.place}: another migration or transaction holds the database"
        raise RestoreRefused(reason, "repeat the command when the other process has ended") from None
    return counts


# --- The empty database -------------------------------------------------------------------


def _prepare(db: Connection, header: Header) -> None:
    """Give the database the tables of the backup's schema, without rows. Raises RestoreRefused."""
    revision = find_revision(db)
    if revision is not None:
        names = _table_names(db)
        _exclude_servers(db, names)
        _check_empty(db, names)
        if revision not in revisions() or revision > header.revision:
            reason = f"the tables have schema {revision}, and the backup has the earlier schema {header.revision}"
            raise RestoreRefused(reason, f"a backup of an earlier version needs a database without tables; {OTHER_DATABASE}")
    if revision != header.revision:
        upgrade(db, header.revision)
    # Migrations insert rows too.
    present = _table_names(db)
    for first in FIRST_TABLES:
        if first.name in present:
            db.execute(delete(first))
    columns = {name: {column["name"] for column in inspect(db).get_columns(name)} for name in _table_names(db)}
    specified = {spec.name: {column.name for column in spec.columns} for spec in header.tables}
    if different := sorted(name for name in columns.keys() | specified.keys() if columns.get(name) != specified.get(name)):
        reason = f"the backup and schema {header.revision} have different columns: {', '.join(different)}"
        raise RestoreRefused(
            reason, f"restore the backup with Cardwright {header.cardwright}, which made it; or {OTHER_DATABASE}"
        )


def _table_names(db: Connection) -> list[str]:
    return sorted(name for name in inspect(db).get_table_names() if name != SCHEMA_TABLE)


def _exclude_servers(db: Connection, names: Sequence[str]) -> None:
    """Block other transactions until the end of this one, and check that no server uses the database. Raises RestoreRefused.

    On SQLite the transaction has already locked the file against other writers.
    """
    if db.dialect.name == "sqlite":
        return
    others = db.scalar(
        text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND application_name LIKE 'cardwright/%'"
        )
    )
    if others:
        raise RestoreRefused(f"{others} connections of Cardwright use the database", "stop its servers, or " + OTHER_DATABASE)
    db.exec_driver_sql(f"LOCK TABLE {', '.join(map(_quoter(db), names))} IN ACCESS EXCLUSIVE MODE")


def _check_empty(db: Connection, names: Sequence[str]) -> None:
    """Check that there are no rows except those of the first start of a server. Raises RestoreRefused."""
    firsts = {first.name for first in FIRST_TABLES}
    occupied = [name for name in names if name not in firsts and db.execute(select(1).select_from(table(name)).limit(1)).first()]
    if (db.scalar(select(func.count()).select_from(programs)) or 0) > 1:
        occupied.append(programs.name)
    for builtin in (accepted_countries, account_holder_groups):
        added = select(builtin.c.id).where(builtin.c.token.not_in(BUILT_IN[builtin.name])).limit(1)
        occupied += [builtin.name] if db.execute(added).first() else []
    if occupied:
        raise RestoreRefused(f"the database is not empty: there are rows in {', '.join(sorted(occupied))}", OTHER_DATABASE)


# --- Rows ---------------------------------------------------------------------------------


def _load(db: Connection, spec: TableSpec, blocks: Iterable[list[tuple[Any, ...]]]) -> int:
    """Insert the rows of a table and return their number. Raises RestoreRefused if the database refuses a row."""
    quoted = _quoter(db)
    columns = ", ".join(quoted(column.name) for column in spec.columns)
    count = 0
    with _refusals(spec):
        if db.dialect.name == "sqlite":
            # A row may refer to a later row of its table. COMMIT checks the references.
            db.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            db.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KIB}")
            marks = ", ".join("?" for _ in spec.columns)
            insert = f"INSERT INTO {quoted(spec.name)} ({columns}) VALUES ({marks})"  # noqa: S608
            for rows in blocks:
                db.exec_driver_sql(insert, rows)
                count += len(rows)
            return count
        raw: Any = db.connection.dbapi_connection
        with raw.cursor() as cursor, cursor.copy(f"COPY {quoted(spec.name)} ({columns}) FROM STDIN") as copy:
            for rows in blocks:
                for row in rows:
                    copy.write_row(row)
                count += len(rows)
    return count


def _quoter(db: Connection) -> Callable[[str], str]:
    return db.dialect.identifier_preparer.quote_identifier


@contextmanager
def _refusals(spec: TableSpec) -> Iterator[None]:
    """Raise RestoreRefused for a row that a constraint or a type of the database refuses."""
    try:
        yield
    except Exception as error:
        is_refusal = isinstance(error, DBAPIError | sqlite3.Error) or getattr(error, "sqlstate", None) is not None
        if not is_refusal or is_away_error(error):
            raise
        reason = f"the database refuses a row of {spec.name}: {reason_of(error)}"
        raise RestoreRefused(reason, "run `cardwright verify` on the database of the backup") from None


def _set_sequences(db: Connection) -> None:
    """Let the sequences of PostgreSQL continue after the loaded ids, and collect statistics for its plans."""
    for name in _table_names(db):
        for column in (column["name"] for column in inspect(db).get_columns(name) if column.get("identity")):
            highest = f"SELECT max({_quoter(db)(column)}) AS id FROM {_quoter(db)(name)}"  # noqa: S608
            query = f"SELECT setval(pg_get_serial_sequence(:name, :column), id) FROM ({highest}) AS t WHERE id > 0"  # noqa: S608
            db.execute(text(query), {"name": name, "column": column})
    # The block of the highest id is in use, see ``PostgresStore.next_ids``.
    last = f"SELECT (max(id) - 1) / {POSTGRES_ID_BLOCK} + 1 AS block FROM transactions WHERE id > 0"  # noqa: S608
    db.exec_driver_sql(f"SELECT setval('transaction_blocks', block) FROM ({last}) AS t WHERE block IS NOT NULL")  # noqa: S608
    db.exec_driver_sql("ANALYZE")
