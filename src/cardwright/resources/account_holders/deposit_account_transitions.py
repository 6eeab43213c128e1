"""Deposit account transitions: records of the states of deposit accounts. The opening of the account is the only one so far."""

from typing import Literal

from sqlalchemy import select

from cardwright.core.problems import TRANSITION_NOT_FOUND, USER_NOT_FOUND
from cardwright.kit.clock import iso
from cardwright.outbox.events import Category
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import Paging, Shape, get
from cardwright.storage import records
from cardwright.storage.tables import deposit_account_transitions, deposit_accounts, users

# --- Shapes: what travels on the wire ------------------------------------------------

DepositAccountState = Literal["ACTIVE"]


class DepositAccountTransition(Shape, frozen=True, kw_only=True):
    """A state that a deposit account entered, with its reason."""

    token: str
    account_token: str
    user_token: str
    state: DepositAccountState
    channel: str
    reason: str
    created_time: str


# --- Rules: pure ---------------------------------------------------------------------

OPENED = "New account"
"""The reason of the first transition of an account (choice)."""


# --- Actions: what a caller can do with it -------------------------------------------


def record_opening(call: Call, account_id: int, account_token: str, user_token: str) -> None:
    """Insert the transition of an account that was just opened, and publish its event."""
    transition = DepositAccountTransition(
        token=call.app.ids.token(), account_token=account_token, user_token=user_token, state="ACTIVE", channel="SYSTEM",
        reason=OPENED, created_time=iso(call.now),
    )  # fmt: skip
    crud.insert(call, deposit_account_transitions, transition, transition, account_id=account_id)
    call.publish(Category.DEPOSIT_ACCOUNT, transition.state.lower(), transition.token)


def get_transition(call: Call) -> str:
    """Return a deposit account transition."""
    return str(crud.get_row(call, deposit_account_transitions, TRANSITION_NOT_FOUND).doc)


def list_transitions(call: Call) -> records.Listing:
    """List the transitions of a user's deposit accounts, newest first."""
    user = crud.get_row(call, users, USER_NOT_FOUND, call.path["user_token"])
    accounts = select(deposit_accounts.c.id).where(deposit_accounts.c.user_id == user.id)
    return crud.list_resources(call, deposit_account_transitions, deposit_account_transitions.c.account_id.in_(accounts))


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Deposit account transitions"

routes = [
    get(
        "/depositaccounts/{user_token}/transitions", list_transitions, DepositAccountTransition,
        paging=Paging(sort_by="-createdTime"),
        operation_id="deposit_account_transitions_list_transitions",
    ),
    get(
        "/depositaccounts/transitions/{token}", get_transition, DepositAccountTransition,
        operation_id="deposit_account_transitions_get_transition",
    ),
]  # fmt: skip
