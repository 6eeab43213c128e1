"""Merchant groups: named sets of merchant ids that controls, exemptions and card products refer to."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs

from cardwright.core.problems import MERCHANT_GROUP_NOT_FOUND, bad_field
from cardwright.kit.clock import iso
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import record_version
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.storage import history, records
from cardwright.storage.controls import MEMBER_END, has_member, members_text
from cardwright.storage.tables import merchant_groups

# --- Shapes: what travels on the wire ------------------------------------------------

GroupName = Annotated[str, Meta(min_length=1, max_length=40)]
Mids = Annotated[tuple[str, ...], Meta(min_length=1, max_length=4000)]


class MerchantGroupCreate(Shape, frozen=True, kw_only=True):
    """A new merchant group. Ids are compared exactly: ``000123`` and ``123`` are two merchants."""

    name: GroupName
    mids: Mids | None = None
    token: Token | None = None
    active: bool | None = True


class MerchantGroupUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a merchant group. Absent fields stay unchanged. ``mids`` are replaced as a whole."""

    name: GroupName | None = None
    mids: Mids | None = None
    token: str | None = None
    active: bool | None = None


class MerchantGroup(Shape, frozen=True, kw_only=True):
    """A merchant group."""

    token: str
    name: str
    mids: tuple[str, ...] | UnsetType = UNSET
    active: bool = True
    created_time: str
    last_modified_time: str


class MerchantGroupQuery(Shape, frozen=True, kw_only=True):
    """The query filters groups by merchant id."""

    mid: str | None = None


# --- Rules: pure ---------------------------------------------------------------------

MID_MAX = 50
"""The maximum length of a merchant id in a purchase, in characters."""


def check_mids(mids: tuple[str, ...]) -> None:
    """Raise a problem that names the field for an id that no merchant can have, and for duplicate ids."""
    for index, mid in enumerate(mids):
        if not 1 <= len(mid) <= MID_MAX or MEMBER_END in mid:
            raise bad_field(f"mids[{index}]", f"must have 1 to {MID_MAX} characters and no line feed")
    if len(set(mids)) < len(mids):
        raise bad_field("mids", "may not have duplicate entries")


def fact_of(group: MerchantGroup) -> str:
    """Return the JSON of the group's data that decisions use."""
    return msgspec.json.encode({"token": group.token, "mids": group.mids or ()}).decode()


# --- Actions: what a caller can do with it -------------------------------------------


def create_merchant_group(call: Call, body: MerchantGroupCreate) -> str:
    """Create a merchant group."""
    check_mids(body.mids or ())
    if (replay := crud.find_replay(call, merchant_groups, body)) is not None:
        return replay
    made = {"token": body.token or call.app.ids.token(), "created_time": iso(call.now), "last_modified_time": iso(call.now)}
    group = MerchantGroup(**(crud.changes_of(body) | made))
    members = members_text(group.mids or ())
    group_id, doc = crud.insert(call, merchant_groups, body, group, active=group.active, members=members)
    record_version(call, history.Kind.MERCHANT_GROUP, group_id, fact_of(group), active=group.active)
    return doc


def get_merchant_group(call: Call) -> str:
    """Return a merchant group."""
    return str(crud.get_row(call, merchant_groups, MERCHANT_GROUP_NOT_FOUND).doc)


def list_merchant_groups(call: Call) -> records.Listing:
    """List merchant groups, all or those that contain a merchant id."""
    mid = call.query.mid
    return crud.list_resources(call, merchant_groups, *([] if mid is None else [has_member(merchant_groups, mid)]))


def update_merchant_group(call: Call, body: MerchantGroupUpdate) -> str:
    """Change a merchant group.

    The change applies at once to everything that refers to the group.
    """
    row = crud.lock_row(call, merchant_groups, MERCHANT_GROUP_NOT_FOUND)
    crud.check_same_token(call, body)
    check_mids(body.mids or ())
    before = msgspec.json.decode(row.doc, type=MerchantGroup)
    after = structs.replace(before, **crud.changes_of(body))
    members = members_text(after.mids or ())
    doc, changed = crud.update(call, merchant_groups, row, before, after, active=after.active, members=members)
    if changed:
        record_version(call, history.Kind.MERCHANT_GROUP, row.id, fact_of(after), active=after.active)
    return doc


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Merchant groups"

routes = [
    post("/merchantgroups", MerchantGroupCreate, create_merchant_group, MerchantGroup),
    get("/merchantgroups", list_merchant_groups, MerchantGroup, query=MerchantGroupQuery, paging=Paging(count=10), fields=False),
    get("/merchantgroups/{token}", get_merchant_group, MerchantGroup, fields=False),
    put("/merchantgroups/{token}", MerchantGroupUpdate, update_merchant_group, MerchantGroup),
]
