"""Two processes, one PostgreSQL, everything at the same time: a short round of every race; `make storm` runs the long one."""

from tests.storm import limits, races
from tests.support.postgres import TestPostgres


def test_nobody_wins_twice(postgres: TestPostgres) -> None:
    """One token has one effect, no account is overdrawn, no limit exceeded, and what is switched off approves nothing."""
    address = postgres.new_database()
    figures = races.run(address, rounds=2)
    postgres.drop_database(address)
    assert races.unproven(figures) == [], figures


def test_nobody_gets_more_room_than_a_control_has(postgres: TestPostgres) -> None:
    """Every kind of race for the last room under a velocity control, a few rounds of each; `make races` runs thousands."""
    address = postgres.new_database()
    found = limits.run(address, rounds=32)
    postgres.drop_database(address)
    assert [what for one in found for what in one.unproven] == [], found
