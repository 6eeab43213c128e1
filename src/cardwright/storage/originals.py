"""Finding the transaction that a later message names."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select, tuple_

from cardwright.core.record import Recorded, id_and_face_of, token_of
from cardwright.storage.database import Database
from cardwright.storage.tables import cards, message_tokens, transactions

CARD_SIDE = 0


class Original(NamedTuple):
    """A transaction that others can follow: its row, the chain's root, and the card."""

    row_id: int
    root_id: int
    card_token: str
    kind: int
    code: int


def load_originals(database: Database, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Original]:
    """The transactions with these (program id, token); unknown ones are left out."""
    with database.read() as db:
        claimed = {key: claim[0] for key in keys if (claim := id_and_face_of(key[1])) is not None and claim[1] == CARD_SIDE}
        chosen = _chosen(db, keys)
        found = _load(db, {*claimed.values(), *chosen.values()})
    by_claim = {
        key: original
        for key, row_id in claimed.items()
        if (pair := found.get(row_id)) is not None and (original := _if_true(key, *pair)) is not None
    }
    return by_claim | {key: found[row_id][1] for key, row_id in chosen.items() if row_id in found}


def _if_true(key: tuple[int, str], row: Recorded, original: Original) -> Original | None:
    """A token carries its row's id; what it claims counts only when the whole of it is right."""
    return original if row.program_id == key[0] and token_of(row) == key[1] else None


def _chosen(db: Connection, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], int]:
    columns = message_tokens.c
    query = select(columns.program_id, columns.token, columns.transaction_id)
    rows = db.execute(query.where(tuple_(columns.program_id, columns.token).in_(keys)))
    return {(row.program_id, row.token): row.transaction_id for row in rows}


def _load(db: Connection, row_ids: set[int]) -> dict[int, tuple[Recorded, Original]]:
    query = select(transactions, cards.c.token.label("card_token")).join(cards, cards.c.id == transactions.c.card_id)
    found = {}
    for row in db.execute(query.where(transactions.c.id.in_(row_ids))):
        recorded = Recorded(*row[: len(Recorded._fields)])
        root_id = recorded.id if recorded.root_id is None else recorded.root_id
        found[recorded.id] = (recorded, Original(recorded.id, root_id, row.card_token, recorded.kind, recorded.code))
    return found
