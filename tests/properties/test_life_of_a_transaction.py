"""Any messages in any order, decided by the heart and by a plain model beside it, which must agree on everything.

The model knows a chain as a dict and an account as two numbers. It is told here in other words than in the code, so that a
mistake would have to be made twice.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from cardwright.core.kinds import Form
from cardwright.core.messages import Advice, Authorization, Clearing, Details, Expiry, Merchant, Refund, Reversal
from cardwright.core.problems import Problem
from cardwright.core.responses import REASON_OF
from cardwright.core.words import TYPES, State
from cardwright.engine.heart import Asked, IdSource, Outcome, run_batch
from cardwright.kit.clock import DAY_MS, ProgramClock
from cardwright.ledger.invariants import verify
from cardwright.storage.programs import set_clock
from tests.support.chains import populate
from tests.support.world import NOON, World, new_world

SIZE = settings(
    max_examples=int(os.environ.get("CARDWRIGHT_LIFE_RUNS", "300")),
    stateful_step_count=int(os.environ.get("CARDWRIGHT_LIFE_STEPS", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""How many lives, and how long each is."""

WEEK = 7 * DAY_MS

# What each kind of chain is called, and how it answers. A hold is taken up by what follows it; what is settled at once
# is only undone.
HOLDS = {Form.PURCHASE: "authorization", Form.PIN_HOLD: "pindebit.authorization"}
AT_ONCE = {
    Form.PIN_PURCHASE: ("pindebit", "pindebit.reversal"),
    Form.WITHDRAWAL: ("pindebit.atm.withdrawal", "pindebit.reversal"),
    Form.ORIGINAL_CREDIT: ("original.credit.auth_plus_capture", "original.credit.auth_plus_capture.reversal"),
}

EDGES = {
    *((start, f"ask {form.value}", end) for form in (*HOLDS, Form.PIN_PURCHASE) for start, end in (
        ("", "DECLINED"), ("", "CLEARED"), ("", "PENDING" if form in HOLDS else "COMPLETION"),
    )),
    ("", "ask pindebit.atm.withdrawal", "COMPLETION"), ("", "ask pindebit.atm.withdrawal", "DECLINED"),
    ("", "ask original.credit.auth_plus_capture", "COMPLETION"), ("", "ask pindebit.balanceinquiry", "CLEARED"),
    *((form.value, start, message, end) for form in HOLDS for start, message, end in (
        ("PENDING", "clear", "CLEARED"), ("PENDING", "reverse", "PENDING"), ("PENDING", "reverse", "CLEARED"),
        ("PENDING", "reverse", "refused"), ("PENDING", "expire", "CLEARED"), ("PENDING", "expire", "not due"),
        ("CLEARED", "clear", "CLEARED"), ("CLEARED", "reverse", "refused"), ("CLEARED", "reverse", "CLEARED"),
        ("CLEARED", "expire", "not due"),
    )),
    *(("authorization", start, message, end) for start, message, end in (
        ("PENDING", "clear", "PENDING"), ("PENDING", "grow", "PENDING"), ("PENDING", "grow", "refused"),
        ("PENDING", "advise", "PENDING"), ("PENDING", "advise", "CLEARED"), ("PENDING", "advise", "refused"),
        ("CLEARED", "grow", "refused"), ("CLEARED", "advise", "refused"), ("CLEARED", "advise", "CLEARED"),
    )),
    *((form.value, "COMPLETION", "reverse", end) for form in AT_ONCE for end in ("COMPLETION", "refused")),
    ("pindebit", "CLEARED", "reverse", "CLEARED"), ("pindebit", "CLEARED", "reverse", "refused"),
    ("", "force", "COMPLETION"), ("", "refund", "COMPLETION"),
}  # fmt: skip
"""The edges of the state table: what there was, what came, what there is."""


