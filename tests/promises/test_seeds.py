"""The same seed and the same calls give the same bytes, over every kind of resource."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.storm.scenes import ALL, FRUITLESS, Place, Scene, ask, working_values
from tests.support.receiver import Receiver, a_receiver
from tests.support.server import Client, Reply, RunningServer

TIMED = {("GET", "/sandbox/deliveries")}
"""What tells how long something really took, or in which order it happened to arrive."""

UNFINISHED = ("QUEUED", "RUNNING")
"""States of what goes on by itself: how often one of them is seen depends on the machine."""

ENDS_ALL = ("POST", "/sandbox/reset")


class Recorder(Client):
    """A client that keeps everything that it was told, but for how far something was that goes on by itself."""

    said: list[tuple[str, int, str]]

    def request(self, method: str, path: str, body: object = None, **more: Any) -> Reply:
        reply = super().request(method, path, body, **more)
        if not (method == "GET" and isinstance(reply.json, dict) and reply.json.get("state") in UNFINISHED):
            self.__dict__.setdefault("said", []).append((f"{method} {path} {body}", reply.status, reply.text))
        return reply


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Receiver]:
    """Where both instances send their notifications: the address is in what they answer."""
    with a_receiver() as receiver:
        yield receiver


def story(folder: Path, seed: int, root_url: str) -> list[tuple[str, int, str]]:
    """A fresh instance, whose clock stands still; every route in the same order; every byte of every answer."""
    with RunningServer(db=str(folder / "cardwright.db"), seed=seed) as server:
        client = Recorder(server.root_url, server.application_token, server.access_token)
        scene = Scene(client, root_url, "default", "seeded")
        scene.make()
        for place in sorted((place for place in ALL if place != ENDS_ALL), key=lambda place: place[0] == "DELETE"):
            tell(scene, place)
        return client.said


def tell(scene: Scene, place: Place) -> None:
    """Calls a route in every way that leads to something; what is timed by the real clock is called and not kept."""
    kept = len(scene.client.__dict__["said"])
    values = FRUITLESS.get(place[1]) or working_values(scene, place) or ("nobody",) * place[1].count("{")
    ask(scene, place, values)
    if place in TIMED:
        del scene.client.__dict__["said"][kept:]


def test_equal_seeds_give_equal_bytes(tmp_path: Path, elsewhere: Receiver) -> None:
    """Two fresh instances with one seed give the same bytes, call by call, on every route."""
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    one, other = (story(folder, 7, elsewhere.url.removesuffix("/hook")) for folder in (first, second))
    assert len(one) > 100
    for said, again in zip(one, other, strict=True):
        assert said == again


def test_a_reset_begins_again(tmp_path: Path, elsewhere: Receiver) -> None:
    """After a reset the same calls give the same bytes as at first."""
    with RunningServer(db=str(tmp_path / "cardwright.db"), seed=7) as server:
        client, said = Recorder(server.root_url, server.application_token, server.access_token), []
        for _ in range(2):
            Scene(client, elsewhere.url.removesuffix("/hook"), "default", "seeded").make()
            said.append(client.__dict__.pop("said"))
            assert client.post("/sandbox/reset", {}).status == 200
            client.__dict__.pop("said")
    assert said[0] == said[1]


def test_other_seeds_give_other_bytes(tmp_path: Path, elsewhere: Receiver) -> None:
    """The seed is what decides: with another one the server-made tokens are others."""
    texts = []
    for seed in (7, 8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with RunningServer(db=str(folder / "cardwright.db"), seed=seed) as server, server.client() as client:
            texts.append(client.post("/users", {}).text)
    assert texts[0] != texts[1]
