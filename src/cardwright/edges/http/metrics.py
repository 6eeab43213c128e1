"""HTTP metrics: counters of answers and refusals for ``/metrics``."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

KNOWN_VERBS = frozenset({"GET", "POST", "PUT", "DELETE"})


class Answers(Collector):
    """A counter of answered requests by verb and status. Only the event loop uses it, so it needs no lock."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()

    def count(self, verb: str, status: int) -> None:
        """Count an answered request. All unknown verbs share the label ``other``."""
        self._counts[verb if verb in KNOWN_VERBS else "other", status] += 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter family."""
        family = CounterMetricFamily("cardwright_http_requests", "Answered API requests", labels=["verb", "status"])
        for (verb, status), count in sorted(self._counts.items()):
            family.add_metric([verb, str(status)], count)
        yield family


class Refusals(Collector):
    """A counter of refused requests and connections by reason: an exceeded limit, or malformed bytes."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """Count a refusal."""
        self._counts[reason] += 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter family."""
        family = CounterMetricFamily("cardwright_refused_connections", "Connections ended by the server", labels=["reason"])
        for reason, count in sorted(self._counts.items()):
            family.add_metric([reason], count)
        yield family


ANSWERS, REFUSALS = Answers(), Refusals()
REGISTRY.register(ANSWERS)
REGISTRY.register(REFUSALS)
count_answer, count_refusal = ANSWERS.count, REFUSALS.count
