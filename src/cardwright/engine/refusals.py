"""Refusals: the answers 503 to messages that were not decided, or whose outcome is unknown."""

from prometheus_client import Counter

from cardwright.core.problems import UNAVAILABLE, Problem

STOPPING, LATE = "the server is stopping", "the request took too long"
CONFLICTS = "locks of other transactions or conflicts with them took too long"

REFUSED = Counter("cardwright_messages_refused_total", "Messages answered 429 or 503 without a decision", ["reason"])


def not_booked(reason: str) -> Problem:
    """Return the problem for a message that was not booked and will not be booked later."""
    return Problem(UNAVAILABLE, f"{reason}; nothing was booked, try again later")


def refusal(label: str, reason: str) -> Problem:
    """Return the problem of ``not_booked``, and count it in ``/metrics`` under a label."""
    REFUSED.labels(label).inc()
    return not_booked(reason)


def unknown_outcome(name: str | None, when: str = "in time") -> Problem:
    """Return the problem for a message whose batch may have been committed. ``name`` contains its token, if known."""
    subject = "the outcome" if name is None else f"the outcome of {name}"
    next_step = "look it up by its token, or repeat the request with the same token"
    return Problem(UNAVAILABLE, f"the database did not confirm the commit {when}, so {subject} is unknown; {next_step}")
