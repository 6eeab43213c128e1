"""Bookmarks: a single reader of a connection gets every entry once, several readers miss none, and all limits hold."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from cardwright.kit.bookmarks import CONNECTION_MAX, KEPT_S, LIST_MAX, Bookmarks, Position, Start
from cardwright.kit.page import Page

LIST = b"list"


class Growing:
    """A sorted list that gets and loses entries in any place."""

    def __init__(self, drawn: random.Random, size: int, *, descending: bool) -> None:
        self.drawn, self.descending = drawn, descending
        self.entries = sorted(drawn.sample(range(1_000_000), size), reverse=descending)

    def arrive(self, count: int, *, in_front: float = 0.6) -> None:
        """Add entries, most of them in front, as in a list with the newest entry first."""
        for _ in range(count):
            edge = max(self.entries) if self.drawn.random() < in_front else self.drawn.randrange(1_000_000)
            self.entries.append(edge + 1 + self.drawn.randrange(50))
        self.entries = sorted(set(self.entries), reverse=self.descending)

    def leave(self, count: int) -> None:
        """Remove entries, as from a list of one state when states change."""
        for entry in self.drawn.sample(self.entries, min(count, len(self.entries) // 2)):
            self.entries.remove(entry)

    def read(self, page: Page) -> tuple[list[int], bool]:
        """Read a page like a resource; return its entries and whether more follow."""
        start = page.start()
        rest = self.entries[page.start_index :] if start.after is None else self._behind(start.after)
        shown, is_more = rest[: page.count], len(rest) > page.count
        page.end(start, [(entry,) for entry in shown], is_more=is_more, descending=self.descending)
        return shown, is_more

    def _behind(self, position: Position) -> list[int]:
        return [entry for entry in self.entries if (entry < position[0] if self.descending else entry > position[0])]


@dataclass
class Reader:
    """A client that adds the number of entries of each page to ``start_index``."""

    source: Growing
    connection: Bookmarks
    key: bytes = LIST
    counts: Sequence[int] = (1, 2, 3, 5, 10)
    got: list[int] = field(default_factory=list)
    is_done: bool = False

    def __post_init__(self) -> None:
        self.expected = set(self.source.entries)

    def turn(self) -> None:
        """Read one page."""
        page = Page(self.source.drawn.choice(self.counts), len(self.got), "", self.connection, self.key)
        shown, is_more = self.source.read(page)
        self.got += shown
        self.is_done = not is_more


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("seed", range(100))
def test_a_reader_of_its_own_connection_gets_every_entry_once(seed: int, descending: bool) -> None:
    """A reader with its own connection gets every remaining entry exactly once while entries arrive and leave.

    It reads the list several times, sometimes incompletely, and reads another list in between.
    """
    drawn = random.Random(seed)
    source, connection = Growing(drawn, 40, descending=descending), Bookmarks()
    for _ in range(6):
        reader, other, gone = Reader(source, connection), Reader(source, connection, b"other"), set[int]()
        for _ in range(drawn.choice((2, 5, 1000))):
            reader.turn()
            if reader.is_done:
                assert reader.expected - gone <= set(reader.got)
                break
            if not other.is_done:
                other.turn()
            before = set(source.entries)
            source.leave(drawn.choice((0, 0, 1, 3)))
            gone |= before - set(source.entries)
            source.arrive(drawn.choice((0, 1, 3)) if len(source.entries) < 60 else 0)
        assert len(reader.got) == len(set(reader.got))


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("seed", range(100))
def test_readers_of_a_shared_connection_miss_nothing(seed: int, descending: bool) -> None:
    """Several readers of a connection, in any order and with any counts, each get all entries that existed at their start.

    They begin one by one or all together. There are two or three of them, or more than a list has bookmarks.
    """
    drawn = random.Random(seed)
    source, connection = Growing(drawn, 60, descending=descending), Bookmarks()
    many, begins, in_front = drawn.choice((2, 3, 12)), drawn.choice((0.3, 1)), drawn.choice((0, 0.6))
    readers = list[Reader]()
    for _ in range(100):
        if len(readers) < many and drawn.random() < begins:
            readers.append(Reader(source, connection))
        turns = [reader for reader in readers if not reader.is_done and (begins < 1 or len(readers) == many)]
        if turns:
            drawn.choice(turns).turn()
        source.arrive(drawn.choice((0, 0, 1, 3)), in_front=in_front)
    for reader in readers:
        while not reader.is_done:
            reader.turn()
        assert reader.expected <= set(reader.got)


def test_readers_that_begin_together_share_without_a_repeat() -> None:
    """Two readers with counts of 5 and 10 on one connection each get every entry once, with three arrivals before every page."""
    source, connection = Growing(random.Random(1), 60, descending=True), Bookmarks()
    readers = [Reader(source, connection, counts=(count,)) for count in (5, 10)]
    for reader in readers:
        reader.turn()
    while not all(reader.is_done for reader in readers):
        for reader in readers:
            source.entries = [max(source.entries) + 3 - number for number in range(3)] + source.entries
            if not reader.is_done:
                reader.turn()
    for reader in readers:
        assert sorted(reader.got) == sorted(reader.expected)


def test_a_page_can_be_repeated() -> None:
    """A repeated request returns the same page, and the next page follows it."""
    source, connection = Growing(random.Random(2), 30, descending=True), Bookmarks()
    first = source.entries[:]
    for start in (0, 10, 10, 20, 20):
        shown, _ = source.read(Page(10, start, "", connection, LIST))
        assert shown == first[start : start + 10]
        source.entries.insert(0, max(source.entries) + 1)


def test_a_follower_goes_on_at_the_end_of_an_ascending_list() -> None:
    """A reader at the end of an ascending list gets a new entry there, although the list has lost an entry in front."""
    source, connection = Growing(random.Random(3), 12, descending=False), Bookmarks()
    reader = Reader(source, connection, counts=(5,))
    while not reader.is_done:
        reader.turn()
    del source.entries[0]
    source.entries.append(max(source.entries) + 1)
    reader.turn()
    assert reader.got[-1] == source.entries[-1]
    assert len(set(reader.got)) == 13


# --- Limits -------------------------------------------------------------------------------


def put(kept: Bookmarks, key: bytes, index: int, position: int) -> None:
    """Put a bookmark like the second page of a list."""
    start = kept.find(key, index - 1)
    kept.put(key, index - 1, Start(start.number, (0,)), [(position,)], descending=True)


def marked(kept: Bookmarks, key: bytes, index: int) -> Position | None:
    return kept.find(key, index).after


def test_a_bookmark_grows_old() -> None:
    """A bookmark expires after KEPT_S seconds."""
    now = 0.0
    kept = Bookmarks(lambda: now)
    put(kept, LIST, 5, 7)
    now = KEPT_S
    assert marked(kept, LIST, 5) == (7,)
    now = KEPT_S + 1
    assert marked(kept, LIST, 5) is None


def test_a_bookmark_belongs_to_connection_list_and_index() -> None:
    """Another connection, list or index does not find the bookmark, and index 0 has none."""
    kept = Bookmarks()
    put(kept, LIST, 5, 7)
    assert marked(kept, LIST, 5) == (7,)
    assert marked(kept, LIST, 0) is None
    assert marked(kept, LIST, 4) is None
    assert marked(kept, b"another list", 5) is None
    assert marked(Bookmarks(), LIST, 5) is None


def test_the_bookmarks_of_a_list_are_limited() -> None:
    """A list keeps LIST_MAX bookmarks, those with the highest indexes. A lower one is not added to a full list."""
    kept = Bookmarks()
    for index in range(1, LIST_MAX + 2):
        put(kept, LIST, index, 100 - index)
    assert [index for index in range(1, LIST_MAX + 2) if marked(kept, LIST, index)] == list(range(2, LIST_MAX + 2))
    put(kept, LIST, 1, 50)
    assert marked(kept, LIST, 1) is None


def test_the_bookmarks_of_a_connection_are_limited() -> None:
    """A connection keeps CONNECTION_MAX bookmarks and removes those of the least recently used list first."""
    kept = Bookmarks()
    for number in range(CONNECTION_MAX + 1):
        put(kept, b"%d" % number, 10, 1)
    assert [number for number in range(CONNECTION_MAX + 1) if not marked(kept, b"%d" % number, 10)] == [0]


def test_lists_within_a_list_leave_its_bookmark() -> None:
    """A reader that reads a whole list for each of 100 entries of a page still continues behind that page."""
    drawn, connection = random.Random(4), Bookmarks()
    outer = Growing(drawn, 250, descending=True)
    reader = Reader(outer, connection, counts=(100,))
    while not reader.is_done:
        reader.turn()
        outer.arrive(3)
        for number in range(100):
            inner = Reader(Growing(drawn, 40, descending=True), connection, b"%d" % number, counts=(5,))
            while not inner.is_done:
                inner.turn()
    assert len(reader.got) == len(set(reader.got))
    assert reader.expected <= set(reader.got)


def test_a_page_that_was_given_up_changes_nothing() -> None:
    """A request that was answered with 503 may end its page later, and this does not move newer bookmarks."""
    kept = Bookmarks()
    late, start = kept.find(LIST, 0), kept.find(LIST, 0)
    kept.put(LIST, 0, start, [(9,), (8,)], descending=True)
    kept.put(LIST, 0, late, [(7,), (6,)], descending=True)
    assert marked(kept, LIST, 2) == (8,)
