"""Races between two processes on one PostgreSQL: equal tokens, the last cent, the last use, deactivations and resets.

The requests of every race overlap (``overlap.py``): the test locks the accounts until batches of both processes wait for them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import func, select

from cardwright.kit.clock import parse_instant
from cardwright.storage.tables import transactions
from tests.stress import api_fixtures, check
from tests.stress.concurrent_requests import Connections, Request, Response
from tests.stress.overlap import BATCH, CHANGE, RESET, Pair, running_pair
from tests.stress.request_log import APPROVED
from tests.support.server import Client, Reply

PAIRS = 32
"""Pairs of concurrent requests, one of each pair to each process."""

IN_FLIGHT = 2 * PAIRS

CONFLICT = "batch is run again"
"""The log line (level info) of a commit that conflicts with the other process's commit of the same token."""

SOURCE_PATH = f"/fundingsources/program/{api_fixtures.SOURCE}"
PRODUCT_PATH = "/cardproducts/jit"
AUTHORIZATION = "/v3/simulate/authorization"
PARTLY = "0002"
NO_FUNDS = "1016"


@dataclass(slots=True)
class Figures:
    """The counts of the races."""

    pairs: int = 0
    overlapping: int = 0
    conflicts: int = 0
    contradicted: int = 0
    met: int = 0
    last_cents: int = 0
    last_slots: int = 0
    declined_for_another: int = 0
    changes: int = 0
    under_way: int = 0
    refused_after: int = 0
    decided_late: int = 0
    resets: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Ring:
    """The environment of a race: two servers, open connections to both, and a client of each."""

    pair: Pair
    clients: list[Client]
    connections: Connections
    figures: Figures
    cards: list[api_fixtures.Card]
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def client(self) -> Client:
        """The first server's client."""
        return self.clients[0]

    def token(self) -> str:
        """Return an unused token."""
        return f"race-{next(self.numbers)}"

    def purchase(self, card: api_fixtures.Card, cents: int, token: str | None = None) -> Request:
        """Return a request for a purchase."""
        return ("POST", AUTHORIZATION, api_fixtures.purchase(card.token, cents, token or self.token()))

    def fire_pairs(
        self, cards: Sequence[api_fixtures.Card], pairs: Sequence[tuple[Request, Request]]
    ) -> list[tuple[Response, Response]]:
        """Send both requests of each pair at once, one to each process. All are for the accounts of these cards."""
        with self.pair.held([card.user for card in cards]) as held:
            responses = self.connections.fire_held([request for pair in pairs for request in pair], held)
        raced = list(zip(responses[::2], responses[1::2], strict=True))
        self.figures.pairs += len(raced)
        self.figures.overlapping += sum(first.overlaps(second) for first, second in raced)
        return raced


# --- One token, one effect ----------------------------------------------------------------


def same_token(ring: Ring, rounds: int) -> None:
    """Send the same request to both processes at once: it has one effect, and both answers have the same transaction."""
    for _ in range(rounds):
        tokens = [ring.token() for _ in range(PAIRS)]
        before = ledger(ring, ring.cards[0])
        raced = ring.fire_pairs(ring.cards[:1], [(ring.purchase(ring.cards[0], 700, token),) * 2 for token in tokens])
        for first, second in raced:
            assert (first.status, second.status) == (201, 201), (first.text, second.text)
            assert first.json["transaction"] == second.json["transaction"], (first.text, second.text)
        assert ledger(ring, ring.cards[0]) - before == 700 * len(raced)


def contradicting_bodies(ring: Ring, rounds: int) -> None:
    """Send two bodies with one token to both processes at once: one is booked, the other is a conflict.

    If the bodies name two cards, only the uniqueness of the token prevents a second effect: their accounts share no lock.
    """
    for number in range(rounds):
        cards = (ring.cards[1], ring.cards[1 if number % 4 == 3 else 0])
        before = sum(ledger(ring, card) for card in set(cards))
        tokens = [ring.token() for _ in range(PAIRS)]
        pairs = [(ring.purchase(cards[0], 300, token), ring.purchase(cards[1], 500, token)) for token in tokens]
        raced = ring.fire_pairs(list(set(cards)), pairs)
        for pair in raced:
            assert sorted(response.status for response in pair) == [201, 409], [response.text for response in pair]
        won = sum(
            api_fixtures.cents_of(response.json["transaction"]["amount"])
            for pair in raced
            for response in pair
            if response.status == 201
        )
        assert sum(ledger(ring, card) for card in set(cards)) - before == won
        ring.figures.contradicted += len(raced)


