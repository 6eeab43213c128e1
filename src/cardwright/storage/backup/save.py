"""Backup: all rows of a database at one instant, written to a file while servers use the database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from sqlalchemy import Boolean, Column, Connection, Integer, LargeBinary, Select, String, Table, collate, select, text

from cardwright.kit.clock import Instant, iso
from cardwright.kit.failpoints import failpoint
from cardwright.storage.backup.backup_file import BackupWriter, ColumnSpec, ColumnType, Header, TableSpec
from cardwright.storage.database import Database
from cardwright.storage.migrate import SELECT_SCHEMA, check_schema, newest
from cardwright.storage.tables import metadata

TYPES: tuple[tuple[type[Any], ColumnType], ...] = (
    (Boolean, "bool"), (Integer, "int"), (LargeBinary, "bytes"), (String, "text"),
)  # fmt: skip
"""SQLAlchemy types of columns, subclasses included, and their types in a backup."""

CHUNK = 250
"""Maximum number of rows in memory. Messages of the webhook inbox have up to a megabyte each."""


@dataclass(frozen=True, slots=True)
class KeyFields:
    """The fields of a header about keys; see ``Header``."""

    key_check: str | None
    keys: bytes | None = None


def write_backup(
    database: Database, file: BinaryIO, *, version: str, now: Instant, read_keys: Callable[[Connection], KeyFields],
    progress: Callable[[str, int], None] = lambda _name, _rows: None,
) -> dict[str, int]:  # fmt: skip
    """Write all tables, as of one instant, and return the number of rows by table.

    ``version`` is that of Cardwright. ``read_keys`` is called in the same snapshot. ``progress`` gets the table and its number
    of rows so far. Raises SchemaChanged if the database has another schema than this version.
    """
    with _snapshot(database) as db:
        check_schema(db.scalars(text(SELECT_SCHEMA)).all())
        fields = read_keys(db)
        header = Header(
            cardwright=version, revision=newest(), database="SQLite" if database.is_sqlite else "PostgreSQL",
            created_time=iso(now), key_check=fields.key_check, keys=fields.keys,
            tables=tuple(map(table_spec, metadata.sorted_tables)),
        )  # fmt: skip
        writer, counts = BackupWriter(file, header), dict[str, int]()
        for table, spec in zip(metadata.sorted_tables, header.tables, strict=True):
            failpoint("backup.table")
            rows = db.execute(_rows_of(table, database), execution_options={"yield_per": CHUNK})
            counts[spec.name] = writer.write_table(spec.name, rows, partial(progress, spec.name))
        writer.close()
    return counts


def table_spec(table: Table) -> TableSpec:
    """Return the description of a table in a backup."""
    columns = (ColumnSpec(str(column.name), _type_of(column), bool(column.nullable)) for column in table.columns)
    return TableSpec(str(table.name), tuple(columns))


def _type_of(column: Column[Any]) -> ColumnType:
    names = [name for kind, name in TYPES if isinstance(column.type, kind)]
    assert names, f"a backup has no type for {column}: {column.type!r}"
    return names[0]


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """Yield a read transaction without a time limit. All its queries see the same instant, and no table changes its columns.

    On SQLite the transaction keeps the WAL from restarting, so the WAL grows by the writes of the meantime. On PostgreSQL it
    keeps VACUUM from removing rows that were deleted in the meantime.
    """
    with database.read() as db:
        if not database.is_sqlite:
            db.exec_driver_sql("SET TRANSACTION READ ONLY")
            db.exec_driver_sql("SET LOCAL statement_timeout = 0")
            # All rows are read, so a plan must not prefer the first ones.
            db.exec_driver_sql("SET LOCAL cursor_tuple_fraction = 1")
            # A migration waits for these locks. They come before the snapshot, which the first query takes.
            db.exec_driver_sql(f"LOCK TABLE {', '.join(metadata.tables)} IN ACCESS SHARE MODE")
        yield db


def _rows_of(table: Table, database: Database) -> Select[Any]:
    """Return the query of all rows in the order of the primary key, which is the same on both databases."""
    keys = [
        collate(column, "C") if isinstance(column.type, String) and not database.is_sqlite else column
        for column in table.primary_key.columns
    ]
    return select(*table.columns).order_by(*keys)
