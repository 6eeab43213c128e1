"""Program transfers: transfers of money from an account to a program funding source, each with a type."""

from decimal import Decimal

import msgspec
from msgspec import UNSET, UnsetType, structs
from sqlalchemy import Connection

from cardwright.core.movements import MovementKind, ProgramTransfer
from cardwright.core.problems import SOURCE_NOT_FOUND, TRANSFER_NOT_FOUND, TRANSFER_TYPE_NOT_FOUND, Problem
from cardwright.kit.clock import iso
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
    find_source,
    get_movement,
    list_movements,
    of_holder,
    one_holder,
    positive_amount,
)
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.resources.fees.charging import FeeDetail, FeeModel, find_charges, parse_fees
from cardwright.storage import records
from cardwright.storage.programs import Program
from cardwright.storage.tables import movements, program_transfer_types

# --- Shapes: what travels on the wire ------------------------------------------------


class TransferTypeCreate(Shape, frozen=True, kw_only=True):
    """A new program transfer type: a reason, and the funding source that receives the money."""

    memo: Memo
    program_funding_source_token: Token
    token: Token | None = None
    tags: Tags | None = None


class TransferTypeUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a program transfer type. Absent fields stay unchanged. Earlier transfers keep their funding source."""

    memo: Memo | None = None
    program_funding_source_token: Token | None = None
    token: Token | None = None
    tags: Tags | None = None


class TransferType(Shape, frozen=True, kw_only=True):
    """A program transfer type: a reason for transfers, and the funding source that receives the money."""

    token: str
    memo: str
    program_funding_source_token: str
    tags: str | UnsetType = UNSET
    created_time: str
    last_modified_time: str


class ProgramTransferCreate(Shape, frozen=True, kw_only=True):
    """A transfer of money from an account to a program funding source. The account also pays the fees."""

    type_token: Token
    amount: Decimal
    currency_code: CurrencyCode
    token: Token | None = None
    user_token: Token | None = None
    business_token: Token | None = None
    memo: Memo | None = None
    tags: Tags | None = None
    fees: tuple[FeeModel, ...] | None = None


class ProgramTransferDone(MovementResource, frozen=True, kw_only=True):
    """A program transfer."""

    type_token: str
    user_token: str
    currency_code: str
    fees: tuple[FeeDetail, ...] | UnsetType = UNSET
    transaction_token: str


class TransferQuery(Shape, frozen=True, kw_only=True):
    """The query filters program transfers by user, business or type."""

    user_token: str | None = None
    business_token: str | None = None
    type_token: str | None = None


# --- Actions: what a caller can do with it -------------------------------------------


def create_type(call: Call, body: TransferTypeCreate) -> str:
    """Create a program transfer type."""
    if (replay := crud.find_replay(call, program_transfer_types, body)) is not None:
        return replay
    source_id, now = _source_id(call, body.program_funding_source_token), iso(call.now)
    token = body.token or call.app.ids.token()
    made = TransferType(**crud.changes_of(body), token=token, created_time=now, last_modified_time=now)
    return crud.insert(call, program_transfer_types, body, made, source_id=source_id)[1]


def get_type(call: Call) -> str:
    """Return a program transfer type."""
    return str(crud.get_row(call, program_transfer_types, TRANSFER_TYPE_NOT_FOUND).doc)


def list_types(call: Call) -> records.Listing:
    """List program transfer types."""
    return crud.list_resources(call, program_transfer_types)


def update_type(call: Call, body: TransferTypeUpdate) -> str:
    """Change a program transfer type."""
    row = crud.lock_row(call, program_transfer_types, TRANSFER_TYPE_NOT_FOUND)
    crud.check_same_token(call, body)
    before = msgspec.json.decode(row.doc, type=TransferType)
    after = structs.replace(before, **crud.changes_of(body))
    source_id = _source_id(call, after.program_funding_source_token)
    return crud.update(call, program_transfer_types, row, before, after, source_id=source_id)[0]


def _source_id(call: Call, token: str) -> int:
    return find_source(call.db, call.program, token, SOURCE_NOT_FOUND)


async def create_transfer(call: EngineCall, body: ProgramTransferCreate) -> bytes:
    """Move money from an account to a program funding source. Amount and fees are moved together, or not at all."""

    def prepare(db: Connection, program: Program, token: str) -> PreparedMovement:
        user, currency = one_holder(body.user_token, body.business_token), program.settings.currency
        check_currency(body.currency_code, program)
        amount, sent = positive_amount(body.amount, currency), parse_fees(body.fees, currency)
        kind = records.find(db, program_transfer_types, program.id, body.type_token)
        if kind is None:
            raise Problem(TRANSFER_TYPE_NOT_FOUND)
        repeated = echoed_fields(body, "type_token", "user_token", "memo", "tags")
        charges = find_charges(db, program, sent, amount)
        transfer = ProgramTransfer(token=token, amount=amount, echoed=repeated, charges=charges)
        return PreparedMovement((user,), transfer, kind.source_id, ref_id=kind.id)

    return await execute_movement(call, MovementKind.PROGRAM_TRANSFER, body, prepare)


def get_transfer(call: Call) -> str:
    """Return a program transfer."""
    return get_movement(call, MovementKind.PROGRAM_TRANSFER, TRANSFER_NOT_FOUND)


def list_transfers(call: Call) -> records.Listing:
    """List program transfers, all or those of one user or type."""
    query, conditions = call.query, []
    if query.type_token is not None:
        kind = records.find(call.db, program_transfer_types, call.program.id, query.type_token)
        conditions.append(movements.c.ref_id == (kind.id if kind is not None else -1))
    holder = of_holder(call, query.user_token, query.business_token)
    return list_movements(call, MovementKind.PROGRAM_TRANSFER, *conditions, *holder)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Program transfers"

routes = [
    post("/programtransfers/types", TransferTypeCreate, create_type, TransferType),
    get("/programtransfers/types", list_types, TransferType, paging=Paging()),
    get("/programtransfers/types/{token}", get_type, TransferType),
    put("/programtransfers/types/{token}", TransferTypeUpdate, update_type, TransferType),
    post(
        "/programtransfers",
        ProgramTransferCreate,
        create_transfer,
        ProgramTransferDone,
        operation_id="program_transfers_create_transfer",
    ),
    get(
        "/programtransfers",
        list_transfers,
        ProgramTransferDone,
        query=TransferQuery,
        paging=Paging(),
        operation_id="program_transfers_list_transfers",
    ),
    get("/programtransfers/{token}", get_transfer, ProgramTransferDone, operation_id="program_transfers_get_transfer"),
]
