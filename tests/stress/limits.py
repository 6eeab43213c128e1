"""Races for the last room under a velocity control, between two processes on one PostgreSQL; `make stress-limits RACES=2000`.

A round is four or so purchases of one user at the same time, half of them at each process, of which each would be approved
if it came alone. The test holds the user's account until batches of both processes wait for it (`overlap.py`). What was
approved is compared with the limits there and then, and afterwards with a second, naive count over all that is stored
(`recount.py`).
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
"""So many rounds, each at a merchant of its own with a control of its own, before others take the place of the users."""

REVERSAL = "/v3/simulate/reversal"
CONTROLS = "/v3/velocitycontrols"

BUSY = (429, 503)
"""Statuses of requests that were not answered in time and have no effect."""

TRIES_MAX = 5

OVER_AMOUNT, OVER_COUNT = "1834", "1817"
PROGRAM_ID = 1


@dataclass(slots=True)
class Figures:
    """What the rounds of one kind came to."""

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
        """Dangerous situations that were reached too seldom."""
        wanted = {
            "rounds under way at the same time": self.overlapping == self.rounds > 0,
            "a decline only because of a concurrent request": self.declined_for_another > 0,
            "rounds answered in time": self.busy <= self.rounds,
        }
        return [f"{self.kind}: {name}" for name, is_reached in wanted.items() if not is_reached]


@dataclass(slots=True)
class Arena:
    """A user with cards, and where the present round takes place: a merchant and a control that is for it alone."""

    user: str
    cards: list[str]
    name: str = ""
    cents: int = 0
    room: int = 0

    def control(self, amount: int, uses: int = -1) -> Request:
        """A request for the round's control."""
        body = {
            "token": self.name, "association": {"user_token": self.user}, "merchant_scope": {"mid": self.name},
            "currency_code": "USD", "velocity_window": "DAY", "amount_limit": api_fixtures.amount(amount), "usage_limit": uses,
        }  # fmt: skip
        return ("POST", CONTROLS, body)

    def purchases(self, number: int, salt: str) -> list[Request]:
        """So many requests for a purchase, with the user's cards in turn."""
        tokens = [f"{self.name}-{salt}{place}" for place in range(number)]
        cards = [self.cards[place % len(self.cards)] for place in range(number)]
        bodies = [api_fixtures.purchase(card, self.cents, token) for card, token in zip(cards, tokens, strict=True)]
        return [("POST", AUTHORIZATION, {**body, "mid": self.name}) for body in bodies]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of race.

    ``before`` are the requests, one after the other, that make the round ready, ``at_once`` those that race; the control
    lets ``room`` purchases of the arena's ``cents`` through at the end of it. ``most`` purchases may be approved, those
    counted that were decided before something changed. ``is_exact``: the race itself takes all the room that there is;
    otherwise purchases sent afterwards must get what it left.
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
    # As much as so many purchases cost, or a cent less than one more would.
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
    # By amount, or by count: a full reversal gives both back.
    arena.room = 1
    control = dice.choice((arena.control(2 * arena.cents - 1), arena.control(9 * arena.cents, 1)))
    return [control, *arena.purchases(1, "first")]


def _with(arena: Arena, request: Request) -> list[Request]:
    """Three purchases and something else, which is not always sent first."""
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
    """The rounds of all kinds on one server."""

    def __init__(self, ring: Ring, address: str, seed: int, say: Callable[[str], None]) -> None:
        self.ring, self.address, self.dice, self.say = ring, address, random.Random(seed), say
        self.numbers: Iterator[int] = count(1)

    def run(self, kind: Kind, rounds: int) -> Figures:
        """So many rounds of a kind. Raises AssertionError when a limit was not kept."""
        figures, started, progress_s = Figures(kind.name), time.monotonic(), time.monotonic()
        while figures.rounds < rounds and figures.busy <= rounds:
            arenas = self.people(kind, min(rounds - figures.rounds, ROUNDS_AT_ONCE))
            for _ in range(ROUNDS_OF_A_USER):
                if (left := rounds - figures.rounds) > 0:
                    self.send_concurrent_requests(kind, arenas[:left], figures)
            self.compare([arena.user for arena in arenas], figures)
            if time.monotonic() - progress_s > 10:
                progress_s = time.monotonic()
                self.say(f"{kind.name}: {figures.rounds:,} of {rounds:,} rounds, {figures.overlapping:,} truly overlapping")
        figures.seconds = time.monotonic() - started
        return figures

    def people(self, kind: Kind, number: int) -> list[Arena]:
        """Users with cards, made at once."""
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
        """Answers to requests, sent as many at a time as there are connections; each must succeed, if not at the first try."""
        responses = list[Response]()
        for start in range(0, len(requests), IN_FLIGHT):
            part = requests[start : start + IN_FLIGHT]
            for _ in range(TRIES_MAX):
                answers = self.ring.connections.fire(part)
                # The same token and body again is the same request.
                if all(response.status not in BUSY for response in answers):
                    break
            responses += answers
        odd = Counter((response.status, response.text[:200]) for response in responses if response.status not in (200, 201))
        assert not odd, odd
        return responses

    def send_concurrent_requests(self, kind: Kind, arenas: Sequence[Arena], figures: Figures) -> None:
        """A round in each of the arenas."""
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
            # In every other round the reversal comes before the purchases, and a change between their arrival and decision.
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
                # A machine that is too slow to answer in time says so; the round proves nothing, and is run in another's place.
                figures.busy += 1
                continue
            self.judge(kind, arena, requests, responses, where, figures)
            decided.append(arena)
        if not kind.is_exact and decided:
            self.afterwards(kind, decided, figures)

    def judge(
        self, kind: Kind, arena: Arena, requests: Sequence[Request], responses: Sequence[Response], where: slice, figures: Figures
    ) -> None:
        """Looks at one round: not more was approved than the limit lets through, and nothing refused without a reason."""
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
        # Alone each would have been approved, that is how rounds are made; but of a reversal's only after it.
        figures.declined_for_another += len(bought) - approved if kind.name != "reversal" or approved else 0
        arena.room -= approved

    def afterwards(self, kind: Kind, arenas: Sequence[Arena], figures: Figures) -> None:
        """What the race left of the room can be had afterwards, and no more: who asks now is bound by the change."""
        responses = self.sent([request for arena in arenas for request in arena.purchases(2, "after")])
        for number, arena in enumerate(arenas):
            codes = Counter(code_of(response) for response in responses[2 * number : 2 * number + 2])
            assert codes[APPROVED] == max(0, arena.room), f"{kind.name}: {arena}: afterwards {codes}"
            figures.undecided += arena.room > 0

    def compare(self, users: Sequence[str], figures: Figures) -> None:
        """Counts again all that these users did, and asks the server what it thinks that they have left."""
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
    """How many controls the server and the naive count agree about. Raises AssertionError when they differ over one."""
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
    """So many rounds of each kind on one empty PostgreSQL database. Raises AssertionError for a limit that was not kept."""
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
    """The figures for people, each zero beside the number of tries that it stands on."""
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
    """Runs the races. Exits with 1 when a promise was not kept, and when a danger was never met: that proves nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.limits", description=__doc__)
    parser.add_argument("--races", type=int, default=2_000, help="rounds of each kind")
    parser.add_argument("--kinds", nargs="*", choices=[kind.name for kind in KINDS], default=[])
    parser.add_argument("--seed", type=int, default=42, help="the same seed asks for the same things")
    parser.add_argument("--json", type=Path, help="a file for the figures")
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