def meeting_commits(ring: Ring, rounds: int) -> None:
    """Commit a token in one process between decision and commit in the other: that batch runs again and finds a conflict.

    A failpoint between decision and commit forces this in each round. The processes take turns as the late one.
    """
    for number in range(rounds):
        late, early = number % 2, 1 - number % 2
        failpoints, token = ring.pair.failpoints[late], ring.token()
        before = [ledger(ring, card) for card in ring.cards[:2]]
        failpoints.arm("commit.before", "pause")
        with ThreadPoolExecutor(1) as thread:
            _, path, body = ring.purchase(ring.cards[0], 300, token)
            waiting = thread.submit(ring.clients[late].post, path, body)
            try:
                assert failpoints.wait("commit.before"), "no batch reached its commit"
                _, path, body = ring.purchase(ring.cards[1], 500, token)
                won = ring.clients[early].post(path, body)
            finally:
                failpoints.release("commit.before")
            lost = waiting.result()
        assert (won.status, lost.status) == (201, 409), (won.text, lost.text)
        assert [ledger(ring, card) for card in ring.cards[:2]] == [before[0], before[1] + 500]
        ring.figures.contradicted += 1
        ring.figures.met += 1


# --- Limits and balances ------------------------------------------------------------------


def last_cent(ring: Ring, rounds: int) -> None:
    """Send more purchases at once than a preloaded account can pay, each twice: exactly its balance is spent."""
    for _ in range(rounds):
        card = api_fixtures.preloaded(ring.client, ring.token(), 10_50)
        tokens = [ring.token() for _ in range(PAIRS)]
        raced = ring.fire_pairs([card], [(ring.purchase(card, 1_00, token),) * 2 for token in tokens])
        answers = [response.json["transaction"] for response, _ in raced]
        codes = Counter(answer["response"]["code"] for answer in answers)
        spent = sum(
            api_fixtures.cents_of(answer["amount"]) for answer in answers if answer["response"]["code"] in (APPROVED, PARTLY)
        )
        assert codes == {APPROVED: 10, PARTLY: 1, NO_FUNDS: len(raced) - 11}, codes
        assert spent == 10_50
        assert api_fixtures.available_cents(ring.client, card.user) == 0
        ring.figures.last_cents += 1
        ring.figures.declined_for_another += codes[NO_FUNDS]


def last_slot(ring: Ring, rounds: int) -> None:
    """Send more purchases at once than a velocity control allows, each twice: exactly the allowed number is approved."""
    for number in range(rounds):
        card = api_fixtures.card(ring.client, ring.token())
        control = {"association": {"user_token": card.user}, "currency_code": "USD", "velocity_window": "DAY"}
        limits: dict[str, int] = ({"amount_limit": 10_000, "usage_limit": 5}, {"amount_limit": 17})[number % 2]
        api_fixtures.made(ring.client.post("/velocitycontrols", control | limits))
        tokens = [ring.token() for _ in range(PAIRS)]
        raced = ring.fire_pairs([card], [(ring.purchase(card, 3_00, token),) * 2 for token in tokens])
        codes = Counter(code_of(response) for response, _ in raced)
        assert codes[APPROVED] == 5, codes
        assert ledger(ring, card) == 5 * 3_00
        ring.figures.last_slots += 1
        ring.figures.declined_for_another += len(raced) - 5


# --- Deactivations -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Switch:
    """An object that must be active for a purchase, and the calls that deactivate and activate it.

    ``is_locked``: a batch locks the object, so a change waits for the current batches.
    """

    name: str
    off: Callable[[Client, api_fixtures.Card], Any]
    on: Callable[[Client, api_fixtures.Card], Any]
    is_locked: bool = True


def _transition(state: str) -> Callable[[Client, api_fixtures.Card], Any]:
    return lambda client, card: client.post("/cardtransitions", {"card_token": card.token, "state": state, "channel": "API"})


def _status(status: str) -> Callable[[Client, api_fixtures.Card], Any]:
    body = {"status": status, "reason_code": "00", "channel": "API"}
    return lambda client, card: client.post("/usertransitions", {**body, "user_token": card.user})


def _active(path: str, active: bool) -> Callable[[Client, api_fixtures.Card], Any]:
    return lambda client, _card: client.put(path, {"active": active})


SWITCHES = (
    Switch("card suspended", _transition("SUSPENDED"), _transition("ACTIVE")),
    Switch("user suspended", _status("SUSPENDED"), _status("ACTIVE")),
    Switch("funding source off", _active(SOURCE_PATH, False), _active(SOURCE_PATH, True), is_locked=False),
    Switch("card product off", _active(PRODUCT_PATH, False), _active(PRODUCT_PATH, True), is_locked=False),
)


