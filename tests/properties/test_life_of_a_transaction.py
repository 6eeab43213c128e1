"""Lifecycle of transactions: the engine and a simple model agree on any messages in any order.

The model has a dict for a chain and two numbers for an account. It is written independently of the code, so that no single
mistake affects both.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from cardwright.core.enums import TYPE_NUMBER, TYPES, State
from cardwright.core.messages import Advice, Authorization, Clearing, Details, Expiry, Merchant, Refund, Reversal
from cardwright.core.problems import Problem
from cardwright.core.responses import REASON_OF
from cardwright.core.transaction_types import RequestType
from cardwright.engine.batch import CardRequest, CardResult
from cardwright.engine.batch_runner import run_batch
from cardwright.engine.id_blocks import IdSource
from cardwright.kit.clock import DAY_MS, ProgramClock
from cardwright.ledger.invariants import verify
from cardwright.storage.programs import set_clock
from tests.support.chains import populate
from tests.support.in_process_platform import InProcessPlatform, new_platform
from tests.support.instants import NOON

SIZE = settings(
    max_examples=int(os.environ.get("CARDWRIGHT_LIFE_RUNS", "300")),
    stateful_step_count=int(os.environ.get("CARDWRIGHT_LIFE_STEPS", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""Number of histories, and messages in each."""

WEEK = 7 * DAY_MS

# Types of the follow-ups of each kind of chain. Holds and pending credits have all kinds of follow-ups. A chain that is settled
# at once has only reversals.
ANNOUNCED_REFUND, PIN_REFUND = "refund.authorization", "pindebit.refund"


class Names(NamedTuple):
    """Types of the clearing, the reversal and the expiry of a hold."""

    clearing: str
    reversal: str
    expiry: str


SIGNATURE = ("authorization.reversal", "authorization.reversal.issuerexpiration")
ANNOUNCED = {
    ANNOUNCED_REFUND: Names("refund.authorization.clearing", *["refund.authorization.reversal"] * 2),
    RequestType.CREDIT_HOLD: Names("original.credit.authorization.clearing", *["original.credit.authorization.reversal"] * 2),
}
HOLDS = {
    RequestType.PURCHASE: Names("authorization.clearing", *SIGNATURE),
    RequestType.ATM_HOLD: Names("authorization.clearing.atm.withdrawal", *SIGNATURE),
    RequestType.QUASI_HOLD: Names("authorization.clearing.quasi.cash", *SIGNATURE),
    RequestType.FUNDING_HOLD: Names(
        "account.funding.authorization.clearing", "account.funding.authorization.reversal", SIGNATURE[1]
    ),
    RequestType.PIN_HOLD: Names(
        *(f"pindebit.authorization.{end}" for end in ("clearing", "reversal", "reversal.issuerexpiration"))
    ),
    **ANNOUNCED,
}
CLEARED_ONCE = (RequestType.PIN_HOLD, RequestType.ATM_HOLD, RequestType.QUASI_HOLD)
ADVISED = (RequestType.PURCHASE, RequestType.ATM_HOLD, RequestType.QUASI_HOLD, ANNOUNCED_REFUND)
AT_ONCE = {
    **dict.fromkeys((RequestType.PIN_PURCHASE, RequestType.WITHDRAWAL, RequestType.PIN_QUASI), "pindebit.reversal"),
    RequestType.FUNDING: "account.funding.auth_plus_capture.reversal",
    RequestType.ORIGINAL_CREDIT: "original.credit.auth_plus_capture.reversal",
    PIN_REFUND: "pindebit.refund.reversal",
}
BRINGS = (*ANNOUNCED, RequestType.ORIGINAL_CREDIT, PIN_REFUND)
NOT_NOTHING = (*BRINGS, RequestType.WITHDRAWAL, RequestType.ATM_HOLD)
"""Requests whose amount must not be 0: the edges refuse them."""

