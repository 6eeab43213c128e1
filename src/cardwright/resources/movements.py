"""What all movements do alike: whose account, which fees, once for each token, and through the heart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection, select
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.movement_steps import Charge
from cardwright.core.movements import AnyMovement, MovementKind
from cardwright.core.problems import (
    BUSINESS_UNKNOWN,
    CURRENCY_UNSUPPORTED,
    FEE_NOT_CHARGEABLE,
    FEE_UNKNOWN,
    FUNDING_SOURCE_UNKNOWN,
    ONE_HOLDER,
    TOKEN_TAKEN,
    USER_UNKNOWN,
    Kind,
    Problem,
    bad_field,
)
from cardwright.core.render import details_decoder
from cardwright.engine.cache import AccountEntry, find_accounts
from cardwright.engine.moving import CHARGES_MAX, Instructed
from cardwright.resources import base
from cardwright.resources.app import Call, EngineCall
from cardwright.resources.base import Token
from cardwright.resources.fees import Category, Fee, FeeKind
from cardwright.resources.route import Shape
from cardwright.resources.simulate_shapes import parse_amount
from cardwright.storage import records
from cardwright.storage.programs import Program, get_program
from cardwright.storage.tables import fees, funding_sources, movements, transactions, users

# --- Shapes: what travels on the wire ------------------------------------------------

Memo = Annotated[str, Meta(min_length=1, max_length=99)]
Tags = Annotated[str, Meta(min_length=1, max_length=255)]
Tags0 = Annotated[str, Meta(max_length=255)]
CurrencyCode = Annotated[str, Meta(min_length=3, max_length=3)]


class FeeModel(Shape, frozen=True, kw_only=True):
    """A fee to charge: which one, and what takes the place of its amount."""

    token: Token
    memo: Memo | None = None
    tags: Tags0 | None = None
    overrideAmount: Decimal | None = None


class ChargedFee(Shape, frozen=True, kw_only=True):
    """A fee as it was on the day that it was charged."""

    token: str
    name: str
    amount: Decimal
    memo: str | UnsetType = UNSET
    tags: str | UnsetType = UNSET
    currency_code: str
    created_time: str
    last_modified_time: str


class FeeDetail(Shape, frozen=True, kw_only=True):
    """A fee that was charged, and the transaction that charged it."""

    token: str
    memo: str | UnsetType = UNSET
    tags: str | UnsetType = UNSET
    overrideAmount: Decimal | UnsetType = UNSET
    transaction_token: str
    fee: ChargedFee


class Verdict(Shape, frozen=True, kw_only=True):
    """The outcome of a movement."""

    code: str
    memo: str


class FundingShown(Shape, frozen=True, kw_only=True):
    """What was drawn from, or went back to, a funding source; fees included."""

    amount: Decimal
    source: dict[str, Any]


# --- Rules: pure ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """A movement whose references have been looked up; ``users`` are the payer's token and perhaps the recipient's."""

    users: tuple[str, ...]
    movement: AnyMovement
    source_id: int | None = None
    root_id: int | None = None
    ref_id: int | None = None


def one_holder(user_token: str | None, business_token: str | None) -> str:
    """The user's token. Raises a problem unless there is exactly one holder; there are no businesses here."""
    if (user_token is None) == (business_token is None):
        raise Problem(ONE_HOLDER)
    if user_token is None:
        raise Problem(BUSINESS_UNKNOWN)
    return user_token


def positive_amount(amount: Decimal, currency: str) -> int:
    """Minor units, at least one. Raises a problem that names the field."""
    units = parse_amount("amount", amount, currency)
    if not units:
        raise bad_field("amount", "must be greater than 0")
    return units


def check_currency(currency: str, program: Program) -> None:
    """Refuses another currency than the program's: accounts have no other (choice)."""
    if currency != program.settings.currency:
        raise Problem(CURRENCY_UNSUPPORTED, currency)


def said(body: Shape, *names: str) -> dict[str, str]:
    """The texts of a request that its document repeats, in this order."""
    return {name: value for name in names if (value := getattr(body, name)) is not None}


def parse_fees(sent: Sequence[FeeModel] | None, currency: str) -> list[tuple[FeeModel, int | None]]:
    """The fees with what takes the place of their amounts, in minor units. Raises a problem that names the field."""
    if sent is not None and len(sent) > CHARGES_MAX:
        raise bad_field("fees", f"may have at most {CHARGES_MAX} elements")
    return [
        (
            one,
            None
            if one.overrideAmount is None
            else parse_amount(f"fees[{index}].overrideAmount", one.overrideAmount, currency),
        )
        for index, one in enumerate(sent or ())
    ]


