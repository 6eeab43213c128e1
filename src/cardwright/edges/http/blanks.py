"""Blank objects: the refusal of objects in a request that have no value in a known field, where one is required."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, inspect

from cardwright.core.problems import INVALID_INPUT, Problem
from cardwright.resources.common.route import Blank, Shape

Path = tuple[str | int, ...]
"""The place of an object in a body: names of fields, and indices of arrays."""


class _Field(NamedTuple):
    """A field with an object, or an array of objects. ``blank`` is the object without values, or None if that is legal."""

    name: str
    wire_name: str
    blank: msgspec.Struct | None


def check_blanks(body: Any, parse: Callable[[], Any]) -> None:
    """Raise INVALID_INPUT if the body has an illegal blank object. ``parse`` returns the JSON of the body."""
    blanks = list(_blanks_in(body, ()))
    if body.blank is not None and _is_blank(body, type(body)()):
        blanks.append(((), type(body)))
    if blanks:
        document = parse()
        for path, shape in blanks:
            _check_blank(document, path, shape)


def _check_blank(document: Any, path: Path, shape: type[Shape]) -> None:
    """Raise INVALID_INPUT unless the object is absent, empty, or legal for ``shape``."""
    for part in path:
        if document is None:
            return
        document = document[part] if isinstance(part, int) else document.get(part)
    if not document:
        return
    names = [field.encode_name for field in msgspec.structs.fields(shape)]
    known = [document[name] for name in names if name in document]
    where, legal = _text_of(path), f"the fields are: {', '.join(names)}"
    if not known:
        raise Problem(INVALID_INPUT, f"{where} has no known field; {legal}")
    if shape.blank is Blank.NOTHING and all(value is None for value in known):
        raise Problem(INVALID_INPUT, f"{where} has no value in a known field; {legal}; send {{}} for none of them")


def _blanks_in(value: msgspec.Struct, path: Path) -> Iterator[tuple[Path, type[Shape]]]:
    for name, wire_name, blank in _fields_of(type(value)):
        part = getattr(value, name)
        if part is None or part is UNSET:
            continue
        within = (*path, wire_name)
        objects = [((*within, index), item) for index, item in enumerate(part)] if isinstance(part, tuple) else [(within, part)]
        for place, item in objects:
            if blank is not None and _is_blank(item, blank):
                yield place, type(item)
            # A default value may contain further objects.
            yield from _blanks_in(item, place)


def _is_blank(item: Shape, blank: msgspec.Struct) -> bool:
    if item.blank is Blank.NOTHING:
        return all(value is None or value is UNSET for value in msgspec.structs.astuple(item))
    return item == blank


@cache
def _fields_of(shape: type[msgspec.Struct]) -> tuple[_Field, ...]:
    """Return the fields whose objects can be illegally blank, or contain such objects."""
    info = inspect.type_info(shape)
    assert isinstance(info, inspect.StructType)
    fields = []
    for field in info.fields:
        for inner in _objects_in(field.type):
            can_be_blank = inner.blank is not Blank.ANYTHING and not any(part.required for part in msgspec.structs.fields(inner))
            if can_be_blank or _fields_of(inner):
                fields.append(_Field(field.name, field.encode_name, inner() if can_be_blank else None))
    return tuple(fields)


def _objects_in(kind: inspect.Type) -> Iterator[type[Shape]]:
    """Yield the shapes of the objects that a field may contain."""
    match kind:
        case inspect.Metadata():
            yield from _objects_in(kind.type)
        case inspect.UnionType():
            for part in kind.types:
                yield from _objects_in(part)
        case inspect.VarTupleType():
            yield from _objects_in(kind.item_type)
        case inspect.StructType():
            assert issubclass(kind.cls, Shape), kind.cls
            yield kind.cls
        case _:
            return


def _text_of(path: Path) -> str:
    """Return a path in the form of error messages, such as ``config.fees[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "body"
