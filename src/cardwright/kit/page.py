"""Lists in pages: which part of a list a caller asked for, and the ``fields`` filter."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Page:
    """A request for ``count`` objects from ``start_index`` on, in the order of ``sort_by`` (``-`` in front: descending)."""

    count: int
    start_index: int
    sort_by: str


def only_fields(value: Any, names: frozenset[str]) -> Any:
    """The value with only the named fields, at every level: a nested field stays when its name and its parents' are named."""
    match value:
        case dict():
            return {key: only_fields(inner, names) for key, inner in value.items() if key in names}
        case list():
            return [only_fields(inner, names) for inner in value]
        case _:
            return value
