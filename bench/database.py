"""The databases of a run: one durable PostgreSQL for everybody, SQLite files on the same disk, and quick copies of both."""

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
    # None within a run of a few minutes: a checkpoint in one round and not in the next would be noise.
    "checkpoint_timeout": "30min",
    "max_connections": "200",
}
"""Of the server, beside PostgreSQL's own defaults; fsync and synchronous_commit stay on."""


PAGE = 4_096
_held: list[tuple[mmap.mmap, ctypes.c_char]] = []
"""What is held in memory until this process ends."""

HOT_TABLES = ["holders", "cards", "users", "transactions", "journal"]


def start_postgres() -> TestPostgres:
    """The server that everything in a run shares, as durable as in production."""
    return TestPostgres(durable=True, settings=SETTINGS)


def settings_of(postgres: TestPostgres) -> dict[str, str]:
    """What the server says of itself, for the report."""
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", *SETTINGS)
    with psycopg.connect(postgres.dsn) as db:
        return {name: str(db.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]) for name in names}  # type: ignore[index]


def name_of(dsn: str) -> str:
    """The database's name in a DSN."""
    return dsn.rpartition("/")[2]


def is_sqlite(address: str) -> bool:
    """Whether the address is a file."""
    return "://" not in address


def copy_database(postgres: TestPostgres, address: str, folder: Path) -> str:
    """A copy of a database that nobody is connected to, by file: seconds for gigabytes."""
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
    """Reads what is read for each purchase into memory, where it is on a server that has been at work for a day.

    PostgreSQL has its buffers for that; of SQLite's file the system keeps what it likes, so we see to it that it likes all.
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
        # Better a cold file than no machine.
        return
    with file.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0)
    held = ctypes.c_char.from_buffer(mapped)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlock(ctypes.byref(held), ctypes.c_size_t(len(mapped))) != 0:
        # Not allowed to: read once is better than nothing.
        for start in range(0, len(mapped), PAGE):
            mapped[start]
    _held.append((mapped, held))


def warm_log(address: str) -> None:
    """Reads SQLite's log into memory again, where it is while a server is at work; PostgreSQL writes its own by whole pages.

    A system that gives memory back takes what nobody used for a minute, and a page of a file that is written over in part
    must first be read: with the log gone half of the peak had a p99 of 15 ms instead of 7.
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
    """Brings everything that was seeded to its place, so that no measurement pays for it."""
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
    """Bytes of the database with its indexes, without its log."""
    if is_sqlite(address):
        return Path(address).stat().st_size
    with psycopg.connect(address) as db:
        row = db.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        return int(row[0])
