"""Invariants of states and transitions: every change of a state has its transition."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Column, Connection, Table, and_, select

from cardwright.core.movement_types import STATE_BY_TYPE
from cardwright.core.movements import DEPOSIT_STATES, MovementKind
from cardwright.ledger.invariants.scan import Discrepancy, stream
from cardwright.storage.tables import (
    card_transitions,
    cards,
    deposit_account_transitions,
    deposit_accounts,
    movements,
    transactions,
    user_transitions,
    users,
)


class _CardState(msgspec.Struct):
    state: str
    fulfillment_status: str


class _UserState(msgspec.Struct):
    status: str


class _AccountState(msgspec.Struct):
    state: str


class _Stateful(NamedTuple):
    """Table of objects, the column of their transitions that refers to them, and the state in both documents."""

    table: Table
    pointer: Column[int]
    state: type[msgspec.Struct]


_STATEFUL: Final = (
    _Stateful(cards, card_transitions.c.card_id, _CardState),
    _Stateful(users, user_transitions.c.user_id, _UserState),
    _Stateful(deposit_accounts, deposit_account_transitions.c.account_id, _AccountState),
)


def state_is_that_of_newest_transition(db: Connection) -> Iterator[Discrepancy]:
    """Every card, user and deposit account has the state of its newest transition."""
    for table, pointer, state in _STATEFUL:
        columns = pointer.table.c
        newest = select(columns.doc).where(pointer == table.c.id).order_by(columns.id.desc()).limit(1).scalar_subquery()
        for row in stream(db, select(table.c.id, table.c.doc, newest.label("newest"))):
            expected = msgspec.json.decode(row.doc, type=state)
            actual = None if row.newest is None else msgspec.json.decode(row.newest, type=state)
            if actual != expected:
                yield f"{table.name} {row.id}", f"a transition to {expected}", actual


class _Transition(msgspec.Struct):
    state: str


def deposit_change_has_its_transition(db: Connection) -> Iterator[Discrepancy]:
    """Every transaction of a direct deposit has a transition to the state that the deposit then enters."""
    is_its = and_(
        movements.c.id == transactions.c.id, movements.c.program_id == transactions.c.program_id,
        movements.c.kind == int(MovementKind.DEPOSIT_TRANSITION),
    )  # fmt: skip
    query = select(transactions.c.id, transactions.c.type_id, movements.c.doc).outerjoin_from(transactions, movements, is_its)
    for row in stream(db, query.where(transactions.c.type_id.in_(STATE_BY_TYPE))):
        expected = DEPOSIT_STATES[STATE_BY_TYPE[row.type_id]]
        actual = None if row.doc is None else msgspec.json.decode(row.doc, type=_Transition).state
        if actual != expected:
            yield f"transaction {row.id}", f"a transition to {expected}", actual
