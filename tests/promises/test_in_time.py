"""Nobody's webhook holds up an answer, however badly it behaves."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.storm import town
from tests.storm.volley import Battery, Shot
from tests.support import free_port
from tests.support.receiver import a_receiver
from tests.support.server import HOST, RunningServer

AT_ONCE = 16
VOLLEYS = 24
SLOWEST_MS = 2_000
"""What a card network's patience leaves to the issuer's own decision, generously."""


@contextmanager
def a_silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(256)
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Webhooks that answer, refuse, hang, redirect, fail, and are nowhere."""
    with ExitStack() as stack:
        good, redirecting, failing = (stack.enter_context(a_receiver()) for _ in range(3))
        redirecting.answers = [302] * 10_000
        failing.answers = [500] * 10_000
        silent = stack.enter_context(a_silent_port())
        yield {
            "answers": good.url, "refuses": f"http://{HOST}:{free_port()}/", "hangs": f"http://{HOST}:{silent}/",
            "redirects": redirecting.url, "fails": failing.url, "is nowhere": "http://nowhere.invalid/",
        }  # fmt: skip


def slowest_ms(shots: list[Shot], share: float = 0.99) -> float:
    """What this share of the answers stayed within."""
    took = sorted(shot.answered_ns - shot.sent_ns for shot in shots)
    return took[int(len(took) * share) - 1] / 1e6


def test_webhooks_never_delay_an_answer(server: RunningServer, addresses: dict[str, str]) -> None:
    """Purchases that name a webhook which refuses, hangs, redirects or fails are answered as soon as those that name none."""
    with server.client() as client:
        # Other tests may have stopped the clock, and with it the retries that make this harder.
        town.made(client.post("/sandbox/clock", {"freeze": False}))
        card = town.build(client, 1)[0]
    took: dict[str, list[Shot]] = {name: [] for name in ("none", *addresses)}
    with Battery(server, AT_ONCE) as battery:
        for volley in range(VOLLEYS):
            # Taken in turns, so that whatever else the machine does happens to all of them.
            for name in took:
                requests = []
                for number in range(AT_ONCE):
                    body = town.purchase(card.token, 100, f"{name[:9]}-{volley}-{number}")
                    requests.append(("POST", "/v3/simulate/authorization", body | _webhook(addresses.get(name))))
                took[name] += battery.fire(requests)
    assert {shot.status for shots in took.values() for shot in shots} == {201}
    without = slowest_ms(took["none"])
    for name, shots in took.items():
        assert slowest_ms(shots) < 5 * without + 200, (name, slowest_ms(shots), without)
        assert slowest_ms(shots, 1.0) < SLOWEST_MS, (name, slowest_ms(shots, 1.0))


def _webhook(url: str | None) -> dict[str, dict[str, str]]:
    return {} if url is None else {"webhook": {"endpoint": url}}
