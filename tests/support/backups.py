"""Backups in tests: a backup of a database, its restore, and all rows of a database for a comparison."""

from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from cardwright.storage.backup.backup_file import BackupReader
from cardwright.storage.backup.restore import restore
from cardwright.storage.backup.save import KeyFields, write_backup
from cardwright.storage.database import Database
from cardwright.storage.tables import metadata
from tests.support.instants import NOON


def no_keys(_: Connection) -> KeyFields:
    """Return the fields of a header without keys."""
    return KeyFields(None)


def back_up(address: str, file: Path) -> dict[str, int]:
    """Write a backup of a database; return the number of rows by table."""
    with closing(Database(address)) as database, file.open("wb") as output:
        return write_backup(database, output, version="1.2.3", now=NOON, read_keys=no_keys)


def load(file: Path, address: str) -> dict[str, int]:
    """Restore a backup; return the number of rows by table."""
    with closing(Database(address)) as database, file.open("rb") as stream:
        return restore(database, BackupReader(stream))


def all_rows(address: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of each table, sorted."""
    with closing(Database(address)) as database, database.read() as db:
        return {table.name: sorted(map(tuple, db.execute(select(table)).all()), key=repr) for table in metadata.sorted_tables}
