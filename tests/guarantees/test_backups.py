"""Backups: taken under load, they restore on the other database, and every read answers the same bytes. This is a short run."""

from pathlib import Path

from tests.stress import backups


def test_backup_of_sqlite_restores_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    """A backup of SQLite under load satisfies all invariants on PostgreSQL, with the same answers."""
    figures = backups.run(str(tmp_path / "cardwright.db"), postgres_url, reads=150)
    assert (figures.different, backups.unproven(figures)) == (0, [])


def test_backup_of_postgresql_restores_on_sqlite(postgres_url: str, tmp_path: Path) -> None:
    """A backup of PostgreSQL under load of two processes satisfies all invariants on SQLite, with the same answers."""
    figures = backups.run(postgres_url, str(tmp_path / "cardwright.db"), reads=150)
    assert (figures.different, backups.unproven(figures)) == (0, [])
