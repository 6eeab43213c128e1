"""What clients asked and what they were told: the memory that a crash must not contradict."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.stress.api_fixtures import cents_of

APPROVED = "0000"


@dataclass(slots=True)
class Message:
    """One request and its answer: None as long as whoever sent it has heard nothing."""

    token: str
    path: str
    body: dict[str, Any]
    root: str
    user: str
    answer: dict[str, Any] | None = None

    @property
    def cents(self) -> int:
        """What was asked for."""
        return cents_of(float(self.body["amount"]))

    @property
    def is_approved(self) -> bool:
        """Whether it was answered with a yes."""
        return self.answer is not None and self.answer["response"]["code"] == APPROVED


@dataclass
class Memory:
    """Every request by its token, in the order of asking; safe for several threads."""

    by_token: dict[str, Message] = field(default_factory=dict)
    chains: dict[str, list[Message]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, message: Message) -> None:
        """Remembers a request before it is sent."""
        with self.lock:
            self.by_token[message.token] = message
            self.chains.setdefault(message.root, []).append(message)

    def answered(self) -> list[Message]:
        """What was acknowledged, oldest first."""
        return [message for message in self.by_token.values() if message.answer is not None]

    def unanswered(self) -> list[Message]:
        """What nobody was told the outcome of."""
        return [message for message in self.by_token.values() if message.answer is None]

    def held_cents(self) -> Counter[str]:
        """What must be on hold on each user's account, reckoned from nothing but the answers."""
        held = Counter[str]()
        for chain in self.chains.values():
            held[chain[0].user] += hold_of(chain)
        return held


def hold_of(chain: list[Message]) -> int:
    """What is still on hold of one authorization: the answers of its chain, one after the other."""
    hold = cleared = 0
    for message in (message for message in chain if message.is_approved):
        match message.path.rpartition("/")[2]:
            case "authorization":
                hold = message.cents
            case "advice":
                # The new total has what was cleared of it already.
                hold = message.cents - cleared
            case "clearing":
                hold, cleared = max(0, hold - message.cents), cleared + message.cents
            case "reversal":
                hold -= message.cents
    return hold


def differences(answer: dict[str, Any], stored: dict[str, Any]) -> Iterator[str]:
    """Where two pictures of a transaction differ. Its state is the one thing that may move on."""
    for name in sorted(answer.keys() | stored.keys()):
        if name != "state" and answer.get(name) != stored.get(name):
            yield f"{name}: told {answer.get(name)!r}, found {stored.get(name)!r}"
