"""Time limits: how long a request and the parts of its work may take, and the deadline of the request under way."""

from contextvars import ContextVar
from dataclasses import dataclass

ANSWER_S = 4.5
"""A request is answered so long after its arrival unless a setting says otherwise: clients give up after five seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in seconds; all of those within a request follow from ``answer_s``.

    ``transaction_s`` is the longest transaction that no request waits for; None sets no limit.
    """

    answer_s: float = ANSWER_S
    transaction_s: float | None = 30.0

    @property
    def margin_s(self) -> float:
        """What a message leaves of its request's time when it is decided: its answer must still be written."""
        return self.answer_s / 9

    @property
    def batch_s(self) -> float:
        """The least time that a message must have left when a batch takes it, or the batch would be broken off."""
        return self.answer_s / 3

    @property
    def connect_s(self) -> int:
        """The longest wait for one host to accept a connection, in whole seconds; libpq takes no less than two."""
        return max(2, int(self.read_s))

    @property
    def lock_s(self) -> float:
        """The longest wait for a lock that another transaction holds; less than ``batch_s``, so that it ends before the batch."""
        return self.answer_s * 3 / 10

    @property
    def read_s(self) -> float:
        """The longest read of what a message needs: card, configuration, credential."""
        return self.answer_s * 4 / 9

    @property
    def statement_s(self) -> float:
        """The longest statement of a batch, and the longest wait for an answer of the monitor."""
        return self.answer_s * 2 / 3

    @property
    def ready_s(self) -> float:
        """The longest wait for the database when readiness is asked for."""
        return self.answer_s / 3


PATIENT = Limits(answer_s=60.0, transaction_s=None)
"""For a command that a person waits for and can break off."""

deadline: ContextVar[float] = ContextVar("deadline")
"""Until when the request under way must be answered, a time of ``time.monotonic`` and of the event loop."""
