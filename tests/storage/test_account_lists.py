"""Which transactions an account has: its own row names the newest, its list has the others."""

import random

import pytest
from sqlalchemy import select

from cardwright.storage.account_lists import RECENT_MAX, find_own, ids_of, with_newest
from cardwright.storage.blocks import Order
from cardwright.storage.tables import holder_transactions, holders, transactions
from tests.support.past import row, write
from tests.support.world import World, new_world

DAY_MS = 86_400_000


@pytest.mark.parametrize("sizes", [[1] * 40, [40], [15, 1, 24], [16, 16, 8], [3, 33, 4], [39, 1]])
def test_the_same_transactions_move_however_they_come(sizes: list[int]) -> None:
    """One by one or many together: what moved and what is still named are the same, in order, and nothing is lost."""
    recent, moved, ids = b"", list[int](), list(range(1, 81, 2))
    for size in sizes:
        recent, listed = with_newest(recent, ids[:size])
        moved += listed
        ids = ids[size:]
    assert moved == list(range(1, 65, 2))
    assert ids_of(recent) == tuple(range(65, 81, 2))


def test_a_row_names_fewer_than_move_at_once() -> None:
    """What an account's own row holds has a bound, whatever comes."""
    drawn, recent = random.Random(1), b""
    for _ in range(200):
        recent, _ = with_newest(recent, range(1, 2 * drawn.randrange(1, 60), 2))
        assert len(ids_of(recent)) < RECENT_MAX


def store(world: World, holder_id: int, listed: list[int], named: list[int]) -> None:
    """An account whose list has some transactions and whose own row names others."""
    recent, _ = with_newest(b"", named)
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
