"""A bounded store of packed values: the oldest go first.

What is kept for a hundred thousand cards should be few objects. Each value is one byte string, so that looking at it touches
one place in memory, and the garbage collector has nothing to look through. There is no order of use to keep up either: with
plain oldest-first a hit writes nothing, and what goes too early is cheap to load again.
"""

from collections.abc import Hashable
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

PART = 64
"""A full store gives up this part of its room at once: to find the oldest, one has to pass over those that went before."""


class PackedCache(Generic[K]):
    """At most ``limit`` byte strings by key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packed: dict[K, bytes] = {}

    def get(self, key: K) -> bytes | None:
        """What is kept under the key."""
        return self._packed.get(key)

    def put(self, key: K, packed: bytes) -> None:
        """Keeps a value, in place of an earlier one under the key."""
        self._packed[key] = packed
        if len(self._packed) > self._limit:
            # A dictionary is in the order in which its keys came.
            for oldest in list(islice(self._packed, 1 + self._limit // PART)):
                del self._packed[oldest]

    def clear(self) -> None:
        """Forgets everything."""
        self._packed.clear()
