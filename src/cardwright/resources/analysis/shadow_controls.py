"""Shadow controls: velocity controls in observe-only mode, which count purchases and decline none."""

from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import func, select

from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.problems import SHADOW_NOT_FOUND, TOKEN_TAKEN, Problem, bad_field, bad_parameter
from cardwright.core.render import details_decoder
from cardwright.core.transaction_row import TransactionRow, token_of
from cardwright.kit.clock import iso, iso_ms
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import EmptyBody
from cardwright.resources.common.route import Paging, Route, Scope, Shape, get, post
from cardwright.resources.controls.control_rows import insert_control
from cardwright.resources.controls.scope import check_references
from cardwright.resources.controls.velocity_controls import (
    VelocityControl,
    VelocityCreate,
    check_place,
    checked,
    control_of,
    counted_anew,
    fact_of,
    save_control,
)
from cardwright.storage import history, records
from cardwright.storage.controls import PROMOTED, SHADOW
from cardwright.storage.database import Row
from cardwright.storage.records import Listing
from cardwright.storage.tables import cards, shadow_hits, transactions, users, velocity_controls

# --- Shapes: what travels on the wire ------------------------------------------------


class WouldHaveDeclined(Shape, frozen=True, kw_only=True):
    """The approved purchases that the shadow control would have declined. The amount is a text with exact decimals."""

    purchases: int
    amount: str


class ShadowControl(Shape, frozen=True, kw_only=True):
    """A shadow control.

    ``ACTIVE``: it is evaluated. ``PROMOTED``: it has become a velocity control. ``OFF``: it was deleted.
    """

    token: str
    state: str
    created_time: str
    control: VelocityControl
    would_have_declined: WouldHaveDeclined


# --- Rules: pure ---------------------------------------------------------------------


def state_of(row: Row) -> str:
    """Return the state of a shadow control."""
    return "PROMOTED" if row.shadow == PROMOTED else "ACTIVE" if row.active else "OFF"


# --- Queries: this resource's SQL ----------------------------------------------------


def lock_shadow(call: Call) -> Row:
    """Return the shadow control with the path's token, locked until the commit. Raises SHADOW_NOT_FOUND if there is none."""
    row = crud.lock_row(call, velocity_controls, SHADOW_NOT_FOUND)
    if row.shadow not in (SHADOW, PROMOTED):
        raise Problem(SHADOW_NOT_FOUND)
    return row


def get_shadow_row(call: Call) -> Row:
    """Return the shadow control with the path's token. Raises SHADOW_NOT_FOUND if there is none."""
    row = crud.get_row(call, velocity_controls, SHADOW_NOT_FOUND)
    if row.shadow not in (SHADOW, PROMOTED):
        raise Problem(SHADOW_NOT_FOUND)
    return row


def shown(call: Call, row: Row) -> ShadowControl:
    """Return a shadow control with the number and the amount of its recorded declines."""
    hits = shadow_hits.c
    query = select(func.count(), func.coalesce(func.sum(transactions.c.amount), 0)).select_from(shadow_hits)
    query = query.join(transactions, transactions.c.id == hits.transaction_id)
    count, amount = call.db.execute(query.where(hits.program_id == call.program.id, hits.control_id == row.id)).one()
    return ShadowControl(
        token=row.token,
        state=state_of(row),
        created_time=iso(row.created_ms),
        control=msgspec.json.decode(row.doc, type=VelocityControl),
        would_have_declined=WouldHaveDeclined(
            purchases=count, amount=decimal_text(int(amount), exponent_of(call.program.settings.currency) or 0)
        ),
    )


# --- Actions: what a caller can do with it -------------------------------------------


def create_shadow(call: Call, body: VelocityCreate) -> ShadowControl:
    """Create a shadow control.

    The control counts the transactions of its current window that precede its creation, unless the window is ``LIFETIME``.
    """
    row = crud.find_replay_row(call, velocity_controls, body)
    if row is not None and row.shadow == 0:
        raise Problem(TOKEN_TAKEN)
    if row is None:
        if body.active is False:
            raise bad_field("active", "must not be false: an inactive shadow control records no declines")
        control = checked(control_of(body, body.token or call.app.ids.token()))
        check_references(call, control.association, control.merchant_scope)
        fact = counted_anew(call, fact_of(control, call.now, shadow=True))
        insert_control(call, velocity_controls, history.Kind.VELOCITY_CONTROL, body, control, fact, shadow=SHADOW)
        row = records.find(call.db, velocity_controls, call.program.id, control.token)
    assert row is not None, "the row exists or was just inserted"
    return shown(call, row)


