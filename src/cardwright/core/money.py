"""Amounts: whole minor units of a currency inside, exact decimals on the wire (ISO 4217 exponents)."""

from decimal import Decimal
from functools import lru_cache

from iso4217 import Currency

LARGEST = 10**12
"""Exclusive limit of the amount of a movement of money, in minor units: ISO 8583 DE4 has twelve digits."""

STORED_LIMIT = 10**18
"""Exclusive limit of balances, and of amounts of messages that are declined for their size, in minor units.

They fit 64 bits, also as the sum of purchase, cash back and fees.
"""


class BadAmount(ValueError):
    """Decimal that cannot be an amount. Its text follows the field's name in an error message."""


@lru_cache(maxsize=512)
def exponent_of(currency: str) -> int | None:
    """Return the decimal places of a currency (``USD`` 2, ``JPY`` 0, ``KWD`` 3); None if ISO 4217 has no such alphabetic code."""
    try:
        unit = Currency(currency)
    except ValueError:
        return None
    return unit.exponent or 0


@lru_cache(maxsize=512)
def numeric_of(currency: str) -> str:
    """Return the three-digit ISO 4217 number of a known alphabetic code (``USD`` is ``840``)."""
    return f"{Currency(currency).number:03d}"


@lru_cache(maxsize=512)
def code_of(currency: str) -> str | None:
    """Return the alphabetic code of a currency given by code or number (``usd``, ``840``); None if ISO 4217 has none."""
    for known in Currency:
        if currency.upper() == known.code or currency.zfill(3) == f"{known.number:03d}":
            return str(known.code)
    return None


def fits(ledger: int, held: int, amount: int) -> bool:
    """Return whether an amount in minor units keeps the limits of a message and of a balance that it may change."""
    return amount < LARGEST and abs(ledger) + held + amount < STORED_LIMIT


def minor_units(amount: Decimal, currency: str, limit: int = LARGEST) -> int:
    """Return the amount in whole minor units, less than ``limit``. ``limit`` is at most ``STORED_LIMIT``.

    Raises BadAmount for NaN, infinities, negative amounts, too many decimals and amounts that are too large.
    """
    if not amount.is_finite():
        raise BadAmount("must be a finite number")
    if amount < 0:
        raise BadAmount("must be greater than or equal to 0")
    if amount.adjusted() > 18:
        raise BadAmount(f"must be less than {limit} minor units")
    places = exponent_of(currency)
    if places is None:
        raise BadAmount(f"is in a currency that is not in ISO 4217: {currency}")
    # Return zero before scaling: a zero such as 0e-999999 is finite, but scaling it fails.
    if amount == 0:
        return 0
    if amount.as_tuple().exponent < -40:  # type: ignore[operator]  # finite: the exponent is an int
        raise BadAmount(f"may have at most {places} decimals")
    scaled = amount.scaleb(places)
    if scaled != scaled.to_integral_value():
        raise BadAmount(f"may have at most {places} decimals")
    units = int(scaled)
    if units >= limit:
        raise BadAmount(f"must be less than {limit} minor units")
    return units


# Cached because one response repeats the same few amounts.
@lru_cache(maxsize=8192)
def decimal_text(units: int, places: int = 2) -> str:
    """Return an amount in minor units as the wire's decimal: ``1234`` with two places is ``12.34``."""
    if places == 0:
        return str(units)
    sign = "-" if units < 0 else ""
    whole, rest = divmod(abs(units), 10**places)
    return f"{sign}{whole}.{rest:0{places}d}"
