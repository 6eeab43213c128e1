"""Program funding sources: stand-ins for the program's bank accounts, which Managed JIT Funding draws on."""

from typing import Annotated

import msgspec
from msgspec import Meta, structs

from cardwright.core.problems import NO_FUNDING_ACCOUNTS, SOURCE_NOT_FOUND, Problem
from cardwright.kit.clock import iso
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.storage import history, records
from cardwright.storage.tables import funding_sources

# --- Shapes: what travels on the wire ------------------------------------------------

SourceName = Annotated[str, Meta(min_length=1, max_length=50)]


class SourceCreate(Shape, frozen=True, kw_only=True):
    """A new program funding source."""

    name: SourceName
    active: bool | None = True
    token: Token | None = None


class SourceUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a program funding source. Absent fields stay unchanged."""

    name: SourceName | None = None
    active: bool | None = None
    token: Token | None = None


class Source(Shape, frozen=True, kw_only=True):
    """A program funding source. ``account`` is the opaque number of its account in the books."""

    name: str
    active: bool
    token: str
    created_time: str
    last_modified_time: str
    account: str


# --- Rules: pure ---------------------------------------------------------------------


def account_number(number: int) -> str:
    """Return a dotted account number. ``number`` is a random number below 10^9."""
    return f"12.{number // 1_000_000:03d}.{number // 1000 % 1000:03d}.{number % 1000:06d}"


# --- Queries: this resource's SQL ----------------------------------------------------


def record_source_version(call: Call, source_id: int, doc: str) -> None:
    """Increase the program's revision and save the source's state in its history.

    The new revision invalidates the caches of all processes. The history contains the state of the source at each revision.
    """
    revision = history.raise_program_revision(call.db, call.program.id)
    history.save_version(call.db, call.program.id, history.Kind.FUNDING_SOURCE, source_id, revision, call.now, doc)


# --- Actions: what a caller can do with it -------------------------------------------


def create_source(call: Call, body: SourceCreate) -> str:
    """Create a program funding source."""
    if (replay := crud.find_replay(call, funding_sources, body)) is not None:
        return replay
    source = Source(
        name=body.name,
        active=body.active is not False,
        token=body.token or call.app.ids.token(),
        created_time=iso(call.now),
        last_modified_time=iso(call.now),
        account=account_number(call.app.ids.below(10**9)),
    )
    source_id, doc = crud.insert(call, funding_sources, body, source, kind="program")
    record_source_version(call, source_id, doc)
    return doc


def get_source(call: Call) -> str:
    """Return a program funding source, active or inactive."""
    return str(crud.get_row(call, funding_sources, SOURCE_NOT_FOUND).doc)


def list_sources(call: Call) -> records.Listing:
    """List the program's funding sources."""
    return crud.list_resources(call, funding_sources, funding_sources.c.kind == "program")


def update_source(call: Call, body: SourceUpdate) -> str:
    """Rename, activate or deactivate a program funding source."""
    row = crud.lock_row(call, funding_sources, SOURCE_NOT_FOUND)
    crud.check_same_token(call, body)
    before = msgspec.json.decode(row.doc, type=Source)
    doc, changed = crud.update(call, funding_sources, row, before, structs.replace(before, **crud.changes_of(body)))
    if changed:
        record_source_version(call, row.id, doc)
    return doc


def list_sources_of_user(_call: Call) -> records.Listing:
    """List a user's funding sources: bank accounts and payment cards.

    Users cannot have any here, so the response is always a 404 (observed).
    """
    raise Problem(NO_FUNDING_ACCOUNTS)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Funding sources"

routes = [
    post("/fundingsources/program", SourceCreate, create_source, Source),
    get("/fundingsources/program", list_sources, Source, paging=Paging()),
    get("/fundingsources/program/{token}", get_source, Source, fields=False),
    put("/fundingsources/program/{token}", SourceUpdate, update_source, Source),
    get("/fundingsources/user/{user_token}", list_sources_of_user, Source),
]
