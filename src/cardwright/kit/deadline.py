"""Deadlines: the time until which a request must have an answer, handed down to whatever works on it."""

from contextvars import ContextVar
from time import monotonic

ANSWER_S = 4.5
"""A request is answered so long after its arrival at the latest; networks and clients give up after five seconds."""

DECIDE_S = 4.0
"""What a message has of that to be decided: the answer must still be written."""

deadline: ContextVar[float] = ContextVar("deadline")
"""Until when the request under way must be answered, a time of ``time.monotonic`` and of the event loop."""


def seconds_left() -> float:
    """How much time the request under way has left; at least 0."""
    return max(0.0, deadline.get() - monotonic())
