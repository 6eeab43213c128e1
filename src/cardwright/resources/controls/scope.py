"""Scopes: the association, merchant scope and times that velocity controls, authorization controls and exemptions share."""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Table
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.problems import PRODUCT_UNKNOWN, USER_UNKNOWN, Problem, bad_field, bad_parameter
from cardwright.kit.canonical import reading
from cardwright.kit.clock import Instant, iso, iso_ms, parse_instant
from cardwright.kit.digits import is_plain
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import check_group
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Blank, Shape
from cardwright.storage import records
from cardwright.storage.controls import count_program_controls
from cardwright.storage.tables import card_products, mcc_groups, merchant_groups, users

# --- Shapes: what travels on the wire ------------------------------------------------

Name = Annotated[str, Meta(max_length=255)]
Mid = Annotated[str, Meta(min_length=1, max_length=36)]
Mcc = Annotated[str, Meta(min_length=1, max_length=4)]
PROGRAM_CONTROLS_MAX = 90
"""The maximum number of active program-level controls of both kinds (wire reference, "Combination rules")."""


def parse_moment(text: str) -> Instant:
    """Return the instant of a date, an ISO 8601 date-time or an RFC 1123 date-time.

    A text without a time zone is in UTC. Raises ValueError for any other text.
    """
    try:
        return parse_instant(text)
    except ValueError:
        if not is_plain(text):
            raise
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return parse_instant(moment.isoformat())
    except (TypeError, OverflowError, IndexError) as error:
        raise ValueError(text) from error


Moment = Annotated[str, reading(parse_moment)]
"""A date or a date-time."""


class Association(Shape, frozen=True, kw_only=True):
    """The cards that a control applies to: those of one user or of one card product. Without either, all cards of the program."""

    blank: ClassVar[Blank | None] = Blank.NOTHING

    user_token: Token | UnsetType | None = UNSET
    card_product_token: Token | UnsetType | None = UNSET


# --- Rules: pure ---------------------------------------------------------------------


def check_parts(association: Association, scope: Any) -> None:
    """Raise a problem if the association or the merchant scope has two values, or if ``mcc`` is not a number."""
    if association.user_token and association.card_product_token:
        raise bad_field("association", "may have a user_token or a card_product_token, not both")
    names = [name for name in scope.__struct_fields__ if getattr(scope, name)]
    if len(names) > 1:
        raise bad_field("merchant_scope", f"may have only one of {', '.join(scope.__struct_fields__)}")
    if scope.mcc and not (scope.mcc.isascii() and scope.mcc.isdigit()):
        raise bad_field("merchant_scope.mcc", "must be up to four digits")


def moment_of(field: str, text: str) -> Instant:
    """Return the instant of a date or a date-time. Raises a problem that names the field."""
    try:
        return parse_moment(text)
    except ValueError:
        raise bad_field(field, "must be a date or a date-time, such as 2026-01-31T12:00:00Z") from None


def moment_text(moment: Instant) -> str:
    """Return the text of an instant as a response shows it. It has milliseconds only if they are not 0."""
    return iso_ms(moment) if moment % 1000 else iso(moment)


def checked_times(start_time: str | None, end_time: str | None) -> dict[str, str]:
    """Return the times that are present, in their stored form.

    Raises a problem that names the field for an invalid time, and for an end that is not after the start.
    """
    given = {"start_time": start_time, "end_time": end_time}
    moments = {name: moment_of(name, text) for name, text in given.items() if text is not None}
    if len(moments) == 2 and moments["end_time"] <= moments["start_time"]:
        raise bad_field("end_time", "must be after start_time")
    return {name: moment_text(moment) for name, moment in moments.items()}


# --- Queries: this resource's SQL ----------------------------------------------------


def check_references(call: Call, association: Association, scope: Any) -> None:
    """Raise a problem if the association or the merchant scope names an unknown user, card product or group."""
    if association.user_token and records.find(call.db, users, call.program.id, association.user_token) is None:
        raise Problem(USER_UNKNOWN)
    product = association.card_product_token
    if product and records.find(call.db, card_products, call.program.id, product) is None:
        raise Problem(PRODUCT_UNKNOWN)
    check_group(call, mcc_groups, "merchant_scope.mcc_group", scope.mcc_group, "an MCC group")
    check_group(call, merchant_groups, "merchant_scope.merchant_group_token", getattr(scope, "merchant_group_token", None))


def check_count(call: Call, table: Table, token: str, association: Association, *, active: bool) -> None:
    """Raise a problem if an active program-level control would exceed the maximum of 90."""
    if association.user_token or association.card_product_token or not active:
        return
    if count_program_controls(call.db, call.program.id, (table.name, token)) >= PROGRAM_CONTROLS_MAX:
        raise bad_field("association", f"may be absent for at most {PROGRAM_CONTROLS_MAX} active controls of a program")


def whose(table: Table, user: str | None, card_product: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions of the list filters ``user`` and ``card_product``. Raises a problem if both are present.

    The literal ``null`` selects controls that name no user, or no card product.
    """
    if user is not None and card_product is not None:
        raise bad_parameter("user, card_product", "may not both be given")
    wanted = ((table.c.user_token, user), (table.c.card_product_token, card_product))
    return [column.is_(None) if value == "null" else column == value for column, value in wanted if value is not None]


def is_active(table: Table, wanted: str) -> list[ColumnElement[bool]]:
    """Return the condition of the list filter ``active``: ``true``, ``false`` or ``all``."""
    return [] if wanted == "all" else [table.c.active.is_(wanted == "true")]
