"""Random histories under velocity controls: cards of many programs, run together and checked after every step."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, groupby
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, select

from cardwright.core.enums import TYPE_NUMBER
from cardwright.core.messages import (
    CATEGORY_OF,
    Advice,
    Authorization,
    Clearing,
    Details,
    Expiry,
    Merchant,
    Refund,
    Reversal,
    VelocityCategory,
)
from cardwright.core.movements import GpaLoad, MovementKind
from cardwright.core.problems import HOLD_NOT_DUE, Problem
from cardwright.core.render import details_decoder
from cardwright.core.transaction_row import TransactionRow
from cardwright.core.velocity import Window
from cardwright.engine.batch import CardRequest, CardResult, EngineRequest
from cardwright.engine.batch_runner import run_batch
from cardwright.engine.id_blocks import IdSource
from cardwright.engine.movement_rows import MovementRequest
from cardwright.kit.clock import DAY_MS, ProgramClock
from cardwright.kit.page import Page
from cardwright.resources.account_holders.balances import account_decoder
from cardwright.resources.cards import cards
from cardwright.resources.common.call import Call
from cardwright.resources.controls import mcc_groups
from cardwright.resources.controls import velocity_controls as controls
from cardwright.storage.holds import load_due_holds
from cardwright.storage.programs import Program, ProgramSettings, get_program, insert_program, set_clock
from cardwright.storage.tables import funding_sources, holders, users
from tests.stress.naive_velocity import Books, Chain, Move, window_on
from tests.support import limit_steps as steps
from tests.support.in_process_platform import CREATORS, InProcessPlatform, card_request
from tests.support.instants import NOON
from tests.support.limit_steps import Opened, Step

WINDOWS = tuple(str(window) for window in Window if window is not Window.TRANSACTION)
"""The windows that keep a usage."""

FOLLOWS: dict[str, type[Any]] = {
    "clear": Clearing, "reverse": Reversal, "advise": Advice, "refund": Refund, "force": Clearing,
}  # fmt: skip
CHANGES = ("control", "edit", "off", "on", "group")

BEYOND, ROOM = "approved beyond a limit", "refused though every limit had room"
BELOW, DIFFERENT = "stored usage below zero", "available is not limit minus recount"
WRONG = (BEYOND, ROOM, BELOW, DIFFERENT)
"""Kinds of failures, the worst first."""

SHARED_MAX, OWN_MAX = 6, 3
REPLAYS_MAX = 200

ALL = Page(100, 0, controls.PAGING.sort_by)

_numbers = count(1)


class _Available(msgspec.Struct):
    amount: float
    uses: int


class _ControlRead(msgspec.Struct):
    token: str
    available: _Available


_control_decoder = msgspec.json.Decoder(_ControlRead)


class Line(NamedTuple):
    """A completed step. ``number`` identifies it. ``owner`` is a user, or "" for a step of the whole program."""

    turn: int
    number: int
    owner: str
    step: Step
    answer: str


@dataclass(slots=True, eq=False)
class Person:
    """A user with cards of some products: one history. A child uses the account of ``parent``."""

    name: str
    products: tuple[str, ...]
    parent: str | None = None
    rows: dict[int, TransactionRow] = field(default_factory=dict)
    taken: dict[int, Step] = field(default_factory=dict)
    settings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)

    @property
    def cards(self) -> dict[str, str]:
        """The products of the cards by card token."""
        return {f"{self.name}-{product}": product for product in self.products}


@dataclass(slots=True, eq=False)
class Place:
    """A program: its people, its clock, and the shared controls."""

    id: int
    window: str
    people: list[Person]
    books: Books
    source_id: int
    times: list[int] = field(default_factory=list)
    dice: random.Random = field(default_factory=random.Random)
    settings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    active: set[str] = field(default_factory=set)
    lines: list[Line] = field(default_factory=list)
    now: int = 0

    @property
    def by_card(self) -> dict[str, Person]:
        """The people by the tokens of their cards."""
        return {card: person for person in self.people for card in person.cards}


class Planned(NamedTuple):
    """A planned step of a person, or of the whole program."""

    place: Place
    person: Person | None
    number: int
    step: Step


class Failure(NamedTuple):
    """The first failure of a kind in a history."""

    place: Place
    person: Person
    turn: int
    kind: str
    text: str


@dataclass(slots=True)
class Figures:
    """The result of the histories of one window: the situations that they met, and the failures."""

    window: str
    histories: int = 0
    steps: int = 0
    met: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    stories: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def wrong(self) -> int:
        """Number of histories with a failure."""
        return len({failure.person for failure in self.failures})

    @property
    def unproven(self) -> list[str]:
        """Required situations that no history met."""
        wanted = ["approved", "approved in part", "over an amount", "over a count", "expired", "given back in its window",
                  "refund without an original", "usage beyond its limit"]  # fmt: skip
        if self.window != "LIFETIME":
            wanted.append("given back in a later window")
        return [f"{self.window}: {name}" for name in wanted if not self.met[name]]


class Histories:
    """A runner of steps on a platform, many in one batch."""

    def __init__(self, platform: InProcessPlatform) -> None:
        self.platform, self.loop = platform, asyncio.new_event_loop()
        self.worker = self.loop.run_until_complete(platform.store.open_worker())
        self.ids, self.seeds = IdSource(), count(1)
        self.ids.refill(platform.store.next_ids())

    def close(self) -> None:
        """Close the connections."""
        self.loop.run_until_complete(self.worker.close())
        self.loop.run_until_complete(self.platform.store.close())
        self.loop.close()

    # --- A place ------------------------------------------------------------------------------

    def new_place(self, window: str, people: list[Person], time_ms: int) -> Place:
        """Create a program with these people, two card products, two MCC groups, and their cards."""
        name = f"p{next(_numbers)}"
        with self.platform.database.write() as db:
            program_id = insert_program(
                db,
                token=name,
                name=name,
                short_code=name,
                settings=ProgramSettings(),
                clock=ProgramClock(0, time_ms),
                now=time_ms,
            )

            def make(path: str, **body: Any) -> None:
                action, shape = CREATORS[path]
                query = cards.ShowBoth() if path == "cards" else None
                call = Call(self.platform.app, db, get_program(db, program_id), time_ms, {}, query=query)
                action(call, msgspec.convert(body, shape))

            make("fundingsources/program", name="Bank", token="bank")
            life = {"activate_upon_issue": True, "expiration_offset": {"unit": "YEARS", "value": 9}}
            config = {"card_life_cycle": life, "poi": {"atm": True}, "transaction_controls": {"allow_quasi_cash": True}}
            jit = {"jit_funding": {"program_funding_source": {"enabled": True, "funding_source_token": "bank"}}}
            for product, product_config in (("jit", jit), ("plain", {})):
                make("cardproducts", name=product, token=product, start_date="2020-01-01", config={**config, **product_config})
            for group, mccs in steps.GROUPS.items():
                make("mccgroups", token=group, name=group, mccs=mccs)
            known = {person.name for person in people}
            for parent in sorted({person.parent for person in people if person.parent} - known):
                make("users", token=parent)
            for person in people:
                child = {"parent_token": person.parent, "uses_parent_account": True} if person.parent else {}
                make("users", token=person.name, **child)
                for card, product in person.cards.items():
                    make("cards", token=card, user_token=person.name, card_product_token=product)
            source_id = db.execute(select(funding_sources.c.id).where(funding_sources.c.program_id == program_id)).scalar_one()
        return Place(program_id, window, people, Books(program_id), source_id)

    # --- A turn -------------------------------------------------------------------------------

    def take(self, turn: int, times: dict[Place, int], planned: Sequence[Planned]) -> None:
        """Run steps at these times: first the changes of controls, then due expiries and the messages in one batch."""
        with self.platform.database.write() as db:
            for place, time_ms in times.items():
                set_clock(db, place.id, ProgramClock(0, time_ms))
                place.now = time_ms
            for planned_step in planned:
                if planned_step.step.verb in CHANGES:
                    self._change(db, planned_step, turn)
        messages = [planned_step for planned_step in planned if planned_step.step.verb not in CHANGES]
        self.loop.run_until_complete(self._decide(turn, list(times), messages))

    def _change(self, db: Connection, planned: Planned, turn: int) -> None:
        """Change a control or a group. A change of an unknown control is skipped."""
        place, step = planned.place, planned.step
        fields, token = dict(step.fields), step.fields["token"]
        if step.verb in ("edit", "off", "on") and token not in place.known:
            return
        call = Call(self.platform.app, db, get_program(db, place.id), step.time_ms, {"token": token})
        match step.verb:
            case "control":
                controls.create_control(call, msgspec.convert(fields, controls.VelocityCreate))
                place.known.add(token)
            case "edit":
                del fields["token"]
                controls.update_control(call, msgspec.convert(fields, controls.VelocityUpdate))
            case "on":
                controls.update_control(call, controls.VelocityUpdate(active=True))
            case "off":
                controls.delete_control(call)
            case _:
                mcc_groups.update_mcc_group(call, mcc_groups.MccGroupUpdate(mccs=fields["mccs"]))
        if step.verb == "off":
            place.active.discard(token)
        elif step.verb in ("control", "on"):
            place.active.add(token)
        place.lines.append(Line(turn, planned.number, planned.person.name if planned.person else "", step, ""))

    async def _decide(self, turn: int, places: Sequence[Place], planned: Sequence[Planned]) -> None:
        batch, decided = list[EngineRequest](), list[Planned]()
        for place in places:
            people = place.by_card
            with self.platform.database.read() as db:
                due = load_due_holds(db, place.id, place.now, 10_000)
            for hold in due:
                card = await self.platform.card((place.id, hold.card_token))
                batch.append(CardRequest(card, Expiry(details=Details(mid="")), 0, NOON, root_id=hold.row_id))
                decided.append(Planned(place, people[hold.card_token], 0, Step(place.now, "expire", {})))
        for planned_step in planned:
            if (ask := await self._ask(planned_step)) is not None:
                batch.append(ask)
                decided.append(planned_step)
        if not batch:
            return
        if not self.ids.has(2 * len(batch)):
            self.ids.refill(self.platform.store.next_ids())
        results = await run_batch(self.worker, self.platform.cache, self.ids, lambda: NOON, batch)
        for planned_step, result in zip(decided, results, strict=True):
            answer = "loaded"
            assert planned_step.person is not None
            if isinstance(result, Problem):
                assert result.kind is HOLD_NOT_DUE, f"{planned_step.step}: {result}"
                answer = "not due"
            elif isinstance(result, CardResult):
                answer = _answer(result.row)
                if planned_step.step.verb != "expire":
                    planned_step.person.rows[planned_step.number] = result.row
                    planned_step.person.taken[planned_step.number] = planned_step.step
            of = result.row.root_id if isinstance(result, CardResult) and planned_step.step.verb == "expire" else None
            number = next((number for number, row in planned_step.person.rows.items() if row.id == of), None)
            step = planned_step.step if of is None else planned_step.step._replace(of=number)
            planned_step.place.lines.append(Line(turn, planned_step.number, planned_step.person.name, step, answer))

    async def _ask(self, planned: Planned) -> EngineRequest | None:
        """Return the message of a step, or None if the step that it names was skipped, or was declined and it is no refund."""
        place, person, step = planned.place, planned.person, planned.step
        assert person is not None
        if step.verb == "load":
            return await self._load(place, person, step)
        root = None if step.of is None else person.rows.get(step.of)
        if step.of is not None and (root is None or (root.impacted is None and step.verb != "refund")):
            return None
        message, token = _message(step), step.fields["card"]
        ask = card_request(
            self.platform, token, 1, seed=next(self.seeds), kind=type(message), root_id=None if root is None else root.id
        )
        return ask._replace(card=await self.platform.card((place.id, token)), message=message)

    async def _load(self, place: Place, person: Person, step: Step) -> EngineRequest:
        key = (place.id, person.name)
        order = GpaLoad(
            token=f"{person.name}-{next(self.seeds)}", amount=step.fields["amount"], echoed={"user_token": person.name}
        )
        accounts = await self.platform.cache.reload_accounts([key])
        return MovementRequest(
            (accounts[key],), MovementKind.ORDER, order, next(self.seeds), NOON, b"", source_id=place.source_id
        )

    # --- The check ------------------------------------------------------------------------------

    def check(self, turn: int, places: Iterable[Place]) -> list[Failure]:
        """Return the first failure of each kind and person."""
        failures = list[Failure]()
        with self.platform.database.read() as db:
            for place in places:
                place.books.read_on(db)
                program, states = get_program(db, place.id), _states(db, place.id)
                for person in place.people:
                    for kind, text in self._wrong(db, program, place, person, states):
                        if kind not in person.wrong:
                            person.wrong.add(kind)
                            failures.append(Failure(place, person, turn, kind, text))
        return failures

    def _wrong(
        self, db: Connection, program: Program, place: Place, person: Person, states: dict[str, Any]
    ) -> Iterator[tuple[str, str]]:
        for text in place.books.judge(person.name):
            yield ROOM if "was refused" in text else BEYOND, text
        for key, usage in _usages(states, person).items():
            if usage.amount < 0 or usage.count < 0:
                yield BELOW, f"{key}: {usage}"
        available, counted = self.available(db, program, place, person), place.books.left(person.name, _moment(place.now))
        for token in sorted(available.keys() | counted.keys()):
            if available.get(token) != counted.get(token):
                yield DIFFERENT, f"{token}: {available.get(token)} is available, {counted.get(token)} by the recount"

    def available(self, db: Connection, program: Program, place: Place, person: Person) -> dict[str, tuple[int, int]]:
        """Return the available amount and uses of each control for a person, from the API's action."""
        call = Call(self.platform.app, db, program, place.now, {"user_token": person.name}, page=ALL)
        docs = map(_control_decoder.decode, controls.list_available(call).docs)
        return {doc.token: (round(doc.available.amount * 100), doc.available.uses) for doc in docs}

    # --- Report and replay -----------------------------------------------------------------------

    def story(self, failure: Failure) -> str:
        """Return the history up to the failed step, with the controls and their usage at that time, as text."""
        place, person = failure.place, failure.person
        lines = [f"{line.number:3} | {line.step} | {line.answer}" for line in _lines(failure)]
        with self.platform.database.read() as db:
            available = self.available(db, get_program(db, place.id), place, person)
            stored = _usages(_states(db, place.id), person)
        for limit, control, amount, uses in place.books.usages(person.name, _moment(place.now)):
            plain = {name: value for name, value in control.items() if value is not None and name not in UNTOLD}
            lines.append(f"{limit.token}: {plain}")
            lines.append(f"    recount: {amount / 100:.2f} used {uses} times; available: {available.get(limit.token)}")
        lines += [f"stored usage {key}: {usage}" for key, usage in stored.items()]
        head, end = f"{place.window}: {person.name} with cards of {person.products}", f"{failure.kind}: {failure.text}"
        return "\n".join([head, *lines, end])

    def replay(self, window: str, person: Person, script: Sequence[Line], kind: str) -> Failure | None:
        """Run a history alone in a new program; return its first failure of this kind, or None."""
        again = Person(person.name, person.products, person.parent)
        place = self.new_place(window, [again], script[0].step.time_ms)
        for turn, lines in groupby(script, key=lambda line: line.turn):
            group = list(lines)
            planned = [Planned(place, again if line.owner else None, line.number, line.step) for line in group]
            self.take(turn, {place: group[0].step.time_ms}, planned)
            for failure in self.check(turn, [place]):
                if failure.kind == kind:
                    return failure
        return None

    def shortest(self, failure: Failure) -> Failure:
        """Return the same failure after as few steps as found, or the given failure if the history alone does not fail."""
        script = [line for line in _lines(failure) if line.step.verb != "expire"]
        best, replays, size = failure, count(1), len(script)
        while size:
            is_shorter, start = False, 0
            while start < len(script) and next(replays) < REPLAYS_MAX:
                rest = script[:start] + script[start + size :]
                shorter = self.replay(failure.place.window, failure.person, rest, failure.kind) if rest else None
                if shorter is not None:
                    script, best, is_shorter = rest, shorter, True
                else:
                    start += size
            if not is_shorter or size > 1:
                size //= 2
        return best


