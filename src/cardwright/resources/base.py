"""What all resources do alike: create once for each token, find by token or be told so, change in part, list in pages."""

import re
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, structs
from sqlalchemy import Table
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.problems import Kind, Problem, bad_field
from cardwright.kit.canonical import canonical, reading
from cardwright.kit.clock import iso
from cardwright.resources.app import App, Call
from cardwright.resources.route import Shape
from cardwright.storage import records
from cardwright.storage.database import Row

Token = Annotated[str, Meta(min_length=1, max_length=36)]
"""A resource's identifier: chosen by the client at creation or made by us, never changed."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Metadata = dict[str, str | int | float | bool | None]
"""Metadata as a client may send it; scalars that are no text are stored as text (observed)."""


def fingerprint(app: App, body: msgspec.Struct, request: str = "") -> bytes:
    """Return what equal requests have in common: a keyed hash of the parsed body.

    ``request`` names the request where the tokens of several kinds of requests must differ.
    """
    return app.vault.fingerprint(request, canonical(body))


def find_replay_row(call: Call, table: Table, body: Any) -> Row | None:
    """The row that an equal request with the same token made before; raises 409 when that one was different."""
    return records.find_replay(call.db, table, call.program.id, body.token, fingerprint(call.app, body))


def find_replay(call: Call, table: Table, body: Any) -> str | None:
    """The resource that an equal request with the same token made before; raises 409 when that one was different."""
    row = find_replay_row(call, table, body)
    return None if row is None else str(row.doc)


def insert(call: Call, table: Table, body: msgspec.Struct, resource: Any, **columns: Any) -> tuple[int, str]:
    """Stores a new resource; answers its id and its JSON. ``resource.token`` must be unique in the program."""
    doc = records.text_of(resource)
    row_id = records.insert(
        call.db, table, program_id=call.program.id, token=resource.token, request_hash=fingerprint(call.app, body),
        created_ms=call.now, modified_ms=call.now, doc=doc, **columns,
    )
    return row_id, doc


def get_row(call: Call, table: Table, missing: Kind, token: str | None = None) -> Row:
    """The row with the path's token (or the one given). Raises ``missing`` when this program has none."""
    row = records.find(call.db, table, call.program.id, call.token if token is None else token)
    if row is None:
        raise Problem(missing)
    return row


def lock_row(call: Call, table: Table, missing: Kind) -> Row:
    """The row with the path's token, held against other changes until the end of this one. Raises ``missing``."""
    row = records.lock(call.db, table, call.program.id, call.token)
    if row is None:
        raise Problem(missing)
    return row


def changes_of(body: Shape) -> dict[str, Any]:
    """The fields of a partial update that are present; null counts as absent (wire reference, "JSON rules")."""
    return {name: value for name, value in structs.asdict(body).items() if value is not None and name != "token"}


def check_same_token(call: Call, body: Any) -> None:
    """A token inside the body of an update must be the path's, if it is there."""
    if body.token is not None and body.token != call.token:
        raise bad_field("token", "must be the token of the path: it can never be changed")


def update(call: Call, table: Table, row: Row, before: Any, after: Any, **columns: Any) -> tuple[str, bool]:
    """Stores a changed resource; answers its JSON and whether anything changed. Nothing changed: nothing is touched."""
    if after == before and all(getattr(row, name) == value for name, value in columns.items()):
        return str(row.doc), False
    doc = records.text_of(structs.replace(after, last_modified_time=iso(call.now)))
    records.change(call.db, table, row.id, doc=doc, modified_ms=call.now, **columns)
    return doc, True


def list_resources(call: Call, table: Table, *conditions: ColumnElement[bool]) -> records.Listing:
    """The page that the call asks for."""
    return records.list_page(call.db, table, call.program.id, call.list_page, *conditions)


def is_day(text: str) -> bool:
    """Whether the text has the form of a day, ``yyyy-MM-dd``."""
    return _DAY.fullmatch(text) is not None


def day_of(text: str) -> str:
    """``yyyy-MM-dd`` from a date, or from a date-time, which is cut to the day that it names (observed). Raises ValueError."""
    day = text[: len("2026-01-31")]
    if not is_day(day) or (len(text) > len(day) and text[len(day)] != "T"):
        raise ValueError(text)
    datetime.fromisoformat(text)
    return day


def parse_date(field: str, text: str) -> str:
    """The day that a text names. Raises a problem that names the field."""
    try:
        return day_of(text)
    except ValueError:
        raise bad_field(field, "must be a date, yyyy-MM-dd") from None


Day = Annotated[str, reading(day_of)]
"""A date, or a date-time of which the day counts."""

OR_NONE = reading(lambda text: text or None)
"""Marks a text that says nothing when it is empty."""


def text_metadata(metadata: Metadata | None, field: str = "metadata") -> dict[str, str]:
    """Metadata as it is stored: text to text, at most 20 pairs of at most 255 characters each."""
    pairs = {name: _as_text(value) for name, value in (metadata or {}).items() if value is not None}
    if len(pairs) > 20:
        raise bad_field(field, "may have at most 20 name-value pairs")
    for name, value in pairs.items():
        if not 0 < len(name) <= 255 or len(value) > 255:
            raise bad_field(f"{field}.{name[:40]}", "name and value may have at most 255 characters")
    return pairs


def _as_text(value: str | float | bool) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
