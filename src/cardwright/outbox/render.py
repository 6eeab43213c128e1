"""The body of a notification: one array, named after its category, of objects as their GET answers them."""

from collections.abc import Callable, Sequence
from typing import assert_never

import msgspec
from sqlalchemy import Connection, Table, select

from cardwright.outbox.events import Category
from cardwright.storage.tables import card_transitions, user_transitions

RenderTransactions = Callable[[Connection, int, list[int]], list[str]]
"""Program id and transaction ids to their JSON, in order and as they were first: a retry repeats every byte."""


def notification(category: Category, elements: Sequence[str]) -> bytes:
    """The request's body."""
    return f'{{"{category.array}":[{",".join(elements)}]}}'.encode()


def load_elements(
    db: Connection, program_id: int, category: Category, refs: str, render_transactions: RenderTransactions
) -> list[str]:
    """The objects that an outbox row's ``refs`` name, in order. An object that is not there is a bug: KeyError."""
    match category:
        case Category.TRANSACTION:
            return render_transactions(db, program_id, msgspec.json.decode(refs, type=list[int]))
        case Category.CARD:
            return _load_docs(db, card_transitions, program_id, refs)
        case Category.USER:
            return _load_docs(db, user_transitions, program_id, refs)
        case _:
            assert_never(category)


def _load_docs(db: Connection, table: Table, program_id: int, refs: str) -> list[str]:
    tokens = msgspec.json.decode(refs, type=list[str])
    query = select(table.c.token, table.c.doc).where(table.c.program_id == program_id, table.c.token.in_(tokens))
    docs = {row.token: str(row.doc) for row in db.execute(query)}
    return [docs[token] for token in tokens]
