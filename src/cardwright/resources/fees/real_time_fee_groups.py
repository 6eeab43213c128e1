"""Real-time fee groups: fees that the members of an account holder group pay with their purchases."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs

from cardwright.core.fee_groups import ASSESSED_TYPES, type_of
from cardwright.core.problems import FEE_GROUP_NOT_FOUND, bad_field
from cardwright.kit.clock import iso
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import record_version
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.resources.fees.fees import Category
from cardwright.storage import history, records
from cardwright.storage.tables import fees, real_time_fee_groups

# --- Shapes: what travels on the wire ------------------------------------------------

FeeGroupName = Annotated[str, Meta(min_length=1, max_length=50)]
FeeTokens = Annotated[tuple[Token, ...], Meta(max_length=len(ASSESSED_TYPES))]


class FeeGroupCreate(Shape, frozen=True, kw_only=True):
    """A new real-time fee group. It has at most one fee for each transaction type."""

    name: FeeGroupName
    token: Token | None = None
    active: bool | None = True
    fee_tokens: FeeTokens | None = None


class FeeGroupUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a real-time fee group. Absent fields stay unchanged. ``fee_tokens`` replaces the complete list.

    Earlier assessments of fees stay as they are.
    """

    name: FeeGroupName | None = None
    token: Token | None = None
    active: bool | None = None
    fee_tokens: FeeTokens | None = None


class FeeGroup(Shape, frozen=True, kw_only=True):
    """A real-time fee group."""

    token: str
    name: str
    active: bool = True
    fee_tokens: tuple[str, ...] | UnsetType = UNSET
    created_time: str
    last_modified_time: str


# --- Rules: pure ---------------------------------------------------------------------


def check_fee(index: int, fee: dict[str, Any], currency: str) -> str:
    """Return the transaction type that a fee applies to. Raises a problem if the fee cannot be in a group."""
    field = f"fee_tokens[{index}]"
    if fee["category"] != Category.REALTIME:
        raise bad_field(field, "must be the token of a fee of the category REALTIME")
    if fee["currency_code"] != currency:
        raise bad_field(field, f"must be the token of a fee in {currency}")
    kind = type_of(fee)
    if kind not in ASSESSED_TYPES:
        raise bad_field(field, f"must be a fee whose fee_attributes.transaction_type is one of {', '.join(ASSESSED_TYPES)}")
    return kind


# --- Queries: this resource's SQL ----------------------------------------------------


def check_fees(call: Call, tokens: tuple[str, ...] | None) -> None:
    """Raise a problem for an unknown fee, for a fee that cannot be in a group, and for two fees of the same transaction type."""
    token_by_kind: dict[str, str] = {}
    for index, token in enumerate(tokens or ()):
        row = records.find(call.db, fees, call.program.id, token)
        if row is None:
            raise bad_field(f"fee_tokens[{index}]", "is not the token of a fee")
        kind = check_fee(index, msgspec.json.decode(row.doc), call.program.settings.currency)
        if kind in token_by_kind:
            raise bad_field("fee_tokens", f"may not have two fees for {kind}: {token_by_kind[kind]}, {token}")
        token_by_kind[kind] = token


# --- Actions: what a caller can do with it -------------------------------------------


def create_fee_group(call: Call, body: FeeGroupCreate) -> str:
    """Create a real-time fee group."""
    if (replay := crud.find_replay(call, real_time_fee_groups, body)) is not None:
        return replay
    check_fees(call, body.fee_tokens)
    made = {"token": body.token or call.app.ids.token(), "created_time": iso(call.now), "last_modified_time": iso(call.now)}
    group_id, doc = crud.insert(call, real_time_fee_groups, body, FeeGroup(**(crud.changes_of(body) | made)))
    record_version(call, history.Kind.REAL_TIME_FEE_GROUP, group_id, doc, active=True)
    return doc


def get_fee_group(call: Call) -> str:
    """Return a real-time fee group."""
    return str(crud.get_row(call, real_time_fee_groups, FEE_GROUP_NOT_FOUND).doc)


def list_fee_groups(call: Call) -> records.Listing:
    """List real-time fee groups."""
    return crud.list_resources(call, real_time_fee_groups)


def update_fee_group(call: Call, body: FeeGroupUpdate) -> str:
    """Change a real-time fee group. The change applies to later purchases."""
    row = crud.lock_row(call, real_time_fee_groups, FEE_GROUP_NOT_FOUND)
    crud.check_same_token(call, body)
    check_fees(call, body.fee_tokens)
    before = msgspec.json.decode(row.doc, type=FeeGroup)
    doc, changed = crud.update(call, real_time_fee_groups, row, before, structs.replace(before, **crud.changes_of(body)))
    if changed:
        record_version(call, history.Kind.REAL_TIME_FEE_GROUP, row.id, doc, active=True)
    return doc


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Real time fee groups"

routes = [
    post("/realtimefeegroups", FeeGroupCreate, create_fee_group, FeeGroup),
    get("/realtimefeegroups", list_fee_groups, FeeGroup, paging=Paging(sort_by="-createdTime")),
    get("/realtimefeegroups/{token}", get_fee_group, FeeGroup),
    put("/realtimefeegroups/{token}", FeeGroupUpdate, update_fee_group, FeeGroup),
]
