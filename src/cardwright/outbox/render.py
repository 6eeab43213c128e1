"""The body of a notification: one array, named after its category, of objects as their GET answers them."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, select, true

from cardwright.core.movements import MovementKind
from cardwright.outbox.events import Category
from cardwright.storage.tables import card_transitions, deposit_account_transitions, movements, user_transitions

RenderTransactions = Callable[[Connection, int, list[int]], list[str]]
"""Program id and transaction ids to their JSON, in order and as they were first: a retry repeats every byte."""


def notification(category: Category, elements: Sequence[str]) -> bytes:
    """The request's body."""
    return f'{{"{category.array}":[{",".join(elements)}]}}'.encode()


def load_elements(
    db: Connection, program_id: int, category: Category, refs: str, render_transactions: RenderTransactions
) -> list[str]:
    """The objects that an outbox row's ``refs`` name, in order. An object that is not there is a bug: KeyError."""
    if category is Category.TRANSACTION:
        return render_transactions(db, program_id, msgspec.json.decode(refs, type=list[int]))
    tokens = msgspec.json.decode(refs, type=list[str])
    docs = find_transitions(db, program_id, category, tokens)
    return [docs[token] for token in tokens]


class Transitions(NamedTuple):
    """Where the transitions of a category are: a table, and the condition that its rows fulfil."""

    table: Table
    condition: ColumnElement[bool]


TRANSITIONS: Final = {
    Category.CARD: Transitions(card_transitions, true()),
    Category.USER: Transitions(user_transitions, true()),
    Category.DEPOSIT: Transitions(movements, movements.c.kind == int(MovementKind.DEPOSIT_TRANSITION)),
    Category.DEPOSIT_ACCOUNT: Transitions(deposit_account_transitions, true()),
}
"""Every category but the transactions, which are rendered anew."""


def find_transitions(db: Connection, program_id: int, category: Category, tokens: Sequence[str]) -> dict[str, str]:
    """Return the JSON of a program's transitions by token; unknown tokens are left out."""
    table, condition = TRANSITIONS[category]
    query = select(table.c.token, table.c.doc).where(table.c.program_id == program_id, condition, table.c.token.in_(tokens))
    return {row.token: str(row.doc) for row in db.execute(query)}
