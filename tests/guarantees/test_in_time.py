"""Webhooks: a webhook that hangs, fails or redirects never delays the answer of a purchase."""

import socket
from collections.abc import Iterator, Sequence
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

POSTS_MAX = 64
"""Maximum number of concurrent posts to endpoints that have not answered yet. Each gets a single one."""


@contextmanager
def a_silent_port() -> Iterator[int]:
    """Yield a port that accepts connections and sends nothing."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(256)
        yield listener.getsockname()[1]


@pytest.fixture
def holding() -> Iterator[Receiver]:
    """Yield a webhook that sends no answer before the end of the test."""
    with a_receiver(holds=True) as receiver:
        yield receiver


@pytest.fixture
def addresses(holding: Receiver) -> Iterator[dict[str, str]]:
    """Yield URLs of webhooks that answer, refuse, hang, redirect, fail, and do not exist."""
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


@pytest.fixture
def silent_urls() -> Iterator[list[str]]:
    """Yield the URLs of as many silent endpoints as get a post at once."""
    with ExitStack() as stack:
        yield [f"http://{HOST}:{stack.enter_context(a_silent_port())}/" for _ in range(POSTS_MAX)]


def test_webhooks_never_delay_an_answer(
    server: RunningServer, holding: Receiver, addresses: dict[str, str], silent_urls: list[str]
) -> None:
    """Purchases that name a webhook which refuses, hangs, redirects or fails are answered before the delivery ends.

    At the beginning POSTS_MAX posts are in flight without an answer. If a purchase waited for its delivery, the answer would come
    after the timeout of the attempt. Then the attempt would be in the list of deliveries.
    """
    with server.client() as client, Connections([server], AT_ONCE) as connections:
        # Other tests may have frozen the clock, which would stop the retries and make the test easier.
        api_fixtures.made(client.post("/sandbox/clock", {"freeze": False}))
        card = api_fixtures.build(client, 1)[0]

        def buy(name: str, round_number: int, urls: Sequence[str] = ()) -> list[str]:
            """Make concurrent purchases that name a webhook, by its name or each by one of the URLs; return their tokens."""
            tokens = [f"{name[:9]}-{round_number}-{number}" for number in range(AT_ONCE)]
            webhooks = urls or [addresses.get(name)] * AT_ONCE
            purchases = [api_fixtures.purchase(card.token, 100, token) for token in tokens]
            bodies = [body | _webhook(url) for body, url in zip(purchases, webhooks, strict=True)]
            responses = connections.fire([("POST", "/v3/simulate/authorization", body) for body in bodies])
            assert {response.status for response in responses} == {201}, [
                (response.status, response.text) for response in responses
            ]
            return tokens

        for start in range(0, POSTS_MAX, AT_ONCE):
            buy("silent", start, silent_urls[start : start + AT_ONCE])
        until(lambda: client.get("/sandbox/deliveries", query={"state": "SENDING", "count": "100"}).json["count"] >= POSTS_MAX)
        buy("holds", 0)
        is_ahead = []
        for round_number in range(1, ROUNDS + 1):
            for name in ("none", *addresses):
                tokens = buy(name, round_number)
                if name == "holds":
                    is_ahead.append(all(tries(client, token) == 0 for token in tokens))
        # If the machine stalls for ten seconds, an attempt ends before the test reads the list. So one round is enough.
        assert any(is_ahead), "no round was answered before its deliveries had ended"


def tries(client: Client, transaction_token: str) -> int:
    """Return the number of ended attempts to deliver a transaction to the address in its request."""
    deliveries = client.get("/sandbox/deliveries", query={"transaction_token": transaction_token}).json["data"]
    # Webhooks that other tests registered on this server may get it too.
    (delivery,) = (delivery for delivery in deliveries if "webhook_token" not in delivery)
    return int(delivery["tries"])


def _webhook(url: str | None) -> dict[str, dict[str, str]]:
    return {} if url is None else {"webhook": {"endpoint": url}}
