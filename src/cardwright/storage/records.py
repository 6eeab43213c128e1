"""Reading and writing wire resources: rows whose ``doc`` is the JSON that a GET answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, and_, select
from sqlalchemy.sql.elements import ColumnElement, UnaryExpression

from cardwright.core.problems import TOKEN_TAKEN, Problem, bad_parameter
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
"""Sort names of the wire (camelCase system names, and the response names a tolerant server also takes) and their columns."""

# Amounts are numbers on the wire, never strings; keys in their declared order.
encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of documents and whether more follow."""

    docs: Sequence[str]
    is_more: bool


def request_hash(body: msgspec.Struct) -> bytes:
    """What two requests have in common when they are the same: a hash of the parsed body, absent and null alike."""
    return sha256(msgspec.json.encode(body, order="deterministic")).digest()[:16]


def text_of(doc: msgspec.Struct | Mapping[str, Any]) -> str:
    """A resource's JSON as it is stored and answered."""
    return encoder.encode(doc).decode()


def find(db: Connection, table: Table, program_id: int, token: str | None) -> Row | None:
    """The row with this token in this program, or None."""
    return db.execute(select(table).where(table.c.program_id == program_id, table.c.token == token)).one_or_none()


def find_replay(db: Connection, table: Table, program_id: int, token: str | None, body: msgspec.Struct) -> Row | None:
    """The row that an earlier, equal request made. Raises TOKEN_TAKEN when the earlier request had another body."""
    found = find(db, table, program_id, token) if token is not None else None
    if found is not None and bytes(found.request_hash) != request_hash(body):
        raise Problem(TOKEN_TAKEN)
    return found


def insert(db: Connection, table: Table, **columns: Any) -> int:
    """Inserts a row and returns its id."""
    key = db.execute(table.insert().values(**columns)).inserted_primary_key
    assert key is not None
    return int(key[0])


def change(db: Connection, table: Table, row_id: int, **columns: Any) -> None:
    """Sets columns of one row."""
    db.execute(table.update().where(table.c.id == row_id).values(**columns))


def lock(db: Connection, table: Table, program_id: int, token: str) -> Row | None:
    """The row with this token, held against other changes until the commit: a change reads it before it writes it."""
    query = select(table).where(table.c.program_id == program_id, table.c.token == token)
    return db.execute(query.with_for_update(key_share=True)).one_or_none()


def order_of(table: Table, sort_by: str) -> list[UnaryExpression[Any]]:
    """The order that a list is asked for in; creation order breaks ties. Raises a problem for an unknown sort name."""
    name = sort_by.removeprefix("-")
    if name not in SYSTEM_SORTS:
        raise bad_parameter("sort_by", f"must be one of {', '.join(SYSTEM_SORTS)}, not {name[:60]}")
    keys = (table.c[SYSTEM_SORTS[name]], table.c.id)
    return [key.desc() if sort_by.startswith("-") else key.asc() for key in keys]


def list_page(db: Connection, table: Table, program_id: int, page: Page, *conditions: ColumnElement[bool]) -> Listing:
    """The page's documents in its order. Raises a problem for an unknown sort name."""
    query = select(table.c.doc).where(and_(table.c.program_id == program_id, *conditions))
    query = query.order_by(*order_of(table, page.sort_by))
    docs = db.scalars(query.offset(page.start_index).limit(page.count + 1)).all()
    return Listing(docs[: page.count], len(docs) > page.count)
