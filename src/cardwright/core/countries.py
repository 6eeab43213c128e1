"""Countries by any of their usual names (ISO 3166-1)."""

from functools import lru_cache

from iso3166 import countries

OFAC_COUNTRIES = frozenset({"CUB", "IRN", "PRK", "SYR"})
"""What ``decline_ofac_countries`` refuses: the comprehensive programs of the US Treasury's sanctions list (choice)."""


@lru_cache(maxsize=1024)
def alpha3_of(country: str) -> str:
    """The three-letter code of a country given by code (two or three letters, or number) or name; else the text itself."""
    found = countries.get(country.strip(), None)
    return found.alpha3 if found is not None else country


@lru_cache(maxsize=1024)
def numeric_country(country: str) -> str:
    """The three-digit code of a country, ``000`` when it is not in ISO 3166-1."""
    found = countries.get(country.strip(), None)
    return found.numeric if found is not None else "000"
