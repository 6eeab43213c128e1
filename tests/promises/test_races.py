"""Two processes, one PostgreSQL, everything at the same time: a short round of every race; `make storm` runs the long one."""

from tests.storm import races
from tests.support.postgres import TestPostgres


def test_nobody_wins_twice(postgres: TestPostgres) -> None:
    """One token has one effect, no account is overdrawn, no limit exceeded, and what is switched off approves nothing."""
    address = postgres.new_database()
    figures = races.run(address, rounds=2)
    postgres.drop_database(address)
    assert races.unproven(figures) == [], figures
