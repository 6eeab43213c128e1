"""Peer transfers: transfers of money between the accounts of two users, on both sides or on neither."""

from decimal import Decimal

from sqlalchemy import Connection, or_
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.movements import MovementKind, PeerTransfer
from cardwright.core.problems import BUSINESS_UNKNOWN, PEER_TRANSFER_NOT_FOUND, USER_NOT_FOUND, USER_UNKNOWN, Problem, bad_field
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import CurrencyCode, Token
from cardwright.resources.common.movements import (
    Memo,
    MovementResource,
    PreparedMovement,
    Tags,
    check_currency,
    echoed_fields,
    execute_movement,
    get_movement,
    list_movements,
    positive_amount,
)
from cardwright.resources.common.route import Paging, Shape, get, post
from cardwright.storage import records
from cardwright.storage.programs import Program
from cardwright.storage.tables import movements, users

# --- Shapes: what travels on the wire ------------------------------------------------


class PeerTransferCreate(Shape, frozen=True, kw_only=True):
    """A transfer of money from a sender to a recipient."""

    amount: Decimal
    currency_code: CurrencyCode
    token: Token | None = None
    sender_user_token: Token | None = None
    sender_business_token: Token | None = None
    recipient_user_token: Token | None = None
    recipient_business_token: Token | None = None
    memo: Memo | None = None
    tags: Tags | None = None


class PeerTransferDone(MovementResource, frozen=True, kw_only=True):
    """A peer transfer."""

    currency_code: str
    sender_user_token: str
    recipient_user_token: str


# --- Rules: pure ---------------------------------------------------------------------

PAGING = Paging(count=25)


def one_of(role: str, user_token: str | None, business_token: str | None) -> str:
    """Return the user token of a sender or recipient.

    Raises a problem unless exactly one token is present, and for a business token, because there are no businesses.
    """
    if (user_token is None) == (business_token is None):
        raise bad_field(f"{role}_user_token, {role}_business_token", "exactly one of them must be present")
    if user_token is None:
        raise Problem(BUSINESS_UNKNOWN)
    return user_token


# --- Queries: this resource's SQL ----------------------------------------------------


def holder_of(db: Connection, program: Program, token: str) -> int:
    """Return the account that a user draws on. Raises USER_UNKNOWN for an unknown user."""
    row = records.find(db, users, program.id, token)
    if row is None:
        raise Problem(USER_UNKNOWN)
    return int(row.holder_id)


# --- Actions: what a caller can do with it -------------------------------------------


async def create_transfer(call: EngineCall, body: PeerTransferCreate) -> bytes:
    """Move money from the sender's account to the recipient's."""

    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        sender = one_of("sender", body.sender_user_token, body.sender_business_token)
        recipient = one_of("recipient", body.recipient_user_token, body.recipient_business_token)
        check_currency(body.currency_code, program)
        amount = positive_amount(body.amount, program.settings.currency)
        if holder_of(db, program, sender) == holder_of(db, program, recipient):
            raise bad_field("recipient_user_token", "must have a different account from the sender")
        repeated = echoed_fields(body, "sender_user_token", "recipient_user_token", "memo", "tags")
        return PreparedMovement((sender, recipient), PeerTransfer(token=token, amount=amount, echoed=repeated))

    return await execute_movement(call, MovementKind.PEER_TRANSFER, body, prepare)


def get_transfer(call: Call) -> str:
    """Return a peer transfer."""
    return get_movement(call, MovementKind.PEER_TRANSFER, PEER_TRANSFER_NOT_FOUND)


def list_transfers(call: Call) -> records.Listing:
    """List the transfers from and to the account that a user draws on."""
    holder = _holder_id(call)
    return _list(call, or_(movements.c.holder_id == holder, movements.c.other_holder_id == holder))


def list_sent(call: Call) -> records.Listing:
    """List the transfers from the account that a user draws on."""
    return _list(call, movements.c.holder_id == _holder_id(call))


def list_received(call: Call) -> records.Listing:
    """List the transfers to the account that a user draws on."""
    return _list(call, movements.c.other_holder_id == _holder_id(call))


def _holder_id(call: Call) -> int:
    return int(crud.get_row(call, users, USER_NOT_FOUND, call.path["user_token"]).holder_id)


def _list(call: Call, condition: ColumnElement[bool]) -> records.Listing:
    return list_movements(call, MovementKind.PEER_TRANSFER, condition)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Peer transfers"

routes = [
    post("/peertransfers", PeerTransferCreate, create_transfer, PeerTransferDone, operation_id="peer_transfers_create_transfer"),
    get("/peertransfers/{token}", get_transfer, PeerTransferDone, fields=False, operation_id="peer_transfers_get_transfer"),
    get(
        "/peertransfers/user/{user_token}",
        list_transfers,
        PeerTransferDone,
        paging=PAGING,
        operation_id="peer_transfers_list_transfers",
    ),
    get("/peertransfers/user/{user_token}/sender", list_sent, PeerTransferDone, paging=PAGING),
    get("/peertransfers/user/{user_token}/recipient", list_received, PeerTransferDone, paging=PAGING),
]