class Heart:
    """The heart on a world of its own, with a loop and a lane that stay."""

    def __init__(self, world: World) -> None:
        self.world, self.loop, self.now = world, asyncio.new_event_loop(), NOON
        self.lane = self.loop.run_until_complete(world.store.open_lane())
        self.ids = IdSource()
        self.ids.refill(world.store.next_ids())
        self.seen: Counter[tuple[str, ...]] = Counter()

    def decide(self, card: str, message: Any, root_id: int | None) -> Outcome | Problem:
        """What becomes of a message."""
        return self.loop.run_until_complete(self._decide(card, message, root_id))

    async def _decide(self, card: str, message: Any, root_id: int | None) -> Outcome | Problem:
        asked = Asked(await self.world.card((self.world.program_id, card)), message, 5, NOON, root_id=root_id)
        (result,) = await run_batch(self.lane, self.world.cache, self.ids, lambda: NOON, [asked])
        return result

    def pass_time(self, days: int) -> None:
        """Moves the program's clock; no days at all put it back to where it began."""
        self.now = self.now + days * DAY_MS if days else NOON
        with self.world.database.write() as db:
            set_clock(db, self.world.program_id, ProgramClock(0, self.now))

    def close(self) -> None:
        """Ends the lane."""
        self.loop.run_until_complete(self.lane.close())
        self.loop.close()


