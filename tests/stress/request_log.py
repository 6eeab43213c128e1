"""Request log: the requests of all clients and their answers, with which the database must agree after a crash."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.stress.api_fixtures import cents_of

APPROVED = "0000"


@dataclass(slots=True)
class Message:
    """One request and its answer, None while there is none."""

    token: str
    path: str
    body: dict[str, Any]
    root: str
    user: str
    answer: dict[str, Any] | None = None

    @property
    def cents(self) -> int:
        """The requested amount."""
        return cents_of(float(self.body["amount"]))

    @property
    def is_approved(self) -> bool:
        """True if the answer is an approval."""
        return self.answer is not None and self.answer["response"]["code"] == APPROVED


@dataclass
class Memory:
    """All requests by token, in the order of sending; thread-safe."""

    by_token: dict[str, Message] = field(default_factory=dict)
    chains: dict[str, list[Message]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, message: Message) -> None:
        """Record a request before it is sent."""
        with self.lock:
            self.by_token[message.token] = message
            self.chains.setdefault(message.root, []).append(message)

    def answered(self) -> list[Message]:
        """Return the acknowledged messages, oldest first."""
        return [message for message in self.by_token.values() if message.answer is not None]

    def unanswered(self) -> list[Message]:
        """Return the messages without an answer."""
        return [message for message in self.by_token.values() if message.answer is None]

    def held_cents(self) -> Counter[str]:
        """Return the total hold of each user's account, derived from the answers only."""
        held = Counter[str]()
        for chain in self.chains.values():
            held[chain[0].user] += hold_of(chain)
        return held


def hold_of(chain: list[Message]) -> int:
    """Return the open hold of one authorization, derived from the answers of its chain."""
    hold = cleared = 0
    for message in (message for message in chain if message.is_approved):
        match message.path.rpartition("/")[2]:
            case "authorization":
                hold = message.cents
            case "advice":
                # The new total includes the cleared amount.
                hold = message.cents - cleared
            case "clearing":
                hold, cleared = max(0, hold - message.cents), cleared + message.cents
            case "reversal":
                hold -= message.cents
    return hold


def differences(answer: dict[str, Any], stored: dict[str, Any]) -> Iterator[str]:
    """Yield the differences between an answer and a stored transaction. Only the state may differ."""
    for name in sorted(answer.keys() | stored.keys()):
        if name != "state" and answer.get(name) != stored.get(name):
            yield f"{name}: answered {answer.get(name)!r}, stored {stored.get(name)!r}"
