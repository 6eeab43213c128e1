"""One database behind one door: SQLite in a file, or PostgreSQL, with the same plain-function interface."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url

from cardwright.kit.gate import Gate
from cardwright.storage.sqlite import connect_sqlite


class Database:
    """Connections for reading and for writing. ``address`` is a file path or ``postgresql://…``."""

    def __init__(self, address: str) -> None:
        self.url = _url_of(address)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        # SQLite has one writer. Threads wait here, in order and without polling, rather than on the file's lock.
        self.write_gate = Gate()
        self.engine = self._sqlite_engine() if self.is_sqlite else create_engine(self.url, pool_size=16, max_overflow=16)
        # In SQLite a transaction sees the database as its first read found it; PostgreSQL must be asked for that.
        self._reader = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")

    @property
    def path(self) -> str:
        """The file of a SQLite database."""
        assert self.is_sqlite
        assert self.url.database
        return self.url.database

    @property
    def dsn(self) -> str:
        """The libpq connection string of a PostgreSQL database."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @property
    def place(self) -> str:
        """Where the data lives, for people to read; without a password."""
        return self.path if self.is_sqlite else self.url.set(drivername="postgresql").render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: all of it sees what was committed when its first statement began."""
        with self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, rolled back on any exception."""
        if not self.is_sqlite:
            with self.engine.begin() as connection:
                yield connection
            return
        with self.write_gate, self.engine.connect().execution_options(immediate=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Ends all connections."""
        self.engine.dispose()

    def _sqlite_engine(self) -> Engine:
        path = self.url.database
        assert path
        # The address is in the creator; without a pool named here SQLAlchemy would take this for a database in memory.
        engine = create_engine(
            "sqlite://", creator=lambda: connect_sqlite(path), poolclass=QueuePool, pool_size=16, max_overflow=16
        )

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A read that turns into a write gets SQLITE_BUSY at once, whatever the timeout: writers begin as writers.
            immediate = connection.get_execution_options().get("immediate", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

        return engine


def _url_of(address: str) -> URL:
    if address.startswith(("postgresql://", "postgres://")):
        return make_url(address.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")
    if "://" in address:
        raise ValueError(f"--db takes a file path, :memory: or postgresql://…, not {address.split('://')[0]}://")
    return URL.create("sqlite", database=str(Path(address).expanduser()))


Row = Any
"""A SQLAlchemy row: its columns are attributes."""
