"""Speed of this interpreter: prints microseconds and its path; exits 1 if it is older than 3.11 or lacks a required module.

The Makefile runs this with every Python that it finds and selects the fastest. An interpreter compiled without profile-guided
optimization, the default of pyenv, takes a third more time for the same purchase than the same version from Debian.
"""

import os
import sqlite3
import ssl
import sys
import time
import tomllib

NEEDED = (sqlite3, ssl, tomllib)
"""Modules that some interpreters lack. ``tomllib`` exists since 3.11."""


class _Purse:
    """An object with attributes and a method, like most of the package's code."""

    __slots__ = ("held", "ledger")

    def __init__(self, ledger: int, held: int) -> None:
        self.ledger, self.held = ledger, held

    def available(self, credit: int) -> int:
        """Return the available balance."""
        return self.ledger - self.held + credit


def pace_us(rounds: int = 9, steps: int = 4_000) -> int:
    """Return the shortest time of ``rounds`` runs of ordinary code, in microseconds."""
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
