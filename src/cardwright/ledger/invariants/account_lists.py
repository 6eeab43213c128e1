"""Invariants of transaction lists: every transaction is in its account's list, or in the account's row."""

from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter

from sqlalchemy import Connection, and_, or_, select

from cardwright.ledger.invariants.scan import Discrepancy, stream
from cardwright.storage.account_transactions import ids_of
from cardwright.storage.tables import holder_transactions, holders, transactions

_listed, _row = holder_transactions.c, transactions.c


def listed_is_a_transaction(db: Connection) -> Iterator[Discrepancy]:
    """Every entry of an account's list is a transaction of that account and program, with the same start time."""
    shared = ("program_id", "holder_id", "user_time_ms")
    differs = [_listed[name] != _row[name] for name in shared]
    query = select(_listed.id, _listed.holder_id).outerjoin_from(holder_transactions, transactions, _row.id == _listed.id)
    for entry in stream(db, query.where(or_(_row.id.is_(None), *differs))):
        yield f"list of holder {entry.holder_id}", f"a transaction of the same {', '.join(shared)}", f"transaction {entry.id}"


def transaction_is_in_one_list(db: Connection) -> Iterator[Discrepancy]:
    """The row of an account names exactly those of its transactions that are not in its list."""
    key = and_(*(_listed[name] == _row[name] for name in ("holder_id", "user_time_ms", "id")))
    unlisted = select(_row.holder_id, _row.id).outerjoin_from(transactions, holder_transactions, key).where(_listed.id.is_(None))
    named = select(holders.c.id, holders.c.recent).order_by(holders.c.id)
    streams = (stream(db, named), stream(db, unlisted.order_by(_row.holder_id)))
    for holder_id, rows in groupby(merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
        actual, expected = list[int](), list[int]()
        for _, value in rows:
            if isinstance(value, int):
                expected.append(value)
            else:
                actual += ids_of(bytes(value))
        if sorted(actual) != sorted(expected):
            yield f"holder {holder_id} (newest transactions)", sorted(expected), sorted(actual)
