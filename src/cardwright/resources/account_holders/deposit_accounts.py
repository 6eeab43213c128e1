"""Deposit accounts: account and routing numbers under which banks send direct deposits to a user's account."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, structs
from sqlalchemy import func, select

from cardwright.core.problems import (
    BUSINESS_UNKNOWN,
    DEPOSIT_ACCOUNT_NOT_FOUND,
    DEPOSIT_ACCOUNTS_FULL,
    ONE_HOLDER,
    USER_NOT_FOUND,
    USER_UNKNOWN,
    Problem,
)
from cardwright.kit.clock import iso
from cardwright.resources.account_holders.deposit_account_transitions import DepositAccountState, record_opening
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.storage import records
from cardwright.storage.database import Row
from cardwright.storage.tables import deposit_accounts, users

# --- Shapes: what travels on the wire ------------------------------------------------


class DepositAccountCreate(Shape, frozen=True, kw_only=True):
    """A new deposit account of a user. Only the type ``DEPOSIT_ACCOUNT`` is supported."""

    token: Token | None = None
    user_token: Token | None = None
    business_token: Token | None = None
    type: Literal["DEPOSIT_ACCOUNT"] | None = "DEPOSIT_ACCOUNT"
    allow_immediate_credit: bool | None = False


class DepositAccountUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a deposit account."""

    allow_immediate_credit: bool | None = None


class DepositAccount(Shape, frozen=True, kw_only=True):
    """A deposit account. With ``allow_immediate_credit``, a credit takes effect at once, not on its settlement date."""

    token: str
    user_token: str
    account_number: str
    routing_number: str
    state: DepositAccountState
    type: str
    allow_immediate_credit: bool
    created_time: str
    last_modified_time: str


class ShownAccount(Shape, frozen=True, kw_only=True):
    """A deposit account as part of its user."""

    token: str
    account_number: str
    routing_number: str
    allow_immediate_credit: bool


class AccountQuery(Shape, frozen=True, kw_only=True):
    """The query filters deposit accounts by ``state``."""

    state: Annotated[str, Meta(max_length=20)] | None = None


# --- Rules: pure ---------------------------------------------------------------------

ROUTING_NUMBER = "293748000"
"""The routing number of all deposit accounts, from the guide's example (choice)."""

PREFIX, DRAWN_DIGITS = "19", 12
"""The prefix and the number of random digits of account numbers. They have 14 digits; card numbers have 16 by default."""

ACCOUNTS_MAX = 5
"""The maximum number of deposit accounts of a user (wire reference, "Deposit account")."""


def shown_in_user(row: Row) -> str:
    """Return the JSON of a deposit account as its user shows it."""
    account = msgspec.json.decode(row.doc, type=DepositAccount)
    return records.text_of(ShownAccount(**{name: getattr(account, name) for name in ShownAccount.__struct_fields__}))


# --- Queries: this resource's SQL ----------------------------------------------------


def find_first(call: Call, user_id: int) -> Row | None:
    """Return the user's oldest deposit account, or None."""
    query = select(deposit_accounts).where(deposit_accounts.c.user_id == user_id)
    return call.db.execute(query.order_by(deposit_accounts.c.id).limit(1)).one_or_none()


def number_is_taken(call: Call, number: str) -> bool:
    """Return True if an account of the program has this number."""
    columns = deposit_accounts.c
    query = select(columns.id).where(columns.program_id == call.program.id, columns.account_number == number)
    return call.db.scalar(query) is not None


def get_by_path_user(call: Call, name: str) -> Row:
    """Return the oldest deposit account of the user that the path names.

    Raises USER_UNKNOWN (400) for an unknown user and DEPOSIT_ACCOUNT_NOT_FOUND (404) for a user without a deposit account.
    """
    user = crud.get_row(call, users, USER_UNKNOWN, call.path[name])
    if (row := find_first(call, user.id)) is None:
        raise Problem(DEPOSIT_ACCOUNT_NOT_FOUND)
    return row


# --- Actions: what a caller can do with it -------------------------------------------


def open_deposit_account(call: Call, user_id: int, user_token: str, body: DepositAccountCreate) -> str:
    """Insert a deposit account with a new number and return its JSON."""
    draw = call.app.ids.below
    while number_is_taken(call, number := f"{PREFIX}{draw(10**DRAWN_DIGITS):0{DRAWN_DIGITS}d}"):
        continue
    account = DepositAccount(
        token=body.token or call.app.ids.token(), user_token=user_token, account_number=number, routing_number=ROUTING_NUMBER,
        state="ACTIVE", type="DEPOSIT_ACCOUNT", allow_immediate_credit=body.allow_immediate_credit is True,
        created_time=iso(call.now), last_modified_time=iso(call.now),
    )  # fmt: skip
    account_id, doc = crud.insert(
        call, deposit_accounts, body, account, user_id=user_id, account_number=number, immediate=account.allow_immediate_credit
    )
    record_opening(call, account_id, account.token, user_token)
    return doc


