"""Authorization controls: blocks of merchants for a user, a card product or the whole program, with an optional period."""

from typing import ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType, structs

from cardwright.core.problems import AUTH_CONTROL_NOT_FOUND, bad_field
from cardwright.core.spend_controls import MerchantRule
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Blank, Paging, Shape, get, post, put
from cardwright.resources.controls.control_rows import change_control, fields_of, insert_control, list_rows, updated
from cardwright.resources.controls.scope import (
    Association,
    Mcc,
    Mid,
    Moment,
    Name,
    check_count,
    check_parts,
    check_references,
    checked_times,
    moment_of,
)
from cardwright.storage import history, records
from cardwright.storage.tables import auth_controls

# --- Shapes: what travels on the wire ------------------------------------------------


class AuthMerchantScope(Shape, frozen=True, kw_only=True):
    """The merchants of a control: one merchant, one category, or a group of either. An empty scope means all merchants."""

    blank: ClassVar[Blank | None] = Blank.NOTHING

    mid: Mid | UnsetType | None = UNSET
    mcc: Mcc | UnsetType | None = UNSET
    mcc_group: Token | UnsetType | None = UNSET
    merchant_group_token: Token | UnsetType | None = UNSET


class AuthControlCreate(Shape, frozen=True, kw_only=True):
    """A new authorization control.

    An association or a merchant scope is required, because a control with neither would block every purchase.
    """

    name: Name
    token: Token | None = None
    association: Association | None = Association()
    merchant_scope: AuthMerchantScope | None = AuthMerchantScope()
    start_time: Moment | None = None
    end_time: Moment | None = None
    active: bool | None = True


class AuthControlUpdate(Shape, frozen=True, kw_only=True):
    """Changes of an authorization control.

    Absent fields stay unchanged. ``association`` and ``merchant_scope`` are replaced as a whole.
    """

    token: str | None = None
    name: Name | None = None
    association: Association | None = None
    merchant_scope: AuthMerchantScope | None = None
    start_time: Moment | None = None
    end_time: Moment | None = None
    active: bool | None = None


class AuthControl(Shape, frozen=True, kw_only=True):
    """An authorization control."""

    token: str
    name: str
    association: Association
    merchant_scope: AuthMerchantScope
    start_time: str | UnsetType = UNSET
    end_time: str | UnsetType = UNSET
    active: bool = True


class AuthControlQuery(Shape, frozen=True, kw_only=True):
    """The query filters controls by user, card product and state.

    The literal ``null`` selects controls that name no user, or no card product. Inactive controls are listed on request.
    """

    user: str | None = None
    card_product: str | None = None
    active: Literal["true", "false", "all"] = "true"


# --- Rules: pure ---------------------------------------------------------------------


def control_of(body: AuthControlCreate, token: str) -> AuthControl:
    """Return the control that a request describes. Raises a problem that names the field if it is invalid."""
    return checked(AuthControl(**fields_of(body, token, AuthMerchantScope)))


def changed(control: AuthControl, body: AuthControlUpdate) -> AuthControl:
    """Return the control after a partial update. Raises a problem that names the field if it is invalid."""
    return checked(updated(control, body))


def checked(control: AuthControl) -> AuthControl:
    """Return the control with its times in their stored form. Raises a problem that names the field if it is invalid."""
    check_parts(control.association, control.merchant_scope)
    parts = (*structs.astuple(control.association), *structs.astuple(control.merchant_scope))
    if not any(part for part in parts if part is not UNSET):
        raise bad_field("association, merchant_scope", "may not both be empty: the control would block every purchase")
    return structs.replace(control, **checked_times(control.start_time or None, control.end_time or None))


def fact_of(control: AuthControl) -> str:
    """Return the JSON of the control's data that decisions use."""
    scope = control.merchant_scope
    fact = MerchantRule(
        id=0,
        token=control.token,
        name=control.name,
        user_token=control.association.user_token or None,
        card_product_token=control.association.card_product_token or None,
        mid=scope.mid or None,
        mcc=scope.mcc.zfill(4) if scope.mcc else None,
        mcc_group=scope.mcc_group or None,
        merchant_group=scope.merchant_group_token or None,
        start_ms=moment_of("start_time", control.start_time) if control.start_time else None,
        end_ms=moment_of("end_time", control.end_time) if control.end_time else None,
    )
    return msgspec.json.encode(fact).decode()


# --- Queries: this resource's SQL ----------------------------------------------------


def check_place(call: Call, control: AuthControl) -> None:
    """Raise a problem for an unknown reference of the control, and for one program-level control too many."""
    check_references(call, control.association, control.merchant_scope)
    check_count(call, auth_controls, control.token, control.association, active=control.active)


# --- Actions: what a caller can do with it -------------------------------------------


def create_auth_control(call: Call, body: AuthControlCreate) -> str:
    """Create an authorization control.

    It applies at once, or from its ``start_time``.
    """
    control = control_of(body, body.token or call.app.ids.token())
    if (replay := crud.find_replay(call, auth_controls, body)) is not None:
        return replay
    check_place(call, control)
    _, doc = insert_control(call, auth_controls, history.Kind.AUTH_CONTROL, body, control, fact_of(control))
    return doc


def get_auth_control(call: Call) -> str:
    """Return an authorization control."""
    return str(crud.get_row(call, auth_controls, AUTH_CONTROL_NOT_FOUND).doc)


def list_auth_controls(call: Call) -> records.Listing:
    """List authorization controls, all or those for one user or card product."""
    return list_rows(call, auth_controls, active=call.query.active)


def update_auth_control(call: Call, body: AuthControlUpdate) -> str:
    """Change, activate or deactivate an authorization control."""
    row = crud.lock_row(call, auth_controls, AUTH_CONTROL_NOT_FOUND)
    crud.check_same_token(call, body)
    control = changed(msgspec.json.decode(row.doc, type=AuthControl), body)
    check_place(call, control)
    if records.text_of(control) == row.doc:
        return str(row.doc)
    return change_control(call, auth_controls, history.Kind.AUTH_CONTROL, row, control, fact_of(control))


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Auth controls"

routes = [
    post("/authcontrols", AuthControlCreate, create_auth_control, AuthControl),
    get("/authcontrols", list_auth_controls, AuthControl, query=AuthControlQuery, paging=Paging(count_max=100)),
    get("/authcontrols/{token}", get_auth_control, AuthControl),
    put("/authcontrols/{token}", AuthControlUpdate, update_auth_control, AuthControl),
]
