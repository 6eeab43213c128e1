"""Tries of the benchmark: a disturbed measurement is repeated, and only calm tries count."""

from typing import cast

import pytest

from bench import cases
from bench.cases import TRIES, TRIES_MAX, Run, tried
from bench.report import CALM
from bench.stations import Yard

BUSY, BUSIER = 2 * CALM, 3 * CALM

SHARES = [
    ("all calm", [0.0, CALM], 9.0, TRIES, [0.0, CALM]),
    ("one disturbed", [BUSY, 0.01], 9.0, TRIES, [0.01]),
    ("calm at last", [BUSY, BUSIER, 0.0, 0.0], 9.0, TRIES + 1, [0.0]),
    ("never calm", [BUSIER, BUSIER, BUSY, BUSIER, BUSY], 9.0, TRIES_MAX, [BUSY]),
    ("no patience left", [BUSIER, BUSY, 0.0], 0.0, TRIES, [BUSY]),
]


@pytest.mark.parametrize(("shares", "patience_s", "count", "kept"), [row[1:] for row in SHARES], ids=[row[0] for row in SHARES])
def test_what_others_disturbed_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, shares: list[float], patience_s: float, count: int, kept: list[float]
) -> None:
    """There are at least two tries, and up to four while none is calm. The calm ones count, or else the least disturbed one."""
    monkeypatch.setattr(cases, "others_share_now", lambda _seconds: 0.0)
    left = list(shares)
    run = Run(cast(Yard, None), 1.0, 0.0, 1.0, patience_s=patience_s)
    results = tried(run, lambda: {"others_share": left.pop(0)})
    assert [result["others_share"] for result in results] == kept
    assert len(shares) - len(left) == count
