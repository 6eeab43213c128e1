"""Identifiers: random tokens and numbers from one injected source, which a seed makes repeatable."""

import os
import random
import threading
import uuid
from array import array


class _Buffered(random.Random):
    """Source of the operating system's randomness that reads 4 KiB at a time: a system call for each number would cost 3 µs."""

    def __init__(self) -> None:
        self._drawn = array("Q")
        super().__init__()

    def getrandbits(self, count: int, /) -> int:
        """Return a number of ``count`` random bits."""
        if count > 64:
            return int.from_bytes(os.urandom((count + 7) // 8), "big") >> (-count % 8)
        if not self._drawn:
            self._drawn.frombytes(os.urandom(4096))
        return self._drawn.pop() >> (64 - count)

    def random(self) -> float:
        """Return a number from 0 (inclusive) to 1 (exclusive)."""
        return self.getrandbits(53) / (1 << 53)

    def seed(self, *_arguments: object) -> None:
        """Do nothing: the operating system's randomness has no seed."""


class Ids:
    """Source of tokens and numbers: the operating system, or a seed, with which the same calls return the same values.

    Safe for use by several threads. A seeded run is repeatable if its calls have the same order.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._source: random.Random = _Buffered() if seed is None else random.Random(seed)

    def restart(self) -> None:
        """Restart the seeded sequence, as in a new instance. Without a seed this has no effect."""
        with self._lock:
            if self._seed is not None:
                self._source = random.Random(self._seed)

    def bits(self, count: int) -> int:
        """Return a number of ``count`` random bits."""
        with self._lock:
            return self._source.getrandbits(count)

    def below(self, limit: int) -> int:
        """Return a random number from 0 (inclusive) to ``limit`` (exclusive)."""
        with self._lock:
            return self._source.randrange(limit)

    def token(self) -> str:
        """Return a lower-case UUID, the form of the server's tokens on the wire."""
        return str(uuid.UUID(int=self.bits(128), version=4))
