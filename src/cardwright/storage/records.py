"""Records: queries for API resources whose column ``doc`` is the JSON that a GET returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Select, Table, and_, bindparam, literal, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.problems import TOKEN_TAKEN, Problem, bad_parameter
from cardwright.kit.bookmarks import Position
from cardwright.kit.page import Page
from cardwright.storage.database import Row

SYSTEM_SORTS = {
    "createdTime": "created_ms",
    "created_time": "created_ms",
    "lastModifiedTime": "modified_ms",
    "last_modified_time": "modified_ms",
    "id": "id",
    "token": "token",
}
"""Sort names of the API and their columns. The names of response fields are accepted beside the camelCase names."""

# Amounts are JSON numbers, not strings. Keys have their declared order.
encoder = msgspec.json.Encoder(decimal_format="number")


class SortOrder(NamedTuple):
    """The sort keys and direction of a list. The keys are unique together."""

    keys: Sequence[ColumnElement[Any]]
    descending: bool

    def sort(self, query: Select[Any]) -> Select[Any]:
        """Return the query with its rows in this order."""
        return query.order_by(*(key.desc() if self.descending else key.asc() for key in self.keys))

    def behind(self, position: Position) -> ColumnElement[bool]:
        """Return the condition that a row comes after a position."""
        keys = tuple_(*self.keys)
        values = tuple_(*(literal(value, key.type) for value, key in zip(position, self.keys, strict=True)))
        return keys < values if self.descending else keys > values


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of documents. ``is_more`` is True if more follow."""

    docs: Sequence[str]
    is_more: bool


def text_of(doc: msgspec.Struct | Mapping[str, Any]) -> str:
    """Return the JSON of a resource for storage and for responses."""
    return encoder.encode(doc).decode()


# Built once for each table: SQLAlchemy takes longer to build such a statement than SQLite takes to run it.
@cache
def _by_token(table: Table) -> Select[Any]:
    return select(table).where(table.c.program_id == bindparam("program_id"), table.c.token == bindparam("token"))


@cache
def _locked_by_token(table: Table) -> Select[Any]:
    return _by_token(table).with_for_update(key_share=True)


def find(db: Connection, table: Table, program_id: int, token: str | None) -> Row | None:
    """Return the row with this token in this program, or None."""
    return db.execute(_by_token(table), {"program_id": program_id, "token": token}).one_or_none()


def find_replay(db: Connection, table: Table, program_id: int, token: str | None, fingerprint: bytes) -> Row | None:
    """Return the row that an earlier, equal request created, or None. Raises TOKEN_TAKEN if that request had another body."""
    row = find(db, table, program_id, token) if token is not None else None
    if row is not None and bytes(row.request_hash) != fingerprint:
        raise Problem(TOKEN_TAKEN)
    return row


def insert(db: Connection, table: Table, **columns: Any) -> int:
    """Insert a row and return its id."""
    key = db.execute(table.insert().values(**columns)).inserted_primary_key
    assert key is not None
    return int(key[0])


def change(db: Connection, table: Table, row_id: int, **columns: Any) -> None:
    """Set columns of one row."""
    db.execute(table.update().where(table.c.id == row_id).values(**columns))


def lock(db: Connection, table: Table, program_id: int, token: str) -> Row | None:
    """Return the row with this token, or None, and lock it until the commit, because its new value depends on the old one."""
    return db.execute(_locked_by_token(table), {"program_id": program_id, "token": token}).one_or_none()


def order_of(table: Table, sort_by: str) -> SortOrder:
    """Return the order that a request asks for. The row id breaks ties. Raises a problem for an unknown sort name."""
    name = sort_by.removeprefix("-")
    if name not in SYSTEM_SORTS:
        raise bad_parameter("sort_by", f"must be one of {', '.join(SYSTEM_SORTS)}, not {name[:60]}")
    return SortOrder((table.c[SYSTEM_SORTS[name]], table.c.id), sort_by.startswith("-"))


def read_page(
    db: Connection, query: Select[Any], order: SortOrder, page: Page, fits: Callable[[Row], bool] | None = None
) -> tuple[list[Row], bool]:
    """Return the rows of a page, and True if more follow. ``fits`` filters the rows of the query.

    The next page of the same connection begins after the last row of this one; see ``kit.bookmarks``.
    """
    start, width = page.start(), len(order.keys)
    query = order.sort(query.add_columns(*(key.label(f"sort_key_{number}") for number, key in enumerate(order.keys))))
    if start.after is not None:
        query = query.where(order.behind(start.after))
    skip = page.start_index if start.after is None else 0
    if fits is None:
        matches = list(db.execute(query.offset(skip).limit(page.count + 1)))
    else:
        with db.execute(query) as rows:
            matches = list(islice(filter(fits, rows), skip, skip + page.count + 1))
    shown, is_more = matches[: page.count], len(matches) > page.count
    page.end(start, [tuple(row[-width:]) for row in shown], is_more=is_more, descending=order.descending)
    return shown, is_more


def list_page(db: Connection, table: Table, program_id: int, page: Page, *conditions: ColumnElement[bool]) -> Listing:
    """Return the documents of a page in its order. Raises a problem for an unknown sort name."""
    query = select(table.c.doc).where(and_(table.c.program_id == program_id, *conditions))
    rows, is_more = read_page(db, query, order_of(table, page.sort_by), page)
    return Listing([row.doc for row in rows], is_more)
