"""Movements: shapes, account and funding source look-ups, and execution by the engine, shared by all movement resources."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, select
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.movements import AnyMovement, MovementKind
from cardwright.core.problems import (
    BUSINESS_UNKNOWN,
    CURRENCY_UNSUPPORTED,
    FUNDING_SOURCE_UNKNOWN,
    ONE_HOLDER,
    TOKEN_TAKEN,
    USER_UNKNOWN,
    Kind,
    Problem,
    bad_field,
)
from cardwright.core.render import details_decoder
from cardwright.engine.config_cache import AccountEntry, find_accounts
from cardwright.engine.movement_rows import MovementRequest
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import parse_amount
from cardwright.resources.common.route import Shape
from cardwright.storage import records
from cardwright.storage.programs import Program, get_program
from cardwright.storage.tables import funding_sources, movements, transactions, users

# --- Shapes: what travels on the wire ------------------------------------------------

Memo = Annotated[str, Meta(min_length=1, max_length=99)]
Tags = Annotated[str, Meta(min_length=1, max_length=255)]
Tags0 = Annotated[str, Meta(max_length=255)]


class MovementResource(Shape, frozen=True, kw_only=True):
    """The common fields of a movement.

    `core/movement_json.py` writes the JSON of movements, with the fields in the order of the wire.
    """

    token: str
    amount: Decimal
    created_time: str
    memo: str | UnsetType = UNSET
    tags: str | UnsetType = UNSET


class MovementResponse(Shape, frozen=True, kw_only=True):
    """The outcome of a movement."""

    code: str
    memo: str


class FundingShown(Shape, frozen=True, kw_only=True):
    """The amount that a movement took from a funding source or returned to it, fees included."""

    amount: Decimal
    source: dict[str, Any]


class FundedMovement(MovementResource, frozen=True, kw_only=True):
    """A movement between an account and a funding source, with its outcome."""

    last_modified_time: str
    transaction_token: str
    state: str
    response: MovementResponse
    funding: FundingShown
    funding_source_token: str


# --- Rules: pure ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PreparedMovement:
    """A movement with its references resolved. ``users`` has the payer's token, and the recipient's if there is one."""

    users: tuple[str, ...]
    movement: AnyMovement
    source_id: int | None = None
    root_id: int | None = None
    ref_id: int | None = None


def one_holder(user_token: str | None, business_token: str | None) -> str:
    """Return the user's token. Raises ONE_HOLDER unless exactly one token is given.

    Raises BUSINESS_UNKNOWN for a business: businesses are not implemented, so none exists.
    """
    if (user_token is None) == (business_token is None):
        raise Problem(ONE_HOLDER)
    if user_token is None:
        raise Problem(BUSINESS_UNKNOWN)
    return user_token


def positive_amount(amount: Decimal, currency: str) -> int:
    """Return the amount in minor units, at least 1. Raises a problem that names the field."""
    units = parse_amount("amount", amount, currency)
    if not units:
        raise bad_field("amount", "must be greater than 0")
    return units


def check_currency(currency: str, program: Program) -> None:
    """Raise CURRENCY_UNSUPPORTED unless the currency is the program's: movements support no other (choice)."""
    if currency != program.settings.currency:
        raise Problem(CURRENCY_UNSUPPORTED, currency)


def echoed_fields(body: Shape, *names: str) -> dict[str, str]:
    """Return the named texts of a request that are present, in the order of ``names``."""
    return {name: value for name in names if (value := getattr(body, name)) is not None}


# --- Queries: this resource's SQL ----------------------------------------------------


def find_source(db: Connection, program: Program, token: str, missing: Kind = FUNDING_SOURCE_UNKNOWN) -> int:
    """Return the id of a program funding source. Raises ``missing`` if the program has none with this token."""
    row = records.find(db, funding_sources, program.id, token)
    if row is None:
        raise Problem(missing, token)
    return int(row.id)


def accounts_of(db: Connection, program_id: int, users: Sequence[str]) -> tuple[AccountEntry, ...]:
    """Return the accounts of users, in the order of ``users``. Raises USER_UNKNOWN if one is unknown."""
    keys = [(program_id, user) for user in users]
    accounts = find_accounts(db, keys)
    if len(accounts) < len(keys):
        raise Problem(USER_UNKNOWN)
    return tuple(accounts[key] for key in keys)


def find_movement(db: Connection, program_id: int, kind: MovementKind, token: str) -> Any:
    """Return the row of a movement, or None."""
    key = movements.c
    query = select(movements).where(key.program_id == program_id, key.kind == int(kind), key.token == token)
    return db.execute(query).one_or_none()


def payer_and_source(db: Connection, movement_id: int) -> tuple[str, int | None]:
    """Return the token of the user whose account the movement changed, and the id of its funding source."""
    columns = transactions.c
    row = db.execute(select(columns.details, columns.source_id).where(columns.id == movement_id)).one()
    return details_decoder.decode(row.details).user_token or "", row.source_id


def of_holder(call: Call, user_token: str | None, business_token: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions that filter a list by account holder. An unknown holder matches no movement."""
    if user_token is None and business_token is None:
        return []
    user = records.find(call.db, users, call.program.id, user_token) if business_token is None else None
    return [movements.c.holder_id == (user.holder_id if user is not None else -1)]


def list_movements(call: Call, kind: MovementKind, *conditions: ColumnElement[bool]) -> records.Listing:
    """Return the page of movements of a kind that the call requests."""
    return records.list_page(call.db, movements, call.program.id, call.list_page, movements.c.kind == int(kind), *conditions)


def get_movement(call: Call, kind: MovementKind, missing: Kind) -> str:
    """Return the JSON of the movement that the path names. Raises ``missing`` if there is none."""
    row = find_movement(call.db, call.program.id, kind, call.token)
    if row is None:
        raise Problem(missing)
    return str(row.doc)


# --- Actions: what a caller can do with it -------------------------------------------

Prepare = Callable[[Connection, Program, str], PreparedMovement]
"""A function that resolves the references of a request. Its last argument is the token of the movement."""


async def execute_movement(call: EngineCall, kind: MovementKind, body: Any, prepare: Prepare) -> bytes:
    """Execute a movement in the engine and return its JSON. A repeated request gets the JSON of the first one.

    Raises TOKEN_TAKEN if an earlier request with this token differs.
    """
    app, received_ms = call.app, call.app.real_clock()
    chosen = getattr(body, "token", None)
    digest, token = crud.fingerprint(app, body), chosen or app.ids.token()

    def look(db: Connection) -> tuple[PreparedMovement, tuple[AccountEntry, ...]] | str:
        replay = find_movement(db, call.program_id, kind, chosen) if chosen is not None else None
        if replay is None:
            ready = prepare(db, get_program(db, call.program_id), token)
            return ready, accounts_of(db, call.program_id, ready.users)
        if bytes(replay.request_hash) != digest:
            raise Problem(TOKEN_TAKEN)
        return str(replay.doc)

    result = await app.engine.cache.look(look)
    if isinstance(result, str):
        return result.encode()
    ready, accounts = result
    request = MovementRequest(
        accounts=accounts, kind=kind, movement=ready.movement,
        seed=app.ids.bits(63), received_ms=received_ms, request_hash=digest, source_id=ready.source_id,
        root_id=ready.root_id, ref_id=ready.ref_id,
    )  # fmt: skip
    moved = await app.engine.move(request)
    if moved.program.subscriptions:
        app.wake_outbox()
    return moved.doc.encode()
