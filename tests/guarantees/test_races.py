"""Two processes, one PostgreSQL, everything at the same time: a short round of every race; `make stress` runs the long one."""

from tests.stress import limits, races


def test_nobody_wins_twice(migrated_postgres_url: str) -> None:
    """One token has one effect, no account is overdrawn, no limit exceeded, and what is switched off approves nothing."""
    figures = races.run(migrated_postgres_url, rounds=2)
    assert races.unproven(figures) == [], figures


def test_nobody_gets_more_room_than_a_control_has(migrated_postgres_url: str) -> None:
    """Every kind of race for the last room under a velocity control, a few rounds each; `make stress-limits` runs thousands."""
    all_figures = limits.run(migrated_postgres_url, rounds=32)
    assert [danger for figures in all_figures for danger in figures.unproven] == [], all_figures
