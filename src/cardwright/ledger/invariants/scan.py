"""How the invariants walk over the rows: streamed, so that the memory they take does not grow with the database."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, select

from cardwright.storage.database import Row
from cardwright.storage.tables import journal, transactions

CHUNK = 1_000
"""Rows in memory at a time."""

Discrepancy = tuple[str, object, object]
"""A row that contradicts an invariant: where it is, what was expected there, what was found."""


def stream(db: Connection, query: Select[Any]) -> Iterator[Row]:
    """The rows of a query, a chunk in memory at a time."""
    yield from db.execute(query, execution_options={"yield_per": CHUNK})


def with_entries(*columns: Any) -> Select[Any]:
    """Transactions, each with its journal entry if it has one."""
    return select(*columns).outerjoin_from(transactions, journal, journal.c.id == transactions.c.id)


def truth(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """A condition as a number: the two databases compare conditions differently."""
    return case((condition, 1), else_=0)
