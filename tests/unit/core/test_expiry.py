"""Expiration of cards: units, rounding, minimum and the printed month follow the Core API."""

import calendar
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright.core.expiry import ExpirationUnit, expiration_instant, expiration_of, mmyy

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
starts = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (Hypothesis adds UTC)
units = st.sampled_from(list(ExpirationUnit))


def ms(text: str) -> int:
    return ms_of(datetime.fromisoformat(text))


def ms_of(moment: datetime) -> int:
    passed = moment - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000 + passed.microseconds // 1_000


@pytest.mark.parametrize(
    ("start", "value", "unit", "expected"),
    [
        # examples of the reference
        ("2026-01-01T00:00:00Z", 1, "YEARS", "2027-01-31T23:59:59Z"),
        ("2022-06-02T12:00:00Z", 4, "YEARS", "2026-06-30T23:59:59Z"),
        ("2026-01-31T12:00:00Z", 4, "YEARS", "2030-01-31T23:59:59Z"),
        ("2026-01-15T08:00:00Z", 1, "MONTHS", "2026-02-28T23:59:59Z"),
        ("2026-05-01T00:00:00Z", 1, "MONTHS", "2026-06-30T23:59:59Z"),
        ("2026-03-01T10:00:00Z", 1, "DAYS", "2026-03-02T23:59:59Z"),
        # months without the day of the start, leap years, turns of the year
        ("2026-01-31T23:59:59Z", 1, "MONTHS", "2026-02-28T23:59:59Z"),
        ("2028-01-31T00:00:00Z", 1, "MONTHS", "2028-02-29T23:59:59Z"),
        ("2026-08-31T12:00:00Z", 18, "MONTHS", "2028-02-29T23:59:59Z"),
        ("2026-12-31T12:00:00Z", 1, "MONTHS", "2027-01-31T23:59:59Z"),
        ("2026-11-05T12:00:00Z", 1, "MONTHS", "2026-12-31T23:59:59Z"),
        ("2028-02-29T12:00:00Z", 1, "YEARS", "2029-02-28T23:59:59Z"),
        ("2028-02-29T12:00:00Z", 4, "YEARS", "2032-02-29T23:59:59Z"),
        ("2028-02-28T23:59:59Z", 1, "DAYS", "2028-02-29T23:59:59Z"),
        ("2026-12-31T00:00:00Z", 1, "DAYS", "2027-01-01T23:59:59Z"),
        # a value of 0: the end of the current period
        ("2026-05-10T12:00:00Z", 0, "YEARS", "2026-05-31T23:59:59Z"),
        ("2026-05-10T12:00:00Z", 0, "DAYS", "2026-05-10T23:59:59Z"),
        # no rounding
        ("2026-12-31T23:30:15.250Z", 1, "HOURS", "2027-01-01T00:30:15.250Z"),
        ("2026-05-10T12:00:00.999Z", 90, "MINUTES", "2026-05-10T13:30:00.999Z"),
        ("2026-05-10T12:00:00Z", 1, "SECONDS", "2026-05-10T12:00:01Z"),
        ("2026-05-10T12:00:00Z", 0, "SECONDS", "2026-05-10T12:00:00Z"),
        # before the epoch, and the last valid instant
        ("1969-12-31T23:00:00Z", 1, "DAYS", "1970-01-01T23:59:59Z"),
        ("1969-12-31T23:00:00Z", 2, "MONTHS", "1970-02-28T23:59:59Z"),
        ("9998-12-05T00:00:00Z", 1, "YEARS", "9999-12-31T23:59:59Z"),
        ("9999-12-30T10:00:00Z", 1, "DAYS", "9999-12-31T23:59:59Z"),
    ],
)
def test_life_times(start: str, value: int, unit: str, expected: str) -> None:
    """Each unit is added and rounded by the rules of the reference."""
    assert expiration_instant(ms(start), unit, value) == ms(expected)


@given(starts, st.integers(0, 1200))
def test_months_agree_with_the_calendar(start: datetime, value: int) -> None:
    """A lifetime in months or years ends in the last second of the month that the calendar gives."""
    year, month = divmod(start.year * 12 + start.month - 1 + value, 12)
    end = datetime(year, month + 1, calendar.monthrange(year, month + 1)[1], 23, 59, 59, tzinfo=UTC)
    assert expiration_instant(ms_of(start), "MONTHS", value) == ms_of(end)
    assert expiration_instant(ms_of(start), "YEARS", value) == expiration_instant(ms_of(start), "MONTHS", 12 * value)


