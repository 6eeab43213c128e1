"""Account transactions: the recent transactions in an account's row, and the account's list.

An index over all transactions by account would cost one page for each new transaction, because adjacent entries belong to
different accounts. So the account's row, which each batch writes anyway, lists the newest transactions. The eighth one moves
all of them to the list in the same commit, mostly to one page. Decision 0011 has the measurements.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, select, union_all

from cardwright.storage.tables import holder_transactions, holders, transactions

RECENT_MAX = 8
"""Number of transactions that move to an account's list together. A stored row names at most one fewer."""

ID_SIZE = 5
"""Bytes of a transaction's id, the highest first; see ``core.transaction_row``."""

NOTHING_RECENT = bytes(RECENT_MAX * ID_SIZE)
"""The value for an account without transactions. Its length is constant, because a row that grows can split its page."""

_listed = holder_transactions.c
_row = transactions.c


def ids_of(recent: bytes) -> tuple[int, ...]:
    """Return the ids of an account's recent transactions, oldest first."""
    # Ids are odd (see ``storage.engine.store``), so the last byte of an id is never zero.
    known = recent.rstrip(b"\0")
    return tuple(int.from_bytes(known[start : start + ID_SIZE], "big") for start in range(0, len(known), ID_SIZE))


def with_newest(recent: bytes, row_id: int) -> bytes:
    """Return the recent transactions with one more id. The caller checks ``is_full`` first."""
    return (recent.rstrip(b"\0") + row_id.to_bytes(ID_SIZE, "big")).ljust(len(NOTHING_RECENT), b"\0")


def is_full(recent: bytes) -> bool:
    """Return True if all recent transactions must now move to the list."""
    return recent[-1] != 0


class AccountTransactions(NamedTuple):
    """Accounts and the ids of their transactions that are not in a list yet."""

    holder_ids: Collection[int]
    recent: Sequence[int]

    @property
    def condition(self) -> ColumnElement[bool]:
        """The condition that a transaction belongs to one of the accounts."""
        listed = select(_listed.id).where(_listed.holder_id.in_(self.holder_ids))
        return _row.id.in_(union_all(listed, select(_row.id).where(_row.id.in_(self.recent))))


def find_own(db: Connection, holder_ids: Collection[int]) -> AccountTransactions:
    """Return the transactions of accounts.

    If a transaction moves to the list between both reads, the condition matches it in both places and selects it once.
    """
    if not holder_ids:
        return AccountTransactions(holder_ids, ())
    rows = db.scalars(select(holders.c.recent).where(holders.c.id.in_(holder_ids)))
    return AccountTransactions(holder_ids, [row_id for recent in rows for row_id in ids_of(bytes(recent))])
