"""MCC groups: named sets of merchant category codes for controls, which can also increase holds and set their lifetime."""

import re
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs

from cardwright.core.money import BadAmount, minor_units
from cardwright.core.problems import MCC_GROUP_NOT_FOUND, bad_field, bad_parameter
from cardwright.core.spend_controls import Increase, IncreaseType, MccGroup, expanded
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import record_version
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.storage import history, records
from cardwright.storage.controls import has_member, members_text
from cardwright.storage.tables import mcc_groups

# --- Shapes: what travels on the wire ------------------------------------------------

GroupName = Annotated[str, Meta(max_length=255)]


class HoldIncrease(Shape, frozen=True, kw_only=True):
    """The increase of holds: by an amount, by a percentage, or up to an amount."""

    type: IncreaseType
    value: Decimal


class HoldControls(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """The changes that the group makes to holds."""

    hold_increase: HoldIncrease | None = None
    hold_expiration_days: Annotated[int, Meta(ge=1, le=100)] | None = None


class MccConfig(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """The configuration of a group."""

    authorization_controls: HoldControls | None = None


class MccGroupCreate(Shape, frozen=True, kw_only=True):
    """A new MCC group.

    An entry of ``mccs`` is a code of four digits, or a range of two codes such as ``5812-5814``, both included.
    """

    name: GroupName
    mccs: Annotated[tuple[str, ...], Meta(max_length=500)]
    token: Token | None = None
    active: bool | None = True
    config: MccConfig | None = None


class MccGroupUpdate(Shape, frozen=True, kw_only=True):
    """Changes of an MCC group. Absent fields stay unchanged. ``mccs`` and ``config`` are replaced as a whole."""

    name: GroupName | None = None
    mccs: Annotated[tuple[str, ...], Meta(min_length=1, max_length=500)] | None = None
    token: str | None = None
    active: bool | None = None
    config: MccConfig | None = None


class MccGroupAnswer(Shape, frozen=True, kw_only=True):
    """An MCC group, with ``mccs`` as they were sent."""

    token: str
    name: str
    mccs: tuple[str, ...]
    active: bool = True
    config: MccConfig | UnsetType = UNSET


class MccGroupQuery(Shape, frozen=True, kw_only=True):
    """The query filters groups by category code."""

    mcc: str | None = None


# --- Rules: pure ---------------------------------------------------------------------

_ENTRY = re.compile(r"([0-9]{4})(?:-([0-9]{4}))?", re.ASCII)
PERCENT_MAX = 1000


def check_mccs(mccs: tuple[str, ...]) -> None:
    """Raise a problem that names the field for an entry that is not a code or a range, and for duplicate entries."""
    for index, entry in enumerate(mccs):
        match = _ENTRY.fullmatch(entry)
        if match is None or (match[2] is not None and match[2] < match[1]):
            raise bad_field(f"mccs[{index}]", "must have four digits, or be a range such as 5812-5814")
    if len(set(mccs)) < len(mccs):
        raise bad_field("mccs", "may not have duplicate entries")


def increase_of(config: MccConfig | UnsetType, currency: str) -> Increase | None:
    """Return the hold increase that decisions use, or None. Raises a problem that names the field."""
    controls = None if config is UNSET else config.authorization_controls
    if controls is None or controls.hold_increase is None:
        return None
    field, increase = "config.authorization_controls.hold_increase.value", controls.hold_increase
    is_percent = increase.type is IncreaseType.PERCENT
    try:
        # A percentage has two decimals, like an amount in USD, so one function checks and scales both.
        value = minor_units(increase.value, "USD" if is_percent else currency)
    except BadAmount as error:
        raise bad_field(field, str(error)) from None
    if is_percent and value > PERCENT_MAX * 100:
        raise bad_field(field, f"may be at most {PERCENT_MAX} percent")
    return Increase(increase.type, value)


def fact_of(group: MccGroupAnswer, currency: str, codes_revision: int = 0) -> MccGroup:
    """Return the group's data that decisions use. Raises a problem that names the field if the hold increase is invalid."""
    controls = None if group.config is UNSET else group.config.authorization_controls
    return MccGroup(
        token=group.token, name=group.name, mccs=group.mccs, increase=increase_of(group.config, currency),
        hold_days=None if controls is None else controls.hold_expiration_days, codes_revision=codes_revision,
    )  # fmt: skip


# --- Actions: what a caller can do with it -------------------------------------------


def create_mcc_group(call: Call, body: MccGroupCreate) -> str:
    """Create an MCC group."""
    check_mccs(body.mccs)
    group = MccGroupAnswer(**(crud.changes_of(body) | {"token": body.token or call.app.ids.token()}))
    fact = fact_of(group, call.program.settings.currency)
    if (replay := crud.find_replay(call, mcc_groups, body)) is not None:
        return replay
    text = msgspec.json.encode(fact).decode()
    members = members_text(sorted(expanded(group.mccs)))
    group_id, doc = crud.insert(call, mcc_groups, body, group, active=group.active, fact=text, members=members)
    record_version(call, history.Kind.MCC_GROUP, group_id, text, active=group.active)
    return doc


def get_mcc_group(call: Call) -> str:
    """Return an MCC group."""
    return str(crud.get_row(call, mcc_groups, MCC_GROUP_NOT_FOUND).doc)


def list_mcc_groups(call: Call) -> records.Listing:
    """List MCC groups, all or those that contain a category code."""
    mcc = call.query.mcc
    if mcc is None:
        return crud.list_resources(call, mcc_groups)
    if not (mcc.isascii() and mcc.isdigit() and len(mcc) <= 4):
        raise bad_parameter("mcc", "must be up to four digits")
    return crud.list_resources(call, mcc_groups, has_member(mcc_groups, mcc.zfill(4)))


def update_mcc_group(call: Call, body: MccGroupUpdate) -> str:
    """Change an MCC group.

    The change applies at once to all controls that refer to the group. If the codes change or the group is activated again, the
    usage of those controls is recounted.
    """
    row = crud.lock_row(call, mcc_groups, MCC_GROUP_NOT_FOUND)
    crud.check_same_token(call, body)
    check_mccs(body.mccs or ())
    group = structs.replace(msgspec.json.decode(row.doc, type=MccGroupAnswer), **crud.changes_of(body))
    before = msgspec.json.decode(row.fact, type=MccGroup)
    is_counted_anew = group.mccs != before.mccs or (group.active and not row.active)
    codes_revision = max(call.program.revision, before.codes_revision) + 1 if is_counted_anew else before.codes_revision
    fact = msgspec.json.encode(fact_of(group, call.program.settings.currency, codes_revision)).decode()
    doc = records.text_of(group)
    if doc != row.doc:
        members = members_text(sorted(expanded(group.mccs)))
        columns = {"doc": doc, "active": group.active, "fact": fact, "members": members}
        records.change(call.db, mcc_groups, row.id, modified_ms=call.now, **columns)
        record_version(call, history.Kind.MCC_GROUP, row.id, fact, active=group.active)
    return doc


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Mcc groups"

routes = [
    post("/mccgroups", MccGroupCreate, create_mcc_group, MccGroupAnswer),
    get("/mccgroups", list_mcc_groups, MccGroupAnswer, query=MccGroupQuery, paging=Paging(count=10), fields=False),
    get("/mccgroups/{token}", get_mcc_group, MccGroupAnswer, fields=False),
    put("/mccgroups/{token}", MccGroupUpdate, update_mcc_group, MccGroupAnswer),
]
