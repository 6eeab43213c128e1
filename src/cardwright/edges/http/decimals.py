"""Decimal fields: the refusal of texts that the parser of a shape reads as a number, but that have other than ASCII digits."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import Raw, inspect

from cardwright.core.problems import MALFORMED, Problem
from cardwright.kit.digits import is_plain

Decoders = tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]


def check_decimals(raw: bytes, shape: type[msgspec.Struct]) -> None:
    """Raise MALFORMED if the text of a decimal field is not plain. ``raw`` is a valid body of the shape."""
    decoders = _decoders_of(shape)
    if decoders is None:
        return
    of_numbers, of_any = decoders
    try:
        # Usually amounts are numbers. This costs half a microsecond, a walk through the fields several.
        of_numbers.decode(raw)
    except msgspec.ValidationError:
        for where, text in _texts_in(of_any.decode(raw), ""):
            if not is_plain(text):
                problem = f"{where}: Expected a number in the digits 0 to 9, such as 10.50, without blanks"
                raise Problem(MALFORMED, problem) from None


def _texts_in(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of the decimal fields that are JSON strings."""
    match value:
        case Raw():
            if bytes(value).startswith(b'"'):
                yield where, msgspec.json.decode(value, type=str)
        case tuple():
            for index, item in enumerate(value):
                yield from _texts_in(item, f"{where}[{index}]")
        case msgspec.Struct():
            for name, wire_name in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
                yield from _texts_in(getattr(value, name), f"{where}.{wire_name}".removeprefix("."))
        case _:
            return


@cache
def _decoders_of(shape: type[msgspec.Struct]) -> Decoders | None:
    """Return two decoders of a shape's decimal fields: of JSON numbers only, and of raw JSON. None if it has no such field."""
    numbers, any_json = _sketch_of(shape, float), _sketch_of(shape, Raw)
    return None if numbers is None else (msgspec.json.Decoder(numbers), msgspec.json.Decoder(any_json))


def _sketch_of(shape: type[msgspec.Struct], leaf: type) -> Any:
    """Return a shape with only the decimal fields, of the type ``leaf``, and the objects around them; None if there are none."""
    info = inspect.type_info(shape)
    assert isinstance(info, inspect.StructType)
    kinds = {field.name: kind for field in info.fields if (kind := _kind_of(field.type, leaf)) is not None}
    if not kinds:
        return None
    # Raw JSON includes null.
    columns = [(name, Raw, Raw()) if kind is Raw else (name, kind | None, None) for name, kind in kinds.items()]
    return msgspec.defstruct(shape.__name__, columns, rename={field.name: field.encode_name for field in info.fields})


def _kind_of(kind: inspect.Type, leaf: type) -> Any:
    """Return the type of a field in a sketch, None if it contains no decimal."""
    match kind:
        case inspect.DecimalType():
            return leaf
        case inspect.StructType():
            return _sketch_of(kind.cls, leaf)
        case inspect.Metadata():
            return _kind_of(kind.type, leaf)
        case inspect.VarTupleType():
            item = _kind_of(kind.item_type, leaf)
            return None if item is None else tuple[item, ...]  # type: ignore[valid-type]
        case inspect.UnionType():
            kinds = [item for part in kind.types if (item := _kind_of(part, leaf)) is not None]
            assert len(kinds) <= 1, kind
            return kinds[0] if kinds else None
        case _:
            return None
