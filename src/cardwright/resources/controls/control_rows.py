"""Control rows: inserts, updates and lists that velocity controls, authorization controls and exemptions share."""

from typing import Any

from msgspec import structs
from sqlalchemy import Table

from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import record_version, without_nulls
from cardwright.resources.common.route import Shape
from cardwright.resources.controls.scope import Association, is_active, whose
from cardwright.storage import history, records
from cardwright.storage.database import Row

REPLACED_AS_A_WHOLE = ("association", "merchant_scope")


# --- Rules: pure ---------------------------------------------------------------------


def fields_of(body: Any, token: str, scope: type[Shape] | None = None) -> dict[str, Any]:
    """Return the fields of the control that a request describes. ``scope`` is the shape of its merchant scope, if it has one."""
    fields = {**crud.changes_of(body), "token": token, "association": without_nulls(body.association or Association())}
    if scope is not None:
        fields["merchant_scope"] = without_nulls(body.merchant_scope or scope())
    return fields


def updated(control: Any, body: Any) -> Any:
    """Return the control after a partial update. The association and the merchant scope are replaced as a whole."""
    changes = crud.changes_of(body)
    for name in REPLACED_AS_A_WHOLE:
        if name in changes:
            changes[name] = without_nulls(changes[name])
    return structs.replace(control, **changes)


def control_columns(association: Association, fact: str, *, active: bool) -> dict[str, Any]:
    """Return the columns beside a control's document."""
    return {
        "active": active, "fact": fact, "user_token": association.user_token or None,
        "card_product_token": association.card_product_token or None,
    }  # fmt: skip


# --- Queries: this resource's SQL ----------------------------------------------------


def insert_control(
    call: Call, table: Table, kind: history.Kind, body: Any, control: Any, fact: str, **columns: Any
) -> tuple[int, str]:
    """Insert a control and its first version; return its id and its JSON.

    ``fact`` is the JSON of the control's data that decisions use.
    """
    values = control_columns(control.association, fact, active=control.active) | columns
    control_id, doc = crud.insert(call, table, body, control, **values)
    record_version(call, kind, control_id, fact, active=control.active)
    return control_id, doc


def change_control(call: Call, table: Table, kind: history.Kind, row: Row, control: Any, fact: str, **columns: Any) -> str:
    """Store a changed control and a new version of it; return its JSON."""
    doc = records.text_of(control)
    values = control_columns(control.association, fact, active=control.active) | columns
    records.change(call.db, table, row.id, doc=doc, modified_ms=call.now, **values)
    record_version(call, kind, row.id, fact, active=control.active)
    return doc


def list_rows(call: Call, table: Table, *, active: str = "all") -> records.Listing:
    """Return the requested page of a list with the filters ``user``, ``card_product`` and, if it has it, ``active``."""
    conditions = [*whose(table, call.query.user, call.query.card_product), *is_active(table, active)]
    return crud.list_resources(call, table, *conditions)
