"""Races between two processes on one PostgreSQL: the same token twice, the last cent, something switched off meanwhile."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import func, select

from cardwright.kit.clock import parse_instant
from cardwright.storage.tables import transactions
from tests.storm import check, town
from tests.storm.told import APPROVED
from tests.storm.volley import Battery, Shot, processes_of
from tests.support.server import Client, RunningServer

IN_FLIGHT = 64
SIDE_MIN = IN_FLIGHT // 4
"""Connections that each process must serve, so that there is somebody to race with."""

PATIENCE_S = 60
"""How long the second process may take to start."""

OVERLAP_MIN = 0.9
"""The share of the races that must really have been under way at the same time, or they prove nothing."""

MEETINGS_MAX = 200
"""After so many rounds without a conflict something else is wrong."""

CONFLICT = "batch is run again"
"""What the log says when two processes wanted to commit the same token (level info)."""

SOURCE_PATH = f"/fundingsources/program/{town.SOURCE}"
PRODUCT_PATH = "/cardproducts/jit"
AUTHORIZATION = "/v3/simulate/authorization"
PARTLY = "0002"
NO_FUNDS = "1016"


@dataclass(slots=True)
class Figures:
    """What the races counted."""

    pairs: int = 0
    overlapping: int = 0
    conflicts: int = 0
    contradicted: int = 0
    last_cents: int = 0
    last_slots: int = 0
    declined_for_another: int = 0
    changes: int = 0
    under_way: int = 0
    refused_after: int = 0
    decided_late: int = 0
    births: int = 0
    resets: int = 0
    seconds: float = 0.0
    processes: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Ring:
    """Where races take place: open connections to a server with two processes, and which process serves each of them."""

    client: Client
    battery: Battery
    figures: Figures
    cards: list[town.Card]
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    sides: tuple[list[int], list[int]] = ([], [])

    def token(self) -> str:
        """One that nobody used before."""
        return f"race-{next(self.numbers)}"

    def make_ready(self) -> None:
        """Sees to it that every connection is open and that both processes serve enough of them."""
        deadline = time.monotonic() + PATIENCE_S
        while self.battery.refresh() or min(map(len, self.sides)) < SIDE_MIN:
            # A purchase on each connection tells which process serves it; the second process may start a little later.
            shots = self.battery.fire([self.purchase(self.cards[-1], 100) for _ in range(IN_FLIGHT)])
            served = list(processes_of(shots))
            assert time.monotonic() < deadline, f"one process takes nearly all the connections: {Counter(served)}"
            self.figures.processes = Counter(served)
            first = min(served)
            self.sides = (
                [place for place, process in enumerate(served) if process == first],
                [place for place, process in enumerate(served) if process != first],
            )
            if min(map(len, self.sides)) < SIDE_MIN:
                self.battery.hang_up()
                time.sleep(0.2)

    def purchase(self, card: town.Card, cents: int, token: str | None = None) -> tuple[str, str, dict[str, Any]]:
        """A request for a purchase."""
        return ("POST", AUTHORIZATION, town.purchase(card.token, cents, token or self.token()))

    def fire_pairs(self, pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Shot, Shot]]:
        """Fires both of each pair at once, one at each process."""
        self.make_ready()
        places = [place for pair in zip(*self.sides, strict=False) for place in pair][: 2 * len(pairs)]
        requests = [request for pair in pairs for request in pair][: len(places)]
        shots = self.battery.fire_watching(requests, places)
        raced = list(zip(shots[::2], shots[1::2], strict=True))
        self.figures.pairs += len(raced)
        self.figures.overlapping += sum(one.overlaps(other) for one, other in raced)
        return raced


# --- One token, one effect ----------------------------------------------------------------


def same_token(ring: Ring, rounds: int) -> None:
    """The same request to both processes at once: one effect, and both are told the same bytes."""
    for _ in range(rounds):
        tokens = [ring.token() for _ in range(IN_FLIGHT // 2)]
        before = ledger(ring, ring.cards[0])
        raced = ring.fire_pairs([(ring.purchase(ring.cards[0], 700, token),) * 2 for token in tokens])
        for one, other in raced:
            assert (one.status, other.status) == (201, 201), (one.text, other.text)
            assert one.json["transaction"] == other.json["transaction"], (one.text, other.text)
        assert ledger(ring, ring.cards[0]) - before == 700 * len(raced)


def contradicting_bodies(ring: Ring, rounds: int, is_proven: Callable[[], bool]) -> None:
    """The same token with different bodies to both processes at once: one is carried out, the other is a conflict.

    On two cards nothing but the token's own uniqueness stands between the two: their accounts share no lock. It goes on
    until two commits have really met.
    """
    for number in range(MEETINGS_MAX):
        if number >= rounds and is_proven():
            return
        cards = (ring.cards[1], ring.cards[1 if number % 4 == 3 else 0])
        before = sum(ledger(ring, card) for card in set(cards))
        tokens = [ring.token() for _ in range(IN_FLIGHT // 2)]
        raced = ring.fire_pairs([(ring.purchase(cards[0], 300, one), ring.purchase(cards[1], 500, one)) for one in tokens])
        for pair in raced:
            assert sorted(shot.status for shot in pair) == [201, 409], [shot.text for shot in pair]
        won = sum(town.cents_of(shot.json["transaction"]["amount"]) for pair in raced for shot in pair if shot.status == 201)
        assert sum(ledger(ring, card) for card in set(cards)) - before == won
        ring.figures.contradicted += len(raced)


def births(ring: Ring, creates: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """A create with the same token and body, eight times at once: one object, and everybody is told the same bytes."""
    for path, body in creates:
        ring.battery.refresh()
        shots = ring.battery.fire([("POST", path, body)] * 8)
        assert {shot.status for shot in shots} == {201}, [(shot.status, shot.text) for shot in shots]
        assert len({shot.text for shot in shots}) == 1, [shot.text for shot in shots]
        ring.figures.births += 1


# --- Never over a limit -------------------------------------------------------------------


def last_cent(ring: Ring, rounds: int) -> None:
    """More purchases at once than a preloaded account can pay, each sent twice: exactly what is there is spent."""
    for _ in range(rounds):
        card = town.preloaded(ring.client, ring.token(), 10_50)
        tokens = [ring.token() for _ in range(IN_FLIGHT // 2)]
        raced = ring.fire_pairs([(ring.purchase(card, 1_00, token),) * 2 for token in tokens])
        answers = [one.json["transaction"] for one, _ in raced]
        codes = Counter(answer["response"]["code"] for answer in answers)
        spent = sum(town.cents_of(answer["amount"]) for answer in answers if answer["response"]["code"] in (APPROVED, PARTLY))
        assert codes == {APPROVED: 10, PARTLY: 1, NO_FUNDS: len(raced) - 11}, codes
        assert spent == 10_50
        assert town.available_cents(ring.client, card.user) == 0
        ring.figures.last_cents += 1
        ring.figures.declined_for_another += codes[NO_FUNDS]


def last_slot(ring: Ring, rounds: int) -> None:
    """More purchases at once than a velocity control lets through, each sent twice: exactly as many as it says."""
    for number in range(rounds):
        card = town.card(ring.client, ring.token())
        control = {"association": {"user_token": card.user}, "currency_code": "USD", "velocity_window": "DAY"}
        limits: dict[str, int] = ({"amount_limit": 10_000, "usage_limit": 5}, {"amount_limit": 17})[number % 2]
        town.made(ring.client.post("/velocitycontrols", control | limits))
        tokens = [ring.token() for _ in range(IN_FLIGHT // 2)]
        raced = ring.fire_pairs([(ring.purchase(card, 3_00, token),) * 2 for token in tokens])
        codes = Counter(code_of(one) for one, _ in raced)
        assert codes[APPROVED] == 5, codes
        assert ledger(ring, card) == 5 * 3_00
        ring.figures.last_slots += 1
        ring.figures.declined_for_another += len(raced) - 5


# --- What is switched off stays off --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Switch:
    """Something that decides whether a card may pay, and the calls that turn it off and on.

    ``is_locked``: a batch holds the lock of what is changed, so a change waits for the batches that are under way.
    """

    name: str
    off: Callable[[Client, town.Card], Any]
    on: Callable[[Client, town.Card], Any]
    is_locked: bool = True


def _transition(state: str) -> Callable[[Client, town.Card], Any]:
    return lambda client, card: client.post("/cardtransitions", {"card_token": card.token, "state": state, "channel": "API"})


def _status(status: str) -> Callable[[Client, town.Card], Any]:
    body = {"status": status, "reason_code": "00", "channel": "API"}
    return lambda client, card: client.post("/usertransitions", {**body, "user_token": card.user})


def _active(path: str, active: bool) -> Callable[[Client, town.Card], Any]:
    return lambda client, _card: client.put(path, {"active": active})


SWITCHES = (
    Switch("card suspended", _transition("SUSPENDED"), _transition("ACTIVE")),
    Switch("user suspended", _status("SUSPENDED"), _status("ACTIVE")),
    Switch("funding source off", _active(SOURCE_PATH, False), _active(SOURCE_PATH, True), is_locked=False),
    Switch("card product off", _active(PRODUCT_PATH, False), _active(PRODUCT_PATH, True), is_locked=False),
)


def switched_off(ring: Ring, switch: Switch, rounds: int) -> None:
    """Purchases while something is switched off: none that is sent after the change's answer arrived is approved."""
    card = ring.cards[2]
    for number in range(rounds):

        def turn_off() -> tuple[int, int, int]:
            asked_ns = time.monotonic_ns()
            town.made(switch.off(ring.client, card))
            return asked_ns, time.monotonic_ns(), time.time_ns() // 1_000_000

        ring.battery.refresh()
        shots, (asked_ns, answered_ns, answered_ms) = ring.battery.keep_firing(
            lambda: ring.purchase(card, 100), turn_off, before=IN_FLIGHT + 7 * (number % 9), after=2 * IN_FLIGHT
        )
        odd = Counter((shot.status, shot.text[:200]) for shot in shots if shot.status != 201)
        assert not odd, odd
        after = [shot for shot in shots if shot.sent_ns > answered_ns]
        approved = [shot.text for shot in after if code_of(shot) == APPROVED]
        assert not approved, f"{switch.name}: approved after it was off: {approved[:2]}"
        decided_late = [shot.text for shot in shots if code_of(shot) == APPROVED and decided_ms(shot) > answered_ms]
        # What a whole program shares is read without a lock: a batch under way may still decide by what it read before.
        assert not (decided_late and switch.is_locked), f"{switch.name}: decided after it was off: {decided_late[:2]}"
        ring.figures.decided_late += len(decided_late)
        earlier = [shot for shot in shots if shot.answered_ns < asked_ns]
        assert any(code_of(shot) == APPROVED for shot in earlier), f"{switch.name}: nothing was approved even before"
        assert after, f"{switch.name}: nothing was asked afterwards"
        ring.figures.changes += 1
        ring.figures.under_way += len(shots) - len(earlier) - len(after)
        ring.figures.refused_after += len(after)
        town.made(switch.on(ring.client, card))


