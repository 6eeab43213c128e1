"""Waiting: polls for a condition that becomes true in the background. The limit only ends a failed test."""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.issuing import read_of
from tests.support.server import Client

Result = TypeVar("Result")


def until(condition: Callable[[], Result], seconds: float = 300) -> Result:
    """Poll a condition until it is true; return its value. Raises AssertionError if it is still false after ``seconds``."""
    start = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - start
        assert waited < seconds, f"the condition was not true within {seconds} s"
        # The polls become less frequent, because each one takes CPU time from the awaited work.
        time.sleep(min(0.1, max(0.01, waited / 20)))
    return result


def until_all_are_delivered(client: Client) -> None:
    """Wait until a program has no notification left to send."""
    until(lambda: not any(read_of(client.get(f"/sandbox/deliveries?state={state}"))["data"] for state in ("DUE", "SENDING")))
