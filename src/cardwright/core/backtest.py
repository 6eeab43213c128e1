"""Backtest of one account: its history decided again under other controls, with the code of live decisions.

The requests and all state except the controls come from history. A purchase that an earlier check declined stays declined. If a
decision changes, the replay follows its effects. A purchase that is now declined uses no limit and no money, and its clearing
and reversal have no effect. A purchase that is now approved uses the limit and the money.
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
"""Codes of a purchase that a control declined. All checks before the controls had passed."""

NO_FUNDS = Reason.NOT_SUFFICIENT_FUNDS.number

CLOSED = frozenset({Reason.PREVIOUSLY_REVERSED.number, Reason.PREVIOUSLY_COMPLETED.number})
"""Codes of an increment whose authorization had no open hold."""

NO_PURCHASE = PENDING_CREDITS | {INQUIRY, CREDIT}
"""Types that spend nothing. A backtest does not report them."""

Refusal = LimitResult | MerchantRule
"""A velocity control without room, with its usage; or an authorization control."""


class ReplayedDecision(NamedTuple):
    """Purchase decided again: its row in history and, as ``again``, in the replay.

    ``refusal`` is the control that declined it in the replay, or None.
    """

    row: TransactionRow
    again: TransactionRow
    details: Details
    refusal: Refusal | None

    @property
    def is_flipped(self) -> bool:
        """Return whether only one of history and replay approves the purchase."""
        return (self.row.impacted is None) != (self.again.impacted is None)


class Replay:
    """Replay of one account under a timeline.

    ``see`` returns the snapshot of a row's decision, without money and without controls. The replay calls it only if a decision
    may change, or if an MCC group may have increased the hold of a declined purchase.
    """

    def __init__(self, timeline: Timeline, holders: Mapping[int, Holder], see: Callable[[TransactionRow], Snapshot]) -> None:
        self._timeline = timeline
        self._holders = holders
        self._see = see
        self._spans: dict[int, Span] = {}
        self._usages: dict[str, Usage] = {}
        self._chains = ChainParts()
        # Available money beyond that of history, and history's available balance after the previous row, in minor units.
        self._extra_money = 0
        self._available = 0
        self._undone: set[int] = set()
        # Chains of purchases whose open amounts differ from history, by root id: in the replay, and in history.
        self._revived: dict[int, Chain] = {}
        self._recorded: dict[int, Chain] = {}

    def run(self, past: Iterable[tuple[TransactionRow, Details]], start_ms: Instant) -> Iterator[ReplayedDecision]:
        """Decide again the messages from ``start_ms`` on, in order of time. Count earlier messages as in history.

        Yields the requests that spend. A control may decline a credit too; the replay follows its effects and does not yield
        it.
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
            # The replay declined the authorization, so an increment has no hold to add to.
            return (self._refused(row, Reason.PREVIOUSLY_REVERSED) if was_approved else row), None
        if row.request_amount >= LARGEST:
            # The amount exceeds the limit of an account under any controls, and sums with it could leave 64 bits.
            return row, None
        if not (was_approved or row.code in CONTROL_CODES or row.code == NO_FUNDS or (is_reopened and row.code in CLOSED)):
            # A check before the controls declined it.
            return row, None
        if rules.spend.merchant_blocks:
            blocking = rules.spend.blocking(details.mid, details.merchant.mcc, row.created_ms)
            if blocking is not None:
                return (self._refused(row, Reason.MERCHANT_NOT_ALLOWED) if was_approved else row), blocking
        limit = self._limit(row, details, rules)
        if limit is not None:
            return (self._refused(row, limit.reason or Reason.AMOUNT_LIMIT) if was_approved else row), limit
        if not (self._extra_money or is_reopened or row.code in CONTROL_CODES):
            # With the money of history, funding has the result of history.
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
        """Return the purchase as controls evaluate it: with its increased hold, if the merchant's MCC groups increase it."""
        message = request_of_row(row, details)
        if row.impacted is not None and row.amount > row.request_amount:
            return msgspec.structs.replace(message, increase=row.amount - row.request_amount)
        return raised(self._see(row), message) if row.impacted is None and details.mcc_groups else message

    def _refused(self, row: TransactionRow, reason: Reason) -> TransactionRow:
        """Return an approved purchase as declined, and make the money that it took available again."""
        self._undone.add(row.id)
        self._extra_money -= effect_of(row)
        return row._replace(impacted=None, amount=row.request_amount, moved=0, code=reason.number)

    def _funded(self, row: TransactionRow, details: Details) -> TransactionRow:
        """Return a purchase that no control declines, decided with the replay's available money."""
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
        """Update the changed chain that the row belongs to. Return whether the row is an increment."""
        if row.root_id in self._revived and decision.chain is not None:
            self._revived[row.root_id] = decision.chain
            if row.impacted is not None:
                self._recorded[row.root_id] = self._recorded[row.root_id].after(hold=row.amount, load=row.moved)
        return row.type_id == INCREMENT

    def _follow(self, row: TransactionRow, details: Details) -> Event | None:
        """Decide a follow-up on a chain whose open amounts differ from history. Return its event."""
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
        """Return the message that a row records."""
        if row.type_id in EXPIRIES:
            return Expiry(details=details)
        if row.type_id in CLEARINGS:
            return Clearing(amount=row.amount, details=details)
        if row.type_id in ADVICES:
            return Advice(amount=row.amount, details=details)
        assert row.type_id in RELEASE_TYPES, "every other type is a request"
        return Reversal(amount=row.amount, details=details)

    def _with_money(self, snapshot: Snapshot, available: int) -> Snapshot:
        # Real-time fees stay as in history: no control counts them.
        return msgspec.structs.replace(snapshot, account=Account({snapshot.currency: (available, 0)}), fees=NO_FEES)

    def _count(self, rules: Rules, changes: Sequence[Change], now: Instant) -> None:
        controls, keys = rules.counting, rules.counting_keys
        if rules.has_lifetime:
            # A LIFETIME control counts no message from before its creation.
            pairs = [pair for pair in zip(controls, keys, strict=True) if not _is_too_early(pair[0], now)]
            controls, keys = tuple(control for control, _ in pairs), [key for _, key in pairs]
        self._usages = counted(controls, keys, self._usages, changes, now)


def _is_too_early(control: Control, now: Instant) -> bool:
    return control.window is Window.LIFETIME and now < control.since_ms


def effect_of(row: TransactionRow) -> int:
    """Return a request's change of the available balance, in minor units: 0 if it was declined."""
    return 0 if row.impacted is None else row.impacted + row.moved


def chain_from(row: TransactionRow, hold_left: int, load_left: int, cleared: int, due_ms: Instant = 0) -> Chain:
    """Return the chain that a row begins, with the given open amounts instead of the row's."""
    increase = max(0, row.amount - row.request_amount)
    state = State.PENDING if hold_left else State.CLEARED
    return Chain(state, row.request_amount, hold_left, load_left, cleared, increase, row.type_id, due_ms, row.created_ms)