# --- A clean slate ---------------------------------------------------------------------------


def clean_slate(ring: Ring, address: str, rounds: int) -> None:
    """Resets while purchases run: a purchase is either removed or finds no card any more, and nothing of it is left over."""
    for _ in range(rounds):
        ring.battery.refresh()
        shots, reply = ring.battery.keep_firing(
            lambda: ring.purchase(ring.cards[next(ring.numbers) % len(ring.cards)], 100),
            lambda: ring.client.post("/sandbox/reset", {}),
            before=IN_FLIGHT,
            after=2 * IN_FLIGHT,
        )
        assert reply.status == 200, reply.text
        assert {shot.status for shot in shots} <= {201, 400}, Counter((shot.status, shot.text[:200]) for shot in shots)
        with check.database_at(address) as database:
            check.verify(database)
            with database.read() as db:
                left = db.scalar(select(func.count()).select_from(transactions))
        assert left == 0, f"{left} transactions outlived a reset"
        ring.cards = town.build(ring.client, len(ring.cards))
        ring.figures.resets += 1


def code_of(shot: Shot) -> str:
    """The response code of a simulation's answer."""
    return str(shot.json["transaction"]["response"]["code"])


def decided_ms(shot: Shot) -> int:
    """When the decision was made, by the clock of this machine."""
    return parse_instant(shot.json["transaction"]["issuer_received_time"])


