"""Finding the transaction that a later message names."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select, tuple_

from cardwright.core.record import Recorded, id_and_face_of, token_of
from cardwright.storage.database import Database
from cardwright.storage.tables import cards, message_tokens, transactions

TokenKey = tuple[int, str]
"""Program id and transaction token."""

CARD_SIDE = 0


class Original(NamedTuple):
    """A transaction that others can follow: its row as it was first written, and the card's token."""

    row: Recorded
    card_token: str

    @property
    def root_id(self) -> int:
        """The row of the chain's root."""
        return self.row.id if self.row.root_id is None else self.row.root_id


def claimed_id(token: str) -> int | None:
    """The row that a token says it names, as the card's side of it."""
    claim = id_and_face_of(token)
    return claim[0] if claim is not None and claim[1] == CARD_SIDE else None


def is_named(row: Recorded, key: TokenKey) -> bool:
    """A token carries its row's id; what it claims counts only when the whole of it is right."""
    return row.program_id == key[0] and token_of(row) == key[1]


def load_originals(database: Database, keys: Sequence[TokenKey]) -> dict[TokenKey, Original]:
    """The transactions with these (program id, token); unknown ones are left out."""
    with database.read() as db:
        claimed = {key: row_id for key in keys if (row_id := claimed_id(key[1])) is not None}
        chosen = _chosen(db, keys)
        found = _load(db, {*claimed.values(), *chosen.values()})
    by_claim = {key: found[row_id] for key, row_id in claimed.items() if row_id in found and is_named(found[row_id].row, key)}
    return by_claim | {key: found[row_id] for key, row_id in chosen.items() if row_id in found}


def _chosen(db: Connection, keys: Sequence[TokenKey]) -> dict[TokenKey, int]:
    columns = message_tokens.c
    query = select(columns.program_id, columns.token, columns.transaction_id)
    rows = db.execute(query.where(tuple_(columns.program_id, columns.token).in_(keys)))
    return {(row.program_id, row.token): row.transaction_id for row in rows}


def _load(db: Connection, row_ids: set[int]) -> dict[int, Original]:
    query = select(transactions, cards.c.token.label("card_token")).join(cards, cards.c.id == transactions.c.card_id)
    rows = db.execute(query.where(transactions.c.id.in_(row_ids)))
    return {row.id: Original(Recorded(*row[: len(Recorded._fields)]), row.card_token) for row in rows}