def with_deposit_account(call: Call, doc: str, user_id: int) -> str:
    """Return the JSON of a user with the oldest deposit account added, if there is one."""
    row = find_first(call, user_id)
    return doc if row is None else f'{doc[:-1]},"deposit_account":{shown_in_user(row)}}}'


def create_account(call: Call, body: DepositAccountCreate) -> str:
    """Open a deposit account for a user.

    All deposit accounts of a user credit the same account. A user has at most five.
    """
    if (body.user_token is None) == (body.business_token is None):
        raise Problem(ONE_HOLDER)
    if body.user_token is None:
        raise Problem(BUSINESS_UNKNOWN)
    # Lock the user before the replay check and the count: of two concurrent requests, the second must see the account of the
    # first.
    query = select(users.c.id).where(users.c.program_id == call.program.id, users.c.token == body.user_token)
    user_id = call.db.scalar(query.with_for_update(key_share=True))
    if (replay := crud.find_replay(call, deposit_accounts, body)) is not None:
        return replay
    if user_id is None:
        raise Problem(USER_UNKNOWN)
    count = select(func.count()).select_from(deposit_accounts).where(deposit_accounts.c.user_id == user_id)
    if (call.db.scalar(count) or 0) >= ACCOUNTS_MAX:
        raise Problem(DEPOSIT_ACCOUNTS_FULL)
    return open_deposit_account(call, user_id, body.user_token, body)


def get_account(call: Call) -> str:
    """Return a deposit account."""
    return str(crud.get_row(call, deposit_accounts, DEPOSIT_ACCOUNT_NOT_FOUND).doc)


def update_account(call: Call, body: DepositAccountUpdate) -> str:
    """Change whether a deposit account takes credits at once."""
    return _update(call, crud.lock_row(call, deposit_accounts, DEPOSIT_ACCOUNT_NOT_FOUND), body)


def list_of_user(call: Call) -> records.Listing:
    """List a user's deposit accounts."""
    user = crud.get_row(call, users, USER_NOT_FOUND)
    conditions = [deposit_accounts.c.user_id == user.id]
    if call.query.state not in (None, "ACTIVE"):
        # ACTIVE is the only state, so no account matches.
        conditions.append(deposit_accounts.c.id < 0)
    return crud.list_resources(call, deposit_accounts, *conditions)


def get_by_number(call: Call) -> str:
    """Return the deposit account with an account number."""
    columns = deposit_accounts.c
    query = select(columns.doc).where(
        columns.program_id == call.program.id, columns.account_number == call.path["account_number"]
    )
    doc = call.db.scalar(query)
    if doc is None:
        raise Problem(DEPOSIT_ACCOUNT_NOT_FOUND)
    return str(doc)


def get_of_user(call: Call) -> str:
    """Return the account number and routing number of a user's oldest deposit account."""
    return shown_in_user(get_by_path_user(call, "user_or_business_token"))


def update_of_user(call: Call, body: DepositAccountUpdate) -> str:
    """Change whether a user's oldest deposit account takes credits at once."""
    row = get_by_path_user(call, "user_or_business_token")
    locked = records.lock(call.db, deposit_accounts, call.program.id, row.token)
    assert locked is not None, "a deposit account is deleted only by a reset of its program"
    _update(call, locked, body)
    return get_of_user(call)


def _update(call: Call, row: Row, body: DepositAccountUpdate) -> str:
    before = msgspec.json.decode(row.doc, type=DepositAccount)
    after = structs.replace(before, **crud.changes_of(body))
    return crud.update(call, deposit_accounts, row, before, after, immediate=after.allow_immediate_credit)[0]


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Deposit accounts"

routes = [
    post("/depositaccounts", DepositAccountCreate, create_account, DepositAccount),
    get("/depositaccounts/{token}", get_account, DepositAccount),
    put("/depositaccounts/{token}", DepositAccountUpdate, update_account, DepositAccount),
    get("/depositaccounts/user/{token}", list_of_user, DepositAccount, query=AccountQuery, paging=Paging()),
    get("/depositaccounts/account/{account_number}/user", get_by_number, DepositAccount),
    get("/directdeposits/accounts/{user_or_business_token}", get_of_user, ShownAccount),
    put("/directdeposits/accounts/{user_or_business_token}", DepositAccountUpdate, update_of_user, ShownAccount),
]
