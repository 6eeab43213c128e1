"""What ``/metrics`` tells of the API, in Prometheus' text form."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

KNOWN_VERBS = frozenset({"GET", "POST", "PUT", "DELETE"})


class Answers(Collector):
    """Answered requests by verb and status. Counted on the event loop alone, so without the lock of a general counter."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()

    def count(self, verb: str, status: int) -> None:
        """Counts an answered request; a verb that nobody knows is not given a series of its own."""
        self._counts[verb if verb in KNOWN_VERBS else "other", status] += 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What has been counted so far."""
        family = CounterMetricFamily("cardwright_http_requests", "Answered API requests", labels=["verb", "status"])
        for (verb, status), count in sorted(self._counts.items()):
            family.add_metric([verb, str(status)], count)
        yield family


ANSWERS = Answers()
REGISTRY.register(ANSWERS)
count_answer = ANSWERS.count
