"""Which transactions an account has: its own row names the newest, its list has the others."""

import random

import pytest
from sqlalchemy import select

from cardwright.storage.account_lists import NOTHING_RECENT, RECENT_MAX, find_own, ids_of, with_newest
from cardwright.storage.blocks import Order
from cardwright.storage.tables import holder_transactions, holders, transactions
from tests.support.past import row, write
from tests.support.world import World, new_world

DAY_MS = 86_400_000


@pytest.mark.parametrize("sizes", [[1] * 39, [39], [7, 1, 31], [8, 8, 23], [3, 33, 3], [38, 1]])
def test_the_same_transactions_move_however_they_come(sizes: list[int]) -> None:
    """One by one or many together: what moved and what is still named are the same, in order, and nothing is lost."""
    recent, moved, ids = NOTHING_RECENT, list[int](), [*range(1, 73, 2), 2**40 - 3, 2**40 - 257, 2**40 - 1]
    for size in sizes:
        recent, listed = with_newest(recent, ids[:size])
        moved += listed
        ids = ids[size:]
    assert moved == [*range(1, 65, 2)]
    assert ids_of(recent) == (65, 67, 69, 71, 2**40 - 3, 2**40 - 257, 2**40 - 1)


def test_a_row_names_fewer_than_move_at_once() -> None:
    """What an account's own row holds has one size, whatever comes."""
    drawn, recent = random.Random(1), NOTHING_RECENT
    for _ in range(200):
        recent, _ = with_newest(recent, range(1, 2 * drawn.randrange(1, 60), 2))
        assert len(ids_of(recent)) < RECENT_MAX
        assert len(recent) == len(NOTHING_RECENT)


def store(world: World, holder_id: int, listed: list[int], named: list[int]) -> None:
    """An account whose list has some transactions and whose own row names others."""
    recent, _ = with_newest(NOTHING_RECENT, named)
    rows = [row(one, one * DAY_MS, program_id=world.program_id, holder_id=holder_id) for one in listed + named]
    with world.database.write() as db:
        db.execute(holders.insert().values(id=holder_id, program_id=world.program_id, revision=1, state=b"", recent=recent))
        write(db, rows)
        for one in rows[: len(listed)]:
            db.execute(holder_transactions.insert(), {column.name: one[column.name] for column in holder_transactions.c})


def test_own_transactions_are_found_once(database_url: str) -> None:
    """Both ways of asking give the listed and the newest of the accounts, each of them once, and nobody else's."""
    with new_world(database_url) as world:
        store(world, 101, [1, 3, 5], [11, 13])
        store(world, 102, [7, 9], [])
        with world.database.read() as db:
            ana, ben = [1, 3, 5, 11, 13], [7, 9]
            for accounts, expected in (([101], ana), ([102], ben), ([101, 102], sorted(ana + ben)), ([], [])):
                own = find_own(db, accounts)
                assert sorted(db.scalars(select(transactions.c.id).where(own.condition))) == expected
                for order in Order:
                    parts = [select(part.id).where(*part.conditions, transactions.c.id > 0) for part in own.parts(order)]
                    assert sorted(row_id for part in parts for row_id in db.scalars(part)) == expected
