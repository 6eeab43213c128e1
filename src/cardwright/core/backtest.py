"""A backtest of one account: its history decided again under other controls, counted and judged by the rules of every day.

What a purchase asked, and everything but the controls that were in force, is taken as history has it. Whatever was declined
by a check that comes before the controls stays declined. What then follows from a decision that comes out otherwise is
followed up: a purchase that is declined now uses nothing, its clearing and reversal do nothing, and the money that it took
is there for others; one that is approved now uses the window and the money.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from cardwright.core.decide import decide
from cardwright.core.decision import Decision
from cardwright.core.enums import State
from cardwright.core.fee_groups import NO_FEES
from cardwright.core.holds import raised
from cardwright.core.messages import Advice, Authorization, Clearing, Details, Expiry, Message, Reversal
from cardwright.core.money import LARGEST
from cardwright.core.responses import Reason
from cardwright.core.snapshot import Account, Chain, Snapshot
from cardwright.core.spend_controls import MerchantRule
from cardwright.core.timeline import Holder, Rules, Span, Timeline
from cardwright.core.transaction_row import TransactionRow
from cardwright.core.transaction_types import (
    ADVICES,
    CLEARINGS,
    CREDIT,
    EXPIRIES,
    INCREMENT,
    INQUIRY,
    PENDING_CREDITS,
    RELEASE_TYPES,
    REQUEST_TYPES,
)
from cardwright.core.velocity import (
    Change,
    Control,
    Event,
    LimitResult,
    Usage,
    Window,
    counted,
    event_if_approved,
    judge,
    windows_at,
)
from cardwright.core.velocity_events import ChainParts, event_of, request_of_row
from cardwright.kit.clock import Instant

CONTROL_CODES = frozenset({Reason.MERCHANT_NOT_ALLOWED.number, Reason.AMOUNT_LIMIT.number, Reason.COUNT_LIMIT.number})
"""Codes of a purchase that a control refused: all checks before the controls had let it pass."""

NO_FUNDS = Reason.NOT_SUFFICIENT_FUNDS.number

CLOSED = frozenset({Reason.PREVIOUSLY_REVERSED.number, Reason.PREVIOUSLY_COMPLETED.number})
"""Codes of an increment whose authorization held nothing."""

NO_PURCHASE = PENDING_CREDITS | {INQUIRY, CREDIT}
"""Kinds that spend nothing, and so are not among what is told."""

Refusal = LimitResult | MerchantRule
"""A velocity control that has no room, and how it stands; or an authorization control."""


class ReplayedDecision(NamedTuple):
    """A purchase decided again: its row as history has it and as it would be, and the control that refused it, if one did."""

    row: TransactionRow
    again: TransactionRow
    details: Details
    refusal: Refusal | None

    @property
    def is_flipped(self) -> bool:
        """Whether it comes out otherwise."""
        return (self.row.impacted is None) != (self.again.impacted is None)


class Replay:
    """One account under a timeline. ``see`` tells what the decision on a row saw, without money and without controls; it is
    only asked where a decision comes out otherwise, or a hold was raised."""

    def __init__(self, timeline: Timeline, holders: Mapping[int, Holder], see: Callable[[TransactionRow], Snapshot]) -> None:
        self._timeline = timeline
        self._holders = holders
        self._see = see
        self._spans: dict[int, Span] = {}
        self._usages: dict[str, Usage] = {}
        self._chains = ChainParts()
        # What is available beyond what history says, and where history stood.
        self._extra_money = 0
        self._available = 0
        self._undone: set[int] = set()
        # Purchases that are open with another amount than then: their chains as they would be, and as they were.
        self._revived: dict[int, Chain] = {}
        self._recorded: dict[int, Chain] = {}

    def run(self, past: Iterable[tuple[TransactionRow, Details]], start_ms: Instant) -> Iterator[ReplayedDecision]:
        """Decides again what came at ``start_ms`` or later, in the order of time; what came before counts as it was.

        Yields what spends: a credit may be refused by a control too, and is followed up, but it is no purchase.
        """
        for row, details in past:
            if row.card_id is None:
                # Loads, fees and transfers: no control counts them.
                self._available = row.available
                continue
            if (span := self._spans.get(row.card_id)) is None:
                span = self._spans[row.card_id] = self._timeline.of(self._holders[row.card_id])
            rules = span.rules_at(row.program_revision)
            is_late = row.created_ms >= start_ms
            if row.type_id in REQUEST_TYPES:
                again, refusal = self._purchase(row, details, rules) if is_late else (row, None)
                event = event_of(again, details)
                if is_late and row.type_id not in NO_PURCHASE:
                    yield ReplayedDecision(row, again, details, refusal)
            elif row.root_id in self._undone:
                self._extra_money -= row.available - self._available
                event = None
            elif row.root_id in self._revived:
                event = self._follow(row, details)
            else:
                event = event_of(row, details)
            self._available = row.available
            changes = self._chains.changes(row, details, event)
            if rules.counting:
                self._count(rules, changes, row.created_ms)

    def _purchase(self, row: TransactionRow, details: Details, rules: Rules) -> tuple[TransactionRow, Refusal | None]:
        was_approved = row.impacted is not None
        is_reopened = row.root_id in self._revived
        if row.root_id in self._undone:
            # There is nothing that an increment could add to.
            return (self._refused(row, Reason.PREVIOUSLY_REVERSED) if was_approved else row), None
        if row.request_amount >= LARGEST:
            # No account can hold so much, whatever the controls say, and no sum is made of it.
            return row, None
        if not (was_approved or row.code in CONTROL_CODES or row.code == NO_FUNDS or (is_reopened and row.code in CLOSED)):
            # A check that comes before the controls refused it.
            return row, None
        if rules.spend.merchant_blocks:
            blocking = rules.spend.blocking(details.mid, details.merchant.mcc, row.created_ms)
            if blocking is not None:
                return (self._refused(row, Reason.MERCHANT_NOT_ALLOWED) if was_approved else row), blocking
        limit = self._limit(row, details, rules)
        if limit is not None:
            return (self._refused(row, limit.reason or Reason.AMOUNT_LIMIT) if was_approved else row), limit
        if not (self._extra_money or is_reopened or row.code in CONTROL_CODES):
            # With the same money as then, funding says the same.
            return row, None
        return self._funded(row, details), None

    def _limit(self, row: TransactionRow, details: Details, rules: Rules) -> LimitResult | None:
        if not rules.judging:
            return None
        event, windows = event_if_approved(self._authorization_of(row, details), row.currency), windows_at(row.created_ms)
        if event is None:
            return None
        for control, key in zip(rules.judging, rules.judging_keys, strict=True):
            verdict = judge(control, self._usages.get(key), event, windows)
            if verdict is not None and verdict.reason is not None:
                return verdict
        return None

    def _authorization_of(self, row: TransactionRow, details: Details) -> Authorization:
        """The purchase as the controls are asked: with its hold raised, where the merchant's MCC groups raised it."""
        message = request_of_row(row, details)
        if row.impacted is not None and row.amount > row.request_amount:
            return msgspec.structs.replace(message, increase=row.amount - row.request_amount)
        return raised(self._see(row), message) if row.impacted is None and details.mcc_groups else message

    def _refused(self, row: TransactionRow, reason: Reason) -> TransactionRow:
        """An approved purchase that is declined now; the money that it took is still there."""
        self._undone.add(row.id)
        self._extra_money -= effect_of(row)
        return row._replace(impacted=None, amount=row.request_amount, moved=0, code=reason.number)

    def _funded(self, row: TransactionRow, details: Details) -> TransactionRow:
        """What becomes of a purchase that no control refuses, with the money that there would be."""
        was_approved = row.impacted is not None
        snapshot = self._with_money(self._see(row), row.available - effect_of(row) + self._extra_money)
        if row.root_id in self._revived:
            snapshot = msgspec.structs.replace(snapshot, chain=self._revived[row.root_id])
        decision = decide(snapshot, request_of_row(row, details), row.created_ms)
        if not decision.is_approved:
            return self._refused(row, decision.reason) if was_approved else row
        if was_approved and (decision.amount, decision.moved) == (row.amount, row.moved):
            self._grow(row, decision)
            return row
        self._extra_money += decision.legs.available - effect_of(row)
        again = row._replace(
            impacted=decision.impacted, amount=decision.amount, moved=decision.moved, code=decision.reason.number
        )
        if not self._grow(row, decision):
            self._recorded[row.id] = chain_from(row, row.amount if was_approved else 0, row.moved, 0)
            self._revived[row.id] = chain_from(again, decision.hold_left, decision.load_left, decision.cleared, decision.due_ms)
        return again

    def _grow(self, row: TransactionRow, decision: Decision) -> bool:
        """Whether it was an increment; its authorization's chain, if that is another than then, has grown by it."""
        if row.root_id in self._revived and decision.chain is not None:
            self._revived[row.root_id] = decision.chain
            if row.impacted is not None:
                self._recorded[row.root_id] = self._recorded[row.root_id].after(hold=row.amount, load=row.moved)
        return row.type_id == INCREMENT

    def _follow(self, row: TransactionRow, details: Details) -> Event | None:
        """A message that finds another hold than it found then, or one where there was none."""
        root_id = row.root_id
        assert root_id is not None
        message = self._follow_up_of(row, details)
        if row.impacted is not None:
            recorded = self._recorded[root_id]
            cleared = row.amount if row.type_id in CLEARINGS else 0
            lowered = recorded.cleared + recorded.hold_left - row.amount if row.type_id in ADVICES else row.amount
            released = min(lowered, recorded.hold_left) + details.released
            self._recorded[root_id] = recorded.after(hold=-released, cleared=cleared)
        chain = self._revived[root_id]
        if isinstance(message, Expiry) and not chain.hold_left:
            self._extra_money -= row.available - self._available
            return None
        snapshot = msgspec.structs.replace(self._see(row), chain=chain)
        decision = decide(self._with_money(snapshot, self._available + self._extra_money), message, row.created_ms)
        if decision.chain is not None:
            self._revived[root_id] = decision.chain
        self._extra_money += decision.legs.available - (row.available - self._available)
        again = row._replace(impacted=decision.impacted, amount=decision.amount, moved=decision.moved)
        return event_of(again, msgspec.structs.replace(details, use=decision.use if decision.use != (0, 0) else None))

    def _follow_up_of(self, row: TransactionRow, details: Details) -> Message:
        """The message that a row records."""
        if row.type_id in EXPIRIES:
            return Expiry(details=details)
        if row.type_id in CLEARINGS:
            return Clearing(amount=row.amount, details=details)
        if row.type_id in ADVICES:
            return Advice(amount=row.amount, details=details)
        assert row.type_id in RELEASE_TYPES, "every other type asks"
        return Reversal(amount=row.amount, details=details)

    def _with_money(self, snapshot: Snapshot, available: int) -> Snapshot:
        # Real-time fees stay as history has them, like all that no control counts.
        return msgspec.structs.replace(snapshot, account=Account({snapshot.currency: (available, 0)}), fees=NO_FEES)

    def _count(self, rules: Rules, changes: Sequence[Change], now: Instant) -> None:
        controls, keys = rules.counting, rules.counting_keys
        if rules.has_lifetime:
            # A control counts nothing from before it was made.
            pairs = [pair for pair in zip(controls, keys, strict=True) if not _is_too_early(pair[0], now)]
            controls, keys = tuple(control for control, _ in pairs), [key for _, key in pairs]
        self._usages = counted(controls, keys, self._usages, changes, now)


def _is_too_early(control: Control, now: Instant) -> bool:
    return control.window is Window.LIFETIME and now < control.since_ms


def effect_of(row: TransactionRow) -> int:
    """What a message that asks changed of what is available."""
    return 0 if row.impacted is None else row.impacted + row.moved


def chain_from(row: TransactionRow, hold_left: int, load_left: int, cleared: int, due_ms: Instant = 0) -> Chain:
    """The chain that a row begins, with another hold than the row says."""
    increase = max(0, row.amount - row.request_amount)
    state = State.PENDING if hold_left else State.CLEARED
    return Chain(state, row.request_amount, hold_left, load_left, cleared, increase, row.type_id, due_ms, row.created_ms)
