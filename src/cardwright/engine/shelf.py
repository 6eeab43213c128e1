"""A bounded store of packed values: the oldest goes first.

What is kept for a hundred thousand cards should be few objects. Each value is one byte string, so that looking at it touches
one place in memory, and the garbage collector has nothing to look through. There is no order of use to keep up either: with
plain oldest-first a hit writes nothing, and what goes too early is cheap to load again.
"""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Shelf(Generic[K]):
    """At most ``limit`` byte strings by key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packed: dict[K, bytes] = {}
        self._ages: deque[K] = deque()

    def get(self, key: K) -> bytes | None:
        """What is kept under the key."""
        return self._packed.get(key)

    def put(self, key: K, packed: bytes) -> None:
        """Keeps a value, in place of an earlier one under the key."""
        if key not in self._packed:
            self._ages.append(key)
        self._packed[key] = packed
        while len(self._packed) > self._limit:
            del self._packed[self._ages.popleft()]

    def clear(self) -> None:
        """Forgets everything."""
        self._packed.clear()
        self._ages.clear()
