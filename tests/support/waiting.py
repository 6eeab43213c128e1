"""How a test waits for what happens by itself: no longer than needed. The limit only ends a test that failed."""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.issuing import read_of
from tests.support.server import Client

Result = TypeVar("Result")


def until(condition: Callable[[], Result], seconds: float = 300) -> Result:
    """Asks until the answer is true, and gives it back. Raises AssertionError when it is still false after ``seconds``."""
    start = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - start
        assert waited < seconds, f"it did not happen in {seconds} s"
        # What takes long is asked for less often: each question costs CPU time that what it waits for needs.
        time.sleep(min(0.1, max(0.01, waited / 20)))
    return result


def until_all_is_told(client: Client) -> None:
    """Waits until a program has no notification left to send."""
    until(lambda: not any(read_of(client.get(f"/sandbox/deliveries?state={state}"))["data"] for state in ("DUE", "SENDING")))
