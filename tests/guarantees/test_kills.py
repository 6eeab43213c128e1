"""Kills: no acknowledged request is lost. This is a short run; `make stress` runs the long one."""

from pathlib import Path

from tests.stress import kills


def test_nothing_acknowledged_is_lost_on_sqlite(tmp_path: Path) -> None:
    """After kills before and after a commit, and between a delivery and its record, every acknowledged request is stored once."""
    order = ("commit.before", "answer.before", "delivery.record.before")
    figures = kills.run(str(tmp_path / "cardwright.db"), seed=7, count=len(order), order=order, patient=False)
    assert figures.kills == len(order)
    assert figures.committed_unanswered > 0, "every committed request was acknowledged, so the run proved nothing"
    assert figures.acknowledged > 100


def test_nothing_acknowledged_is_lost_on_postgresql(postgres_url: str) -> None:
    """After kills of one of two processes and of both, every acknowledged request is stored once on PostgreSQL."""
    order = ("commit.after", "random")
    figures = kills.run(postgres_url, seed=8, count=len(order), order=order, workers=2, patient=False)
    assert figures.kills == len(order)
    assert figures.committed_unanswered > 0, "every committed request was acknowledged, so the run proved nothing"
    assert figures.acknowledged > 100
