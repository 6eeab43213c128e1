"""Nobody's webhook holds up an answer, however badly it behaves."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.stress import api_fixtures
from tests.stress.concurrent_requests import Connections
from tests.support import free_port
from tests.support.receiver import Receiver, a_receiver
from tests.support.server import HOST, Client, RunningServer
from tests.support.waiting import until

AT_ONCE = 16
ROUNDS = 8

POSTS_MAX = 8
"""Posts that are under way at once to the addresses that a program's simulations name."""


@contextmanager
def a_silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(256)
        yield listener.getsockname()[1]


@pytest.fixture
def holding() -> Iterator[Receiver]:
    """A webhook that answers nothing before the end of the test."""
    with a_receiver(holds=True) as receiver:
        yield receiver


@pytest.fixture
def addresses(holding: Receiver) -> Iterator[dict[str, str]]:
    """Webhooks that answer, refuse, hang, redirect, fail, and are nowhere."""
    with ExitStack() as stack:
        good, redirecting, failing = (stack.enter_context(a_receiver()) for _ in range(3))
        redirecting.answers = [302] * 10_000
        failing.answers = [500] * 10_000
        silent = stack.enter_context(a_silent_port())
        yield {
            "holds": holding.url, "answers": good.url, "refuses": f"http://{HOST}:{free_port()}/",
            "hangs": f"http://{HOST}:{silent}/", "redirects": redirecting.url, "fails": failing.url,
            "is nowhere": "http://nowhere.invalid/",
        }  # fmt: skip


def test_webhooks_never_delay_an_answer(server: RunningServer, holding: Receiver, addresses: dict[str, str]) -> None:
    """Purchases that name a webhook which refuses, hangs, redirects or fails are answered before anything is heard of it.

    As many posts as may be are under way meanwhile and get no answer. A purchase that waited for its own would be answered
    after the attempt's time is over; then the attempt would be in the list of deliveries.
    """
    with server.client() as client, Connections([server], AT_ONCE) as connections:
        # Other tests may have stopped the clock, and with it the retries that make this harder.
        api_fixtures.made(client.post("/sandbox/clock", {"freeze": False}))
        card = api_fixtures.build(client, 1)[0]

        def buy(name: str, round_number: int) -> list[str]:
            """Concurrent purchases that name a webhook; their tokens."""
            tokens = [f"{name[:9]}-{round_number}-{number}" for number in range(AT_ONCE)]
            bodies = [api_fixtures.purchase(card.token, 100, token) | _webhook(addresses.get(name)) for token in tokens]
            responses = connections.fire([("POST", "/v3/simulate/authorization", body) for body in bodies])
            assert {response.status for response in responses} == {201}, [
                (response.status, response.text) for response in responses
            ]
            return tokens

        buy("holds", 0)
        until(lambda: holding.under_way == POSTS_MAX)
        is_ahead = []
        for round_number in range(1, ROUNDS + 1):
            for name in ("none", *addresses):
                tokens = buy(name, round_number)
                if name == "holds":
                    is_ahead.append(all(tries(client, token) == 0 for token in tokens))
        # On a machine that stands still for ten seconds an attempt ends before it is looked for.
        assert any(is_ahead), "no round was answered before its deliveries had ended"


def tries(client: Client, transaction_token: str) -> int:
    """How many attempts to deliver a transaction to the address that its request named have ended."""
    deliveries = client.get("/sandbox/deliveries", query={"transaction_token": transaction_token}).json["data"]
    # Registered webhooks of other tests on this server may want it too.
    (delivery,) = (delivery for delivery in deliveries if "webhook_token" not in delivery)
    return int(delivery["tries"])


def _webhook(url: str | None) -> dict[str, dict[str, str]]:
    return {} if url is None else {"webhook": {"endpoint": url}}
