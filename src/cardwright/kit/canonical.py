"""Canonical forms: equal bytes for all spellings of a request.

A form has no spaces, no order of keys and one spelling for each number. Fields that are absent, null or equal to their default
are left out. The value of a text field is a text, even if the request has a number there. The order of a list counts.
"""

from collections.abc import Callable
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, inspect

_READING = "reading"
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
_encoder = msgspec.json.Encoder(order="deterministic", decimal_format="number")

Convert = Callable[[Any], Any]


def reading(of: Callable[[Any], Any]) -> Meta:
    """Annotate a field with the function that reads its value.

    The function returns equal values for all spellings of a value, and None for a value without meaning. If it raises
    ValueError, the value stays as it is.
    """
    return Meta(extra={_READING: of})


def canonical(body: msgspec.Struct) -> bytes:
    """Return the canonical form of a parsed request as JSON."""
    return _encoder.encode(_object(body))


AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)


def beyond(value: AnyStruct, defaults: AnyStruct) -> AnyStruct | None:
    """Return the parts of ``value`` that differ from the defaults, or None if there are none. Every field may be None."""
    parts: dict[str, Any] = {}
    for name in value.__struct_fields__:
        part, default = getattr(value, name), getattr(defaults, name)
        if isinstance(part, msgspec.Struct) and isinstance(default, msgspec.Struct):
            parts[name] = beyond(part, default)
        else:
            parts[name] = None if part == default else part
    return None if all(part is None for part in parts.values()) else type(value)(**parts)


class _Part(NamedTuple):
    """Field of a shape. ``default`` is the canonical form of its default, None if it has none."""

    name: str
    wire_name: str
    convert: Convert
    default: Any


@cache
def _parts_of(shape: type[msgspec.Struct]) -> tuple[_Part, ...]:
    info = inspect.type_info(shape)
    assert isinstance(info, inspect.StructType)
    parts = []
    for field in info.fields:
        convert, default = _convert_of(field.type), field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        has_default = default not in (None, UNSET, msgspec.NODEFAULT)
        parts.append(_Part(field.name, field.encode_name, convert, convert(default) if has_default else None))
    return tuple(parts)


def _object(value: msgspec.Struct) -> dict[str, Any]:
    kept = {}
    for name, wire_name, convert, default in _parts_of(type(value)):
        field_value = getattr(value, name)
        if field_value is None or field_value is UNSET:
            continue
        form = convert(field_value)
        if form is not None and form != default:
            kept[wire_name] = form
    return kept


def _convert_of(kind: inspect.Type) -> Convert:
    """Return the function that makes the canonical form of a value of this type. The value is not None."""
    match kind:
        case inspect.Metadata():
            convert, of = _convert_of(kind.type), (kind.extra or {}).get(_READING)
            return convert if of is None else lambda value: _read(of, convert, value)
        case inspect.UnionType():
            return _convert_of_union([item for item in kind.types if not isinstance(item, inspect.NoneType)])
        case inspect.StructType():
            return _object
        case inspect.VarTupleType() | inspect.ListType():
            convert = _convert_of(kind.item_type)
            return lambda value: [convert(item) for item in value]
        case inspect.DictType():
            convert = _convert_of(kind.value_type)
            return lambda value: {name: convert(item) for name, item in value.items() if item is not None}
        case inspect.DecimalType() | inspect.FloatType():
            return _number
        case inspect.AnyType():
            return _any
        case _:
            return _same


def _convert_of_union(kinds: list[inspect.Type]) -> Convert:
    """Return the conversion of a union without null. In a union with text, every scalar becomes text."""
    kinds = [kind for kind in kinds if type(kind).__name__ != "UnsetType"]
    texts = [kind for kind in kinds if isinstance(_bare(kind), inspect.StrType)]
    if len(kinds) == 1 or not texts:
        assert len(kinds) == 1, f"no canonical form is known for {kinds}"
        return _convert_of(kinds[0])
    convert = _convert_of(texts[0])
    return lambda value: convert(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _bare(kind: inspect.Type) -> inspect.Type:
    return _bare(kind.type) if isinstance(kind, inspect.Metadata) else kind


def _read(of: Callable[[Any], Any], convert: Convert, value: Any) -> Any:
    try:
        meaning = of(value)
    except ValueError:
        return convert(value)
    return None if meaning is None else convert(meaning)


def _number(value: Decimal | float) -> str:
    # Text, because JSON has no NaN or infinity, which an unchecked amount may be.
    return str(_exact(value))


def _exact(value: Decimal | float) -> Decimal:
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    return number.normalize(_EXACT) if number else Decimal(0)


def _any(value: Any) -> Any:
    """Return free JSON with one spelling for each number."""
    match value:
        case bool() | str() | None:
            return value
        case dict():
            return {name: _any(item) for name, item in value.items()}
        case list():
            return [_any(item) for item in value]
        case _:
            return _exact(value)


def _same(value: Any) -> Any:
    return value
