"""Velocity limits over time: random histories for every window agree after each step with an independent count of usage.

`tests/stress/windows.py` has the conditions, and `tests/stress/naive_velocity.py` the count. `make windows` runs the full size.
CARDWRIGHT_WINDOW_HISTORIES sets the size of this run. CARDWRIGHT_WINDOW_SEED repeats the histories of an earlier run.
"""

import os
import random

import pytest

from tests.stress import windows
from tests.support.limit_histories import WINDOWS

HISTORIES = int(os.environ.get("CARDWRIGHT_WINDOW_HISTORIES", "24"))
"""Histories for each window on SQLite. PostgreSQL gets a quarter of them, because its decisions are the same."""

PEOPLE = 12
"""Number of histories in one program."""

SEED = int(os.environ.get("CARDWRIGHT_WINDOW_SEED") or (42 if os.environ.get("CI") else random.randrange(10**6)))


@pytest.mark.parametrize("window", WINDOWS)
def test_no_limit_is_exceeded_while_time_passes(migrated_url: str, window: str) -> None:
    """No approval exceeds a limit, no decline is below it, no usage is negative, and each available amount matches the count."""
    print(f"seed {SEED}")
    histories = HISTORIES // 4 if migrated_url.startswith("postgres") else HISTORIES
    (figures,) = windows.run(migrated_url, histories=histories, seed=SEED, windows=[window], people=PEOPLE)
    stories = "\n\n".join(figures.stories.values())
    assert not figures.failures, f"seed {SEED}, {windows.failures_of(figures)}\n{stories}"
    assert min(figures.met[name] for name in ("approved", "over an amount", "given back in its window")) > 0
