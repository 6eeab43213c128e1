"""Id blocks: the source of transaction ids, from ranges that one process has for itself."""


class IdSource:
    """A source of transaction ids for this process. They are odd; the even id after each belongs to its load side."""

    def __init__(self) -> None:
        self._left = range(0)
        self._end = 0

    def refill(self, block: range) -> None:
        """Replace the current block with a new one. Ids that are left in the current block are not used.

        On SQLite a block begins after the highest stored id, so it can contain ids that a batch has drawn and not written yet.
        These are skipped.
        """
        self._left = range(max(block.start, self._end), block.stop, block.step)
        self._end = block.stop

    def has(self, count: int) -> bool:
        """Return True if at least ``count`` ids are left."""
        return len(self._left) >= count

    @property
    def first(self) -> int:
        """The next id. All later ids are higher."""
        return self._left.start

    def next(self) -> int:
        """Draw the next id."""
        row_id, self._left = self._left[0], self._left[1:]
        return row_id
