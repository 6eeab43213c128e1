"""Races for the last amount or use of a velocity control, between two processes on one PostgreSQL; `make stress-limits
RACES=2000`.

A round sends four requests for one user at the same time, two to each process. Three or four of them are purchases, each of which
fits the limit if it is the only one. The test locks the user's account until batches of both processes wait for it
(`overlap.py`). Each round compares the number of approvals with the limit. Afterwards a second, naive count of all stored
messages checks every decision (`naive_velocity.py`).
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from tests.stress import api_fixtures, check, naive_velocity
from tests.stress.concurrent_requests import Connections, Request, Response
from tests.stress.overlap import running_pair
from tests.stress.races import AUTHORIZATION, IN_FLIGHT, PAIRS, Ring, code_of
from tests.stress.races import Figures as PairFigures
from tests.stress.request_log import APPROVED
from tests.support.postgres import TestPostgres

REQUESTS = 4
"""Requests of one round that are sent at once, two to each process."""

ROUNDS_AT_ONCE = IN_FLIGHT // REQUESTS

ROUNDS_OF_A_USER = 8
"""Rounds of the same users, each at a new merchant with a new control. Then new users follow."""

REVERSAL = "/v3/simulate/reversal"
CONTROLS = "/v3/velocitycontrols"

BUSY = (429, 503)
"""Statuses of a busy server: the request is repeated, or its round does not count."""

TRIES_MAX = 5

OVER_AMOUNT, OVER_COUNT = "1834", "1817"
PROGRAM_ID = 1


@dataclass(slots=True)
class Figures:
    """The counts of the rounds of one kind."""

    kind: str
    rounds: int = 0
    overlapping: int = 0
    purchases: int = 0
    approved: int = 0
    declined_for_another: int = 0
    undecided: int = 0
    recounted: int = 0
    compared: int = 0
    breaches: int = 0
    busy: int = 0
    seconds: float = 0.0

    @property
    def unproven(self) -> list[str]:
        """The dangerous states that were not reached often enough."""
        wanted = {
            "rounds under way at the same time": self.overlapping == self.rounds > 0,
            "a decline only because of a concurrent request": self.declined_for_another > 0,
            "rounds answered in time": self.busy <= self.rounds,
        }
        return [f"{self.kind}: {name}" for name, is_reached in wanted.items() if not is_reached]


@dataclass(slots=True)
class Arena:
    """A user with cards, and the merchant of the current round, which has a separate control."""

    user: str
    cards: list[str]
    name: str = ""
    cents: int = 0
    room: int = 0

    def control(self, amount: int, uses: int = -1) -> Request:
        """Return a request for the round's control."""
        body = {
            "token": self.name, "association": {"user_token": self.user}, "merchant_scope": {"mid": self.name},
            "currency_code": "USD", "velocity_window": "DAY", "amount_limit": api_fixtures.amount(amount), "usage_limit": uses,
        }  # fmt: skip
        return ("POST", CONTROLS, body)

    def purchases(self, number: int, salt: str) -> list[Request]:
        """Return ``number`` requests for a purchase, with the user's cards in turn."""
        tokens = [f"{self.name}-{salt}{place}" for place in range(number)]
        cards = [self.cards[place % len(self.cards)] for place in range(number)]
        bodies = [api_fixtures.purchase(card, self.cents, token) for card, token in zip(cards, tokens, strict=True)]
        return [("POST", AUTHORIZATION, {**body, "mid": self.name}) for body in bodies]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of race.

    ``before`` gives the requests that prepare the round, one after the other, and ``at_once`` those that race. At the end of
    the race the control has room for ``room`` purchases of ``cents`` in all. ``most`` is the largest valid number of approvals,
    with those that were decided before a change. ``is_exact``: the race uses all the room. Otherwise purchases after the race
    must get the rest.
    """

    name: str
    says: str
    before: Callable[[Arena, random.Random], list[Request]]
    at_once: Callable[[Arena], list[Request]]
    most: Callable[[Arena], int]
    is_exact: bool = True
    cards: int = 1


def _slots(arena: Arena, dice: random.Random) -> list[Request]:
    return [arena.control(REQUESTS * arena.cents, arena.room)]


def _cents(arena: Arena, dice: random.Random) -> list[Request]:
    # Exactly the amount of ``room`` purchases, or a cent less than one purchase more needs.
    return [arena.control(arena.room * arena.cents + dice.choice((0, arena.cents - 1)))]


def _either(arena: Arena, dice: random.Random) -> list[Request]:
    return dice.choice((_slots, _cents))(arena, dice)


def _wide(arena: Arena, dice: random.Random) -> list[Request]:
    arena.room = 1
    return [arena.control(2 * arena.cents)]


def _nothing(arena: Arena, dice: random.Random) -> list[Request]:
    arena.room = 1
    return []


def _used_up(arena: Arena, dice: random.Random) -> list[Request]:
    # The first purchase uses up the amount or the count; a full reversal gives both back.
    arena.room = 1
    control = dice.choice((arena.control(2 * arena.cents - 1), arena.control(9 * arena.cents, 1)))
    return [control, *arena.purchases(1, "first")]


def _with(arena: Arena, request: Request) -> list[Request]:
    """Return three purchases and another request, at a position that depends on the amount."""
    requests = arena.purchases(REQUESTS - 1, "")
    requests.insert(arena.cents % REQUESTS, request)
    return requests


def _four(arena: Arena) -> list[Request]:
    return arena.purchases(REQUESTS, "")


def _lowering(arena: Arena) -> list[Request]:
    body = {"token": arena.name, "amount_limit": api_fixtures.amount(arena.cents)}
    return _with(arena, ("PUT", f"{CONTROLS}/{arena.name}", body))


def _creating(arena: Arena) -> list[Request]:
    return _with(arena, arena.control(2 * arena.cents - 1))


def _reversing(arena: Arena) -> list[Request]:
    body = api_fixtures.follow_up(f"{arena.name}-first0", arena.cents, f"{arena.name}-undone")
    return _with(arena, ("POST", REVERSAL, body))


def _room(arena: Arena) -> int:
    return arena.room


KINDS = (
    Kind("slot", "last use, by count", _slots, _four, _room),
    Kind("cent", "last cent, by amount", _cents, _four, _room),
    Kind("lowered", "limit lowered during the race", _wide, _lowering, lambda _: 2, is_exact=False),
    Kind("created", "control created during the race", _nothing, _creating, lambda _: 3, is_exact=False),
    Kind("reversal", "reversal during the race", _used_up, _reversing, _room, is_exact=False),
    Kind("cards", "several cards of one user", _either, _four, _room, cards=4),
)


class Race:
    """The rounds of all kinds on one pair of servers."""

    def __init__(self, ring: Ring, address: str, seed: int, say: Callable[[str], None]) -> None:
        self.ring, self.address, self.dice, self.say = ring, address, random.Random(seed), say
        self.numbers: Iterator[int] = count(1)

    def run(self, kind: Kind, rounds: int) -> Figures:
        """Run rounds of a kind. Raises AssertionError if a limit was exceeded."""
        figures, started, progress_s = Figures(kind.name), time.monotonic(), time.monotonic()
        while figures.rounds < rounds and figures.busy <= rounds:
            arenas = self.people(kind, min(rounds - figures.rounds, ROUNDS_AT_ONCE))
            for _ in range(ROUNDS_OF_A_USER):
                if (left := rounds - figures.rounds) > 0:
                    self.send_concurrent_requests(kind, arenas[:left], figures)
            self.compare([arena.user for arena in arenas], figures)
            if time.monotonic() - progress_s > 10:
                progress_s = time.monotonic()
                self.say(f"{kind.name}: {figures.rounds:,} of {rounds:,} rounds, {figures.overlapping:,} overlapping")
        figures.seconds = time.monotonic() - started
        return figures

    def people(self, kind: Kind, number: int) -> list[Arena]:
        """Create users with cards, in concurrent requests."""
        arenas = []
        for _ in range(number):
            name = f"{kind.name}-{next(self.numbers)}"
            arenas.append(Arena(f"user-{name}", [f"card-{name}-{place}" for place in range(kind.cards)]))
        self.sent([("POST", "/v3/users", {"token": arena.user}) for arena in arenas])
        bodies = [
            {"token": card, "user_token": arena.user, "card_product_token": "jit"} for arena in arenas for card in arena.cards
        ]
        self.sent([("POST", "/v3/cards", body) for body in bodies])
        return arenas

    def sent(self, requests: Sequence[Request]) -> list[Response]:
        """Send requests, at most one a connection at a time, and return the answers. Each must succeed in ``TRIES_MAX`` tries."""
        responses = list[Response]()
        for start in range(0, len(requests), IN_FLIGHT):
            part = requests[start : start + IN_FLIGHT]
            for _ in range(TRIES_MAX):
                answers = self.ring.connections.fire(part)
                # A repeat is idempotent: token and body are the same.
                if all(response.status not in BUSY for response in answers):
                    break
            responses += answers
        odd = Counter((response.status, response.text[:200]) for response in responses if response.status not in (200, 201))
        assert not odd, odd
        return responses

    def send_concurrent_requests(self, kind: Kind, arenas: Sequence[Arena], figures: Figures) -> None:
        """Run a round in each of the arenas."""
        ready = []
        for arena in arenas:
            arena.name, arena.cents = f"{kind.name}-{next(self.numbers)}", self.dice.randrange(2, 20_000)
            arena.room = self.dice.randrange(1, REQUESTS)
            ready.append(kind.before(arena, self.dice))
        for step in range(max(map(len, ready))):
            self.sent([requests[step] for requests in ready if len(requests) > step])
        requests = [request for arena in arenas for request in kind.at_once(arena)]
        first, answered, last = list[int](), list[int](), list[int]()
        for number, (_, path, _) in enumerate(requests):
            # In even rounds a reversal arrives before the purchases, and a change of a control is answered before the release.
            is_even = number // REQUESTS % 2 == 0
            if path == REVERSAL and is_even:
                first.append(number)
            elif path.startswith(CONTROLS):
                (answered if is_even else last).append(number)
        with self.ring.pair.held([arena.user for arena in arenas]) as held:
            responses = self.ring.connections.fire_held(requests, held, first, answered, last)
        decided = []
        for number, arena in enumerate(arenas):
            where = slice(number * REQUESTS, (number + 1) * REQUESTS)
            if any(response.status in BUSY for response in responses[where]):
                # The machine was too slow to answer in time. The round does not count, and another one replaces it.
                figures.busy += 1
                continue
            self.judge(kind, arena, requests, responses, where, figures)
            decided.append(arena)
        if not kind.is_exact and decided:
            self.afterwards(kind, decided, figures)

    def judge(
        self, kind: Kind, arena: Arena, requests: Sequence[Request], responses: Sequence[Response], where: slice, figures: Figures
    ) -> None:
        """Check one round: the approvals are within the limit, and no purchase within it is declined."""
        raced = responses[where]
        assert {response.status for response in raced} <= {200, 201}, [(response.status, response.text) for response in raced]
        is_overlapping = max(response.sent_ns for response in raced) < min(response.answered_ns for response in raced)
        bought = [response for (_, path, _), response in zip(requests[where], raced, strict=True) if path == AUTHORIZATION]
        codes = Counter(code_of(response) for response in bought)
        approved = codes[APPROVED]
        assert set(codes) <= {APPROVED, OVER_AMOUNT, OVER_COUNT}, codes
        assert approved <= kind.most(arena), f"{kind.name}: {arena}: {codes}"
        if kind.is_exact:
            assert approved == arena.room, f"{kind.name}: {arena}: {codes}"
        figures.rounds += 1
        figures.overlapping += is_overlapping
        figures.purchases += len(bought)
        figures.approved += approved
        # Each purchase fits the limit if it is the only one. In a round with a reversal this holds only after the reversal.
        figures.declined_for_another += len(bought) - approved if kind.name != "reversal" or approved else 0
        arena.room -= approved

    def afterwards(self, kind: Kind, arenas: Sequence[Arena], figures: Figures) -> None:
        """Check that purchases after the race get the remaining room, and no more."""
        responses = self.sent([request for arena in arenas for request in arena.purchases(2, "after")])
        for number, arena in enumerate(arenas):
            codes = Counter(code_of(response) for response in responses[2 * number : 2 * number + 2])
            assert codes[APPROVED] == max(0, arena.room), f"{kind.name}: {arena}: afterwards {codes}"
            figures.undecided += arena.room > 0

    def compare(self, users: Sequence[str], figures: Figures) -> None:
        """Compare the decisions for these users, and the available amounts of the API, with the naive count."""
        with check.database_at(self.address) as database:
            books = naive_velocity.read(database, PROGRAM_ID, users)
        verdict = books.judged()
        figures.breaches += len(verdict.breaches)
        assert not verdict.breaches, verdict.breaches[:5]
        figures.recounted += sum(map(len, books.usage_events.values()))
        for user in users:
            figures.compared += agree(
                self.ring.client.get(f"/velocitycontrols/user/{user}/available?count=100").json, books, user
            )


def agree(answer: Any, books: naive_velocity.Books, user: str) -> int:
    """Return the number of compared controls. Raises AssertionError if the server and the naive count differ for one."""
    available = {
        control["token"]: (api_fixtures.cents_of(control["available"]["amount"]), control["available"]["uses"])
        for control in answer["data"]
    }  # fmt: skip
    counted = books.left(user, datetime.now(UTC))
    assert available == counted, {token: (available.get(token), counted.get(token)) for token in available.keys() | counted.keys()
                                 if available.get(token) != counted.get(token)}  # fmt: skip
    return len(available)


def run(
    address: str, *, rounds: int, seed: int = 42, kinds: Sequence[str] = (), say: Callable[[str], None] = lambda _: None
) -> list[Figures]:
    """Run rounds of each kind on one empty PostgreSQL database. Raises AssertionError if a limit was exceeded."""
    all_figures = []
    with running_pair(address) as pair:
        with ExitStack() as stack:
            clients = [stack.enter_context(server.client(timeout_s=60)) for server in pair.servers]
            connections = stack.enter_context(Connections(pair.servers, PAIRS))
            ring = Ring(pair, clients, connections, PairFigures(), api_fixtures.build(clients[0], 2))
            race = Race(ring, address, seed, say)
            for kind in KINDS:
                if kind.name in (kinds or (kind.name,)):
                    all_figures.append(race.run(kind, rounds))
                    say(json.dumps(asdict(all_figures[-1])))
            with check.database_at(address) as database:
                check.verify(database)
        assert "Traceback" not in pair.output(), pair.output()[-6000:]
    return all_figures


def table(all_figures: Sequence[Figures]) -> str:
    """Return the figures as a Markdown table, with the number of attempts beside each zero."""
    head = ("race for a velocity limit", "limit exceeded, or purchase within it declined", "*reached:* all requests overlap",
            "*reached:* declined only because of a concurrent request", "recounted", "duration")  # fmt: skip
    says = {kind.name: kind.says for kind in KINDS}
    lines = [
        (
            says[figures.kind], f"{figures.breaches} of {figures.rounds:,} rounds",
            f"**{figures.overlapping:,}** of {figures.rounds:,}",
            f"**{figures.declined_for_another:,}** of {figures.purchases:,}",
            f"{figures.recounted:,} messages, {figures.compared:,} controls",
            f"{figures.seconds:.0f} s",
        )
        for figures in all_figures
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the races. Return 1 if a dangerous state was never reached. Raises AssertionError if a limit was exceeded."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.limits", description=__doc__)
    parser.add_argument("--races", type=int, default=2_000, help="rounds of each kind (default: 2000)")
    parser.add_argument("--kinds", nargs="*", choices=[kind.name for kind in KINDS], default=[])
    parser.add_argument("--seed", type=int, default=42, help="seed of the requests (default: 42)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    with TestPostgres(durable=False) as postgres:
        all_figures = run(
            postgres.new_database(), rounds=options.races, seed=options.seed, kinds=options.kinds,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
    print(table(all_figures))
    if options.json:
        options.json.write_text(json.dumps([asdict(figures) for figures in all_figures], indent=1) + "\n", "utf-8")
    unproven = [danger for figures in all_figures for danger in figures.unproven]
    for danger in unproven:
        print(f"not reached, so the run proves nothing about it: {danger}", file=sys.stderr)
    return 1 if unproven else 0


if __name__ == "__main__":
    sys.exit(main())
