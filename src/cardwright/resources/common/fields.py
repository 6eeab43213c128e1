"""Fields: types and checks that the shapes of several resources share."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta

from cardwright.core.money import LARGEST, BadAmount, minor_units
from cardwright.core.problems import bad_field
from cardwright.kit.canonical import reading
from cardwright.kit.clock import DAY_MS
from cardwright.resources.common.route import Shape

Token = Annotated[str, Meta(min_length=1, max_length=36)]
"""The identifier of a resource: chosen by the client at creation or generated; it never changes."""

Limit10 = Annotated[str, Meta(max_length=10)]
Limit32 = Annotated[str, Meta(max_length=32)]
Limit40 = Annotated[str, Meta(max_length=40)]
Text255 = Annotated[str, Meta(max_length=255)]
CurrencyCode = Annotated[str, Meta(min_length=3, max_length=3)]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Metadata = dict[str, str | int | float | bool | None]
"""Metadata as a client sends it. Numbers and booleans are stored as text (observed)."""


def is_day(text: str) -> bool:
    """Return True if the text has the form ``yyyy-MM-dd``."""
    return _DAY.fullmatch(text) is not None


def day_of(text: str) -> str:
    """Return ``yyyy-MM-dd`` from a date or a date-time. Raises ValueError for any other text.

    Of a date-time only the day counts, without a conversion of its time zone (observed).
    """
    day = text[: len("2026-01-31")]
    if not is_day(day) or (len(text) > len(day) and text[len(day)] != "T"):
        raise ValueError(text)
    datetime.fromisoformat(text)
    return day


def parse_date(field: str, text: str) -> str:
    """Return the day of a date or a date-time as ``yyyy-MM-dd``. Raises a problem that names the field."""
    try:
        return day_of(text)
    except ValueError:
        raise bad_field(field, "must be a date, yyyy-MM-dd") from None


Day = Annotated[str, reading(day_of)]
"""A date or a date-time. Only its day counts when requests are compared."""

OR_NONE = reading(lambda text: text or None)
"""Annotation of a text field whose empty text counts as absent when requests are compared."""


def text_metadata(metadata: Metadata | None, field: str = "metadata") -> dict[str, str]:
    """Return metadata as it is stored, without its nulls: names and values are text.

    Raises a problem for more than 20 pairs, an empty name, or a name or value with more than 255 characters.
    """
    pairs = {name: _as_text(value) for name, value in (metadata or {}).items() if value is not None}
    if len(pairs) > 20:
        raise bad_field(field, "may have at most 20 name-value pairs")
    for name, value in pairs.items():
        if not 0 < len(name) <= 255 or len(value) > 255:
            raise bad_field(f"{field}.{name[:40]}", "name and value may have at most 255 characters")
    return pairs


def _as_text(value: str | float | bool) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


Number = Annotated[int, Meta(ge=0, lt=10**18)]
"""A text of digits that a client sends as a number. The code that uses it checks its length."""

DIGITS_MAX = 18
"""The maximum number of digits, written without an exponent, of a number that a response repeats unchanged (choice)."""


def parse_amount(name: str, amount: Decimal, currency: str, limit: int = LARGEST) -> int:
    """Return the amount in minor units, below ``limit``. Raises a problem that names the field."""
    try:
        return minor_units(amount, currency, limit)
    except BadAmount as error:
        raise bad_field(name, str(error)) from None


def check_number(name: str, number: Decimal) -> None:
    """Raise a problem that names the field if the number is not finite, is negative or has too many digits.

    At most 18 digits are accepted (``DIGITS_MAX``), because a response repeats the number in full.
    """
    if not number.is_finite() or number < 0:
        raise bad_field(name, "must be a finite number, greater than or equal to 0")
    exponent = int(number.as_tuple().exponent)
    if max(1, number.adjusted() + 1) + max(0, -exponent) > DIGITS_MAX:
        raise bad_field(name, f"may have at most {DIGITS_MAX} digits")


def text_or_none(value: str | int | None, field: str = "", size_max: int = 18) -> str | None:
    """Return the text of a field that a client may send as a number; None if it is absent or empty.

    Raises a problem that names the field if a number has more than ``size_max`` characters.
    """
    if value is None or value == "":
        return None
    if len(str(value)) > size_max and isinstance(value, int):
        raise bad_field(field, f"may have at most {size_max} digits")
    return str(value)


class EmptyBody(Shape, frozen=True, kw_only=True):
    """An empty body."""


UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}


def parse_duration(field: str, text: str) -> int:
    """Return the milliseconds of a duration such as ``8d`` or ``1h30m``. Raises a problem that names the field."""
    parts = re.findall(r"([0-9]{1,12})(ms|s|m|h|d|w)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise bad_field(field, "must be a duration such as 8d, 1h30m or 250ms")
    return sum(int(number) * UNITS_MS[unit] for number, unit in parts)


def check_positive(amount: Decimal) -> None:
    """Raise a problem that names the field if the amount is 0."""
    if amount.is_zero():
        raise bad_field("amount", "must be greater than 0")
