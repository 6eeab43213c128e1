"""Canonical forms: equal for all spellings of a request, different for different requests, and small for any number."""

from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from cardwright.kit.canonical import beyond, canonical, reading

Text = Annotated[str, Meta(max_length=4), reading(lambda text: text.zfill(4) if text else None)]


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    """A nested object."""

    flag: bool | None = True
    name: str | None = None


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A request."""

    amount: Decimal | None = None
    count: int | None = None
    code: Text | int | None = None
    day: Annotated[str, reading(int)] | None = None
    inner: Inner | None = Inner()
    other: Inner | None = None
    rows: tuple[Inner, ...] | None = None
    tags: dict[str, str | int | bool | None] | None = None
    free: Any = None


class LaterBody(Body, frozen=True, kw_only=True):
    """The same request in a release with two more fields."""

    note: str | None = None
    limit: int | None = 5


def form(text: str, shape: type[msgspec.Struct] = Body) -> bytes:
    """Return the canonical form of a JSON body."""
    return canonical(msgspec.json.decode(text, type=shape, strict=False))


@pytest.mark.parametrize(
    "same",
    [
        ("{}", '{"amount": null}', '{"inner": {}}', '{"inner": {"flag": true}}', '{"inner": {"flag": null, "name": null}}'),
        ('{"amount": 10}', '{"amount": 10.0}', '{"amount": "10.00"}', '{"amount": 1e1}', '{"amount": "1E+1", "x": 5}'),
        ('{"amount": 0}', '{"amount": "-0.00"}', '{"amount": "0e-999999"}', '{"amount": 0E9}'),
        ('{"count": 4}', '{"count": "4"}', '{"count": 4.0}'),
        ('{"code": "0012"}', '{"code": "12"}', '{"code": 12}'),
        ("{}", '{"code": ""}'),
        ('{"day": "7"}', '{"day": "007"}'),
        ('{"inner": {"flag": false}, "count": 1}', '{"count": 1, "inner": {"name": null, "flag": "false"}}'),
        ('{"rows": [{"flag": true}, {}]}', '{"rows": [{}, {"flag": null}]}'),
        ('{"tags": {"a": 1, "b": true}}', '{"tags": {"b": "true", "a": "1", "c": null}}'),
        ('{"free": {"a": 1, "b": [2.50]}}', '{"free": {"b": [2.5], "a": 1.0}}'),
    ],
)
def test_writings_of_one_request(same: tuple[str, ...]) -> None:
    """All spellings of a request have the same form."""
    assert len({form(text) for text in same}) == 1, [form(text) for text in same]


@pytest.mark.parametrize(
    "different",
    [
        ("{}", '{"other": {}}', '{"rows": []}', '{"amount": 0}', '{"inner": {"flag": false}}'),
        ('{"amount": 10}', '{"amount": 10.01}', '{"amount": 100}', '{"amount": "-10"}', '{"amount": "NaN"}'),
        ('{"code": "12"}', '{"code": "120"}', '{"count": 12}'),
        ('{"day": "7"}', '{"day": "8"}', '{"day": "x7"}'),
        ('{"rows": [{"flag": false}, {}]}', '{"rows": [{}, {"flag": false}]}', '{"rows": [{"flag": false}]}'),
        ('{"free": 1}', '{"free": "1"}', '{"free": true}', '{"free": {"number": "1"}}'),
        tuple(f'{{"amount": {"1" * 400}{end}}}' for end in (0, 1)),
    ],
)
def test_different_requests(different: tuple[str, ...]) -> None:
    """Different requests have different forms."""
    assert len({form(text) for text in different}) == len(different)


def test_a_large_exponent_stays_small() -> None:
    """The form of a number with a large exponent is short, because it keeps the exponent."""
    assert len(form('{"amount": "1e999999999999999999"}')) < 60


def test_a_new_field_changes_no_form() -> None:
    """A body without a new field has the same form in the later release, so stored fingerprints stay valid."""
    for text in ("{}", '{"amount": 10, "inner": {"name": "x"}, "rows": [{}]}'):
        assert form(text) == form(text, LaterBody)
    assert form('{"note": "x"}', LaterBody) != form("{}", LaterBody)


def test_beyond_defaults() -> None:
    """``beyond`` keeps the fields that differ from the defaults, and returns None if none does."""
    defaults = Body(amount=Decimal(5), other=Inner(flag=False, name="x"))
    assert beyond(defaults, defaults) is None
    changed = msgspec.structs.replace(defaults, other=Inner(flag=True, name="x"), count=3)
    assert beyond(changed, defaults) == Body(count=3, inner=None, other=Inner(flag=True, name=None))
