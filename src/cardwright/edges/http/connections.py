"""Connections: limits for clients, and the timer that enforces the time limits of all connections of a process."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cardwright.settings import Settings

SWEEP_S = 1.0
"""Interval of the timer in seconds. A time limit is enforced at most one interval late."""

REFUSED_MAX = 256
"""Maximum number of refused connections that stay open until the client has read its 503. Further ones are closed at once."""


FRAMING_MAX = 2
"""A chunked body may take at most this many times ``body_max_bytes`` with its framing. A chunk of one byte takes six bytes."""

LINGER_S = 2.0
"""Seconds after a refusal in which bytes are still received and dropped. An immediate close would reset the connection while the
client sends, and the client could lose the answer (RFC 9112, 9.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """Limits for the clients of a process, see ``Settings``."""

    head_max_bytes: int = 65_536
    url_max_bytes: int = 8_192
    headers_max: int = 100
    body_max_bytes: int = 1_048_576
    head_timeout_s: float = 10
    body_timeout_s: float = 30
    idle_timeout_s: float = 75
    write_timeout_s: float = 30
    connections_max: int = 4_096
    connections_per_address_max: int = 0

    @classmethod
    def of(cls, settings: Settings) -> "ClientLimits":
        """Return the limits of the settings."""
        return cls(**{name: getattr(settings, name) for name in cls.__slots__})


class Connection(Protocol):
    """A connection as the registry uses it."""

    def check_time(self, now: float) -> None:
        """Enforce the time limits."""
        ...

    def parse_backlog(self) -> None:
        """Parse the next piece of the received bytes that are not parsed yet."""
        ...


class Connections:
    """The open connections of a process.

    Every connection has deadlines, and one timer compares them with the clock. A timer for each connection would have to be set
    and cancelled with each request. The timer runs only while a connection is open.

    ``names`` are those that a request may have in ``Host`` beside ``localhost`` and loopback addresses; None permits every name.
    """

    def __init__(
        self,
        limits: ClientLimits,
        names: frozenset[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self.limits, self.names, self.clock = limits, names, clock
        self._sweep_s = sweep_s
        self._open: set[Connection] = set()
        self._admitted: dict[Connection, str] = {}
        self._by_address: Counter[str] = Counter()
        self._backlogged: deque[Connection] = deque()
        self._is_sweeping = False

    def add(self, connection: Connection, address: str) -> bool:
        """Register a connection. Return False if a maximum was already reached."""
        self._open.add(connection)
        if not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)
        limits = self.limits
        per_address_max = limits.connections_per_address_max
        if len(self._admitted) >= limits.connections_max or (per_address_max and self._by_address[address] >= per_address_max):
            return False
        self._admitted[connection] = address
        self._by_address[address] += 1
        return True

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._open.discard(connection)
        address = self._admitted.pop(connection, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def has_room_for_refused(self) -> bool:
        """Return True if a refused connection may stay open until its client has read the answer."""
        return len(self._open) - len(self._admitted) <= REFUSED_MAX

    def parse_later(self, connection: Connection) -> None:
        """Queue a connection with unparsed bytes. Each turn of the event loop parses one piece of one connection."""
        self._backlogged.append(connection)
        if len(self._backlogged) == 1:
            asyncio.get_running_loop().call_soon(self._parse_next)

    def _parse_next(self) -> None:
        connection = self._backlogged.popleft()
        if self._backlogged:
            asyncio.get_running_loop().call_soon(self._parse_next)
        connection.parse_backlog()

    def _sweep(self) -> None:
        now = self.clock()
        for connection in list(self._open):
            connection.check_time(now)
        self._is_sweeping = bool(self._open)
        if self._is_sweeping:
            asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)
