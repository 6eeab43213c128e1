"""Packed cache: a bounded number of packed values, with first-in, first-out eviction.

Each value is one byte string, so that a read touches one place in memory, and the garbage collector has no objects to scan. The
eviction does not depend on use, so a hit writes nothing. A value that is evicted too early is cheap to load again.
"""

from collections.abc import Hashable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

PART = 64
"""A full cache evicts one part in 64 at once, because finding the oldest key skips the slots of all deleted keys."""


class PackedCache(Generic[K]):
    """A cache of at most ``limit`` byte strings by key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packed: dict[K, bytes] = {}

    def get(self, key: K) -> bytes | None:
        """Return the value of a key, or None."""
        return self._packed.get(key)

    def put(self, key: K, packed: bytes) -> None:
        """Store the value of a key, in place of an earlier one."""
        self._packed[key] = packed
        if len(self._packed) > self._limit:
            # A dictionary has insertion order.
            for oldest in list(islice(self._packed, 1 + self._limit // PART)):
                del self._packed[oldest]

    def clear(self) -> None:
        """Drop all values."""
        self._packed.clear()
