"""Deadlines: the time until which a request must have an answer, handed down to whatever works on it."""

from contextvars import ContextVar

ANSWER_S = 4.5
"""A request is answered so long after its arrival unless a setting says otherwise: clients give up after five seconds."""

MARGIN_S = 0.5
"""What a message leaves of that time when it is decided: its answer must still be written."""

deadline: ContextVar[float] = ContextVar("deadline")
"""Until when the request under way must be answered, a time of ``time.monotonic`` and of the event loop."""