UNTOLD = ("id", "token", "currency", "since_ms", "include_transfers", "shadow", "on_revision", "codes", "key")
"""Fields of a control that the report omits."""


def _lines(failure: Failure) -> list[Line]:
    """Return the steps of a person and of the program until the failure, in order."""
    return [line for line in failure.place.lines if line.turn <= failure.turn and line.owner in ("", failure.person.name)]


def _message(step: Step) -> Any:
    fields = step.fields
    shop = {"mid": fields.get("mid", ""), "merchant": Merchant(mcc=fields["mcc"]) if "mcc" in fields else Merchant()}
    if step.verb in steps.ASKS:
        request_type = steps.ASKS[step.verb]
        shop["merchant"] = Merchant(mcc=fields["mcc"], partial_approval_capable=not fields.get("alone"))
        details = Details(
            **shop,
            cash_back=fields.get("cash", 0),
            hold_ms=fields.get("hold_ms"),
            velocity_category=CATEGORY_OF.get(request_type, VelocityCategory.PURCHASE),
        )
        return Authorization(amount=fields["amount"], details=details, request_type=request_type)
    details = Details(**shop)
    if step.verb == "grow":
        return Authorization(amount=fields["amount"], details=details, request_type=steps.RequestType.INCREMENT)
    if step.verb in steps.REFUNDS:
        return Refund(amount=fields["amount"], details=details, type_id=steps.REFUNDS[step.verb])
    options: dict[str, Any] = {"is_advice": True} if fields.get("told") else {}
    if step.verb == "force":
        options = {"is_forced": True}
        if fields.get("atm"):
            details = msgspec.structs.replace(details, velocity_category=VelocityCategory.WITHDRAWAL)
            options["forced_as"] = TYPE_NUMBER["authorization.clearing.atm.withdrawal"]
    return FOLLOWS[step.verb](amount=fields["amount"], details=details, **options)


