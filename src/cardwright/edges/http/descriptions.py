"""Descriptions: the text that the OpenAPI document has for each field and parameter, from ``descriptions.toml``.

Most fields have one meaning in all shapes, so the name of the field finds the text. An entry for a shape and a field takes
precedence. A table of the file may name several shapes, separated by spaces.
"""

import tomllib
from functools import cache
from importlib import resources
from typing import NamedTuple


class Descriptions(NamedTuple):
    """The texts by field, by shape and field, and by the kind of object that a path parameter refers to."""

    fields: dict[str, str]
    shapes: dict[str, dict[str, str]]
    path: dict[str, str]

    def of_field(self, shape: str, field: str) -> str:
        """Return the description of a field of a shape; empty if it has none."""
        return self.shapes.get(shape, {}).get(field) or self.fields.get(field, "")


@cache
def descriptions() -> Descriptions:
    """Return all texts. The file is read once."""
    text = resources.files(__package__).joinpath("descriptions.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    shapes: dict[str, dict[str, str]] = {}
    for names, fields in tables["shapes"].items():
        for name in names.split():
            assert shapes.setdefault(name, {}).keys().isdisjoint(fields), f"two tables describe a field of {name}"
            shapes[name] |= fields
    return Descriptions(tables["fields"], shapes, tables["path"])
