"""Invalid bodies, made from the shapes of the route table: every field of every body with each kind of invalid value."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

Path = tuple[str | int, ...]
"""The path of a value in a body: names of fields, and indexes of arrays."""

RATES = ("conversion_rate",)
"""Numbers that are not amounts: they may have any number of decimals."""

LEGAL = {"type": "ISSUER_FEE", "credit_debit": "C"}
"""Valid values of fields that accept only certain words, although their type is plain text."""

MISSING = object()
"""A value that removes the field."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a body at any depth: its path, its types without null, whether it is required, and its default."""

    path: Path
    types: tuple[inspect.Type, ...]
    is_required: bool
    default: Any = None

    @property
    def name(self) -> str:
        """The name that an error message must contain."""
        return str(next(part for part in reversed(self.path) if isinstance(part, str)))


@cache
def _info_of(shape: type[msgspec.Struct]) -> inspect.Type:
    """Return the type of a shape. Cached, because an inspection takes milliseconds and tests need it for thousands of bodies."""
    return inspect.type_info(shape)


def fields_of(shape: type[msgspec.Struct]) -> Iterator[Field]:
    """Yield every field of a shape and of its nested shapes."""
    info = _info_of(shape)
    assert isinstance(info, inspect.StructType)
    yield from _fields_in(info, ())


def texts_of(shape: type[msgspec.Struct]) -> Iterator[Field]:
    """Return the fields that may be text."""
    return (field for field in fields_of(shape) if any(isinstance(kind, inspect.StrType) for kind in field.types))


def _fields_in(info: inspect.StructType, above: Path) -> Iterator[Field]:
    for field in info.fields:
        types = _types_of(field.type)
        path = (*above, field.encode_name)
        yield Field(path, types, field.required, _default_of(field))
        for kind in types:
            match kind:
                case inspect.StructType():
                    yield from _fields_in(kind, path)
                case inspect.VarTupleType(item_type=inspect.StructType() as inner):
                    yield from _fields_in(inner, (*path, 0))
                case _:
                    pass


def _default_of(field: inspect.Field) -> Any:
    """Return the default of a field as JSON values, None if it has none."""
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return None if default in (None, msgspec.UNSET, msgspec.NODEFAULT) else msgspec.to_builtins(default)


def _types_of(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """Return the types of a field without null and absence."""
    several = (bare(member) for member in (kind.types if isinstance(kind, inspect.UnionType) else (kind,)))
    return tuple(member for member in several if type(member).__name__ not in ("NoneType", "UnsetType"))


def bare(kind: inspect.Type) -> inspect.Type:
    """Return the type without its metadata."""
    return bare(kind.type) if isinstance(kind, inspect.Metadata) else kind


def wrong_values(field: Field, number: int = 0) -> Iterator[Any]:
    """Yield values that the field's type does not allow. ``number`` selects one value of another type."""
    if field.is_required:
        yield from (MISSING, None)
    strange = [value for value in ([], {}, 5, True, "x") if not any(_may_be(kind, value) for kind in field.types)]
    yield strange[number % len(strange)]
    # If a field may be text or a number, a value must be invalid for both.
    for value in _wrong_for(field.types[0]):
        if not any(_may_be(kind, value) for kind in field.types[1:]) and not (field.name in RATES and value in ("1.001", 1.001)):
            yield value


def _may_be(kind: inspect.Type, value: Any) -> bool:
    """Return whether a type accepts the kind of a value. Ranges, lengths and text with a number in it are not considered."""
    match kind:
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.DecimalType() | inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.StructType() | inspect.DictType():
            return isinstance(value, dict)
        case inspect.VarTupleType():
            return isinstance(value, list)
        case _:
            return False


def _wrong_for(kind: inspect.Type) -> list[Any]:
    """Return invalid values of a type, such as a text that is too long or a number that is not finite."""
    match kind:
        case inspect.StrType():
            return [*(["x" * (kind.max_length + 1)] if kind.max_length else []), *([""] if kind.min_length else [])]
        case inspect.DecimalType():
            return ["", "abc", "NaN", "sNaN", "Infinity", "-Infinity", "1e999999", "-1", -1, "1.001", 1.001, 1e30]
        case inspect.IntType():
            return ["", "abc", "1.5", 1.5, "NaN"]
        case inspect.BoolType():
            return ["", "maybe"]
        case inspect.LiteralType() | inspect.EnumType():
            known = {str(value) for value in (kind.values if isinstance(kind, inspect.LiteralType) else kind.cls)}
            return ["NO_SUCH", *({""} - known)]
        case inspect.StructType() | inspect.DictType() | inspect.VarTupleType():
            return []
        case _:
            raise AssertionError(f"no invalid values for {kind}; add them here")


def with_value(body: Any, path: Path, value: Any, shape: type[msgspec.Struct] | None = None) -> Any:
    """Return the body with another value at a path. Missing parents are created; a shape gives them their required fields."""
    changed = copy.deepcopy(body)
    info = _info_of(shape) if shape is not None else None
    parent = changed
    for part, following in itertools.pairwise(path):
        info = _inner(info, part)
        if isinstance(part, int):
            if part >= len(parent):
                parent += [_missing(info, following)] * (part + 1 - len(parent))
        elif parent.get(part) is None:
            parent[part] = _missing(info, following)
        parent = parent[part]
    if value is MISSING:
        parent.pop(path[-1], None)
    else:
        parent[path[-1]] = value
    return changed


def _missing(info: inspect.Type | None, following: str | int) -> Any:
    """Return the parent to create at a path of which the body has no value."""
    return [] if isinstance(following, int) else _sample(info)


def _inner(info: inspect.Type | None, part: str | int) -> inspect.Type | None:
    match info:
        case inspect.StructType():
            kinds = _types_of(next(field.type for field in info.fields if field.encode_name == part))
            return next((kind for kind in kinds if isinstance(kind, inspect.StructType | inspect.VarTupleType)), None)
        case inspect.VarTupleType():
            return info.item_type
        case _:
            return None


def _sample(info: inspect.Type | None, name: str = "") -> Any:
    """Return a valid value of a type with its required fields only."""
    match info:
        case None:
            return {}
        case inspect.StructType():
            required = (field for field in info.fields if field.required)
            return {field.encode_name: _sample(_types_of(field.type)[0], field.encode_name) for field in required}
        case inspect.StrType():
            return LEGAL.get(name) or "x" * max(1, info.min_length or 0)
        case inspect.DecimalType():
            return "1.00"
        case inspect.IntType():
            return 1
        case inspect.BoolType():
            return True
        case inspect.LiteralType():
            return info.values[0]
        case inspect.EnumType():
            return next(iter(info.cls)).value
        case _:
            return []