EDGES = {
    ("", "ask pindebit.balanceinquiry", "CLEARED"), ("", "force", "COMPLETION"), ("", "refund", "COMPLETION"),
    *(("", f"ask {kind}", "PENDING" if kind in HOLDS else "COMPLETION") for kind in (*HOLDS, *AT_ONCE)),
    *(("", f"ask {kind}", "DECLINED") for kind in (*HOLDS, *AT_ONCE) if kind not in BRINGS),
    *(("", f"ask {kind}", "CLEARED") for kind in (*HOLDS, *AT_ONCE) if kind not in NOT_NOTHING),
    *((kind, start, message, end) for kind in HOLDS for start, message, end in (
        ("PENDING", "clear", "CLEARED"), ("PENDING", "reverse", "PENDING"), ("PENDING", "reverse", "CLEARED"),
        ("PENDING", "reverse", "refused"), ("PENDING", "expire", "CLEARED"), ("PENDING", "expire", "not due"),
        ("CLEARED", "clear", "CLEARED"), ("CLEARED", "reverse", "refused"), ("CLEARED", "reverse", "CLEARED"),
        ("CLEARED", "expire", "not due"),
    )),
    *((kind, "PENDING", "clear", "PENDING") for kind in HOLDS if kind not in CLEARED_ONCE),
    *((kind, start, "advise", end) for kind in ADVISED for start, end in (
        ("PENDING", "PENDING"), ("PENDING", "CLEARED"), ("PENDING", "refused"), ("CLEARED", "refused"), ("CLEARED", "CLEARED"),
    ) if (start, end) != ("CLEARED", "CLEARED") or kind not in NOT_NOTHING),
    (RequestType.PURCHASE, "PENDING", "grow", "PENDING"), (RequestType.PURCHASE, "PENDING", "grow", "refused"),
    (RequestType.PURCHASE, "CLEARED", "grow", "refused"),
    *((kind, "COMPLETION", "reverse", end) for kind in AT_ONCE for end in ("COMPLETION", "refused")),
    *((kind, "CLEARED", "reverse", end) for kind in AT_ONCE if kind not in NOT_NOTHING for end in ("CLEARED", "refused")),
}  # fmt: skip
"""The edges of the state table: kind of chain and state before, the message, the state afterwards."""


class EngineLives:
    """The engine on a separate platform, with one event loop and one worker for all histories."""

    def __init__(self, platform: InProcessPlatform) -> None:
        self.platform, self.loop, self.now = platform, asyncio.new_event_loop(), NOON
        self.worker = self.loop.run_until_complete(platform.store.open_worker())
        self.ids = IdSource()
        self.ids.refill(platform.store.next_ids())
        self.edge_counts: Counter[tuple[str, ...]] = Counter()

    def decide(self, card: str, message: Any, root_id: int | None) -> CardResult | Problem:
        """Return the decision on a message."""
        return self.loop.run_until_complete(self._decide(card, message, root_id))

    async def _decide(self, card: str, message: Any, root_id: int | None) -> CardResult | Problem:
        request = CardRequest(await self.platform.card((self.platform.program_id, card)), message, 5, NOON, root_id=root_id)
        (result,) = await run_batch(self.worker, self.platform.cache, self.ids, lambda: NOON, [request])
        return result

    def pass_time(self, days: int) -> None:
        """Move the program's clock. 0 days reset it."""
        self.now = self.now + days * DAY_MS if days else NOON
        with self.platform.database.write() as db:
            set_clock(db, self.platform.program_id, ProgramClock(0, self.now))

    def close(self) -> None:
        """Close the worker and the loop."""
        self.loop.run_until_complete(self.worker.close())
        self.loop.close()


Kind = RequestType | str
"""The kind of a chain's root: a request type, or the type of one of the two refunds that begin a chain."""