@given(starts, units, st.integers(1, 200))
def test_rounding_is_up(start: datetime, unit: ExpirationUnit, value: int) -> None:
    """A card with a lifetime expires after its start, and one unit more always expires later."""
    start_ms = ms_of(start)
    assert expiration_instant(start_ms, unit, value) > start_ms
    assert expiration_instant(start_ms, unit, value + 1) > expiration_instant(start_ms, unit, value)


@pytest.mark.parametrize(
    ("start", "value", "unit"),
    [
        ("2026-01-01T00:00:00Z", 7974, "YEARS"),
        ("2026-01-01T00:00:00Z", 2**31 - 1, "YEARS"),
        ("2026-01-01T00:00:00Z", 2**31 - 1, "MONTHS"),
        ("2026-01-01T00:00:00Z", 2**31 - 1, "DAYS"),
        ("2026-01-01T00:00:00Z", 2**62, "SECONDS"),
        ("9999-12-31T23:59:59Z", 1, "MONTHS"),
        ("9999-12-31T23:59:59Z", 1, "DAYS"),
        ("9999-12-31T23:59:59Z", 1, "SECONDS"),
        ("2026-01-01T00:00:00Z", -1, "DAYS"),
    ],
)
def test_impossible_life_times_name_the_value(start: str, value: int, unit: str) -> None:
    """A negative value, and one that reaches beyond the year 9999, raises a ValueError that names it."""
    with pytest.raises(ValueError, match=f"{value} {unit}"):
        expiration_instant(ms(start), unit, value)


@pytest.mark.parametrize("start_ms", [-(10**18), 10**18])
def test_a_start_that_no_calendar_has_is_refused(start_ms: int) -> None:
    """A start before year 1 or after year 9999 raises ValueError, not OverflowError."""
    with pytest.raises(ValueError, match="cannot count"):
        expiration_instant(start_ms, "MONTHS", 1)


@pytest.mark.parametrize("unit", ["WEEKS", "years", ""])
def test_unknown_units_are_refused(unit: str) -> None:
    """A unit that is not one of the six units of the wire raises ValueError."""
    with pytest.raises(ValueError, match="not a valid ExpirationUnit"):
        expiration_instant(0, unit, 1)


@pytest.mark.parametrize(
    ("value", "unit", "min_value", "min_unit", "expected"),
    [
        (1, "DAYS", 1, "YEARS", "2027-05-31T23:59:59Z"),
        (2, "YEARS", 1, "YEARS", "2028-05-31T23:59:59Z"),
        (4, "YEARS", 4, "YEARS", "2030-05-31T23:59:59Z"),
        (30, "MINUTES", 2, "HOURS", "2026-05-10T14:00:00Z"),
        (1, "MONTHS", 10, "DAYS", "2026-06-30T23:59:59Z"),
        (1, "MONTHS", 60, "DAYS", "2026-07-09T23:59:59Z"),
        (1, "MONTHS", None, None, "2026-06-30T23:59:59Z"),
    ],
)
def test_the_minimum(value: int, unit: str, min_value: int | None, min_unit: str | None, expected: str) -> None:
    """The later of lifetime and minimum counts, each rounded by its unit. Without a minimum, the lifetime counts."""
    assert expiration_of(ms("2026-05-10T12:00:00Z"), unit, value, min_unit, min_value) == ms(expected)


@pytest.mark.parametrize(("min_unit", "min_value"), [("DAYS", None), (None, 3)])
def test_half_a_minimum_is_refused(min_unit: str | None, min_value: int | None) -> None:
    """A minimum with only a unit or only a value raises ValueError."""
    with pytest.raises(ValueError, match="both"):
        expiration_of(0, "DAYS", 1, min_unit, min_value)


@pytest.mark.parametrize(
    ("moment", "printed"),
    [
        ("2030-06-30T23:59:59Z", "0630"),
        ("2030-01-31T23:59:59Z", "0130"),
        ("2099-12-31T23:59:59.999Z", "1299"),
        ("2100-01-01T00:00:00Z", "0100"),
    ],
)
def test_the_printed_month(moment: str, printed: str) -> None:
    """The printed expiration has two digits of the month and two of the year, in UTC."""
    assert mmyy(ms(moment)) == printed
