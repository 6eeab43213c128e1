"""Transactions as of their decision: rows rendered with the card, users and funding source of that time."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from cardwright.core.movement_json import account_fragments_of, render_account_side
from cardwright.core.render import (
    CardFragments,
    SourceFragments,
    details_decoder,
    fragments_of,
    render,
    render_load,
    source_fragments_of,
)
from cardwright.core.snapshot import CardFact, SourceFact, UserFact, fact_from
from cardwright.core.transaction_row import CARD_SIDE, LOAD_SIDE, TransactionRow
from cardwright.storage import history
from cardwright.storage.tables import transactions, users


def has_load_side(row: TransactionRow) -> bool:
    """Return True if the row is two transactions on the wire. Without a card, the order is the transaction itself."""
    return row.moved != 0 and row.card_id is not None


# Built once, because a list of transactions executes them for each entry.
_USER_ID = select(users.c.id).where(users.c.program_id == bindparam("program_id"), users.c.token == bindparam("token"))
_OWNER_ID = select(users.c.id).where(users.c.holder_id == bindparam("holder_id")).order_by(users.c.id).limit(1)


def owner_id_of(db: Connection, holder_id: int) -> int:
    """Return the user who owns an account: the first one. Users who share the account are newer."""
    return int(db.execute(_OWNER_ID, {"holder_id": holder_id}).scalar_one())


class TransactionRenderer:
    """Renderer of rows with the configuration that was in force when each row was decided."""

    def __init__(self, db: Connection, program_id: int, *, masked: bool) -> None:
        self._db, self._program_id, self._masked = db, program_id, masked
        self._fragments: dict[tuple[int, int], CardFragments] = {}
        self._account_fragments: dict[tuple[int, str, int], CardFragments] = {}
        self._sources: dict[tuple[int, int], SourceFragments] = {}

    def json(self, row: TransactionRow, side: int = CARD_SIDE, state: int | None = None) -> str:
        """Return the JSON of one side of a row."""
        if row.card_id is None:
            return render_account_side(row, self.account_fragments(row), state)
        fragments, source = self.fragments(row), self.source(row)
        return render_load(row, fragments, source) if side == LOAD_SIDE else render(row, fragments, source, state)

    def fragments(self, row: TransactionRow) -> CardFragments:
        """Return the card, its user and the owner of its account at the row's revision."""
        assert row.card_id is not None
        key = (row.card_id, row.holder_revision)
        if key not in self._fragments:
            self._fragments[key] = fragments_of(*facts_as_of(self._db, row))
        return self._fragments[key]

    def account_fragments(self, row: TransactionRow) -> CardFragments:
        """Return the user of a row without a card, and the owner of the account, at the row's revision."""
        token = details_decoder.decode(row.details).user_token
        assert token is not None
        key = (row.holder_id, token, row.holder_revision)
        if key not in self._account_fragments:
            self._account_fragments[key] = account_fragments_of(*people_as_of(self._db, row, token))
        return self._account_fragments[key]

    def source(self, row: TransactionRow) -> SourceFragments | None:
        """Return the funding source at the row's revision, None without one."""
        if row.source_id is None:
            return None
        key = (row.source_id, row.program_revision)
        if key not in self._sources:
            self._sources[key] = source_fragments_of(source_as_of(self._db, row), masked=self._masked)
        return self._sources[key]


def facts_as_of(db: Connection, row: TransactionRow) -> tuple[CardFact, UserFact, UserFact]:
    """Return the card, its user and the account owner as they were when the row was decided."""
    assert row.card_id is not None
    card = fact_from(CardFact, history.doc_as_of(db, row.program_id, history.Kind.CARD, row.card_id, row.holder_revision))
    return (card, *people_as_of(db, row, card.user_token))


def people_as_of(db: Connection, row: TransactionRow, user_token: str) -> tuple[UserFact, UserFact]:
    """Return the user and the account owner as they were when the row was decided."""
    user_id = db.execute(_USER_ID, {"program_id": row.program_id, "token": user_token}).scalar_one()
    owner_id = owner_id_of(db, row.holder_id)
    user = _user_as_of(db, row, user_id)
    return user, user if owner_id == user_id else _user_as_of(db, row, owner_id)


def _user_as_of(db: Connection, row: TransactionRow, user_id: int) -> UserFact:
    fact: UserFact = fact_from(UserFact, history.doc_as_of(db, row.program_id, history.Kind.USER, user_id, row.holder_revision))
    return fact


def source_as_of(db: Connection, row: TransactionRow) -> SourceFact:
    """Return the row's funding source as it was when the row was decided."""
    assert row.source_id is not None
    doc = history.doc_as_of(db, row.program_id, history.Kind.FUNDING_SOURCE, row.source_id, row.program_revision)
    fact: SourceFact = fact_from(SourceFact, doc)
    return fact


def render_first_states(db: Connection, program_id: int, row_ids: Sequence[int], *, masked: bool) -> list[str]:
    """Return transactions as their notifications show them: in their first state, in the order of the ids."""
    # The program is compared here. As a condition of the query, it makes SQLite choose the index of all rows of the program.
    result = db.execute(select(transactions).where(transactions.c.id.in_(row_ids)))
    rows = {row.id: TransactionRow.from_row(row) for row in result if row.program_id == program_id}
    renderer = TransactionRenderer(db, program_id, masked=masked)
    return [renderer.json(rows[row_id], state=rows[row_id].first_state) for row_id in row_ids]
