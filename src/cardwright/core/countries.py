"""Countries: lookup by code or common name (ISO 3166-1)."""

import re
from functools import lru_cache

from iso3166 import Country, countries

OFAC_COUNTRIES = frozenset({"CUB", "IRN", "PRK", "SYR"})
"""Countries that ``decline_ofac_countries`` declines: comprehensive programs of the US Treasury's sanctions list (choice)."""


EVERYDAY_NAMES = {
    "united states": "USA", "united states of america": "USA", "america": "USA", "united kingdom": "GBR", "great britain": "GBR",
    "england": "GBR", "scotland": "GBR", "wales": "GBR", "russia": "RUS", "south korea": "KOR", "north korea": "PRK",
    "syria": "SYR", "vietnam": "VNM", "laos": "LAO", "czech republic": "CZE", "turkey": "TUR", "ivory coast": "CIV",
}  # fmt: skip
"""Common names that differ from those of ISO 3166-1."""

# ISO 3166-1 has "Iran, Islamic Republic of". The common name is the part before the comma or bracket. It is used only if it
# names one country, so the Koreas have no short name here.
_SHORT = [(re.split(r"[,(]", country.name)[0].strip().casefold(), country.alpha3) for country in countries]
_SHORT_NAMES = {name: alpha3 for name, alpha3 in _SHORT if [other for other, _ in _SHORT].count(name) == 1}


def find_country(text: str) -> Country | None:
    """Return a country by code (two or three letters, or number) or by a common name; None if there is none."""
    name = text.strip()
    country = countries.get(name, None)
    if country is None:
        alpha3 = EVERYDAY_NAMES.get(name.casefold()) or _SHORT_NAMES.get(name.casefold())
        country = countries.get(alpha3, None) if alpha3 is not None else None
    return country


@lru_cache(maxsize=1024)
def alpha3_of(country: str) -> str:
    """Return the three-letter code of a country given by code or name; the text itself if the country is unknown."""
    known = find_country(country)
    return known.alpha3 if known is not None else country


@lru_cache(maxsize=1024)
def numeric_country(country: str) -> str:
    """Return the three-digit code of a country; ``000`` if it is not in ISO 3166-1."""
    known = find_country(country)
    return known.numeric if known is not None else "000"
