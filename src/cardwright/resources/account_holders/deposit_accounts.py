"""Deposit accounts: the account and routing number under which banks reach a user's account. No card number is one."""

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
    """A new deposit account of a user. Accounts of the other types ask for answers that nobody judges here."""

    token: Token | None = None
    user_token: Token | None = None
    business_token: Token | None = None
    type: Literal["DEPOSIT_ACCOUNT"] | None = "DEPOSIT_ACCOUNT"
    allow_immediate_credit: bool | None = False


class DepositAccountUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a deposit account."""

    allow_immediate_credit: bool | None = None


class DepositAccount(Shape, frozen=True, kw_only=True):
    """A deposit account. A credit to one with ``allow_immediate_credit`` does not wait for its day."""

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
    """A deposit account as its user shows it."""

    token: str
    account_number: str
    routing_number: str
    allow_immediate_credit: bool


class AccountQuery(Shape, frozen=True, kw_only=True):
    """Which of a user's accounts."""

    state: Annotated[str, Meta(max_length=20)] | None = None


# --- Rules: pure ---------------------------------------------------------------------

ROUTING_NUMBER = "293748000"
"""The bank of all deposit accounts: the number in the guide's example (choice)."""

PREFIX, DRAWN_DIGITS = "19", 12
"""An account number is fourteen digits, too short for a card's."""

ACCOUNTS_MAX = 5
"""Deposit accounts of one user (wire reference, "Deposit account")."""


def shown_in_user(row: Row) -> str:
    """The account as JSON, as its user shows it."""
    account = msgspec.json.decode(row.doc, type=DepositAccount)
    return records.text_of(ShownAccount(**{name: getattr(account, name) for name in ShownAccount.__struct_fields__}))


# --- Queries: this resource's SQL ----------------------------------------------------


def find_first(call: Call, user_id: int) -> Row | None:
    """The user's oldest deposit account, or None."""
    query = select(deposit_accounts).where(deposit_accounts.c.user_id == user_id)
    return call.db.execute(query.order_by(deposit_accounts.c.id).limit(1)).one_or_none()


def number_is_taken(call: Call, number: str) -> bool:
    """Whether an account of the program has the number."""
    columns = deposit_accounts.c
    query = select(columns.id).where(columns.program_id == call.program.id, columns.account_number == number)
    return call.db.scalar(query) is not None


def get_by_path_user(call: Call, name: str) -> Row:
    """The oldest account of the user whom the path names. Raises problems: 400 for an unknown user, 404 without account."""
    user = crud.get_row(call, users, USER_UNKNOWN, call.path[name])
    if (row := find_first(call, user.id)) is None:
        raise Problem(DEPOSIT_ACCOUNT_NOT_FOUND)
    return row


# --- Actions: what one can do with it ------------------------------------------------


def open_deposit_account(call: Call, user_id: int, user_token: str, body: DepositAccountCreate) -> str:
    """Opens an account under a new number; answers its JSON."""
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
    """A user's JSON with the deposit account, if there is one."""
    row = find_first(call, user_id)
    return doc if row is None else f'{doc[:-1]},"deposit_account":{shown_in_user(row)}}}'


def create_account(call: Call, body: DepositAccountCreate) -> str:
    """Opens a deposit account for a user; all accounts of a user lead to the same money."""
    if (body.user_token is None) == (body.business_token is None):
        raise Problem(ONE_HOLDER)
    if body.user_token is None:
        raise Problem(BUSINESS_UNKNOWN)
    # The lock comes before the look for a repeat and the count, so that of two requests at once the second sees the first's.
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
    """Returns a deposit account."""
    return str(crud.get_row(call, deposit_accounts, DEPOSIT_ACCOUNT_NOT_FOUND).doc)


def update_account(call: Call, body: DepositAccountUpdate) -> str:
    """Changes whether credits to a deposit account wait for their day."""
    return _update(call, crud.lock_row(call, deposit_accounts, DEPOSIT_ACCOUNT_NOT_FOUND), body)


def list_of_user(call: Call) -> records.Listing:
    """Lists a user's deposit accounts."""
    user = crud.get_row(call, users, USER_NOT_FOUND)
    conditions = [deposit_accounts.c.user_id == user.id]
    if call.query.state not in (None, "ACTIVE"):
        # There are no others yet.
        conditions.append(deposit_accounts.c.id < 0)
    return crud.list_resources(call, deposit_accounts, *conditions)


def get_by_number(call: Call) -> str:
    """Returns the deposit account that has an account number."""
    columns = deposit_accounts.c
    query = select(columns.doc).where(
        columns.program_id == call.program.id, columns.account_number == call.path["account_number"]
    )
    doc = call.db.scalar(query)
    if doc is None:
        raise Problem(DEPOSIT_ACCOUNT_NOT_FOUND)
    return str(doc)


def get_of_user(call: Call) -> str:
    """Returns the account and routing number of a user, those of the oldest deposit account."""
    return shown_in_user(get_by_path_user(call, "user_or_business_token"))


def update_of_user(call: Call, body: DepositAccountUpdate) -> str:
    """Changes whether credits to a user's oldest deposit account wait for their day."""
    row = get_by_path_user(call, "user_or_business_token")
    locked = records.lock(call.db, deposit_accounts, call.program.id, row.token)
    assert locked is not None, "a deposit account never goes away but with everything"
    _update(call, locked, body)
    return get_of_user(call)


def _update(call: Call, row: Row, body: DepositAccountUpdate) -> str:
    before = msgspec.json.decode(row.doc, type=DepositAccount)
    after = structs.replace(before, **crud.changes_of(body))
    return crud.update(call, deposit_accounts, row, before, after, immediate=after.allow_immediate_credit)[0]


# --- Routes: parse, act, view --------------------------------------------------------

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
