"""Transactions of an account: its row has the newest ids, and its list has the others."""

from functools import reduce

from sqlalchemy import select

from cardwright.storage.account_transactions import NOTHING_RECENT, RECENT_MAX, find_own, ids_of, is_full, with_newest
from cardwright.storage.tables import holder_transactions, holders, transactions
from cardwright.storage.transaction_lists.blocks import ListOrder, account_parts
from tests.support.in_process_platform import InProcessPlatform, new_platform
from tests.support.past import row, write

DAY_MS = 86_400_000


def test_an_account_names_its_newest_until_there_is_no_room() -> None:
    """The row of an account contains up to RECENT_MAX ids in order, and its size does not depend on their number."""
    ids = [1, 3, 255, 257, 65_537, 2**40 - 3, 2**40 - 257, 2**40 - 1]
    recent = NOTHING_RECENT
    for index, row_id in enumerate(ids):
        assert not is_full(recent)
        recent = with_newest(recent, row_id)
        assert ids_of(recent) == tuple(ids[: index + 1])
        assert len(recent) == len(NOTHING_RECENT)
    assert is_full(recent)
    assert len(ids) == RECENT_MAX


def store(platform: InProcessPlatform, holder_id: int, listed: list[int], named: list[int]) -> None:
    """Store an account with some transactions in its list and others in its row."""
    recent = reduce(with_newest, named, NOTHING_RECENT)
    rows = [row(row_id, row_id * DAY_MS, program_id=platform.program_id, holder_id=holder_id) for row_id in listed + named]
    with platform.database.write() as db:
        db.execute(holders.insert().values(id=holder_id, program_id=platform.program_id, revision=1, state=b"", recent=recent))
        write(db, rows)
        for stored_row in rows[: len(listed)]:
            db.execute(holder_transactions.insert(), {column.name: stored_row[column.name] for column in holder_transactions.c})


def test_own_transactions_are_found_once(migrated_url: str) -> None:
    """The condition and the parts of the list both select exactly the transactions of the accounts, each once."""
    with new_platform(migrated_url) as platform:
        store(platform, 101, [1, 3, 5], [11, 13])
        store(platform, 102, [7, 9], [])
        with platform.database.read() as db:
            ana, ben = [1, 3, 5, 11, 13], [7, 9]
            for accounts, expected in (([101], ana), ([102], ben), ([101, 102], sorted(ana + ben)), ([], [])):
                account_transactions = find_own(db, accounts)
                assert sorted(db.scalars(select(transactions.c.id).where(account_transactions.condition))) == expected
                for order in ListOrder:
                    parts = [
                        select(part.id).where(*part.conditions, transactions.c.id > 0)
                        for part in account_parts(account_transactions, order)
                    ]
                    assert sorted(row_id for part in parts for row_id in db.scalars(part)) == expected
