"""Stored resources: idempotent creation, reads by token, partial updates, lists and versions."""

from typing import Any

import msgspec
from msgspec import UNSET, structs
from sqlalchemy import Table
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.problems import Kind, Problem, bad_field
from cardwright.kit.canonical import canonical
from cardwright.kit.clock import iso
from cardwright.resources.common.call import App, Call
from cardwright.resources.common.route import Shape
from cardwright.storage import history, records
from cardwright.storage.database import Row


def fingerprint(app: App, body: msgspec.Struct, request: str = "") -> bytes:
    """Return a keyed hash of the canonical form of the parsed body; equal requests have equal hashes.

    ``request`` goes into the hash: requests of different kinds differ even if their bodies are equal.
    """
    return app.vault.fingerprint(request, canonical(body))


def find_replay_row(call: Call, table: Table, body: Any) -> Row | None:
    """Return the row that an equal request created under this token, or None. Raises TOKEN_TAKEN if the request differs."""
    return records.find_replay(call.db, table, call.program.id, body.token, fingerprint(call.app, body))


def find_replay(call: Call, table: Table, body: Any) -> str | None:
    """Return the JSON that an equal request created under this token, or None. Raises TOKEN_TAKEN if the request differs."""
    row = find_replay_row(call, table, body)
    return None if row is None else str(row.doc)


def insert(call: Call, table: Table, body: msgspec.Struct, resource: Any, **columns: Any) -> tuple[int, str]:
    """Insert a resource and return its id and JSON. ``resource.token`` must be unique in the program."""
    doc = records.text_of(resource)
    row_id = records.insert(
        call.db,
        table,
        program_id=call.program.id,
        token=resource.token,
        request_hash=fingerprint(call.app, body),
        created_ms=call.now,
        modified_ms=call.now,
        doc=doc,
        **columns,
    )
    return row_id, doc


def get_row(call: Call, table: Table, missing: Kind, token: str | None = None) -> Row:
    """Return the row with ``token`` (default: the path's token). Raises ``missing`` if the program has none."""
    row = records.find(call.db, table, call.program.id, call.token if token is None else token)
    if row is None:
        raise Problem(missing)
    return row


def lock_row(call: Call, table: Table, missing: Kind) -> Row:
    """Return the row with the path's token, locked until the commit. Raises ``missing`` if the program has none."""
    row = records.lock(call.db, table, call.program.id, call.token)
    if row is None:
        raise Problem(missing)
    return row


def changes_of(body: Shape) -> dict[str, Any]:
    """Return the fields that a partial update sets, without the token. Null counts as absent (wire reference, "JSON rules")."""
    return {name: value for name, value in structs.asdict(body).items() if value is not None and name != "token"}


def check_same_token(call: Call, body: Any) -> None:
    """Raise a problem if the body of an update has a token that differs from the path's."""
    if body.token is not None and body.token != call.token:
        raise bad_field("token", "must equal the token of the path; a token cannot be changed")


def update(call: Call, table: Table, row: Row, before: Any, after: Any, **columns: Any) -> tuple[str, bool]:
    """Store a changed resource and return its JSON and True.

    If nothing changes, write nothing and return the stored JSON and False. A change sets ``last_modified_time``.
    """
    if after == before and all(getattr(row, name) == value for name, value in columns.items()):
        return str(row.doc), False
    doc = records.text_of(structs.replace(after, last_modified_time=iso(call.now)))
    records.change(call.db, table, row.id, doc=doc, modified_ms=call.now, **columns)
    return doc, True


def list_resources(call: Call, table: Table, *conditions: ColumnElement[bool]) -> records.Listing:
    """Return the page of resources that the call requests."""
    return records.list_page(call.db, table, call.program.id, call.list_page, *conditions)


def without_nulls(part: Any) -> Any:
    """Return a copy of the shape with UNSET in place of null."""
    return structs.replace(part, **{name: UNSET for name, value in structs.asdict(part).items() if value is None})


def check_group(call: Call, table: Table, field: str, token: Any, kind: str = "a merchant group") -> None:
    """Raise a problem if ``token`` names no existing group. An inactive group is accepted."""
    if token and records.find(call.db, table, call.program.id, token) is None:
        raise bad_field(field, f"is not the token of {kind}")


def record_version(call: Call, kind: history.Kind, object_id: int, fact: str, *, active: bool) -> None:
    """Increase the program's revision and save the object's state in its history.

    The new revision invalidates the caches of all processes. The history contains the state of the object at each revision.
    """
    revision = history.raise_program_revision(call.db, call.program.id)
    doc = fact if active else history.INACTIVE
    history.save_version(call.db, call.program.id, kind, object_id, revision, call.now, doc)
