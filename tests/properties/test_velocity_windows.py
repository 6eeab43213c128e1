"""Velocity limits hold while time passes: random histories for every window, checked after each step by a second count.

`tests/stress/windows.py` says what is checked, `tests/stress/naive_velocity.py` how usage is counted. `make windows`
plays the full size. CARDWRIGHT_WINDOW_HISTORIES sets the size of this run, CARDWRIGHT_WINDOW_SEED draws the histories of an
earlier one again.
"""

import os
import random

import pytest

from tests.stress import windows
from tests.support.limit_histories import WINDOWS

HISTORIES = int(os.environ.get("CARDWRIGHT_WINDOW_HISTORIES", "24"))
"""Histories for each window on SQLite; PostgreSQL is another way to the same decisions and plays a quarter of them."""

PEOPLE = 12
"""Histories of one program."""

SEED = int(os.environ.get("CARDWRIGHT_WINDOW_SEED") or (42 if os.environ.get("CI") else random.randrange(10**6)))


@pytest.mark.parametrize("window", WINDOWS)
def test_no_limit_is_exceeded_while_time_passes(migrated_url: str, window: str) -> None:
    """No approval beyond a limit, no refusal with room, no usage below zero, no difference between usage and recount."""
    print(f"seed {SEED}")
    histories = HISTORIES // 4 if migrated_url.startswith("postgres") else HISTORIES
    (figures,) = windows.run(migrated_url, histories=histories, seed=SEED, windows=[window], people=PEOPLE)
    stories = "\n\n".join(figures.stories.values())
    assert not figures.failures, f"seed {SEED}, {windows.failures_of(figures)}\n{stories}"
    assert min(figures.met[name] for name in ("approved", "over an amount", "given back in its window")) > 0
