"""JSON Schemas of the route table's shapes, simplified for readers: a list of types in place of ``anyOf`` where possible."""

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from cardwright.edges.http.descriptions import descriptions
from cardwright.resources.common.route import Route, Shape

Schema = dict[str, Any]

TEMPLATE = "#/components/schemas/{name}"
TYPES = {str: "string", int: "integer", bool: "boolean", type(None): "null"}

AMOUNT: Schema = {
    "description": "An amount in major units. Answers have a number; a request may have a string with a number in it.",
    "type": ["number", "string"],
    "pattern": r"^-?[0-9]+(\.[0-9]+)?$",
    "examples": [10.5],
}


PART: Schema = {"description": "A part of an object: only the fields that the parameter `fields` names.", "type": "object"}


class Problem(Shape, frozen=True, kw_only=True):
    """An error. ``error_code`` is the HTTP status and three more digits."""

    error_code: str
    error_message: str


class Schemas:
    """The schemas of all shapes of the routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        routes = list(routes)
        wire = [shape for route in routes for shape in (route.body, route.answer) if shape is not None]
        self._queries = {route.query for route in routes if route.query is not None}
        types = list(dict.fromkeys([Problem, *wire, *self._queries]))
        schemas, components = msgspec.json.schema_components(types, ref_template=TEMPLATE)
        self._of: dict[Any, Schema] = dict(zip(types, map(tidied, schemas), strict=True))
        self._components = {name: described(name, tidied(schema)) for name, schema in components.items()}
        self._lists: dict[str, Schema] = {}

    def of(self, shape: Any, *, is_cut: bool = False) -> Schema:
        """Return a shape's schema, or a reference to it. ``is_cut`` is True if a request can select some of the fields."""
        schema = self._of[shape]
        return {"anyOf": [schema, {"$ref": TEMPLATE.format(name="Part")}]} if is_cut and "$ref" in schema else schema

    def list_of(self, shape: Any, *, is_cut: bool) -> Schema:
        """Return a reference to the envelope of a list of the shape."""
        name = f"{_name_of(self._of[shape])}List"
        made = envelope(self.of(shape, is_cut=is_cut))
        assert self._lists.setdefault(name, made) == made, f"two kinds of lists would be called {name}"
        return {"$ref": TEMPLATE.format(name=name)}

    def fields_of(self, query: type[msgspec.Struct] | None) -> Iterator[tuple[str, tuple[Schema, bool]]]:
        """Yield the parameters of a query: name, schema without null, and True if it is required."""
        if query is None:
            return
        component = self._components[_name_of(self._of[query])]
        for name, schema in component["properties"].items():
            yield name, (without_null(schema), name in component.get("required", ()))

    def shapes(self) -> dict[str, Schema]:
        """Return the schemas of all shapes by name, including queries."""
        return self._components

    def components(self) -> Iterator[tuple[str, Schema]]:
        """Yield the schemas that the document refers to. Queries are omitted, because their fields are parameters."""
        left_out = {_name_of(self._of[query]) for query in self._queries}
        yield from (("Amount", AMOUNT), ("Part", PART))
        yield from self._lists.items()
        yield from ((name, schema) for name, schema in self._components.items() if name not in left_out)


def _name_of(schema: Schema) -> str:
    return str(schema.get("$ref", "Object")).rpartition("/")[2]


def envelope(item: Schema) -> Schema:
    """Return the schema for one page of a list."""
    number = {"type": "integer"}
    properties = {
        "count": {**number, "description": "The number of objects in `data`."},
        "start_index": {**number, "description": "The position of the first object of this page in the list, from 0."},
        "end_index": {**number, "description": "The position of the last object of this page in the list."},
        "is_more": {"type": "boolean", "description": "True if more objects follow this page."},
        "data": {"type": "array", "items": item, "description": "The objects of this page."},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def tidied(schema: Any) -> Any:
    """Return an equivalent schema that is easier to read."""
    match schema:
        case {"type": "string", "format": "decimal"}:
            return {"$ref": TEMPLATE.format(name="Amount")}
        case {"anyOf": [*kinds], **rest}:
            return {**tidied(rest), **_one_of_kinds([tidied(kind) for kind in kinds])}
        case {"enum": [*values], **rest}:
            return {**rest, "type": _types_of(values), "enum": values}
        case dict():
            return {name: prose(value) if name == "description" and isinstance(value, str) else tidied(value)
                    for name, value in schema.items() if (name, value) not in (("default", None), ("required", []))}  # fmt: skip
        case list():
            return [tidied(item) for item in schema]
        case _:
            return schema


def described(name: str, schema: Schema) -> Schema:
    """Return the schema of a shape with descriptions of its fields. A description in the shape takes precedence."""
    fields = schema.get("properties", {})
    texts = {field: descriptions().of_field(name, field) for field in fields if "description" not in fields[field]}
    properties = {field: {**kind, "description": texts[field]} if texts.get(field) else kind for field, kind in fields.items()}
    return {**schema, "properties": properties} if properties else schema


def _one_of_kinds(kinds: list[Schema]) -> Schema:
    """Return alternatives as one schema if that is equivalent, because keywords such as ``maxLength`` apply to one type only."""
    values = [value for kind in kinds for value in kind.get("enum", [None] if kind == {"type": "null"} else [])]
    if all("enum" in kind or kind == {"type": "null"} for kind in kinds):
        return {"type": _types_of(values), "enum": values}
    if any(not isinstance(kind.get("type"), str) or "enum" in kind for kind in kinds):
        return {"anyOf": kinds}
    merged = {name: value for kind in kinds for name, value in kind.items()}
    return {**merged, "type": [kind["type"] for kind in kinds]}


def _types_of(values: list[Any]) -> str | list[str]:
    types = list(dict.fromkeys(TYPES[type(value)] for value in values))
    return types[0] if len(types) == 1 else types


def without_null(schema: Schema) -> Schema:
    """Return a schema without null."""
    match schema:
        case {"anyOf": [kind, {"type": "null"}]}:
            return {**kind, **{name: value for name, value in schema.items() if name != "anyOf"}}
        case {"type": [kind, "null"], **rest}:
            values = {"enum": [value for value in rest["enum"] if value is not None]} if "enum" in rest else {}
            return {"type": kind, **rest, **values}
        case _:
            return schema


def prose(docstring: str) -> str:
    """Return a docstring as Markdown, without notes on the source of a fact, such as "(observed)"."""
    text = re.sub(r" \((?:observed|documented|wire reference)[^)]*\)", "", inspect.cleandoc(docstring))
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text.replace("``", "`")).strip()