def charge_of(fee: Fee, sent: FeeModel, override: int | None, amount: int | None, currency: str) -> Charge:
    """The fee as it is charged today. ``amount`` is what a percentage is of, None when there is nothing."""
    if not fee.active:
        raise Problem(FEE_NOT_CHARGEABLE, f"{fee.token} is not active")
    if fee.category is Category.REALTIME:
        raise Problem(FEE_NOT_CHARGEABLE, f"{fee.token} is a real-time fee")
    if fee.currency_code != currency:
        raise Problem(FEE_NOT_CHARGEABLE, f"{fee.token} is in {fee.currency_code}")
    if fee.type is FeeKind.FLAT:
        units = parse_amount("amount", fee.amount, currency)
    elif amount is None:
        raise Problem(FEE_NOT_CHARGEABLE, f"{fee.token} is a percentage, and there is no amount that it could be of")
    else:
        units = int((fee.amount * amount / 100).to_integral_value(ROUND_HALF_UP))
    shown = ChargedFee(**{name: getattr(fee, name) for name in ChargedFee.__struct_fields__})
    return Charge(
        token=fee.token, amount=units if override is None else override, fee=records.text_of(shown),
        memo=sent.memo, tags=sent.tags, override=override,
    )  # fmt: skip


# --- Queries: this resource's SQL ----------------------------------------------------


def find_source(db: Connection, program: Program, token: str, missing: Kind = FUNDING_SOURCE_UNKNOWN) -> int:
    """The id of a program funding source. Raises a problem when there is none."""
    row = records.find(db, funding_sources, program.id, token)
    if row is None:
        raise Problem(missing, token)
    return int(row.id)


def find_charges(
    db: Connection, program: Program, sent: Sequence[tuple[FeeModel, int | None]], amount: int | None
) -> tuple[Charge, ...]:
    """The fees as they are charged now. Raises a problem for one that is unknown or cannot be charged."""
    charges = []
    for one, override in sent:
        row = records.find(db, fees, program.id, one.token)
        if row is None:
            raise Problem(FEE_UNKNOWN, one.token)
        fee = msgspec.json.decode(row.doc, type=Fee)
        charges.append(charge_of(fee, one, override, amount, program.settings.currency))
    return tuple(charges)


def accounts_of(db: Connection, program_id: int, users: Sequence[str]) -> tuple[AccountEntry, ...]:
    """The accounts of users. Raises a problem when one of them is unknown."""
    keys = [(program_id, user) for user in users]
    found = find_accounts(db, keys)
    if len(found) < len(keys):
        raise Problem(USER_UNKNOWN)
    return tuple(found[key] for key in keys)


def find_movement(db: Connection, program_id: int, kind: MovementKind, token: str) -> Any:
    """The movement's row, or None."""
    key = movements.c
    query = select(movements).where(key.program_id == program_id, key.kind == int(kind), key.token == token)
    return db.execute(query).one_or_none()


def payer_and_source(db: Connection, movement_id: int) -> tuple[str, int | None]:
    """The user whose account a movement was about, and its funding source."""
    columns = transactions.c
    row = db.execute(select(columns.details, columns.source_id).where(columns.id == movement_id)).one()
    return details_decoder.decode(row.details).user_token or "", row.source_id


def of_holder(call: Call, user_token: str | None, business_token: str | None) -> list[ColumnElement[bool]]:
    """The movements of whose account a list shows; an unknown holder has none."""
    if user_token is None and business_token is None:
        return []
    user = records.find(call.db, users, call.program.id, user_token) if business_token is None else None
    return [movements.c.holder_id == (user.holder_id if user is not None else -1)]


def list_movements(call: Call, kind: MovementKind, *conditions: ColumnElement[bool]) -> records.Listing:
    """The page of movements of a kind that the call asks for."""
    return records.list_page(
        call.db, movements, call.program.id, call.list_page, movements.c.kind == int(kind), *conditions
    )


def get_movement(call: Call, kind: MovementKind, missing: Kind) -> str:
    """The document of the movement that the path names. Raises ``missing``."""
    row = find_movement(call.db, call.program.id, kind, call.token)
    if row is None:
        raise Problem(missing)
    return str(row.doc)


# --- Actions: what one can do with it ------------------------------------------------

Prepare = Callable[[Connection, Program, str], Ready]
"""Looks up what a request refers to; the text is the token of the movement."""


async def carry_out(call: EngineCall, kind: MovementKind, body: Any, prepare: Prepare) -> bytes:
    """Has a movement carried out and answers its document; a repeat gets the first one's."""
    app, received_ms = call.app, call.app.real_clock()
    chosen = getattr(body, "token", None)
    digest, token = base.fingerprint(app, body), chosen or app.ids.token()

    def look(db: Connection) -> tuple[Ready, tuple[AccountEntry, ...]] | str:
        replay = find_movement(db, call.program_id, kind, chosen) if chosen is not None else None
        if replay is None:
            ready = prepare(db, get_program(db, call.program_id), token)
            return ready, accounts_of(db, call.program_id, ready.users)
        if bytes(replay.request_hash) != digest:
            raise Problem(TOKEN_TAKEN)
        return str(replay.doc)

    found = await app.engine.cache.look(look)
    if isinstance(found, str):
        return found.encode()
    ready, accounts = found
    asked = Instructed(
        accounts=accounts, kind=kind, movement=ready.movement,
        seed=app.ids.bits(63), received_ms=received_ms, request_hash=digest, source_id=ready.source_id,
        root_id=ready.root_id, ref_id=ready.ref_id,
    )  # fmt: skip
    moved = await app.engine.move(asked)
    if moved.program.subscriptions:
        app.wake_outbox()
    return moved.doc.encode()
