"""What ``/metrics`` tells, in Prometheus' text form."""

from functools import cache

from prometheus_client import Counter

REQUESTS = Counter("cardwright_http_requests_total", "Answered API requests", ["verb", "status"])

KNOWN_VERBS = frozenset({"GET", "POST", "PUT", "DELETE"})


@cache
def _answers(verb: str, status: int) -> Counter:
    return REQUESTS.labels(verb, str(status))


def count_answer(verb: str, status: int) -> None:
    """Counts an answered request; a verb that nobody knows is not given a series of its own."""
    _answers(verb if verb in KNOWN_VERBS else "other", status).inc()
