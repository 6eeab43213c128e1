"""Databases of a run: one durable PostgreSQL for all stations, SQLite files on the same disk, and fast copies of both."""

import ctypes
import mmap
import shutil
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql

from cardwright.storage.sqlite_connection import connect_sqlite
from tests.support.postgres import TestPostgres, with_database

SETTINGS = {
    "shared_buffers": "6GB",
    "max_wal_size": "8GB",
    # Longer than a round: a checkpoint in some rounds only would be noise.
    "checkpoint_timeout": "30min",
    "max_connections": "200",
}
"""Settings that differ from PostgreSQL's defaults; fsync and synchronous_commit stay on."""


PAGE = 4_096
_held: list[tuple[mmap.mmap, ctypes.c_char]] = []
"""Mapped files that stay in memory until this process ends."""

HOT_TABLES = ["holders", "cards", "users", "transactions", "journal"]


def start_postgres() -> TestPostgres:
    """Start the PostgreSQL server that all stations share, with the durability of production."""
    return TestPostgres(durable=True, settings=SETTINGS)


def settings_of(postgres: TestPostgres) -> dict[str, str]:
    """Return the server's version and settings for the report."""
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", *SETTINGS)
    with psycopg.connect(postgres.dsn) as db:
        return {name: str(db.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]) for name in names}  # type: ignore[index]


def name_of(dsn: str) -> str:
    """Return the name of the database in a DSN."""
    return dsn.rpartition("/")[2]


def is_sqlite(address: str) -> bool:
    """Return True if the address is a file."""
    return "://" not in address


def copy_database(postgres: TestPostgres, address: str, folder: Path) -> str:
    """Copy the files of a database without connections and return the copy's address. Gigabytes take seconds."""
    if is_sqlite(address):
        target = folder / f"{uuid4().hex}.db"
        shutil.copyfile(address, target)
        return str(target)
    name = f"cardwright_{uuid4().hex}"
    with psycopg.connect(postgres.dsn, autocommit=True) as db:
        # FILE_COPY, not WAL_LOG: the copy of a large template would otherwise go through the write-ahead log.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        db.execute(statement.format(sql.Identifier(name), sql.Identifier(name_of(address))))
    return with_database(postgres.dsn, name)


def prewarm(address: str) -> None:
    """Load the data that each purchase reads into memory, as on a server that has run for a day.

    PostgreSQL keeps it in its buffers. For SQLite the system could drop pages of the file, so this process locks all of them.
    """
    if is_sqlite(address):
        _hold_in_memory(Path(address))
        return
    with psycopg.connect(address, autocommit=True) as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        db.execute(
            "SELECT pg_prewarm(c.oid::regclass) FROM pg_class c WHERE c.relkind IN ('r', 'i') AND c.relname = ANY(%s) "
            "OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid::regclass::text = ANY(%s))",
            (HOT_TABLES, HOT_TABLES),
        )


def _hold_in_memory(file: Path) -> None:
    if file.stat().st_size > _free_bytes() // 2:
        # A larger file would leave the processes too little memory, so it stays cold.
        return
    with file.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0)
    held = ctypes.c_char.from_buffer(mapped)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlock(ctypes.byref(held), ctypes.c_size_t(len(mapped))) != 0:
        # Without permission to lock memory, read each page once.
        for start in range(0, len(mapped), PAGE):
            mapped[start]
    _held.append((mapped, held))


def warm_log(address: str) -> None:
    """Read SQLite's log into memory, where it is while a server runs. PostgreSQL writes its log in whole pages.

    The system reclaims pages that were not used for a minute, and must read a page before it overwrites a part of it.
    Without the log in memory, the p99 at half of the peak was 15 ms instead of 7 ms.
    """
    log = Path(f"{address}-wal")
    if is_sqlite(address) and log.exists():
        with log.open("rb") as opened:
            while opened.read(1 << 20):
                pass


def _free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def settle(postgres: TestPostgres, address: str) -> None:
    """Checkpoint, and on PostgreSQL vacuum and analyze, so that no measurement includes this work."""
    if is_sqlite(address):
        connection = connect_sqlite(address)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return
    with psycopg.connect(address, autocommit=True) as db:
        db.execute("VACUUM ANALYZE")
    with psycopg.connect(postgres.dsn, autocommit=True) as db:
        db.execute("CHECKPOINT")


def size_of(address: str) -> int:
    """Return the bytes of the database with its indexes, without its log."""
    if is_sqlite(address):
        return Path(address).stat().st_size
    with psycopg.connect(address) as db:
        row = db.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        return int(row[0])
