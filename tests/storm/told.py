"""What clients asked and what they were told: the memory that a crash must not contradict."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.storm.town import cents_of

APPROVED = "0000"


@dataclass(slots=True)
class Told:
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

    by_token: dict[str, Told] = field(default_factory=dict)
    chains: dict[str, list[Told]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, told: Told) -> None:
        """Remembers a request before it is sent."""
        with self.lock:
            self.by_token[told.token] = told
            self.chains.setdefault(told.root, []).append(told)

    def answered(self) -> list[Told]:
        """What was acknowledged, oldest first."""
        return [told for told in self.by_token.values() if told.answer is not None]

    def unanswered(self) -> list[Told]:
        """What nobody was told the outcome of."""
        return [told for told in self.by_token.values() if told.answer is None]

    def held_cents(self) -> Counter[str]:
        """What must be on hold on each user's account, reckoned from nothing but the answers."""
        held = Counter[str]()
        for chain in self.chains.values():
            held[chain[0].user] += hold_of(chain)
        return held


def hold_of(chain: list[Told]) -> int:
    """What is still on hold of one authorization: the answers of its chain, one after the other."""
    hold = cleared = 0
    for told in (told for told in chain if told.is_approved):
        match told.path.rpartition("/")[2]:
            case "authorization":
                hold = told.cents
            case "advice":
                # The new total has what was cleared of it already.
                hold = told.cents - cleared
            case "clearing":
                hold, cleared = max(0, hold - told.cents), cleared + told.cents
            case "reversal":
                hold -= told.cents
    return hold


def differences(said: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Where two pictures of a transaction differ. Its state is the one thing that may move on."""
    for name in sorted(said.keys() | found.keys()):
        if name != "state" and said.get(name) != found.get(name):
            yield f"{name}: told {said.get(name)!r}, found {found.get(name)!r}"
