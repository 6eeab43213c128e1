"""Where pages of lists ended, so that the next page goes on there whatever has arrived in front of it meanwhile."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

KEPT_MS = 600_000
"""How long a list may be paged through with a pause between two pages, in milliseconds."""

BOOKMARKS_MAX = 20_000
"""Bookmarks in a process, about 0.5 KB each; the oldest goes first."""


class Bookmarks:
    """The last entry of a page by its list and by the index of the entry that comes next. For use by several threads."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[Hashable, int], tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, name: Hashable, index: int, place: Any, now_ms: int) -> None:
        """Remembers what comes before the entry number ``index`` of a list."""
        with self._lock:
            self._places[name, index] = place, now_ms
            self._places.move_to_end((name, index))
            if len(self._places) > BOOKMARKS_MAX:
                self._places.popitem(last=False)

    def find(self, name: Hashable, index: int, now_ms: int) -> Any | None:
        """What came before the entry when it was last remembered, None when that was never or too long ago."""
        with self._lock:
            place, put_ms = self._places.get((name, index), (None, 0))
        return place if now_ms - put_ms <= KEPT_MS else None

    def clear(self) -> None:
        """Forgets all of them: where they point is nothing any more."""
        with self._lock:
            self._places.clear()
