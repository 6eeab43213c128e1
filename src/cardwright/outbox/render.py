"""Bodies of notifications: one array, named after its category, of objects in the form of their GET."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, select, true

from cardwright.core.movements import MovementKind
from cardwright.outbox.events import Category
from cardwright.storage.tables import card_transitions, deposit_account_transitions, movements, user_transitions

RenderTransactions = Callable[[Connection, int, list[int]], list[str]]
"""Function from program id and transaction ids to their JSON, in order and in their first state. A retry has identical bytes."""


def notification(category: Category, elements: Sequence[str]) -> bytes:
    """Return the request's body."""
    return f'{{"{category.array}":[{",".join(elements)}]}}'.encode()


def load_elements(
    db: Connection, program_id: int, category: Category, refs: str, render_transactions: RenderTransactions
) -> list[str]:
    """Return the objects that an outbox row's ``refs`` name, in order.

    Raises KeyError if a transition does not exist, which is a bug.
    """
    if category is Category.TRANSACTION:
        return render_transactions(db, program_id, msgspec.json.decode(refs, type=list[int]))
    tokens = msgspec.json.decode(refs, type=list[str])
    docs = find_transitions(db, program_id, category, tokens)
    return [docs[token] for token in tokens]


class Transitions(NamedTuple):
    """Source of a category's transitions: a table, and the condition of its rows."""

    table: Table
    condition: ColumnElement[bool]


TRANSITIONS: Final = {
    Category.CARD: Transitions(card_transitions, true()),
    Category.USER: Transitions(user_transitions, true()),
    Category.DEPOSIT: Transitions(movements, movements.c.kind == int(MovementKind.DEPOSIT_TRANSITION)),
    Category.DEPOSIT_ACCOUNT: Transitions(deposit_account_transitions, true()),
}
"""All categories except transactions, which are rendered again."""


def find_transitions(db: Connection, program_id: int, category: Category, tokens: Sequence[str]) -> dict[str, str]:
    """Return the JSON of a program's transitions by token; unknown tokens are left out."""
    table, condition = TRANSITIONS[category]
    query = select(table.c.token, table.c.doc).where(table.c.program_id == program_id, condition, table.c.token.in_(tokens))
    return {row.token: str(row.doc) for row in db.execute(query)}