class Life(RuleBasedStateMachine):
    """A history: one account with a card, and any messages."""

    engine: ClassVar[EngineLives]

    @initialize(product=st.sampled_from(("jit", "keeps", "plain", "plain")), wealth=st.sampled_from((1000, 50, 0)))
    def open_account(self, product: str, wealth: int) -> None:
        """Create a card. Some accounts begin with money."""
        platform = self.engine.platform
        self.engine.pass_time(0)
        self.card = platform.make("users")["token"]
        platform.make("cards", token=self.card, user_token=self.card, card_product_token=product)
        self.jit, self.returns = product != "plain", product == "jit"
        self.ledger = self.held = 0
        self.chains: list[dict[str, Any]] = []
        if wealth:
            self.ask_for(RequestType.ORIGINAL_CREDIT, wealth, 0, capable=True)

    # --- Messages ---------------------------------------------------------------------------

    @rule(
        request_type=st.sampled_from((RequestType.PURCHASE, RequestType.PURCHASE, *HOLDS)), amount=st.sampled_from((60, 20, 300)),
        capable=st.booleans(),
    )  # fmt: skip
    def hold(self, request_type: Kind, amount: int, capable: bool) -> None:
        """Request a hold, which most other messages follow."""
        self.ask_for(request_type, amount, 0, capable)

    @rule(
        request_type=st.sampled_from(
            (RequestType.PURCHASE, *HOLDS, *AT_ONCE, RequestType.PIN_PURCHASE, RequestType.BALANCE_INQUIRY)
        ),
        amount=st.sampled_from((60, 20, 300, 1, 0, 0)),
        cash=st.sampled_from((0, 0, 0, 15)),
        capable=st.booleans(),
    )
    def ask_for(self, request_type: Kind, amount: int, cash: int, capable: bool) -> None:
        """Send a request, or one of the two refunds that begin a chain."""
        if request_type is RequestType.BALANCE_INQUIRY:
            amount = 0
        elif request_type in NOT_NOTHING:
            amount = amount or 5
        if request_type not in (RequestType.PURCHASE, RequestType.PIN_PURCHASE):
            cash = 0
        self.capable = capable
        details = Details(mid="m", cash_back=cash, merchant=Merchant(partial_approval_capable=capable))
        if isinstance(request_type, RequestType):
            outcome = self.send(Authorization(amount=amount, details=details, request_type=request_type))
        else:
            outcome = self.send(Refund(amount=amount, details=details, type_id=TYPE_NUMBER[request_type]))
        name = (
            str(request_type)
            if not cash
            else "authorization.cashback"
            if request_type is RequestType.PURCHASE
            else "pindebit.cashback"
        )
        expected = self.expect_ask(request_type, amount, cash, capable)
        self.compare(outcome, name, *expected)
        self.see("", f"ask {request_type}", expected[0])

    def expect_ask(self, request_type: Kind, goods: int, cash: int, capable: bool) -> tuple[str, str, int]:
        """Return the expected state, code and load of a request. Update the account and the chains of the model."""
        total = goods + cash
        if request_type is RequestType.BALANCE_INQUIRY:
            return "CLEARED", "0000", 0
        if request_type in ANNOUNCED:
            self.begin(request_type, hold=total)
            return "PENDING", "0000", 0
        if request_type in BRINGS:
            back = total if self.returns else 0
            self.ledger += total - back
            self.begin(request_type, settled=-total, load=-back)
            return "COMPLETION", "0000", -back
        free = max(0, self.ledger - self.held)
        load = max(0, total - free) if self.jit else 0
        code = "0000" if total else "1830"
        if total > free and not self.jit:
            if not (free and goods and capable and request_type not in (RequestType.WITHDRAWAL, RequestType.ATM_HOLD)):
                return "DECLINED", "1016", 0
            # A partial approval is for the goods only, without cash back.
            total, code = min(free, goods), "0002"
        self.ledger += load
        if request_type in HOLDS:
            self.held += total
            self.begin(request_type, hold=total, load=load)
            return ("PENDING" if total else "CLEARED"), code, load
        self.ledger -= total
        self.begin(request_type, settled=total, load=load)
        return ("COMPLETION" if total else "CLEARED"), code, load

    @precondition(lambda self: any(chain["request_type"] in HOLDS for chain in self.chains))
    @rule(which=st.integers(0, 99), share=st.sampled_from(("part", "all", "more")))
    def clear(self, which: int, share: str) -> None:
        """Send a clearing. Holds in CLEARED_ONCE are completed by it and release the rest."""
        chain = self.pick(which, HOLDS)
        amount = self.share_of(chain["hold"], share)
        outcome = self.send(Clearing(amount=amount, details=Details(mid="")), chain)
        before = self.state_of(chain)
        if chain["request_type"] in ANNOUNCED:
            back = amount if self.returns else 0
            self.ledger += amount - back
            chain |= {"hold": max(0, chain["hold"] - amount), "settled": chain["settled"] - amount}
            self.compare(outcome, HOLDS[chain["request_type"]].clearing, "COMPLETION", "0000", -back)
            self.see(chain["request_type"], before, "clear", self.state_of(chain))
            return
        covered = min(amount, chain["hold"])
        captured, extra = min(covered, chain["load"]), amount - covered
        load = max(0, extra - max(0, self.ledger - self.held)) if self.jit else 0
        rest = chain["hold"] - covered if chain["request_type"] in CLEARED_ONCE else 0
        back = min(rest, chain["load"] - captured)
        self.ledger += load - amount - back
        self.held -= covered + rest
        chain |= {"hold": chain["hold"] - covered - rest, "load": chain["load"] - captured - back}
        chain["settled"] += amount
        name = HOLDS[chain["request_type"]].clearing + chain["suffix"]
        self.compare(outcome, name, "COMPLETION", "0000", captured + load)
        self.see(chain["request_type"], before, "clear", self.state_of(chain))

    @precondition(lambda self: any(chain["request_type"] in HOLDS for chain in self.chains))
    @rule(which=st.integers(0, 99), share=st.sampled_from(("part", "all", "more")), is_advice=st.booleans())
    def reverse(self, which: int, share: str, is_advice: bool) -> None:
        """Send a reversal of a hold. An advice of a reversal releases at most the open hold."""
        self.expect_reversal(self.pick(which, HOLDS), share, is_advice)

    @precondition(lambda self: any(chain["request_type"] in AT_ONCE for chain in self.chains))
    @rule(which=st.integers(0, 99), share=st.sampled_from(("part", "all", "more")), is_advice=st.booleans())
    def undo(self, which: int, share: str, is_advice: bool) -> None:
        """Send a reversal of a purchase that was settled at once."""
        self.expect_reversal(self.pick(which, AT_ONCE), share, is_advice)

    def expect_reversal(self, chain: dict[str, Any], share: str, is_advice: bool) -> None:
        """Send a reversal and compare the outcome with the model."""
        holds = chain["request_type"] in HOLDS
        left = chain["hold"] if holds else abs(chain["settled"])
        amount, before = self.share_of(left, share), self.state_of(chain)
        outcome = self.send(Reversal(amount=amount, details=Details(mid=""), is_advice=is_advice), chain)
        name = HOLDS[chain["request_type"]].reversal if holds else AT_ONCE[chain["request_type"]]
        if amount > left and not is_advice:
            self.compare(outcome, name, "DECLINED", self.why_not(chain, left), 0)
            self.see(chain["request_type"], before, "reverse", "refused")
            return
        amount = min(amount, left)
        if holds:
            moved = self.let_go(chain, amount)
            state = "CLEARED" if not chain["hold"] else "PENDING"
        elif chain["request_type"] in BRINGS:
            load = min(amount, max(0, -chain["load"]))
            load += max(0, amount - load - max(0, self.ledger - self.held)) if self.jit else 0
            self.ledger += load - amount
            chain |= {"load": chain["load"] + load, "settled": chain["settled"] + amount}
            moved, state = load, "COMPLETION" if chain["request_type"] is RequestType.ORIGINAL_CREDIT else "CLEARED"
        else:
            back = min(amount, chain["load"])
            self.ledger += amount - back
            chain |= {"load": chain["load"] - back, "settled": chain["settled"] - amount}
            moved, state = -back, "COMPLETION" if chain["request_type"] is RequestType.FUNDING else "CLEARED"
        self.compare(outcome, name, state, "0000", moved)
        self.see(chain["request_type"], before, "reverse", self.state_of(chain))

    @precondition(lambda self: any(chain["request_type"] in ADVISED for chain in self.chains))
    @rule(which=st.integers(0, 99), less=st.sampled_from((-5, 0, 1, 1_000_000)))
    def advise(self, which: int, less: int) -> None:
        """Send an advice that lowers the total by ``less``, but not below the cleared amount.

        A negative ``less`` increases the total.
        """
        chain = self.pick(which, ADVISED)
        done = abs(chain["settled"])
        total = max(done, done + chain["hold"] - less)
        before, back = self.state_of(chain), done + chain["hold"] - total
        name = "refund.authorization.advice" if chain["request_type"] == ANNOUNCED_REFUND else "authorization.advice"
        outcome = self.send(Advice(amount=total, details=Details(mid="")), chain)
        if back < 0 or chain["hold"] == 0:
            code = self.why_not(chain, chain["hold"]) if chain["hold"] == 0 and chain["asked"] else "1810"
            if back < 0 or chain["asked"]:
                self.compare(outcome, name, "DECLINED", code, 0)
                self.see(chain["request_type"], before, "advise", "refused")
                return
        moved = self.let_go(chain, back)
        self.compare(outcome, name, "PENDING" if chain["hold"] else "CLEARED", "0000", moved)
        self.see(chain["request_type"], before, "advise", self.state_of(chain))

    @precondition(lambda self: any(chain["request_type"] is RequestType.PURCHASE for chain in self.chains))
    @rule(which=st.integers(0, 99), amount=st.sampled_from((1, 40, 2000)))
    def grow(self, which: int, amount: int) -> None:
        """Send an increment."""
        chain = self.pick(which, (RequestType.PURCHASE,))
        before = self.state_of(chain)
        outcome = self.send(Authorization(amount=amount, details=Details(mid=""), request_type=RequestType.INCREMENT), chain)
        free = max(0, self.ledger - self.held)
        if chain["hold"] == 0:
            # The chain is closed. Unlike for a reversal, the code does not depend on the requested amount.
            expected = "DECLINED", "1018" if chain["settled"] else "1017", 0
        elif not self.jit and amount > free and not (free and chain["capable"]):
            expected = "DECLINED", "1016", 0
        else:
            granted = amount if self.jit else min(amount, free)
            load = max(0, granted - free) if self.jit else 0
            self.ledger, self.held = self.ledger + load, self.held + granted
            chain |= {"hold": chain["hold"] + granted, "load": chain["load"] + load}
            chain["due"] = max(chain["due"], self.engine.now + WEEK)
            expected = "PENDING", "0000" if granted == amount else "0002", load
        self.compare(outcome, "authorization.incremental", *expected)
        self.see("authorization", before, "grow", "refused" if expected[0] == "DECLINED" else self.state_of(chain))

    @precondition(lambda self: self.chains)
    @rule(which=st.integers(0, 99), amount=st.sampled_from((1, 25)), forced=st.booleans())
    def unrelated(self, which: int, amount: int, forced: bool) -> None:
        """Send a refund or a forced clearing. They take only card and merchant from the chain that they name."""
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
        """Move the clock."""
        self.engine.pass_time(days)

    @precondition(lambda self: any(chain["request_type"] in HOLDS for chain in self.chains))
    @rule(which=st.integers(0, 99))
    def expire(self, which: int) -> None:
        """Send an expiry, which may not be due."""
        chain = self.pick(which, HOLDS)
        before = self.state_of(chain)
        outcome = self.send(Expiry(details=Details(mid="")), chain)
        if not chain["hold"] or chain["due"] > self.engine.now:
            assert isinstance(outcome, Problem)
            assert outcome.kind.code == "409003"
            self.see(chain["request_type"], before, "expire", "not due")
            return
        moved = self.let_go(chain, chain["hold"])
        self.compare(outcome, HOLDS[chain["request_type"]].expiry, "CLEARED", "0000", moved)
        self.see(chain["request_type"], before, "expire", self.state_of(chain))

    # --- Model ------------------------------------------------------------------------------

    def begin(self, request_type: Kind, *, hold: int = 0, load: int = 0, settled: int = 0) -> None:
        """Add a chain to the model."""
        self.chains.append({
            "request_type": request_type, "hold": hold, "load": load, "settled": settled, "asked": hold or abs(settled),
            "due": self.engine.now + WEEK, "row": self.last.row, "suffix": "", "capable": self.capable,
        })  # fmt: skip
        if TYPES[self.last.row.type_id] == "authorization.cashback":
            self.chains[-1]["suffix"] = ".cashback"

    def let_go(self, chain: dict[str, Any], amount: int) -> int:
        """Release a part of a hold; return the change of the JIT load, which goes back first. Pending credits have none."""
        if chain["request_type"] in ANNOUNCED:
            chain["hold"] -= amount
            return 0
        back = min(amount, chain["load"])
        self.ledger, self.held = self.ledger - back, self.held - amount
        chain |= {"hold": chain["hold"] - amount, "load": chain["load"] - back}
        return -back

    def why_not(self, chain: dict[str, Any], left: int) -> str:
        """Return the code of a reversal that is too large."""
        if left or not chain["asked"]:
            return "1810"
        return "1018" if chain["request_type"] in HOLDS and chain["settled"] else "1017"

    def state_of(self, chain: dict[str, Any]) -> str:
        """Return the state of a chain's root."""
        if chain["request_type"] in HOLDS:
            return "PENDING" if chain["hold"] else "CLEARED"
        return "COMPLETION" if chain["asked"] else "CLEARED"

    def pick(self, which: int, request_types: Any) -> dict[str, Any]:
        """Return a chain of these kinds: in two of three cases the latest one that is open, else any."""
        candidates = [chain for chain in self.chains if chain["request_type"] in request_types]
        alive = [chain for chain in candidates if chain["hold"] or (chain["request_type"] in AT_ONCE and chain["settled"])]
        return alive[-1] if alive and which % 3 else candidates[which % len(candidates)]

    def share_of(self, left: int, share: str) -> int:
        """Return an amount that is a part of ``left``, all of it, or more."""
        return {"part": max(1, left // 2), "all": max(1, left), "more": left + 3}[share]

    def send(self, message: Any, chain: dict[str, Any] | None = None) -> CardResult | Problem:
        """Return the engine's decision on a message."""
        result = self.engine.decide(self.card, message, None if chain is None else chain["row"].id)
        if isinstance(result, CardResult):
            self.last = result
        return result

    def see(self, *edge: str) -> None:
        """Count an edge of the state table."""
        self.engine.edge_counts[tuple(map(str, edge))] += 1

    def compare(self, outcome: CardResult | Problem, kind: str, state: str, code: str, moved: int) -> None:
        """Assert that the decision has these values and the balances of the model."""
        assert isinstance(outcome, CardResult), outcome
        row = outcome.row
        actual = TYPES[row.type_id], State(row.first_state).name, REASON_OF[row.code].code, row.moved, row.ledger, row.available
        assert actual == (kind, state, code, moved, self.ledger, self.ledger - self.held)


@pytest.fixture
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineLives]:
    """Yield one engine for all histories, on SQLite only. Other properties compare the two databases."""
    ram = Path("/dev/shm")  # tens of thousands of commits, none of which must be durable
    folder = tmp_path_factory.mktemp("lives")
    with TemporaryDirectory(dir=ram if ram.is_dir() else folder) as fast, new_platform(Path(fast, "lives.db")) as platform:
        populate(platform)
        engine = EngineLives(platform)
        yield engine
        engine.close()


def guide() -> None:
    """Run a history for every group of edges, because random histories do not reach all of them."""

    def life(request_type: Kind, amount: int = 60, product: str = "plain", wealth: int = 1000) -> Life:
        new_life = Life()
        new_life.open_account(product=product, wealth=wealth)
        new_life.ask_for(request_type=request_type, amount=amount, cash=0, capable=False)
        return new_life

    for request_type in HOLDS:
        new_life = life(request_type)
        new_life.expire(which=0)
        for share, is_advice in (("part", False), ("more", False), ("all", False), ("all", False), ("all", True)):
            new_life.reverse(which=0, share=share, is_advice=is_advice)
        new_life.clear(which=0, share="all")
        new_life.expire(which=0)
        for share in ("part", "all"):
            life(request_type).clear(which=0, share=share)
        new_life = life(request_type)
        new_life.wait(days=7)
        new_life.expire(which=0)
        life(request_type, 5000)
        life(request_type, 0)
    for request_type in ADVISED:
        new_life = life(request_type)
        for less in (-5, 1, 1_000_000, 0):
            new_life.advise(which=0, less=less)
        life(request_type, 0).advise(which=0, less=0)
    new_life = life(RequestType.PURCHASE)
    new_life.grow(which=0, amount=40)
    new_life.grow(which=0, amount=2000)
    new_life.clear(which=0, share="all")
    new_life.grow(which=0, amount=1)
    for request_type in AT_ONCE:
        for amount in (60, 0):
            new_life = life(request_type, amount, "jit", 0)
            for share, is_advice in (("part", False), ("more", False), ("all", True)):
                new_life.undo(which=0, share=share, is_advice=is_advice)
        life(request_type, wealth=0)
    new_life = life(RequestType.BALANCE_INQUIRY)
    for forced in (True, False):
        new_life.unrelated(which=0, amount=25, forced=forced)


def test_engine_and_model_agree_on_every_life(engine: EngineLives, record_property: Any) -> None:
    """Engine and model agree on every message, only edges of the state table occur, and all invariants hold.

    Random histories reach most edges, and guided histories all of them. The run prints both numbers.
    """
    Life.engine = engine
    run_state_machine_as_test(Life, settings=SIZE)
    edges, by_chance = {tuple(map(str, edge)) for edge in EDGES}, set(engine.edge_counts)
    guide()
    walked = set(engine.edge_counts)
    figure = (
        f"{len(walked & edges)} of {len(edges)} edges of the state table walked by {engine.edge_counts.total()} messages, "
        f"{len(by_chance & edges)} of them by chance"
    )
    record_property("figure", figure)
    assert verify(engine.platform.database).violations == []
    assert (walked - edges, edges - walked) == (set(), set())
    assert len(by_chance) >= len(edges) * 3 // 4 or SIZE.max_examples < 100, edges - by_chance