def switched_off(ring: Ring, switch: Switch, rounds: int) -> None:
    """Send purchases during a deactivation: none that is sent after its answer is approved.

    Batches of both processes wait for the account when the change is sent. If the change locks the account too, it waits
    after them. Otherwise it is answered before they continue.
    """
    card = ring.cards[2]
    for number in range(rounds):
        client = ring.clients[number % 2]

        def turn_off(client: Client = client) -> tuple[int, int, int]:
            with ring.pair.held([card.user]) as held, ThreadPoolExecutor(1) as thread:
                held.wait(2, BATCH)
                asked_ns = time.monotonic_ns()
                change = thread.submit(switch.off, client, card)
                if switch.is_locked:
                    held.wait(1, CHANGE)
                    held.release()
                api_fixtures.made(change.result())
                answered = asked_ns, time.monotonic_ns(), time.time_ns() // 1_000_000
                held.release()
            return answered

        responses, (asked_ns, answered_ns, answered_ms) = ring.connections.keep_firing(
            lambda: ring.purchase(card, 100), turn_off, before=IN_FLIGHT + 7 * (number % 9), after=2 * IN_FLIGHT
        )
        odd = Counter((response.status, response.text[:200]) for response in responses if response.status != 201)
        assert not odd, odd
        after = [response for response in responses if response.sent_ns > answered_ns]
        approved = [response.text for response in after if code_of(response) == APPROVED]
        assert not approved, f"{switch.name}: sent after the answer and approved: {approved[:2]}"
        decided_late = [
            response.text for response in responses if code_of(response) == APPROVED and decided_ms(response) > answered_ms
        ]
        # Products and funding sources are read without a lock, so a current batch may still decide by their old state.
        assert not (decided_late and switch.is_locked), f"{switch.name}: approved after the answer: {decided_late[:2]}"
        ring.figures.decided_late += len(decided_late)
        earlier = [response for response in responses if response.answered_ns < asked_ns]
        assert any(code_of(response) == APPROVED for response in earlier), f"{switch.name}: no approval before the change"
        assert after, f"{switch.name}: no purchase after the answer"
        ring.figures.changes += 1
        ring.figures.under_way += len(responses) - len(earlier) - len(after)
        ring.figures.refused_after += len(after)
        api_fixtures.made(switch.on(ring.client, card))


# --- Resets ----------------------------------------------------------------------------------


def clean_slate(ring: Ring, address: str, rounds: int) -> None:
    """Reset the program during purchases: each is removed, or refused because its card does not exist. No row remains.

    The reset waits for accounts that batches of both processes wait for.
    """

    def reset() -> Reply:
        with ring.pair.held([card.user for card in ring.cards]) as held, ThreadPoolExecutor(1) as thread:
            held.wait(2, BATCH)
            answer = thread.submit(ring.client.post, "/sandbox/reset", {})
            held.wait(1, RESET)
            held.release()
            return answer.result()

    for _ in range(rounds):
        responses, reply = ring.connections.keep_firing(
            lambda: ring.purchase(ring.cards[next(ring.numbers) % len(ring.cards)], 100),
            reset,
            before=IN_FLIGHT,
            after=2 * IN_FLIGHT,
        )
        assert reply.status == 200, reply.text
        assert {response.status for response in responses} <= {201, 400}, Counter(
            (response.status, response.text[:200]) for response in responses
        )
        with check.database_at(address) as database:
            check.verify(database)
            with database.read() as db:
                left = db.scalar(select(func.count()).select_from(transactions))
        assert left == 0, f"{left} transactions remain after a reset"
        ring.cards = api_fixtures.build(ring.client, len(ring.cards))
        ring.figures.resets += 1


def code_of(response: Response) -> str:
    """Return the response code of a simulation's answer."""
    return str(response.json["transaction"]["response"]["code"])


def decided_ms(response: Response) -> int:
    """Return the time of the decision by the clock of this machine, in milliseconds."""
    return parse_instant(response.json["transaction"]["issuer_received_time"])


def ledger(ring: Ring, card: api_fixtures.Card) -> int:
    """Return the ledger balance of the card's account."""
    return api_fixtures.ledger_cents(ring.client, card.user)


# --- The run -------------------------------------------------------------------------------


def run(address: str, *, rounds: int) -> Figures:
    """Run rounds of every race on one empty PostgreSQL database. Raises AssertionError for a violated guarantee."""
    started, figures = time.monotonic(), Figures()
    with running_pair(address) as pair:
        with ExitStack() as stack:
            clients = [stack.enter_context(server.client(timeout_s=60)) for server in pair.servers]
            connections = stack.enter_context(Connections(pair.servers, PAIRS))
            ring = Ring(pair, clients, connections, figures, api_fixtures.build(clients[0], 4))
            same_token(ring, rounds)
            contradicting_bodies(ring, rounds)
            meeting_commits(ring, rounds)
            last_cent(ring, rounds)
            last_slot(ring, rounds)
            for switch in SWITCHES:
                switched_off(ring, switch, max(1, rounds // 2))
            with check.database_at(address) as database:
                check.verify(database)
            clean_slate(ring, address, max(1, rounds // 4))
        figures.conflicts = pair.output().count(CONFLICT)
        assert "Traceback" not in pair.output(), pair.output()[-6000:]
    figures.seconds = time.monotonic() - started
    return figures


def unproven(figures: Figures) -> list[str]:
    """Return the dangerous states that were not reached, although every round forces them."""
    wanted = {
        "pairs under way at the same time": figures.overlapping == figures.pairs > 0,
        "the same token in two processes": figures.conflicts >= figures.met > 0,
        "a decline only because of a concurrent purchase": figures.declined_for_another > 0,
        "purchases under way during a deactivation": figures.under_way >= 2 * figures.changes > 0,
    }
    return [name for name, is_reached in wanted.items() if not is_reached]
