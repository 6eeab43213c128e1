"""User transitions: changes of users' statuses, and the record of each. A status changes in no other way."""

import msgspec
from msgspec import structs

from cardwright.core.enums import HolderStatus
from cardwright.core.problems import BAD_STATUS_TRANSITION, USER_NOT_FOUND, USER_UNKNOWN, Problem
from cardwright.resources.account_holders.user_model import (
    Transition,
    TransitionCreate,
    User,
    lock_users,
    record_transition,
    record_user_version,
)
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import Paging, get, post
from cardwright.storage import records
from cardwright.storage.tables import user_transitions, users

# --- Rules: pure ---------------------------------------------------------------------

API_TRANSITIONS = {
    HolderStatus.UNVERIFIED: {HolderStatus.ACTIVE, HolderStatus.CLOSED},
    HolderStatus.LIMITED: {HolderStatus.ACTIVE, HolderStatus.SUSPENDED, HolderStatus.CLOSED},
    HolderStatus.ACTIVE: {HolderStatus.SUSPENDED, HolderStatus.CLOSED, HolderStatus.UNVERIFIED},
    HolderStatus.SUSPENDED: {HolderStatus.ACTIVE, HolderStatus.LIMITED, HolderStatus.UNVERIFIED, HolderStatus.CLOSED},
    HolderStatus.CLOSED: {HolderStatus.ACTIVE, HolderStatus.LIMITED, HolderStatus.UNVERIFIED, HolderStatus.SUSPENDED},
    HolderStatus.TERMINATED: set(),
}
"""The status changes that a request of channel API may make (wire reference, "User and business transitions")."""


def may_change(before: HolderStatus, after: HolderStatus, channel: str) -> bool:
    """Return True if a user with the status ``before`` may get the status ``after``.

    The same status again is always allowed, and nothing follows TERMINATED. ``API_TRANSITIONS`` restricts only channel API.
    TERMINATED is newer than the documented changes, so it may follow every status.
    """
    if after is before:
        return True
    if before is HolderStatus.TERMINATED:
        return False
    return channel != "API" or after is HolderStatus.TERMINATED or after in API_TRANSITIONS[before]


# --- Actions: what a caller can do with it -------------------------------------------


def create_transition(call: Call, body: TransitionCreate) -> str:
    """Change a user's status.

    The change applies at once to the authorizations of all cards of the user.
    """
    # Lock the user before the replay check: of two concurrent equal requests, the second must find the transition of the first.
    row = lock_users(call, body.user_token).get(body.user_token)
    if (replay := crud.find_replay(call, user_transitions, body)) is not None:
        return replay
    if row is None:
        raise Problem(USER_UNKNOWN)
    before = msgspec.json.decode(row.doc, type=User)
    if not may_change(before.status, body.status, body.channel):
        raise Problem(BAD_STATUS_TRANSITION, f"{before.status} to {body.status}")
    after = structs.replace(before, status=body.status, active=body.status.is_active)
    _, changed = crud.update(call, users, row, before, after, status=body.status)
    if changed:
        record_user_version(call, row.id, row.holder_id, after)
    return record_transition(call, row.id, after, body)


def get_transition(call: Call) -> str:
    """Return a user transition."""
    return str(crud.get_row(call, user_transitions, USER_NOT_FOUND).doc)


def list_transitions(call: Call) -> records.Listing:
    """List a user's transitions, newest first.

    The oldest transition records the creation of the user.
    """
    user = crud.get_row(call, users, USER_NOT_FOUND, call.path["user_token"])
    return crud.list_resources(call, user_transitions, user_transitions.c.user_id == user.id)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "User transitions"

routes = [
    post("/usertransitions", TransitionCreate, create_transition, Transition, operation_id="user_transitions_create_transition"),
    get("/usertransitions/{token}", get_transition, Transition, operation_id="user_transitions_get_transition"),
    get(
        "/usertransitions/user/{user_token}",
        list_transitions,
        Transition,
        paging=Paging(sort_by="-id"),
        operation_id="user_transitions_list_transitions",
    ),
]
