"""Bookmarks: the positions at which the pages of a connection's lists ended.

The next page of a reader begins behind the last entry of its previous page, so arrivals do not shift it. A bookmark belongs to
a connection, a list and the index that follows the page.

Several readers can share a connection. A reader that finds another reader's bookmark may get an entry twice, but must not miss
one. While entries only arrive, a bookmark is never behind the end of an earlier page with the same index. A page at a plain
offset is in front of all of them, so it removes the bookmarks that it does not confirm. Of two positions with the same index, the
position nearer to the front of the list is kept.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

KEPT_S = 600.0
"""Age in seconds after which a bookmark is no longer used."""

LIST_MAX = 8
"""Maximum number of bookmarks of a list on a connection; the bookmark with the lowest index is removed first."""

CONNECTION_MAX = 128
"""Maximum number of bookmarks of a connection. A bookmark has at most 0.7 KB.

Bookmarks of lists that were read to their end are removed first, and then those of the least recently used list.
"""

Position = tuple[Any, ...]
"""The sort keys of an entry."""


class Start(NamedTuple):
    """Beginning of a page: behind the entry at ``after``, or at the plain offset if that is None.

    ``number`` counts the pages of the connection.
    """

    number: int
    after: Position | None


class _List:
    """Bookmarks of a list by index, each with its creation time. ``number`` is the number of the last page."""

    __slots__ = ("marks", "number")

    def __init__(self) -> None:
        self.marks: dict[int, tuple[Position, float]] = {}
        self.number = 0

    def begin(self, index: int, positions: Sequence[Position]) -> None:
        """Remove the bookmarks that a page at a plain offset does not confirm."""
        places = dict(enumerate(positions, index + 1))
        self.marks = {mark_index: mark for mark_index, mark in self.marks.items() if places.get(mark_index) == mark[0]}

    def put(self, index: int, position: Position, now_s: float, *, descending: bool) -> None:
        """Add a bookmark, and remove the lowest one if there are too many.

        An index whose bookmark was removed is lower than all others, so it gets no other bookmark.
        """
        if (mark := self.marks.get(index)) is not None:
            position = max(position, mark[0]) if descending else min(position, mark[0])
        self.marks[index] = position, now_s
        if len(self.marks) > LIST_MAX:
            del self.marks[min(self.marks)]


class Bookmarks:
    """Bookmarks of one connection. Safe for use by several threads."""

    __slots__ = ("_clock", "_lists", "_lock", "_pages")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lists: OrderedDict[bytes, _List] = OrderedDict()
        self._pages = 0
        self._lock = threading.Lock()

    def find(self, key: bytes, index: int) -> Start:
        """Return the start of the page of a list that begins at ``index``."""
        with self._lock:
            self._pages += 1
            bookmarks = self._lists.get(key)
            mark = bookmarks.marks.get(index) if bookmarks is not None and index else None
            is_known = mark is not None and self._clock() - mark[1] <= KEPT_S
            return Start(self._pages, mark[0] if mark is not None and is_known else None)

    def put(self, key: bytes, index: int, start: Start, positions: Sequence[Position], *, descending: bool) -> None:
        """Record the end of a page that began at ``index`` and has entries at these positions."""
        with self._lock:
            bookmarks = self._lists.pop(key, None) or _List()
            self._lists[key] = bookmarks
            if start.number < bookmarks.number:
                # A later page of the connection has ended before: this request was abandoned.
                return
            bookmarks.number = start.number
            if start.after is None:
                bookmarks.begin(index, positions)
            bookmarks.put(index + len(positions), positions[-1], self._clock(), descending=descending)
            while sum(len(known.marks) for known in self._lists.values()) > CONNECTION_MAX:
                self._lists.popitem(last=False)

    def end(self, key: bytes) -> None:
        """Record that the last page of a list was read."""
        with self._lock:
            if key in self._lists:
                self._lists.move_to_end(key, last=False)
