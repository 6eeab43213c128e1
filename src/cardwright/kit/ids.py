"""Random identifiers from one injected source, which a seed makes repeatable."""

import random
import threading
import uuid


class Ids:
    """Draws tokens and numbers: from the operating system, or from a seed so that the same calls give the same bytes.

    Safe to call from several threads; a seeded run is repeatable when its calls come one after the other.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._source: random.Random = random.SystemRandom() if seed is None else random.Random(seed)

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
