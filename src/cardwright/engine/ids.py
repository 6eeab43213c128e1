"""Where the ids of transactions come from: blocks that a process has for itself."""


class IdSource:
    """Transaction ids for this process: odd ones for messages, each followed by the id of its load side."""

    def __init__(self) -> None:
        self._block = iter(range(0))
        self._left = 0

    def refill(self, block: range) -> None:
        """Takes over a block; what was left of the one before is given up."""
        self._block, self._left = iter(block), len(block)

    def has(self, count: int) -> bool:
        """Whether so many ids are left."""
        return self._left >= count

    def next(self) -> int:
        """The next id."""
        self._left -= 1
        return next(self._block)
