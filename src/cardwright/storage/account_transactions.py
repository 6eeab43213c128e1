"""Transactions of an account, without a page of an index for each of them.

An index over all transactions by account was half of the bytes that a purchase wrote on SQLite: every entry belongs on another
page, and a whole page is written for it. So the account's own row, which is written anyway, names its newest transactions. The
one that would be the eighth moves all eight to the list in the same commit, all to the same page. With 100,000 accounts SQLite
decides four to ten per cent more for it, and PostgreSQL works a tenth less.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, select, union_all

from cardwright.storage.tables import holder_transactions, holders, transactions

RECENT_MAX = 8
"""Transactions that move to an account's list together. A stored row names at most one fewer."""

ID_SIZE = 5
"""Bytes of a transaction's id, the highest first; see ``core.transaction_row``."""

NOTHING_RECENT = bytes(RECENT_MAX * ID_SIZE)
"""What the row of an account without transactions says. There is room for all: a row that grows has its page split."""

_listed = holder_transactions.c
_row = transactions.c


def ids_of(recent: bytes) -> tuple[int, ...]:
    """The transactions that an account's own row names, the oldest first."""
    # Ids are odd (see ``storage.engine.store``), so the last byte of an id is never zero.
    known = recent.rstrip(b"\0")
    return tuple(int.from_bytes(known[start : start + ID_SIZE], "big") for start in range(0, len(known), ID_SIZE))


def with_newest(recent: bytes, row_id: int) -> bytes:
    """What an account's own row names with one transaction more. There must be room for it."""
    return (recent.rstrip(b"\0") + row_id.to_bytes(ID_SIZE, "big")).ljust(len(NOTHING_RECENT), b"\0")


def is_full(recent: bytes) -> bool:
    """Whether there is no room for one more, so that all must move to the list now."""
    return recent[-1] != 0


class AccountTransactions(NamedTuple):
    """Accounts, and their transactions that are not in a list yet."""

    holder_ids: Collection[int]
    recent: Sequence[int]

    @property
    def condition(self) -> ColumnElement[bool]:
        """That a transaction is one of the accounts'."""
        listed = select(_listed.id).where(_listed.holder_id.in_(self.holder_ids))
        return _row.id.in_(union_all(listed, select(_row.id).where(_row.id.in_(self.recent))))


def find_own(db: Connection, holder_ids: Collection[int]) -> AccountTransactions:
    """Return the transactions of accounts. One that moves to the list before the list is read is found there, and shown once."""
    if not holder_ids:
        return AccountTransactions(holder_ids, ())
    rows = db.scalars(select(holders.c.recent).where(holders.c.id.in_(holder_ids)))
    return AccountTransactions(holder_ids, [row_id for recent in rows for row_id in ids_of(bytes(recent))])
