"""Killed at any moment, nothing that anybody was told is lost: a short stress test; `make stress` runs the long one."""

from pathlib import Path

from tests.stress import kills


def test_nothing_acknowledged_is_lost_on_sqlite(tmp_path: Path) -> None:
    """Deaths before a commit, after it, and with a notification sent and not marked: all answers hold, once each."""
    order = ("commit.before", "answer.before", "delivery.record.before")
    figures = kills.run(str(tmp_path / "cardwright.db"), seed=7, blows=len(order), order=order, patient=False)
    assert figures.kills == len(order)
    assert figures.committed_untold > 0, "nobody missed an answer to what was committed, so the stress test proved nothing"
    assert figures.acknowledged > 100


def test_nothing_acknowledged_is_lost_on_postgresql(postgres_url: str) -> None:
    """With two processes: one dies right after a commit, and all at a random moment; all answers hold, once each."""
    order = ("commit.after", "random")
    figures = kills.run(postgres_url, seed=8, blows=len(order), order=order, workers=2, patient=False)
    assert figures.kills == len(order)
    assert figures.committed_untold > 0, "nobody missed an answer to what was committed, so the stress test proved nothing"
    assert figures.acknowledged > 100
