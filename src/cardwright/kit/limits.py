"""Time limits: the maximum duration of a request and of its parts, and the deadline of the current request."""

from contextvars import ContextVar
from dataclasses import dataclass

ANSWER_S = 4.5
"""Default of the maximum time to answer a request, in seconds: clients give up after five seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in seconds. Those within a request are fractions of ``answer_s``.

    ``transaction_s`` is the maximum duration of a transaction that no request waits for; None sets no limit.
    """

    answer_s: float = ANSWER_S
    transaction_s: float | None = 30.0

    @property
    def margin_s(self) -> float:
        """Return the time that a message must leave of its request after its decision: the response must still be written."""
        return self.answer_s / 9

    @property
    def batch_s(self) -> float:
        """Return the minimum time that a message must have left when a batch takes it; otherwise the batch would be aborted."""
        return self.answer_s / 3

    @property
    def connect_s(self) -> int:
        """Return the maximum wait for one host to accept a connection, in whole seconds; libpq uses at least two."""
        return max(2, int(self.read_s))

    @property
    def lock_s(self) -> float:
        """Return the maximum wait for a lock of another transaction.

        It is less than ``batch_s``, so the wait ends before the batch.
        """
        return self.answer_s * 3 / 10

    @property
    def read_s(self) -> float:
        """Return the maximum duration of the reads for a message: card, configuration, credential."""
        return self.answer_s * 4 / 9

    @property
    def statement_s(self) -> float:
        """Return the maximum duration of a statement of a batch, and the maximum wait for a response of the monitor."""
        return self.answer_s * 2 / 3

    @property
    def ready_s(self) -> float:
        """Return the maximum wait for the database in a readiness check."""
        return self.answer_s / 3


PATIENT = Limits(answer_s=60.0, transaction_s=None)
"""Limits of commands, which their user can interrupt."""

deadline: ContextVar[float] = ContextVar("deadline")
"""Deadline of the current request, a time of ``time.monotonic`` and of the event loop, in seconds."""
