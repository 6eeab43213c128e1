"""User lookup: searches by phone number and by personal data."""

from collections.abc import Callable
from typing import ClassVar

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.sql.elements import ColumnElement

from cardwright.resources.account_holders.user_model import Email, User
from cardwright.resources.account_holders.user_secrets import unseal
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Limit40, Text255
from cardwright.resources.common.route import Blank, Paging, Route, Shape, get
from cardwright.storage import records
from cardwright.storage.database import Row
from cardwright.storage.tables import deposit_accounts, users

# --- Shapes: what travels on the wire ------------------------------------------------


class UserSearch(Shape, frozen=True, kw_only=True):
    """The conditions of a search.

    A user must meet all of them. ``first_name`` and ``last_name`` match the beginning of a name.
    """

    blank: ClassVar[Blank | None] = Blank.NULLS

    ssn: str | None = None
    dda: str | None = None
    first_name: Limit40 | None = None
    last_name: Limit40 | None = None
    phone: Text255 | None = None
    email: Email | None = None


# --- Rules: pure ---------------------------------------------------------------------


def begins(name: str, start: str | None) -> bool:
    """Return True if a name begins with a text, regardless of case."""
    return start is None or name.casefold().startswith(start.casefold())


# --- Queries: this resource's SQL ----------------------------------------------------


def list_matching(call: Call, keep: Callable[[Row], bool], *conditions: ColumnElement[bool]) -> records.Listing:
    """Return the requested page of the users that meet the conditions and that ``keep`` accepts.

    Rows are read only up to the end of the page. ``keep`` folds case in Python: the two databases fold differently, and neither
    folds all of Unicode.
    """
    page = call.list_page
    query = select(users.c.token, users.c.doc, users.c.sealed).where(users.c.program_id == call.program.id, *conditions)
    order = records.order_of(users, page.sort_by)
    rows, is_more = records.read_page(call.db, query.execution_options(yield_per=500), order, page, keep)
    return records.Listing([row.doc for row in rows], is_more)


def _holders_of(call: Call, number: str) -> Select[tuple[int]]:
    """Return the query for the id of the user who has the deposit account with exactly this number."""
    where = deposit_accounts.c.program_id == call.program.id, deposit_accounts.c.account_number == number
    return select(deposit_accounts.c.user_id).where(*where)


# --- Actions: what a caller can do with it -------------------------------------------


def list_by_phone(call: Call) -> records.Listing:
    """List the users with exactly this phone number."""
    return crud.list_resources(call, users, users.c.phone == call.path["phone_number"])


def look_up(call: Call, body: UserSearch) -> records.Listing:
    """List the users that match a search.

    A search without conditions matches all users.
    """
    conditions = [users.c.phone == body.phone] if body.phone is not None else []
    conditions += [users.c.email == body.email.casefold()] if body.email is not None else []
    conditions += [users.c.id.in_(_holders_of(call, body.dda))] if body.dda is not None else []
    conditions += [users.c.sealed.is_not(None)] if body.ssn is not None else []
    if body.ssn is None and not body.first_name and not body.last_name:
        return crud.list_resources(call, users, *conditions)

    def matches(row: Row) -> bool:
        user = msgspec.json.decode(row.doc, type=User)
        if not begins(user.first_name or "", body.first_name) or not begins(user.last_name or "", body.last_name):
            return False
        if body.ssn is None:
            return True
        secrets = unseal(call, row)
        return body.ssn in (secrets.ssn, *(item.value for item in secrets.identifications))

    return list_matching(call, matches, *conditions)


# --- Routes: parse, act, render ------------------------------------------------------

routes = [
    get("/users/phonenumber/{phone_number}", list_by_phone, User, paging=Paging()),
    Route("POST", "/users/lookup", look_up, body=UserSearch, answer=User, paging=Paging(), writes=False),
]
