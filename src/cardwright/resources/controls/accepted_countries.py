"""Accepted countries: lists of countries where the cards of a card product are accepted, or are not accepted."""

from typing import Annotated

import msgspec
from msgspec import Meta, structs
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.countries import find_country
from cardwright.core.problems import COUNTRIES_NOT_FOUND, FORBIDDEN, Problem, bad_field
from cardwright.kit.clock import iso
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.crud import record_version
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.storage import history, records
from cardwright.storage.builtin_resources import BUILT_IN
from cardwright.storage.tables import accepted_countries

# --- Shapes: what travels on the wire ------------------------------------------------

ListName = Annotated[str, Meta(min_length=1, max_length=255)]
Codes = Annotated[tuple[str, ...], Meta(max_length=300)]


class CountriesCreate(Shape, frozen=True, kw_only=True):
    """A new list of countries.

    ``country_codes`` are numeric ISO 3166-1 codes. A whitelist has the only countries whose merchants are accepted; any other
    list has the countries whose merchants are refused.
    """

    name: ListName
    is_whitelist: bool
    country_codes: Codes
    token: Token | None = None


class CountriesUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a list. Absent fields stay unchanged. ``country_codes`` are replaced as a whole."""

    name: ListName | None = None
    is_whitelist: bool | None = None
    country_codes: Codes | None = None
    token: str | None = None


class AcceptedCountries(Shape, frozen=True, kw_only=True):
    """A list of countries."""

    token: str
    name: str
    is_whitelist: bool
    country_codes: tuple[str, ...]
    created_time: str
    last_modified_time: str


class CountriesQuery(Shape, frozen=True, kw_only=True):
    """The query filters lists by name and kind. ``search_type`` has no effect: every search is exact."""

    name: str | None = None
    whitelist: bool | None = None
    search_type: str | None = None


# --- Rules: pure ---------------------------------------------------------------------


def check_codes(codes: tuple[str, ...]) -> None:
    """Raise a problem that names the field for an unknown country code, and for a code that occurs twice."""
    for index, code in enumerate(codes):
        country = find_country(code)
        if country is None or country.numeric != code:
            raise bad_field(f"country_codes[{index}]", "must be a three-digit country code of ISO 3166-1, such as 840")
    if len(set(codes)) < len(codes):
        raise bad_field("country_codes", "may not have duplicate entries")


# --- Actions: what a caller can do with it -------------------------------------------


def create_countries(call: Call, body: CountriesCreate) -> str:
    """Create a list of countries.

    Card products refer to it by ``accepted_countries_token``.
    """
    check_codes(body.country_codes)
    if (replay := crud.find_replay(call, accepted_countries, body)) is not None:
        return replay
    made = {"token": body.token or call.app.ids.token(), "created_time": iso(call.now), "last_modified_time": iso(call.now)}
    countries = AcceptedCountries(**(crud.changes_of(body) | made))
    columns = {"name": countries.name, "is_whitelist": countries.is_whitelist}
    row_id, doc = crud.insert(call, accepted_countries, body, countries, **columns)
    record_version(call, history.Kind.ACCEPTED_COUNTRIES, row_id, doc, active=True)
    return doc


def get_countries(call: Call) -> str:
    """Return a list of countries."""
    return str(crud.get_row(call, accepted_countries, COUNTRIES_NOT_FOUND).doc)


def list_countries(call: Call) -> records.Listing:
    """List the lists of countries.

    Every program has two built-in lists.
    """
    query: CountriesQuery = call.query
    conditions: list[ColumnElement[bool]] = []
    if query.name is not None:
        conditions.append(accepted_countries.c.name == query.name)
    if query.whitelist is not None:
        conditions.append(accepted_countries.c.is_whitelist.is_(query.whitelist))
    return crud.list_resources(call, accepted_countries, *conditions)


def update_countries(call: Call, body: CountriesUpdate) -> str:
    """Change a list of countries.

    The change applies at once to all card products that refer to the list. The built-in lists cannot be changed.
    """
    row = crud.lock_row(call, accepted_countries, COUNTRIES_NOT_FOUND)
    if row.token in BUILT_IN[accepted_countries.name]:
        raise Problem(FORBIDDEN, f"{row.token} is built in and cannot be changed")
    crud.check_same_token(call, body)
    check_codes(body.country_codes or ())
    before = msgspec.json.decode(row.doc, type=AcceptedCountries)
    after = structs.replace(before, **crud.changes_of(body))
    columns = {"name": after.name, "is_whitelist": after.is_whitelist}
    doc, changed = crud.update(call, accepted_countries, row, before, after, **columns)
    if changed:
        record_version(call, history.Kind.ACCEPTED_COUNTRIES, row.id, doc, active=True)
    return doc


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Accepted countries"

routes = [
    post("/acceptedcountries", CountriesCreate, create_countries, AcceptedCountries),
    get("/acceptedcountries", list_countries, AcceptedCountries, query=CountriesQuery, paging=Paging()),
    get("/acceptedcountries/{token}", get_countries, AcceptedCountries),
    put("/acceptedcountries/{token}", CountriesUpdate, update_countries, AcceptedCountries),
]
