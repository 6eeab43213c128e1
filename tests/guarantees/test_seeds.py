"""Seeds: the same seed and the same calls give the same bytes for every kind of resource."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stress.object_graph import ALL, FRUITLESS, ObjectGraph, Place, ask, working_values
from tests.support.receiver import Receiver, a_receiver
from tests.support.server import Client, Reply, RunningServer

TIMED = {("GET", "/sandbox/deliveries")}
"""Routes whose answers depend on real time or on the order of arrival."""

LASTING = "/sandbox/credentials"
"""The beginning of the paths of credentials, which have a real time of creation and survive a reset."""

UNFINISHED = ("QUEUED", "RUNNING")
"""States of background work. The number of answers with them depends on the speed of the machine."""

ENDS_ALL = ("POST", "/sandbox/reset")


class Recorder(Client):
    """A client that records all answers, except those about unfinished background work and about credentials."""

    exchanges: list[tuple[str, int, str]]

    def request(self, method: str, path: str, body: object = None, **options: Any) -> Reply:
        reply = super().request(method, path, body, **options)
        is_unfinished = method == "GET" and isinstance(reply.json, dict) and reply.json.get("state") in UNFINISHED
        if not is_unfinished and not path.startswith(LASTING):
            self.__dict__.setdefault("exchanges", []).append((f"{method} {path} {body}", reply.status, reply.text))
        return reply


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Receiver]:
    """Yield one receiver for the notifications of both instances, because the answers contain its address."""
    with a_receiver() as receiver:
        yield receiver


def story(folder: Path, seed: int, root_url: str) -> list[tuple[str, int, str]]:
    """Call every route of a new instance with a frozen clock, in a fixed order; return all recorded answers."""
    with RunningServer(db=str(folder / "cardwright.db"), seed=seed) as server:
        client = Recorder(server.root_url, server.application_token, server.access_token)
        object_graph = ObjectGraph(client, root_url, "default", "seeded")
        object_graph.make()
        for place in sorted((place for place in ALL if place != ENDS_ALL), key=lambda place: place[0] == "DELETE"):
            tell(object_graph, place)
        return client.exchanges


def tell(object_graph: ObjectGraph, place: Place) -> None:
    """Call a route with working values. Answers of routes in TIMED are not recorded."""
    kept = len(object_graph.client.__dict__["exchanges"])
    values = FRUITLESS.get(place[1]) or working_values(object_graph, place) or ("nobody",) * place[1].count("{")
    ask(object_graph, place, values)
    if place in TIMED:
        del object_graph.client.__dict__["exchanges"][kept:]


def test_equal_seeds_give_equal_bytes(tmp_path: Path, elsewhere: Receiver) -> None:
    """Two new instances with one seed give the same bytes in each call of every route."""
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    first_story, second_story = (story(folder, 7, elsewhere.url.removesuffix("/hook")) for folder in (first, second))
    assert len(first_story) > 100
    for exchange, repeated in zip(first_story, second_story, strict=True):
        assert exchange == repeated


def test_a_reset_begins_again(tmp_path: Path, elsewhere: Receiver) -> None:
    """After a reset, the same calls give the same bytes as before it."""
    with RunningServer(db=str(tmp_path / "cardwright.db"), seed=7) as server:
        client, stories = Recorder(server.root_url, server.application_token, server.access_token), []
        for _ in range(2):
            ObjectGraph(client, elsewhere.url.removesuffix("/hook"), "default", "seeded").make()
            stories.append(client.__dict__.pop("exchanges"))
            assert client.post("/sandbox/reset", {}).status == 200
            client.__dict__.pop("exchanges")
    assert stories[0] == stories[1]


def test_other_seeds_give_other_bytes(tmp_path: Path, elsewhere: Receiver) -> None:
    """Instances with different seeds give different generated tokens."""
    texts = []
    for seed in (7, 8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with RunningServer(db=str(folder / "cardwright.db"), seed=seed) as server, server.client() as client:
            texts.append(client.post("/users", {}).text)
    assert texts[0] != texts[1]
