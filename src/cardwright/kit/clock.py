"""Time: real milliseconds since the epoch, and the clock of each program on top of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cardwright.kit.digits import is_plain

Instant = int
"""Milliseconds since 1970-01-01T00:00:00Z."""

DAY_MS = 86_400_000


def system_ms() -> Instant:
    """Return the operating system's time, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Return a time for measuring durations, in milliseconds. It never goes back."""
    return time.monotonic_ns() // 1_000_000


RealClock = Callable[[], Instant]


@dataclass(frozen=True, slots=True)
class ProgramClock:
    """Clock of a program: real time plus an offset, or a frozen instant."""

    offset_ms: int = 0
    frozen_ms: Instant | None = None

    def time_at(self, real_ms: Instant) -> Instant:
        """Return the program's time at the real time ``real_ms``."""
        return real_ms + self.offset_ms if self.frozen_ms is None else self.frozen_ms


def iso(instant: Instant) -> str:
    """Return ``yyyy-MM-ddTHH:mm:ssZ``, the wire's date-time: UTC, seconds, no fraction."""
    return _iso_second(instant // 1000)


# Cached because thousands of messages can share a second.
@lru_cache(maxsize=4096)
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_ms(instant: Instant) -> str:
    """Return the wire's date-time with milliseconds, for ``issuer_received_time`` and ``created_timestamp``."""
    return f"{iso(instant)[:-1]}.{instant % 1000:03d}Z"


def iso_day(instant: Instant) -> str:
    """Return ``yyyy-MM-dd`` of the UTC day that contains the instant."""
    return iso(instant)[:10]


def parse_instant(text: str) -> Instant:
    """Return the instant of a date (``2026-01-31``) or date-time, with or without fraction and zone. The default zone is UTC.

    Raises ValueError if the text is neither, or is outside the years 1970 to 9999.
    """
    if not is_plain(text):
        raise ValueError(f"not in ASCII digits: {text}")
    moment = datetime.fromisoformat(text)
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"beyond the year 9999: {text}") from None
    if moment.year < 1970:
        raise ValueError(f"before 1970: {text}")
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000
