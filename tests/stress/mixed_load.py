"""Mixed load: many clients call every route at once with shared tokens; no answer is 5xx, and the books balance afterwards."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.stress import check
from tests.stress.object_graph import ALL, ObjectGraph, Place, filled, required_query, working_values
from tests.support.server import RunningServer

CLIENTS = 16

LEFT_OUT = {
    ("POST", "/sandbox/reset"), ("POST", "/sandbox/clock"), ("POST", "/sandbox/clock/advance"), ("POST", "/sandbox/programs"),
    ("GET", "/sandbox/inbox/{box}"), ("POST", "/v3/webhooks/{token}/ping"),
}  # fmt: skip
"""Routes that disturb all other clients, and routes that wait for other servers."""

GOOD_AGAIN = {"state": "ACTIVE", "status": "ACTIVE"}
"""Values of most transitions. Without them no card or user would stay active."""


@dataclass(slots=True)
class Figures:
    """The counts of a mixed load."""

    database: str = ""
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0


def run(address: str, *, seconds: float, seed: int, workers: int | None = None) -> Figures:
    """Run a mixed load for some seconds on an empty database. Raises AssertionError for a 5xx or a broken invariant."""
    figures = Figures("PostgreSQL" if "://" in address else "SQLite", seconds=seconds)
    with RunningServer(db=address, workers=workers) as server:
        with server.client(timeout_s=60) as client:
            first = ObjectGraph(client, server.root_url, "default", "first")
            first.make()
            targets = {place: values for place in ALL if place not in LEFT_OUT and (values := _values(first, place)) is not None}
        load_clients = [LoadClient(server, first, number, seed, targets) for number in range(CLIENTS)]
        _run_all(load_clients, seconds)
        for load_client in load_clients:
            assert not load_client.odd, load_client.odd[:5]
            figures.statuses += load_client.statuses
        with check.database_at(address) as database:
            check.verify(database)
        assert "Traceback" not in server.output(), server.output()[-8000:]
    return figures


def _values(object_graph: ObjectGraph, place: Place) -> tuple[str, ...] | None:
    # Find the values of a DELETE with the GET of the same path, which removes nothing.
    return working_values(object_graph, ("GET", place[1]) if ("GET", place[1]) in ALL else place)


class LoadClient:
    """A client that calls routes at random."""

    def __init__(self, server: RunningServer, first: ObjectGraph, number: int, seed: int, targets: dict[Place, Any]) -> None:
        self.statuses: Counter[int] = Counter()
        self.odd: list[str] = []
        client, mark = server.client(timeout_s=60), f"mark {number % 3}"
        self._object_graph = ObjectGraph(client, server.root_url, "default", mark, words=dict(first.words))
        self._dice = random.Random(f"{seed}-{number}")
        self._targets = targets

    def run(self, deadline: float) -> None:
        """Call routes until the deadline or the first 5xx."""
        places = sorted(self._targets)
        while time.monotonic() < deadline and not self.odd:
            place = self._dice.choice(places)
            query = "&".join(f"{name}={value}" for name, value in required_query(self._object_graph, place).items())
            reply = self._object_graph.client.request(
                place[0], f"{filled(place[1], self._targets[place])}?{query}", self._body(place)
            )
            self.statuses[reply.status] += 1
            if reply.status >= 500:
                self.odd.append(f"{place}: {reply.status} {reply.text}")

    def _body(self, place: Place) -> Any:
        body = self._object_graph.body_of(place)
        if not isinstance(body, dict):
            return body
        if self._dice.random() < 0.5:
            body = {name: value for name, value in body.items() if name != "token"}
        if self._dice.random() < 0.7:
            body |= {name: value for name, value in GOOD_AGAIN.items() if name in body}
        return body


def _run_all(load_clients: list[LoadClient], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=load_client.run, args=(deadline,), daemon=True) for load_client in load_clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