def ledger(ring: Ring, card: town.Card) -> int:
    """The ledger balance of the card's account."""
    return town.ledger_cents(ring.client, card.user)


# --- All of it -----------------------------------------------------------------------------


def run(address: str, *, rounds: int, creates: Sequence[tuple[str, dict[str, Any]]] = ()) -> Figures:
    """Every race so many times on one empty PostgreSQL database. Raises AssertionError for a promise that was not kept."""
    started, figures = time.monotonic(), Figures()
    with RunningServer(db=address, workers=2, env={"CARDWRIGHT_LOG_LEVEL": "info"}) as server:
        with server.client(timeout_s=60) as client, Battery(server, IN_FLIGHT) as battery:
            ring = Ring(client, battery, figures, town.build(client, 4))
            same_token(ring, rounds)
            contradicting_bodies(ring, rounds, lambda: CONFLICT in server.output())
            births(ring, creates)
            last_cent(ring, rounds)
            last_slot(ring, rounds)
            for switch in SWITCHES:
                switched_off(ring, switch, max(1, rounds // 2))
            with check.database_at(address) as database:
                check.verify(database)
            clean_slate(ring, address, max(1, rounds // 4))
        figures.conflicts = server.output().count(CONFLICT)
        assert "Traceback" not in server.output(), server.output()[-6000:]
    figures.seconds = time.monotonic() - started
    return figures


def unproven(figures: Figures) -> list[str]:
    """Dangerous situations that were reached too seldom."""
    wanted = {
        "two processes at work": len(figures.processes) > 1,
        "pairs under way at the same time": figures.overlapping >= OVERLAP_MIN * figures.pairs > 0,
        "the same token in two processes": figures.conflicts > 0,
        "a decline only because of a concurrent purchase": figures.declined_for_another > 0,
        "purchases under way while something was switched off": figures.under_way > 0,
    }
    return [name for name, is_reached in wanted.items() if not is_reached]
