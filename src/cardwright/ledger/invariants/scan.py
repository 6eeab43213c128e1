"""Scans of rows by invariants: streamed, so that memory does not grow with the database."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, Select, String, Table, case, select

from cardwright.storage.database import Row
from cardwright.storage.tables import journal, transactions

CHUNK = 1_000
"""Maximum number of rows in memory."""

TEXTS_CHUNK = 50
"""Maximum number of rows in memory with all their texts. A body in the webhook inbox may have a mebibyte."""

Discrepancy = tuple[str, object, object]
"""A row that contradicts an invariant: its place, the expected value, and the actual value."""


def stream(db: Connection, query: Select[Any], chunk: int = CHUNK) -> Iterator[Row]:
    """Yield the rows of a query, with at most ``chunk`` in memory."""
    yield from db.execute(query, execution_options={"yield_per": chunk})


def texts_of(db: Connection, table: Table, without: AbstractSet[str] = frozenset()) -> Iterator[tuple[str, str | bytes]]:
    """Yield place and value of all text and binary columns of a table, except for the columns ``without``."""
    keys = list(table.primary_key.columns)
    columns = [column for column in table.c if isinstance(column.type, String | LargeBinary) and column.name not in without]
    if not columns:
        return
    for row in stream(db, select(*keys, *columns), TEXTS_CHUNK):
        key = ", ".join(str(part) for part in row[: len(keys)] if not isinstance(part, bytes | memoryview))
        for column, value in zip(columns, row[len(keys) :], strict=True):
            if value is not None:
                yield f"{table.name}.{column.name} {key}", value if isinstance(value, str) else bytes(value)


def with_entries(*columns: Any) -> Select[Any]:
    """Return a query of transactions with their journal entries, if they have one."""
    return select(*columns).outerjoin_from(transactions, journal, journal.c.id == transactions.c.id)


def truth(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """Return a condition as 0 or 1: the two databases compare conditions differently."""
    return case((condition, 1), else_=0)
