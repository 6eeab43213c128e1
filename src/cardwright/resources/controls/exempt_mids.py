"""MID exemptions: merchants that authorization controls do not block, for a user, a card product or the whole program."""

from typing import ClassVar

import msgspec
from msgspec import UNSET, UnsetType, structs

from cardwright.core.problems import EXEMPTION_NOT_FOUND, bad_field
from cardwright.core.spend_controls import MerchantRule
from cardwright.kit.clock import Instant, iso
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import check_group
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Blank, Paging, Shape, get, post, put
from cardwright.resources.controls.auth_controls import AuthControlQuery, AuthMerchantScope
from cardwright.resources.controls.control_rows import change_control, fields_of, insert_control, list_rows
from cardwright.resources.controls.scope import (
    Association,
    Mid,
    Moment,
    Name,
    check_parts,
    check_references,
    checked_times,
    moment_of,
)
from cardwright.storage import history, records
from cardwright.storage.tables import exempt_mids, merchant_groups

# --- Shapes: what travels on the wire ------------------------------------------------


class ExemptionCreate(Shape, frozen=True, kw_only=True):
    """A new exemption of one merchant or of a merchant group. It is active at once."""

    name: Name
    token: Token | None = None
    association: Association | None = Association()
    mid: Mid | None = None
    merchant_group_token: Token | None = None
    start_time: Moment | None = None
    end_time: Moment | None = None


class ExemptionUpdate(Shape, frozen=True, kw_only=True):
    """The state of an exemption after an update.

    A body without a value deactivates it (wire reference, "MID exemptions").
    """

    blank: ClassVar[Blank | None] = Blank.NULLS

    active: bool | None = None


class Exemption(Shape, frozen=True, kw_only=True):
    """An exemption."""

    token: str
    name: str
    association: Association
    mid: str | UnsetType = UNSET
    merchant_group_token: str | UnsetType = UNSET
    start_time: str | UnsetType = UNSET
    end_time: str | UnsetType = UNSET
    active: bool = True
    created: str
    last_updated: str


# --- Rules: pure ---------------------------------------------------------------------


def checked(body: ExemptionCreate) -> ExemptionCreate:
    """Return the request with its times in their stored form. Raises a problem that names the field if it is invalid."""
    check_parts(body.association or Association(), AuthMerchantScope())
    if (body.mid is None) == (body.merchant_group_token is None):
        raise bad_field("mid, merchant_group_token", "must have exactly one value: send one of the two")
    return structs.replace(body, **checked_times(body.start_time, body.end_time))


def exemption_of(body: ExemptionCreate, token: str, now: Instant) -> Exemption:
    """Return the exemption that a request describes. Raises a problem that names the field if it is invalid."""
    return Exemption(**fields_of(checked(body), token), created=iso(now), last_updated=iso(now))


def fact_of(exemption: Exemption) -> str:
    """Return the JSON of the exemption's data that decisions use."""
    fact = MerchantRule(
        id=0,
        token=exemption.token,
        name=exemption.name,
        user_token=exemption.association.user_token or None,
        card_product_token=exemption.association.card_product_token or None,
        mid=exemption.mid or None,
        merchant_group=exemption.merchant_group_token or None,
        start_ms=moment_of("start_time", exemption.start_time) if exemption.start_time else None,
        end_ms=moment_of("end_time", exemption.end_time) if exemption.end_time else None,
    )
    return msgspec.json.encode(fact).decode()


# --- Queries: this resource's SQL ----------------------------------------------------


def check_place(call: Call, exemption: Exemption) -> None:
    """Raise a problem for an unknown reference of the exemption."""
    check_references(call, exemption.association, AuthMerchantScope())
    check_group(call, merchant_groups, "merchant_group_token", exemption.merchant_group_token)


# --- Actions: what a caller can do with it -------------------------------------------


def create_exemption(call: Call, body: ExemptionCreate) -> str:
    """Exempt a merchant or a merchant group from all authorization controls."""
    exemption = exemption_of(body, body.token or call.app.ids.token(), call.now)
    if (replay := crud.find_replay(call, exempt_mids, body)) is not None:
        return replay
    check_place(call, exemption)
    _, doc = insert_control(call, exempt_mids, history.Kind.EXEMPTION, body, exemption, fact_of(exemption))
    return doc


def get_exemption(call: Call) -> str:
    """Return an exemption."""
    return str(crud.get_row(call, exempt_mids, EXEMPTION_NOT_FOUND).doc)


def list_exemptions(call: Call) -> records.Listing:
    """List exemptions, all or those for one user or card product."""
    return list_rows(call, exempt_mids, active=call.query.active)


def update_exemption(call: Call, body: ExemptionUpdate) -> None:
    """Activate or deactivate an exemption."""
    row = crud.lock_row(call, exempt_mids, EXEMPTION_NOT_FOUND)
    before = msgspec.json.decode(row.doc, type=Exemption)
    active = body.active is True
    if before.active is not active:
        after = structs.replace(before, active=active, last_updated=iso(call.now))
        change_control(call, exempt_mids, history.Kind.EXEMPTION, row, after, row.fact)


# --- Routes: parse, act, render ------------------------------------------------------

PATH = "/authcontrols/exemptmids"

TAG = "Exempt mids"

routes = [
    post(PATH, ExemptionCreate, create_exemption, Exemption),
    get(PATH, list_exemptions, Exemption, query=AuthControlQuery, paging=Paging(count_max=100)),
    get(f"{PATH}/{{token}}", get_exemption, Exemption, fields=False),
    put(f"{PATH}/{{token}}", ExemptionUpdate, update_exemption, status=204),
]
