"""Load during outages: clients that buy, a reader, and pollers of `/healthz` and `/readyz`, with the times of each request."""

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.stress import api_fixtures
from tests.stress.load_clients import PurchaseClient
from tests.stress.request_log import Memory, Message
from tests.support.server import Client, RunningServer

BUYERS = 12
PACE_S = 0.06
"""The pause of a client between two requests, so that two cores suffice for the load and the server."""

STOPPED_S = 0.5
"""The pause after a lost or refused connection, when the server is stopping."""

POLL_S = 0.1
PROBE_S = 0.05
CLIENT_S = 12.0
"""The timeout of a client. A request without an answer by then counts as unanswered."""

LEAVES_OPEN = ("is unknown", "may have been carried out")
"""Parts of the texts of a 503 whose outcome is unknown."""

PURCHASE, READ, HEALTHZ, READYZ = "purchase", "read", "/healthz", "/readyz"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer; moments are seconds of ``time.monotonic``. Without an answer the status is 0."""

    target: str
    sent_s: float
    answered_s: float
    status: int
    text: str
    code: str = ""
    message: Message | None = None

    @property
    def took_s(self) -> float:
        """Seconds from the sending to the answer, or to the loss of the connection."""
        return self.answered_s - self.sent_s

    @property
    def is_refused(self) -> bool:
        """True if the server refused the request, or the operating system did because the server had stopped."""
        return self.status == 503 or "ConnectionRefusedError" in self.text

    @property
    def is_unknown(self) -> bool:
        """True if the message may have been booked."""
        return any(text in self.text for text in LEAVES_OPEN) if self.is_refused else self.status == 0


class Buyer(PurchaseClient):
    """A client that sends nothing more to a chain after a message with an unknown outcome."""

    def send(self, load: "Load", client: Client) -> Exchange:
        """Send the next message and return its exchange."""
        message = self._next()
        exchange = load.send(client, message)
        if exchange.is_unknown and message.root in self._roots:
            self._roots.remove(message.root)
        return exchange


class Load:
    """Clients of one run of the server; ``memory`` and ``exchanges`` contain their requests and answers."""

    def __init__(self, server: RunningServer, cards: Sequence[api_fixtures.Card], inline_url: str, seed: str) -> None:
        self.memory = Memory()
        self.exchanges: list[Exchange] = []
        self._server, self._cards, self._seed = server, cards, seed
        self._over = threading.Event()
        self._last_approved_s = [0.0] * BUYERS
        self._probes = 0
        self._probe_threads: list[threading.Thread] = []
        crowd = [Buyer(number, seed, cards, self.memory, inline_url, prefix=f"{seed}-") for number in range(BUYERS)]
        works: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(self._buy, pair) for pair in enumerate(crowd)]
        works += [(self._read, ()), (self._poll, (HEALTHZ,)), (self._poll, (READYZ,))]
        self._threads = [threading.Thread(target=work, args=arguments, daemon=True) for work, arguments in works]

    def start(self) -> None:
        """Start the clients."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the clients; return after each has its answer or its timeout."""
        self._over.set()
        for thread in (*self._threads, *self._probe_threads):
            if thread.ident is not None:
                thread.join()

    def send(self, client: Client, message: Message) -> Exchange:
        """Send a message; record it and its answer."""
        self.memory.ask(message)
        return self._exchange(client, PURCHASE, "POST", message.path, message)

    def approved(self) -> int:
        """Return the number of messages that were answered with 201."""
        return sum(exchange.status == 201 for exchange in list(self.exchanges))

    def is_felt_since(self, moment: float) -> bool:
        """Return whether a message was refused, or its connection lost, after a moment."""
        return any(e.target == PURCHASE and e.status in (503, 0) and e.answered_s > moment for e in list(self.exchanges))

    def is_approved_since(self, moment: float) -> bool:
        """Return whether a message was answered with 201 after a moment."""
        return any(e.status == 201 and e.answered_s > moment for e in list(self.exchanges))

    def is_ready_since(self, moment: float) -> bool:
        """Return whether a poll of `/readyz` that was sent after a moment got 200."""
        return any(e.target == READYZ and e.status == 200 and e.sent_s > moment for e in list(self.exchanges))

    def has_all_since(self, moment: float) -> bool:
        """Return whether each buyer has sent a message after a moment and got 201. The buyers use all server processes."""
        return min(self._last_approved_s) > moment

    def probe(self, moment: float, limit_s: float) -> None:
        """Send purchases on new connections every 50 ms, until one is approved after a moment or ``limit_s`` is over."""
        while not self.is_approved_since(moment) and time.monotonic() < moment + limit_s:
            self._probes += 1
            thread = threading.Thread(target=self._probe, args=(self._probes,), daemon=True)
            self._probe_threads.append(thread)
            thread.start()
            time.sleep(PROBE_S)

    def _probe(self, number: int) -> None:
        card = self._cards[number % len(self._cards)]
        token = f"{self._seed}-p{number}"
        message = Message(token, "/simulate/authorization", api_fixtures.purchase(card.token, 100, token), token, card.user)
        with self._server.client(timeout_s=CLIENT_S) as client:
            self.send(client, message)

    def _buy(self, number: int, buyer: Buyer) -> None:
        with self._server.client(timeout_s=CLIENT_S) as client:
            while not self._over.is_set():
                exchange = buyer.send(self, client)
                if exchange.status == 201:
                    self._last_approved_s[number] = exchange.sent_s
                self._over.wait(PACE_S if exchange.status else STOPPED_S)

    def _read(self) -> None:
        paths = [f"/cards/{self._cards[0].token}", "/transactions?count=5", f"/balances/{self._cards[1].user}"]
        with self._server.client(timeout_s=CLIENT_S) as client:
            number = 0
            while not self._over.wait(PACE_S):
                number += 1
                self._exchange(client, READ, "GET", paths[number % len(paths)])

    def _poll(self, path: str) -> None:
        while not self._over.wait(POLL_S):
            # A new connection each time, because it may get the file descriptor of a lost database connection.
            with self._server.client(timeout_s=CLIENT_S) as client:
                self._exchange(client, path, "GET", path)

    def _exchange(self, client: Client, target: str, verb: str, path: str, message: Message | None = None) -> Exchange:
        sent_s = time.monotonic()
        try:
            reply = client.request(verb, path, message.body if message is not None else None)
        except (OSError, http.client.HTTPException) as error:
            exchange = Exchange(target, sent_s, time.monotonic(), 0, repr(error), message=message)
        else:
            answered_s = time.monotonic()
            if message is not None and reply.status == 201:
                message.answer = reply.json["transaction"]
            body = reply.json if isinstance(reply.json, dict) else {}
            code, text = str(body.get("error_code", "")), reply.text if reply.status >= 300 else ""
            exchange = Exchange(target, sent_s, answered_s, reply.status, text[:500], code, message)
        self.exchanges.append(exchange)
        return exchange