def get_shadow(call: Call) -> ShadowControl:
    """Return a shadow control and the number of purchases that it would have declined."""
    return shown(call, get_shadow_row(call))


def list_shadows(call: Call) -> Listing:
    """List shadow controls, promoted and deleted ones included."""
    page, columns = call.list_page, velocity_controls.c
    query = select(velocity_controls).where(columns.program_id == call.program.id, columns.shadow != 0)
    rows, is_more = records.read_page(call.db, query, records.order_of(velocity_controls, page.sort_by), page)
    return Listing([records.text_of(shown(call, row)) for row in rows], is_more)


def list_declines(call: Call) -> Listing:
    """List the purchases that a shadow control would have declined, oldest first."""
    page = call.list_page
    if page.sort_by != DECLINES_PAGING.sort_by:
        raise bad_parameter("sort_by", f"must be {DECLINES_PAGING.sort_by}")
    hits = shadow_hits.c
    query = (
        select(transactions, cards.c.token.label("card_token"), users.c.token.label("user_token"))
        .join(shadow_hits, hits.transaction_id == transactions.c.id)
        .join(cards, cards.c.id == transactions.c.card_id)
        .join(users, users.c.id == cards.c.user_id)
        .where(hits.program_id == call.program.id, hits.control_id == get_shadow_row(call).id)
    )
    order = records.SortOrder((transactions.c.created_ms, transactions.c.id), descending=False)
    rows, is_more = records.read_page(call.db, query, order, page)
    return Listing([_decline(row) for row in rows], is_more)


def _decline(hit: Any) -> str:
    row = TransactionRow.from_row(hit)
    details, places = details_decoder.decode(row.details), exponent_of(row.currency) or 0
    return records.text_of(
        {
            "transaction_token": details.chosen_token or token_of(row), "created_time": iso_ms(row.created_ms),
            "user_token": hit.user_token, "card_token": hit.card_token, "mid": details.mid, "mcc": details.merchant.mcc,
            "amount": decimal_text(row.amount, places), "currency_code": row.currency,
        }
    )  # fmt: skip


def delete_shadow(call: Call) -> ShadowControl:
    """Deactivate a shadow control.

    Its recorded declines stay. A promoted control stays unchanged; delete it as a velocity control.
    """
    row = lock_shadow(call)
    if row.shadow == SHADOW and row.active:
        save_control(call, row, structs.replace(msgspec.json.decode(row.doc, type=VelocityControl), active=False), SHADOW)
    return shown(call, get_shadow_row(call))


def promote_shadow(call: Call, _body: EmptyBody) -> ShadowControl:
    """Make a shadow control a velocity control.

    From now on it declines purchases. Its usage is kept.
    """
    row = lock_shadow(call)
    if row.shadow == SHADOW:
        control = structs.replace(msgspec.json.decode(row.doc, type=VelocityControl), active=True)
        check_place(call, control)
        save_control(call, row, control, PROMOTED)
    return shown(call, get_shadow_row(call))


# --- Routes: parse, act, render ------------------------------------------------------

DECLINES_PAGING = Paging(count=25, sort_by="createdTime")

TAG = "Shadow controls"

routes = [
    post("/shadow-controls", VelocityCreate, create_shadow, ShadowControl, scope=Scope.SANDBOX),
    get("/shadow-controls", list_shadows, ShadowControl, paging=Paging(), scope=Scope.SANDBOX),
    get("/shadow-controls/{token}", get_shadow, ShadowControl, scope=Scope.SANDBOX),
    get("/shadow-controls/{token}/declines", list_declines, dict[str, Any], paging=DECLINES_PAGING, scope=Scope.SANDBOX),
    Route("DELETE", "/shadow-controls/{token}", delete_shadow, answer=ShadowControl, scope=Scope.SANDBOX, fields=False),
    post("/shadow-controls/{token}/promote", EmptyBody, promote_shadow, ShadowControl, status=200, scope=Scope.SANDBOX),
]
