"""How fast this interpreter is: prints microseconds and its path; exits 1 when it is too old for us or lacks a module we need.

The Makefile asks every Python that it finds and takes the fastest. One that was compiled without profile-guided optimization,
as pyenv does unless told otherwise, takes a third more time for the same purchase than the same version from Debian.
"""

import os
import sqlite3
import ssl
import sys
import time
import tomllib

NEEDED = (sqlite3, ssl, tomllib)
"""What some Pythons were compiled without; the last one came with 3.11."""


class _Purse:
    """Something with attributes and a method, as most of our code is."""

    __slots__ = ("held", "ledger")

    def __init__(self, ledger: int, held: int) -> None:
        self.ledger, self.held = ledger, held

    def available(self, credit: int) -> int:
        """What is left."""
        return self.ledger - self.held + credit


def pace_us(rounds: int = 9, steps: int = 4_000) -> int:
    """The best of some short runs of ordinary code, in microseconds."""
    best = 1 << 62
    for _ in range(rounds):
        began, entries = time.perf_counter_ns(), dict[int, tuple[int, str]]()
        for step in range(steps):
            left = _Purse(step, 2).available(step)
            entries[step & 255] = left, f"{step}-{left}"
        best = min(best, time.perf_counter_ns() - began)
    return best // 1_000


if __name__ == "__main__":
    print(pace_us(), os.path.realpath(sys.executable))
