"""Scans of rows by invariants: streamed, so that memory does not grow with the database."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, select

from cardwright.storage.database import Row
from cardwright.storage.tables import journal, transactions

CHUNK = 1_000
"""Maximum number of rows in memory."""

Discrepancy = tuple[str, object, object]
"""A row that contradicts an invariant: its place, the expected value, and the actual value."""


def stream(db: Connection, query: Select[Any]) -> Iterator[Row]:
    """Yield the rows of a query, with at most ``CHUNK`` in memory."""
    yield from db.execute(query, execution_options={"yield_per": CHUNK})


def with_entries(*columns: Any) -> Select[Any]:
    """Return a query of transactions with their journal entries, if they have one."""
    return select(*columns).outerjoin_from(transactions, journal, journal.c.id == transactions.c.id)


def truth(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """Return a condition as 0 or 1: the two databases compare conditions differently."""
    return case((condition, 1), else_=0)