def _answer(row: TransactionRow) -> str:
    limited_by = details_decoder.decode(row.details).limited_by
    return f"{row.code:04d} {row.amount / 100:.2f}{f' {limited_by}' if limited_by else ''}"


def _states(db: Connection, program_id: int) -> dict[str, Any]:
    """Return the stored account of each user."""
    query = select(users.c.token, holders.c.state).join(holders, holders.c.id == users.c.holder_id)
    return {row.token: account_decoder.decode(row.state) for row in db.execute(query.where(users.c.program_id == program_id))}


def _usages(states: dict[str, Any], person: Person) -> dict[str, Any]:
    """Return the stored usages of a person. For a child, the key ends with the user."""
    usages = states[person.name].usages
    return {key: usage for key, usage in usages.items() if key.partition(" ")[2] == (person.name if person.parent else "")}


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, UTC).replace(microsecond=time_ms % 1000 * 1000)


# --- Drawing and playing ---------------------------------------------------------------------------


def play(
    platform: InProcessPlatform, window: str, seed: int, *, programs: int, people: int, turns: int = 40, stories: int = 1
) -> Figures:
    """Run ``programs`` programs with ``people`` histories of ``turns`` steps each; return the result.

    It has shortened reports of the ``stories`` worst kinds of failures, one of each kind.
    """
    histories = Histories(platform)
    try:
        places = [_new_place(histories, window, f"{seed} {window} {number}", people, turns) for number in range(programs)]
        figures = Figures(window, programs * people, programs * people * turns)
        for turn in range(turns + 1):
            planned = [planned_step for place in places for planned_step in (_drawn(place, turn) if turn else _first(place))]
            histories.take(turn, {place: place.times[turn] for place in places}, planned)
            figures.failures += histories.check(turn, places)
        for place in places:
            _look(place, figures.met)
        kinds = {failure.kind for failure in figures.failures}
        for kind in [kind for kind in WRONG if kind in kinds][:stories]:
            first = min((failure for failure in figures.failures if failure.kind == kind), key=lambda failure: failure.turn)
            figures.stories[kind] = histories.story(histories.shortest(first))
        return figures
    finally:
        histories.close()


