"""Where the ids of transactions come from: blocks that a process has for itself."""


class IdSource:
    """Transaction ids for this process: odd ones for messages, each followed by the id of its load side."""

    def __init__(self) -> None:
        self._left = range(0)
        self._end = 0

    def refill(self, block: range) -> None:
        """Takes over a block; what was left of the one before is given up.

        A block that begins after what is stored may begin among ids that a batch has and did not write yet: these are left out.
        """
        self._left = range(max(block.start, self._end), block.stop, block.step)
        self._end = block.stop

    def has(self, count: int) -> bool:
        """Whether so many ids are left."""
        return len(self._left) >= count

    @property
    def first(self) -> int:
        """The id that is drawn next; all later ones are higher."""
        return self._left.start

    def next(self) -> int:
        """The next id."""
        row_id, self._left = self._left[0], self._left[1:]
        return row_id
