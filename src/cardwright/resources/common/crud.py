"""What all resources do alike: create once for each token, find by token or be told so, change in part, list in pages."""

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


def without_nulls(part: Any) -> Any:
    """The same shape, null counted as absent."""
    return structs.replace(part, **{name: UNSET for name, value in structs.asdict(part).items() if value is None})


def check_group(call: Call, table: Table, field: str, token: Any, kind: str = "a merchant group") -> None:
    """Refuses the token of a group that there is not; an inactive one may be named."""
    if token and records.find(call.db, table, call.program.id, token) is None:
        raise bad_field(field, f"is not the token of {kind}")


def record_version(call: Call, kind: history.Kind, object_id: int, fact: str, *, active: bool) -> None:
    """Lets every process see the object as it is now, and later answers how it was until then."""
    revision = history.raise_program_revision(call.db, call.program.id)
    doc = fact if active else history.INACTIVE
    history.save_version(call.db, call.program.id, kind, object_id, revision, call.now, doc)