class Life(RuleBasedStateMachine):
    """One account with a card, and all that can happen to it."""

    heart: ClassVar[Heart]

    @initialize(product=st.sampled_from(("jit", "keeps", "plain", "plain")), wealth=st.sampled_from((1000, 50, 0)))
    def open_account(self, product: str, wealth: int) -> None:
        """A new card; some begin with money of their own."""
        world = self.heart.world
        self.heart.pass_time(0)
        self.card = world.make("users")["token"]
        world.make("cards", token=self.card, user_token=self.card, card_product_token=product)
        self.jit, self.returns = product != "plain", product == "jit"
        self.ledger = self.held = 0
        self.chains: list[dict[str, Any]] = []
        if wealth:
            self.ask_for(Form.ORIGINAL_CREDIT, wealth, 0, capable=True)

    # --- Messages ---------------------------------------------------------------------------

    @rule(form=st.sampled_from(tuple(HOLDS)), amount=st.sampled_from((60, 20, 300)), capable=st.booleans())
    def hold(self, form: Form, amount: int, capable: bool) -> None:
        """A purchase to be cleared later: what most of the others follow."""
        self.ask_for(form, amount, 0, capable)

    @rule(
        form=st.sampled_from((*HOLDS, *AT_ONCE, Form.PIN_PURCHASE, Form.BALANCE_INQUIRY)),
        amount=st.sampled_from((60, 20, 300, 1, 0, 0)), cash=st.sampled_from((0, 0, 0, 15)), capable=st.booleans(),
    )  # fmt: skip
    def ask_for(self, form: Form, amount: int, cash: int, capable: bool) -> None:
        """A purchase, a hold, cash, a balance, or a credit."""
        if form is Form.BALANCE_INQUIRY:
            amount = 0
        elif form in (Form.WITHDRAWAL, Form.ORIGINAL_CREDIT):
            amount = amount or 5
        if form not in (Form.PURCHASE, Form.PIN_PURCHASE):
            cash = 0
        self.capable = capable
        details = Details(mid="m", cash_back=cash, merchant=Merchant(partial_approval_capable=capable))
        outcome = self.send(Authorization(amount=amount, details=details, form=form))
        name = form.value if not cash else "authorization.cashback" if form is Form.PURCHASE else "pindebit.cashback"
        expected = self.expect_ask(form, amount + cash, capable)
        self.compare(outcome, name, *expected)
        self.see("", f"ask {form.value}", expected[0])

    def expect_ask(self, form: Form, total: int, capable: bool) -> tuple[str, str, int]:
        """State, code and moved money of what asks; the account and the chains afterwards."""
        if form is Form.BALANCE_INQUIRY:
            return "CLEARED", "0000", 0
        if form is Form.ORIGINAL_CREDIT:
            back = total if self.returns else 0
            self.ledger += total - back
            self.begin(form, settled=-total, load=-back)
            return "COMPLETION", "0000", -back
        free = max(0, self.ledger - self.held)
        load = max(0, total - free) if self.jit else 0
        code = "0000"
        if total > free and not self.jit:
            if not (free and capable and form is not Form.WITHDRAWAL):
                return "DECLINED", "1016", 0
            total, code = free, "0002"
        self.ledger += load
        if form in HOLDS:
            self.held += total
            self.begin(form, hold=total, load=load)
            return ("PENDING" if total else "CLEARED"), code, load
        self.ledger -= total
        self.begin(form, settled=total, load=load)
        return ("COMPLETION" if total else "CLEARED"), code, load

    @precondition(lambda self: any(chain["form"] in HOLDS for chain in self.chains))
    @rule(which=st.integers(0, 99), share=st.sampled_from(("part", "all", "more")))
    def clear(self, which: int, share: str) -> None:
        """A clearing; a PIN debit is completed by it and gives the rest back."""
        chain = self.pick(which, HOLDS)
        amount = self.share_of(chain["hold"], share)
        outcome = self.send(Clearing(amount=amount, details=Details(mid="")), chain)
        before = self.state_of(chain)
        covered = min(amount, chain["hold"])
        captured, extra = min(covered, chain["load"]), amount - covered
        load = max(0, extra - max(0, self.ledger - self.held)) if self.jit else 0
        rest = chain["hold"] - covered if chain["form"] is Form.PIN_HOLD else 0
        back = min(rest, chain["load"] - captured)
        self.ledger += load - amount - back
        self.held -= covered + rest
        chain |= {"hold": chain["hold"] - covered - rest, "load": chain["load"] - captured - back}
        chain["settled"] += amount
        name = "pindebit.authorization.clearing" if chain["form"] is Form.PIN_HOLD else "authorization.clearing"
        self.compare(outcome, name + chain["suffix"], "COMPLETION", "0000", captured + load)
        self.see(chain["form"].value, before, "clear", self.state_of(chain))

    @precondition(lambda self: any(chain["form"] in HOLDS for chain in self.chains))
    @rule(which=st.integers(0, 99), share=st.sampled_from(("part", "all", "more")), told=st.booleans())
    def reverse(self, which: int, share: str, told: bool) -> None:
        """A reversal of a hold; one that is only told takes what there is."""
        self.expect_reversal(self.pick(which, HOLDS), share, told)

    @precondition(lambda self: any(chain["form"] in AT_ONCE for chain in self.chains))
    @rule(which=st.integers(0, 99), share=st.sampled_from(("part", "all", "more")), told=st.booleans())
    def undo(self, which: int, share: str, told: bool) -> None:
        """A reversal of what was settled at once."""
        self.expect_reversal(self.pick(which, AT_ONCE), share, told)

    def expect_reversal(self, chain: dict[str, Any], share: str, told: bool) -> None:
        """Reverses, and knows what comes of it."""
        holds = chain["form"] in HOLDS
        left = chain["hold"] if holds else abs(chain["settled"])
        amount, before = self.share_of(left, share), self.state_of(chain)
        outcome = self.send(Reversal(amount=amount, details=Details(mid=""), is_advice=told), chain)
        name = HOLDS[chain["form"]] + ".reversal" if holds else AT_ONCE[chain["form"]][1]
        if amount > left and not told:
            self.compare(outcome, name, "DECLINED", self.why_not(chain, left), 0)
            self.see(chain["form"].value, before, "reverse", "refused")
            return
        amount = min(amount, left)
        if holds:
            moved = self.let_go(chain, amount)
            state = "CLEARED" if not chain["hold"] else "PENDING"
        elif chain["form"] is Form.ORIGINAL_CREDIT:
            load = min(amount, max(0, -chain["load"]))
            load += max(0, amount - load - max(0, self.ledger - self.held)) if self.jit else 0
            self.ledger += load - amount
            chain |= {"load": chain["load"] + load, "settled": chain["settled"] + amount}
            moved, state = load, "COMPLETION"
        else:
            back = min(amount, chain["load"])
            self.ledger += amount - back
            chain |= {"load": chain["load"] - back, "settled": chain["settled"] - amount}
            moved, state = -back, "CLEARED"
        self.compare(outcome, name, state, "0000", moved)
        self.see(chain["form"].value, before, "reverse", self.state_of(chain))

    @precondition(lambda self: any(chain["form"] is Form.PURCHASE for chain in self.chains))
    @rule(which=st.integers(0, 99), less=st.sampled_from((-5, 0, 1, 1_000_000)))
    def advise(self, which: int, less: int) -> None:
        """A lower total: as it is less this, or nothing at all."""
        chain = self.pick(which, (Form.PURCHASE,))
        total = max(chain["settled"], chain["settled"] + chain["hold"] - less)
        before, back = self.state_of(chain), chain["settled"] + chain["hold"] - total
        outcome = self.send(Advice(amount=total, details=Details(mid="")), chain)
        if back < 0 or chain["hold"] == 0:
            code = self.why_not(chain, chain["hold"]) if chain["hold"] == 0 and chain["asked"] else "1810"
            if back < 0 or chain["asked"]:
                self.compare(outcome, "authorization.advice", "DECLINED", code, 0)
                self.see("authorization", before, "advise", "refused")
                return
        moved = self.let_go(chain, back)
        self.compare(outcome, "authorization.advice", "PENDING" if chain["hold"] else "CLEARED", "0000", moved)
        self.see("authorization", before, "advise", self.state_of(chain))

    @precondition(lambda self: any(chain["form"] is Form.PURCHASE for chain in self.chains))
    @rule(which=st.integers(0, 99), amount=st.sampled_from((1, 40, 2000)))
    def grow(self, which: int, amount: int) -> None:
        """An increment."""
        chain = self.pick(which, (Form.PURCHASE,))
        before = self.state_of(chain)
        outcome = self.send(Authorization(amount=amount, details=Details(mid=""), form=Form.INCREMENT), chain)
        free = max(0, self.ledger - self.held)
        if chain["hold"] == 0:
            # Closed: unlike a reversal it does not ask how much was asked for.
            expected = "DECLINED", "1018" if chain["settled"] else "1017", 0
        elif not self.jit and amount > free and not (free and chain["capable"]):
            expected = "DECLINED", "1016", 0
        else:
            granted = amount if self.jit else min(amount, free)
            load = max(0, granted - free) if self.jit else 0
            self.ledger, self.held = self.ledger + load, self.held + granted
            chain |= {"hold": chain["hold"] + granted, "load": chain["load"] + load}
            chain["due"] = max(chain["due"], self.heart.now + WEEK)
            expected = "PENDING", "0000" if granted == amount else "0002", load
        self.compare(outcome, "authorization.incremental", *expected)
        self.see("authorization", before, "grow", "refused" if expected[0] == "DECLINED" else self.state_of(chain))

    @precondition(lambda self: self.chains)
    @rule(which=st.integers(0, 99), amount=st.sampled_from((1, 25)), forced=st.booleans())
    def unrelated(self, which: int, amount: int, forced: bool) -> None:
        """A refund or a forced clearing, which only borrow card and merchant."""
        lender = self.chains[which % len(self.chains)]
        if forced:
            outcome = self.send(Clearing(amount=amount, details=Details(mid=""), is_forced=True), lender)
            load = max(0, amount - max(0, self.ledger - self.held)) if self.jit else 0
            self.ledger += load - amount
            self.compare(outcome, "authorization.clearing", "COMPLETION", "0000", load)
        else:
            outcome = self.send(Refund(amount=amount, details=Details(mid="")), lender)
            self.ledger += 0 if self.returns else amount
            self.compare(outcome, "refund", "COMPLETION", "0000", -amount if self.returns else 0)
        self.see("", "force" if forced else "refund", "COMPLETION")

    # --- Time -------------------------------------------------------------------------------

    @rule(days=st.sampled_from((1, 6, 7)))
    def wait(self, days: int) -> None:
        """Time passes."""
        self.heart.pass_time(days)

    @precondition(lambda self: any(chain["form"] in HOLDS for chain in self.chains))
    @rule(which=st.integers(0, 99))
    def expire(self, which: int) -> None:
        """The timers ask for an expiry, rightly or not."""
        chain = self.pick(which, HOLDS)
        before = self.state_of(chain)
        outcome = self.send(Expiry(details=Details(mid="")), chain)
        if not chain["hold"] or chain["due"] > self.heart.now:
            assert isinstance(outcome, Problem)
            assert outcome.kind.code == "409003"
            self.see(chain["form"].value, before, "expire", "not due")
            return
        moved = self.let_go(chain, chain["hold"])
        self.compare(outcome, HOLDS[chain["form"]] + ".reversal.issuerexpiration", "CLEARED", "0000", moved)
        self.see(chain["form"].value, before, "expire", self.state_of(chain))

    # --- What the model knows ---------------------------------------------------------------

    def begin(self, form: Form, *, hold: int = 0, load: int = 0, settled: int = 0) -> None:
        """A chain that others can follow."""
        self.chains.append({
            "form": form, "hold": hold, "load": load, "settled": settled, "asked": hold or abs(settled),
            "due": self.heart.now + WEEK, "row": self.last.row, "suffix": "", "capable": self.capable,
        })  # fmt: skip
        if TYPES[self.last.row.kind] == "authorization.cashback":
            self.chains[-1]["suffix"] = ".cashback"

    def let_go(self, chain: dict[str, Any], amount: int) -> int:
        """Releases a part of a hold: first what was loaded goes back."""
        back = min(amount, chain["load"])
        self.ledger, self.held = self.ledger - back, self.held - amount
        chain |= {"hold": chain["hold"] - amount, "load": chain["load"] - back}
        return -back

    def why_not(self, chain: dict[str, Any], left: int) -> str:
        """The code of a reversal that is too large."""
        if left or not chain["asked"]:
            return "1810"
        return "1018" if chain["form"] in HOLDS and chain["settled"] else "1017"

    def state_of(self, chain: dict[str, Any]) -> str:
        """The state of a chain's root."""
        if chain["form"] in HOLDS:
            return "PENDING" if chain["hold"] else "CLEARED"
        return "COMPLETION" if chain["asked"] else "CLEARED"

    def pick(self, which: int, forms: Any) -> dict[str, Any]:
        """One of the chains of these forms: two times in three the latest of those that something is left of."""
        found = [chain for chain in self.chains if chain["form"] in forms]
        alive = [chain for chain in found if chain["hold"] or (chain["form"] in AT_ONCE and chain["settled"])]
        return alive[-1] if alive and which % 3 else found[which % len(found)]

    def share_of(self, left: int, share: str) -> int:
        """A part of what is left, all of it, or more."""
        return {"part": max(1, left // 2), "all": max(1, left), "more": left + 3}[share]

    def send(self, message: Any, chain: dict[str, Any] | None = None) -> Outcome | Problem:
        """What the heart makes of a message."""
        result = self.heart.decide(self.card, message, None if chain is None else chain["row"].id)
        if isinstance(result, Outcome):
            self.last = result
        return result

    def see(self, *edge: str) -> None:
        """Counts an edge of the state table."""
        self.heart.seen[edge] += 1

    def compare(self, outcome: Outcome | Problem, kind: str, state: str, code: str, moved: int) -> None:
        """The heart and the model say the same."""
        assert isinstance(outcome, Outcome), outcome
        row = outcome.row
        said = TYPES[row.kind], State(row.first_state).name, REASON_OF[row.code].code, row.moved, row.ledger, row.available
        assert said == (kind, state, code, moved, self.ledger, self.ledger - self.held)


@pytest.fixture
def heart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heart]:
    """One heart for all lives; the databases differ in nothing that is asked here, which other properties prove."""
    ram = Path("/dev/shm")  # tens of thousands of commits, of which none has to outlive the test
    folder = tmp_path_factory.mktemp("lives")
    with TemporaryDirectory(dir=ram if ram.is_dir() else folder) as fast, new_world(Path(fast, "lives.db")) as world:
        populate(world)
        heart = Heart(world)
        yield heart
        heart.close()


def test_heart_and_model_agree_on_every_life(heart: Heart, record_property: Any) -> None:
    """Every message of every life does what the model says, nothing leads off the state table, and the books are sound.

    How much of the table was walked is told. Chance never promises all of it; the tables in tests/decisions have every edge.
    """
    Life.heart = heart
    run_state_machine_as_test(Life, settings=SIZE)
    walked = set(heart.seen)
    figure = f"{len(walked & EDGES)} of {len(EDGES)} edges of the state table walked by {heart.seen.total()} messages"
    record_property("figure", figure)
    assert verify(heart.world.database).violations == []
    assert walked - EDGES == set()
    assert len(walked) >= len(EDGES) * 3 // 4 or SIZE.max_examples < 100, EDGES - walked
