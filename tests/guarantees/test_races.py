"""Races of two processes on one PostgreSQL: a short round of every race. `make stress` runs the long one."""

from tests.stress import limits, races


def test_races_violate_no_guarantee(migrated_postgres_url: str) -> None:
    """A token has one effect, no account is overdrawn, no limit is exceeded, and a deactivated object approves nothing."""
    figures = races.run(migrated_postgres_url, rounds=2)
    assert races.unproven(figures) == [], figures


def test_races_exceed_no_velocity_control(migrated_postgres_url: str) -> None:
    """No race for the last amount or use of a velocity control exceeds its limit.

    `make stress-limits` runs thousands of rounds.
    """
    all_figures = limits.run(migrated_postgres_url, rounds=32)
    assert [danger for figures in all_figures for danger in figures.unproven] == [], all_figures
