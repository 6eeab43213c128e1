"""Outages of the database: beginning, end and reason, with one log line each, and metrics."""

import threading
from collections.abc import Callable
from time import monotonic

import structlog
from prometheus_client import Counter

from cardwright.storage.failures import Damaged, TimedOut, public_reason, reason_of

RECONNECTS = Counter("cardwright_database_reconnects_total", "Connections opened in place of a broken one")
TIMEOUTS = Counter("cardwright_database_timeouts_total", "Waits for the database that reached their limit", ["wait"])
OUTAGES = Counter("cardwright_database_outages_total", "Outages of the database")

log = structlog.get_logger()


class Outage:
    """The current outage of the database, if any. It is thread-safe."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._since: float | None = None
        self._text = ""
        self.damage: Damaged | None = None
        """The damage of the SQLite file. Such an outage does not end."""

    @property
    def text(self) -> str | None:
        """The reason for API callers; None while the database works."""
        return self._text if self._since is not None else None

    def lasts(self, seconds: float) -> bool:
        """Return True if the outage has lasted for at least this many seconds."""
        since = self._since
        return since is not None and self._clock() - since >= seconds

    def begin(self, error: Exception) -> None:
        """Record a failure. The first failure begins an outage."""
        with self._mutex:
            if isinstance(error, Damaged):
                self.damage = error
            if self._since is None or not isinstance(error, TimedOut):
                # A timeout during an outage does not replace the more precise reason of the first failure.
                self._text = public_reason(error)
            if self._since is not None:
                return
            self._since = self._clock()
        OUTAGES.inc()
        log.error("database unavailable", reason=reason_of(error))

    def end(self) -> None:
        """End the outage after a successful commit, unless the file is damaged."""
        with self._mutex:
            if self._since is None or self.damage is not None:
                return
            seconds, self._since = self._clock() - self._since, None
        log.warning("database available again", seconds=round(seconds, 1))
