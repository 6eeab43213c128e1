"""When a card expires: a life time counted from its issue, and the month printed on the plastic."""

import calendar
from datetime import date, timedelta
from enum import StrEnum
from typing import assert_never

_EPOCH = date(1970, 1, 1)
_DAY_MS = 86_400_000
_LAST_SECOND_MS = _DAY_MS - 1_000
# The wire writes four digits of a year, and so does every date type on the way there.
_FIRST_MS = (date.min - _EPOCH).days * _DAY_MS
_LAST_MS = (date.max - _EPOCH).days * _DAY_MS + _DAY_MS - 1


class ExpirationUnit(StrEnum):
    """What a life time is counted in; the wire's words."""

    YEARS = "YEARS"
    MONTHS = "MONTHS"
    DAYS = "DAYS"
    HOURS = "HOURS"
    MINUTES = "MINUTES"
    SECONDS = "SECONDS"


def expiration_instant(start_ms: int, unit: str, value: int) -> int:
    """The instant (milliseconds since the epoch, UTC) at which a card issued at ``start_ms`` expires.

    ``value`` units later, then rounded up as the Core API does: YEARS and MONTHS to the last second of the month reached, DAYS to
    the last second of that day, the others not at all. The day of the month plays no part, so 31 January and one month is the end
    of February. ValueError, naming the value, when it is negative or reaches beyond the year 9999, and for an unknown unit.
    """
    if value < 0 or not _FIRST_MS <= start_ms <= _LAST_MS:
        raise ValueError(f"cannot count {value} {unit} from {start_ms} ms")
    expiration_ms = _reached(start_ms, ExpirationUnit(unit), value)
    if expiration_ms is None or expiration_ms > _LAST_MS:
        raise ValueError(f"{value} {unit} from {start_ms} ms reaches beyond the year 9999")
    return expiration_ms


def expiration_of(start_ms: int, unit: str, value: int, min_unit: str | None = None, min_value: int | None = None) -> int:
    """The expiration with the product's minimum life time (``min_offset``): the later of the two, each rounded by its own unit.

    Without a minimum it is ``expiration_instant``. Half a minimum is a ValueError.
    """
    expiration_ms = expiration_instant(start_ms, unit, value)
    if min_unit is None and min_value is None:
        return expiration_ms
    if min_unit is None or min_value is None:
        raise ValueError("a minimum needs both unit and value")
    return max(expiration_ms, expiration_instant(start_ms, min_unit, min_value))


def mmyy(instant_ms: int) -> str:
    """The month printed on a card, ``MMyy``: ``0630`` is June 2030. UTC."""
    day = _day_of(instant_ms)
    return f"{day.month:02d}{day.year % 100:02d}"


def _reached(start_ms: int, unit: ExpirationUnit, value: int) -> int | None:
    """The rounded instant; perhaps none, or one too late, beyond the year 9999."""
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
    """The last second of the month that is so many months after the start's; none beyond the year 9999."""
    start = _day_of(start_ms)
    year, month_before = divmod(start.year * 12 + start.month - 1 + months, 12)
    if year > date.max.year:
        return None
    last_day = date(year, month_before + 1, calendar.monthrange(year, month_before + 1)[1])
    return (last_day - _EPOCH).days * _DAY_MS + _LAST_SECOND_MS


def _day_of(instant_ms: int) -> date:
    return _EPOCH + timedelta(days=instant_ms // _DAY_MS)
