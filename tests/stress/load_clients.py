"""Load clients: each sends purchases, clearings, reversals and advices, one after the other, until the server ends."""

import http.client
import random
import threading
from collections.abc import Sequence

from tests.stress import api_fixtures
from tests.stress.request_log import Memory, Message, hold_of
from tests.support.server import Client, RunningServer

INLINE_SHARE = 0.1
"""Share of the purchases that name a webhook endpoint in the request."""

PATHS = {"clearing": "/simulate/clearing", "reversal": "/simulate/reversal", "advice": "/simulate/authorization/advice"}


class PurchaseClient:
    """A client with a seeded random sequence. It follows up only its purchases, so the expected results are known."""

    def __init__(
        self, number: int, seed: str, cards: Sequence[api_fixtures.Card], memory: Memory, inline_url: str, prefix: str = ""
    ) -> None:
        self._name = f"{prefix}{number:02d}"
        self._dice = random.Random(f"{seed}-{number}")
        self._cards = cards
        self._memory = memory
        self._inline_url = inline_url
        self._roots: list[str] = []
        self._count = 0

    def shop(self, client: Client, crowd: "Crowd") -> None:
        """Send until the crowd stops or the connection breaks; record each answer other than 201 in ``crowd.odd``."""
        while not crowd.over.is_set():
            message = self._next()
            self._memory.ask(message)
            try:
                reply = client.post(message.path, message.body)
            except (OSError, http.client.HTTPException):
                crowd.failed.set()
                return
            if reply.status != 201:
                crowd.odd.append(f"{message.path} {message.token}: {reply.status} {reply.text[:200]}")
                continue
            message.answer = reply.json["transaction"]
            crowd.answered.append(message.token)

    def _next(self) -> Message:
        self._count += 1
        token = f"{self._name}-{self._count}"
        open_roots = [root for root in self._roots[-40:] if hold_of(self._memory.chains[root]) > 0]
        if open_roots and self._dice.random() < 0.4:
            return self._follow_up(token, self._dice.choice(open_roots))
        return self._purchase(token)

    def _purchase(self, token: str) -> Message:
        card, cents = self._dice.choice(self._cards), self._dice.randint(1, 9_999)
        body = api_fixtures.purchase(card.token, cents, token)
        if self._dice.random() < INLINE_SHARE:
            body["webhook"] = {"endpoint": self._inline_url}
        self._roots.append(token)
        return Message(token, "/simulate/authorization", body, token, card.user)

    def _follow_up(self, token: str, root: str) -> Message:
        chain = self._memory.chains[root]
        hold = hold_of(chain)
        kind = self._dice.choice(("clearing", "clearing", "reversal", "advice"))
        # A clearing may exceed the hold, a reversal may not. Half of the follow-ups take the whole hold.
        most = hold + 100 if kind == "clearing" else hold
        cents = hold if self._dice.random() < 0.5 else self._dice.randint(1, most)
        return Message(token, PATHS[kind], api_fixtures.follow_up(root, cents, token), root, chain[0].user)


class Crowd:
    """The load clients of one run of the server."""

    def __init__(self, server: RunningServer, load_clients: Sequence[PurchaseClient]) -> None:
        self.over, self.failed = threading.Event(), threading.Event()
        self.answered, self.odd = list[str](), list[str]()
        self._clients = [server.client(timeout_s=60) for _ in load_clients]
        self._threads = [
            threading.Thread(target=load_client.shop, args=(client, self), daemon=True)
            for load_client, client in zip(load_clients, self._clients, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the clients; return after each has its answer or a broken connection."""
        self.over.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()
