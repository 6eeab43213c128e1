"""Pages of lists: the requested part of a list, and the ``fields`` filter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cardwright.kit.bookmarks import Bookmarks, Position, Start


@dataclass(frozen=True, slots=True)
class Page:
    """Request for ``count`` objects from ``start_index`` on, in the order of ``sort_by`` (``-`` in front: descending).

    ``bookmarks`` are those of the request's connection. ``key`` names the list in them.
    """

    count: int
    start_index: int
    sort_by: str
    bookmarks: Bookmarks = field(default_factory=Bookmarks)
    key: bytes = b""

    def start(self) -> Start:
        """Return the beginning of the page. Without a bookmark it is behind the first ``start_index`` entries of the list."""
        return self.bookmarks.find(self.key, self.start_index)

    def end(self, start: Start, positions: Sequence[Position], *, is_more: bool, descending: bool) -> None:
        """Record the end of the page. ``positions`` are those of its entries."""
        # New entries can follow the last page of an ascending list, so its reader can continue there.
        if positions and (is_more or not descending):
            self.bookmarks.put(self.key, self.start_index, start, positions, descending=descending)
        if not is_more:
            self.bookmarks.end(self.key)


def only_fields(value: Any, names: frozenset[str]) -> Any:
    """Return the value with only the named fields, at every level.

    A nested field stays if its name and its parents' names are listed.
    """
    match value:
        case dict():
            return {key: only_fields(inner, names) for key, inner in value.items() if key in names}
        case list():
            return [only_fields(inner, names) for inner in value]
        case _:
            return value
