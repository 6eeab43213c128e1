"""Account holder groups: users with common KYC rules, and their permissions before they have passed KYC."""

from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, structs

from cardwright.core.enums import HolderStatus
from cardwright.core.money import BadAmount, minor_units
from cardwright.core.problems import FORBIDDEN, HOLDER_GROUP_NOT_FOUND, Problem, bad_field
from cardwright.kit.canonical import beyond
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import record_version
from cardwright.resources.common.fields import OR_NONE, Token
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.storage import history, records
from cardwright.storage.builtin_resources import DEFAULT_GROUP, GROUP_DEFAULTS
from cardwright.storage.tables import account_holder_groups, real_time_fee_groups

# --- Shapes: what travels on the wire ------------------------------------------------

HolderGroupName = Annotated[str, Meta(min_length=1, max_length=40)]
KycRequired = Literal["ALWAYS", "CONDITIONAL", "NEVER"]


class PreKycControls(Shape, frozen=True, kw_only=True):
    """The permissions of members with the status LIMITED: cash, purchases abroad, and loads.

    ``balance_max`` is the highest balance that a load may lead to.
    """

    cash_access_enabled: bool | None = None
    international_enabled: bool | None = None
    balance_max: Decimal | None = None
    enable_non_program_loads: bool | None = None
    is_reloadable_pre_kyc: bool | None = None


class HolderGroupConfig(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """The rules of a group. ``kyc_required`` decides the first status of its members."""

    kyc_required: KycRequired | None = None
    is_reloadable: bool | None = None
    real_time_fee_group_token: Annotated[str, Meta(max_length=36), OR_NONE] | None = None
    pre_kyc_controls: PreKycControls | None = None


class HolderGroupCreate(Shape, frozen=True, kw_only=True):
    """A new account holder group. Fields that ``config`` omits get the defaults."""

    name: HolderGroupName | None = None
    token: Token | None = None
    config: HolderGroupConfig | None = HolderGroupConfig()


class HolderGroupUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a group. Absent fields stay unchanged, and so do absent fields inside ``config``."""

    name: HolderGroupName | None = None
    token: str | None = None
    config: HolderGroupConfig | None = None


class HolderGroup(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """An account holder group."""

    token: str
    name: str | None = None
    config: HolderGroupConfig


# --- Rules: pure ---------------------------------------------------------------------

DEFAULTS = msgspec.convert(GROUP_DEFAULTS, HolderGroupConfig)

FIRST_STATUS: dict[str | None, HolderStatus] = {
    "ALWAYS": HolderStatus.UNVERIFIED, "CONDITIONAL": HolderStatus.LIMITED, "NEVER": HolderStatus.ACTIVE,
}  # fmt: skip
"""The first status of a new member, by the group's ``kyc_required``."""


def merged(before: HolderGroupConfig, changes: HolderGroupConfig | None) -> HolderGroupConfig:
    """Return the configuration with the values that ``changes`` sets; null counts as absent."""
    if changes is None:
        return before
    fields = crud.changes_of(changes)
    if changes.pre_kyc_controls is not None:
        fields["pre_kyc_controls"] = structs.replace(before.pre_kyc_controls, **crud.changes_of(changes.pre_kyc_controls))  # type: ignore[type-var]
    return structs.replace(before, **fields)


def check_config(config: HolderGroupConfig | None, currency: str) -> None:
    """Raise a problem that names the field if ``balance_max`` is not a valid amount in the currency."""
    pre_kyc = None if config is None else config.pre_kyc_controls
    if pre_kyc is None or pre_kyc.balance_max is None:
        return
    try:
        minor_units(pre_kyc.balance_max, currency)
    except BadAmount as error:
        raise bad_field("config.pre_kyc_controls.balance_max", str(error)) from None


# --- Queries: this resource's SQL ----------------------------------------------------


def find_group(call: Call, token: str) -> HolderGroup | None:
    """Return the group with this token, or None."""
    row: Any = records.find(call.db, account_holder_groups, call.program.id, token)
    return None if row is None else msgspec.json.decode(row.doc, type=HolderGroup)


def check_fee_group(call: Call, config: HolderGroupConfig | None) -> None:
    """Raise a problem if the configuration names an unknown real-time fee group. An empty token names none."""
    token = None if config is None else config.real_time_fee_group_token
    if token and records.find(call.db, real_time_fee_groups, call.program.id, token) is None:
        raise bad_field("config.real_time_fee_group_token", "is not the token of a real-time fee group")


# --- Actions: what a caller can do with it -------------------------------------------


def create_holder_group(call: Call, body: HolderGroupCreate) -> str:
    """Create an account holder group."""
    check_config(body.config, call.program.settings.currency)
    config = merged(DEFAULTS, body.config)
    compared = structs.replace(body, config=beyond(config, DEFAULTS))
    if (replay := crud.find_replay(call, account_holder_groups, compared)) is not None:
        return replay
    check_fee_group(call, body.config)
    group = HolderGroup(token=body.token or call.app.ids.token(), name=body.name, config=config)
    group_id, doc = crud.insert(call, account_holder_groups, compared, group)
    record_version(call, history.Kind.ACCOUNT_HOLDER_GROUP, group_id, doc, active=True)
    return doc


def get_holder_group(call: Call) -> str:
    """Return an account holder group."""
    return str(crud.get_row(call, account_holder_groups, HOLDER_GROUP_NOT_FOUND).doc)


def list_holder_groups(call: Call) -> records.Listing:
    """List account holder groups.

    The list includes the default group, which every program has.
    """
    return crud.list_resources(call, account_holder_groups)


def update_holder_group(call: Call, body: HolderGroupUpdate) -> str:
    """Change an account holder group.

    A changed ``kyc_required`` affects only users who join the group afterwards. The default group cannot be changed.
    """
    row = crud.lock_row(call, account_holder_groups, HOLDER_GROUP_NOT_FOUND)
    if row.token == DEFAULT_GROUP:
        raise Problem(FORBIDDEN, f"{DEFAULT_GROUP} is built in and cannot be changed")
    crud.check_same_token(call, body)
    check_config(body.config, call.program.settings.currency)
    check_fee_group(call, body.config)
    before = msgspec.json.decode(row.doc, type=HolderGroup)
    after = structs.replace(before, name=body.name or before.name, config=merged(before.config, body.config))
    doc = records.text_of(after)
    if doc != row.doc:
        records.change(call.db, account_holder_groups, row.id, doc=doc, modified_ms=call.now)
        record_version(call, history.Kind.ACCOUNT_HOLDER_GROUP, row.id, doc, active=True)
    return doc


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Account holder groups"

routes = [
    post("/accountholdergroups", HolderGroupCreate, create_holder_group, HolderGroup),
    get("/accountholdergroups", list_holder_groups, HolderGroup, paging=Paging(count=10, count_max=10), fields=False),
    get("/accountholdergroups/{token}", get_holder_group, HolderGroup, fields=False),
    put("/accountholdergroups/{token}", HolderGroupUpdate, update_holder_group, HolderGroup),
]
