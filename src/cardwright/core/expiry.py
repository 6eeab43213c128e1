"""Expiration of a card: a lifetime counted from its issue, and the month printed on the plastic."""

import calendar
from datetime import date, timedelta
from enum import StrEnum
from typing import assert_never

_EPOCH = date(1970, 1, 1)
_DAY_MS = 86_400_000
_LAST_SECOND_MS = _DAY_MS - 1_000
# A year has four digits on the wire and in every date type on the way there.
_FIRST_MS = (date.min - _EPOCH).days * _DAY_MS
_LAST_MS = (date.max - _EPOCH).days * _DAY_MS + _DAY_MS - 1


class ExpirationUnit(StrEnum):
    """Unit of a card's lifetime, as on the wire."""

    YEARS = "YEARS"
    MONTHS = "MONTHS"
    DAYS = "DAYS"
    HOURS = "HOURS"
    MINUTES = "MINUTES"
    SECONDS = "SECONDS"


def expiration_instant(start_ms: int, unit: str, value: int) -> int:
    """Return the instant (milliseconds since the epoch, UTC) at which a card issued at ``start_ms`` expires.

    It is ``value`` units later, rounded up as in the Core API. YEARS and MONTHS end at the last second of the month, DAYS at
    the last second of the day; other units are exact. The day of the month has no effect: one month after 31 January is the end
    of February. Raises ValueError if ``value`` is negative, the result is after the year 9999, or the unit is unknown.
    """
    if value < 0 or not _FIRST_MS <= start_ms <= _LAST_MS:
        raise ValueError(f"cannot count {value} {unit} from {start_ms} ms")
    expiration_ms = _reached(start_ms, ExpirationUnit(unit), value)
    if expiration_ms is None or expiration_ms > _LAST_MS:
        raise ValueError(f"{value} {unit} from {start_ms} ms reaches beyond the year 9999")
    return expiration_ms


def expiration_of(start_ms: int, unit: str, value: int, min_unit: str | None = None, min_value: int | None = None) -> int:
    """Return the expiration with the product's minimum lifetime (``min_offset``).

    It is the later of the two ends, each rounded by its own unit; without a minimum it is ``expiration_instant``. Raises
    ValueError if only one of ``min_unit`` and ``min_value`` is given.
    """
    expiration_ms = expiration_instant(start_ms, unit, value)
    if min_unit is None and min_value is None:
        return expiration_ms
    if min_unit is None or min_value is None:
        raise ValueError("a minimum needs both unit and value")
    return max(expiration_ms, expiration_instant(start_ms, min_unit, min_value))


def mmyy(instant_ms: int) -> str:
    """Return the month printed on a card, ``MMyy``, in UTC: ``0630`` is June 2030."""
    day = _day_of(instant_ms)
    return f"{day.month:02d}{day.year % 100:02d}"


def _reached(start_ms: int, unit: ExpirationUnit, value: int) -> int | None:
    """Return the rounded instant. It is None or too late if it is beyond the year 9999."""
    match unit:
        case ExpirationUnit.YEARS:
            return _month_end_ms(start_ms, 12 * value)
        case ExpirationUnit.MONTHS:
            return _month_end_ms(start_ms, value)
        case ExpirationUnit.DAYS:
            return (start_ms // _DAY_MS + value) * _DAY_MS + _LAST_SECOND_MS
        case ExpirationUnit.HOURS:
            return start_ms + value * 3_600_000
        case ExpirationUnit.MINUTES:
            return start_ms + value * 60_000
        case ExpirationUnit.SECONDS:
            return start_ms + value * 1_000
        case _:
            assert_never(unit)


def _month_end_ms(start_ms: int, months: int) -> int | None:
    """Return the last second of the month that is ``months`` after the start's month; None beyond the year 9999."""
    start = _day_of(start_ms)
    year, month_before = divmod(start.year * 12 + start.month - 1 + months, 12)
    if year > date.max.year:
        return None
    last_day = date(year, month_before + 1, calendar.monthrange(year, month_before + 1)[1])
    return (last_day - _EPOCH).days * _DAY_MS + _LAST_SECOND_MS


def _day_of(instant_ms: int) -> date:
    return _EPOCH + timedelta(days=instant_ms // _DAY_MS)
