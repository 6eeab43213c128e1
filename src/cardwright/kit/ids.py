"""Random identifiers from one injected source, which a seed makes repeatable."""

import os
import random
import threading
import uuid
from array import array


class _Buffered(random.Random):
    """The operating system's randomness, asked for 4 KiB at a time: a system call for each number costs 3 µs."""

    def __init__(self) -> None:
        self._drawn = array("Q")
        super().__init__()

    def getrandbits(self, count: int, /) -> int:
        """A number of ``count`` random bits."""
        if count > 64:
            return int.from_bytes(os.urandom((count + 7) // 8), "big") >> (-count % 8)
        if not self._drawn:
            self._drawn.frombytes(os.urandom(4096))
        return self._drawn.pop() >> (64 - count)

    def random(self) -> float:
        """A number from 0 to 1."""
        return self.getrandbits(53) / (1 << 53)

    def seed(self, *_arguments: object) -> None:
        """There is nothing to seed."""


class Ids:
    """Draws tokens and numbers: from the operating system, or from a seed so that the same calls give the same bytes.

    Safe to call from several threads; a seeded run is repeatable when its calls come one after the other.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._source: random.Random = _Buffered() if seed is None else random.Random(seed)

    def restart(self) -> None:
        """Begins the seeded sequence again, as a fresh instance would; without a seed nothing changes."""
        with self._lock:
            if self._seed is not None:
                self._source = random.Random(self._seed)

    def bits(self, count: int) -> int:
        """A number of ``count`` random bits."""
        with self._lock:
            return self._source.getrandbits(count)

    def below(self, limit: int) -> int:
        """A number from 0 up to, not including, ``limit``."""
        with self._lock:
            return self._source.randrange(limit)

    def token(self) -> str:
        """A lower-case UUID, the form of a server-made token on the wire."""
        return str(uuid.UUID(int=self.bits(128), version=4))