def _new_place(histories: Histories, window: str, seed: str, number: int, turns: int) -> Place:
    dice = random.Random(seed)
    people = list[Person]()
    for index in range(number):
        parent = people[-1].name if index % 5 == 4 else None
        products = dice.choice((("jit",), ("jit",), ("plain",), ("plain",), ("jit", "plain")))
        people.append(Person(f"u{index}", products, parent))
    times = steps.drawn_times(dice, window, turns + 1)
    assert window == "LIFETIME" or len({window_on(window, time_ms // DAY_MS) for time_ms in times}) > 2, "two ends are crossed"
    place = histories.new_place(window, people, times[0])
    place.times, place.dice = times, dice
    return place


def _first(place: Place) -> list[Planned]:
    """Return the initial steps: controls of every level, and loads of accounts without JIT Funding."""
    time_ms, planned = place.times[0], list[Planned]()
    for name in ("all", "all", "jit", "plain"):
        association = {} if name == "all" else {"card_product_token": name}
        planned.append(Planned(place, None, 0, _new_control(place, place.settings, name, time_ms, association)))
    for person in place.people:
        for _ in range(place.dice.randint(1, 2)):
            step = _new_control(place, person.settings, person.name, time_ms, {"user_token": person.name})
            planned.append(Planned(place, person, 0, step))
        if "plain" in person.products:
            planned.append(
                Planned(place, person, 0, Step(time_ms, "load", {"amount": place.dice.choice((15_00, 60_00, 200_00))}))
            )
    return planned


def _new_control(
    place: Place, settings: dict[str, list[dict[str, Any]]], name: str, time_ms: int, association: dict[str, str]
) -> Step:
    control = steps.drawn_settings(place.dice, place.window, WINDOWS, association)
    token = f"{name}-{len(settings)}"
    settings[token] = [control]
    return Step(time_ms, "control", {"token": token, **control})


def _change_of(place: Place, settings: dict[str, list[dict[str, Any]]], time_ms: int) -> Step:
    """Draw a change of one of these controls: off, on, or an edit."""
    token = place.dice.choice(sorted(settings))
    if token not in place.active:
        return Step(time_ms, "on", {"token": token})
    if place.dice.random() < 0.2:
        return Step(time_ms, "off", {"token": token})
    control = steps.changed(place.dice, place.window, WINDOWS, settings[token])
    settings[token].append(control)
    return Step(time_ms, "edit", {"token": token, **control})


def _drawn(place: Place, turn: int) -> list[Planned]:
    """Draw a step of each person, and sometimes a change of a shared control or group."""
    time_ms, dice, planned = place.times[turn], place.dice, list[Planned]()
    if dice.random() < 0.25:
        roll = dice.random()
        if roll < 0.25:
            fields = {"token": dice.choice(tuple(steps.GROUPS)), "mccs": dice.choice(steps.GROUP_MEMBERS)}
            planned.append(Planned(place, None, turn, Step(time_ms, "group", fields)))
        elif roll < 0.4 and len(place.settings) < SHARED_MAX:
            planned.append(Planned(place, None, turn, _new_control(place, place.settings, "all", time_ms, {})))
        else:
            planned.append(Planned(place, None, turn, _change_of(place, place.settings, time_ms)))
    planned += [Planned(place, person, turn, _step_of(place, person, time_ms)) for person in place.people]
    return planned


def _step_of(place: Place, person: Person, time_ms: int) -> Step:
    """Draw a step of a person."""
    dice, roll = place.dice, place.dice.random()
    card = {"card": dice.choice(tuple(person.cards))}
    if roll < 0.1:
        if len(person.settings) < OWN_MAX and dice.random() < 0.3:
            return _new_control(place, person.settings, person.name, time_ms, {"user_token": person.name})
        return _change_of(place, person.settings, time_ms)
    if roll < 0.18:
        return steps.drawn_refund(dice, time_ms, card)
    if roll < 0.21 and "plain" in person.products:
        return Step(time_ms, "load", {"amount": dice.choice((15_00, 50_00))})
    if roll < 0.58 and (step := steps.drawn_follow_up(dice, time_ms, _opened(place, person))) is not None:
        # A follow-up has the card of its chain.
        step.fields["card"] = person.taken[step.of or 0].fields["card"]
        return step
    return steps.drawn_request(dice, time_ms, place.window, card)


def _opened(place: Place, person: Person) -> list[Opened]:
    """Return the chains of a person."""
    return [
        Opened(number, person.taken[number].verb, row.amount, row.impacted is not None, place.books.chains.get(row.id) or Chain())
        for number, row in person.rows.items() if row.root_id is None
    ]  # fmt: skip


def _look(place: Place, met: Counter[str]) -> None:
    """Count the situations that the histories of a program met."""
    for line in place.lines:
        met[f"step {line.step.verb}"] += 1
        met["expired"] += line.step.verb == "expire"
        met["approved in part"] += line.answer.startswith("0002")
    for usage_events in place.books.usage_events.values():
        for usage_event in usage_events:
            if usage_event.request is not None:
                met["approved"] += usage_event.is_approved
                met["over an amount"] += usage_event.code == 1834
                met["over a count"] += usage_event.code == 1817
                continue
            for move in usage_event.moves:
                _look_at(place, usage_event.created_ms, move, met)
    for person in place.people:
        for _, control, amount, _ in place.books.usages(person.name, _moment(place.now)):
            met["usage beyond its limit"] += amount > control["amount_limit"]


def _look_at(place: Place, at_ms: int, move: Move, met: Counter[str]) -> None:
    if move.goods + move.cash >= 0:
        return
    if move.part.at_ms == at_ms and move.part.goods == -move.goods:
        met["refund without an original"] += 1
        return
    windows = {window_on(place.window, time_ms // DAY_MS) for time_ms in (at_ms, move.part.at_ms)}
    is_later = len(windows) > 1
    met["given back in a later window" if is_later else "given back in its window"] += 1
