"""Velocity controls: maximum amount and number of uses of an account within a window (wire reference, "Velocity controls").

Usage is stored with the account, one entry for each control and acting user. Every message updates it in the same commit. The
hot path never sums history: only a control without a usage on the account, such as a new or edited one, reads history once. A
give-back removes at most the amount that its own chain counted (``core.velocity_events``).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from cardwright.core.messages import Authorization, VelocityCategory
from cardwright.core.responses import Reason
from cardwright.core.spend_controls import Groups, expanded
from cardwright.core.transaction_types import RequestType
from cardwright.kit.clock import DAY_MS, Instant


class Window(StrEnum):
    """Length of a window, as on the wire. Calendar windows are in UTC; the start is inclusive, the end exclusive."""

    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"
    LIFETIME = "LIFETIME"
    TRANSACTION = "TRANSACTION"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """Velocity control as a decision sees it. ``amount_limit`` is in minor units; ``usage_limit`` None is no limit.

    ``mccs`` are single codes and ranges of the scope, or the current ones of its MCC group; None without such a scope.
    ``since_ms`` is the control's creation, from which LIFETIME counts. ``counting_revision`` is the program's revision at which
    the control was last switched on again or began to count other messages. A usage from before that revision lacks the
    messages in between, so it is not used.

    A ``shadow`` control is counted like any other and declines nothing. ``approvals_only`` False counts declined purchases
    instead of approved ones. ``codes`` and ``key`` follow from the other fields (``resolved_control``). The key identifies the
    counted messages, so controls that differ only in their limits share key and usage.
    """

    id: int
    token: str
    name: str | None
    amount_limit: int
    usage_limit: int | None
    window: Window
    currency: str
    since_ms: Instant
    user_token: str | None = None
    card_product_token: str | None = None
    mid: str | None = None
    mccs: tuple[str, ...] | None = None
    mcc_group: str | None = None
    approvals_only: bool = True
    include_purchases: bool = True
    include_cashback: bool = True
    include_withdrawals: bool = True
    include_credits: bool = False
    include_transfers: bool = True
    shadow: bool = False
    counting_revision: int = 0
    codes: frozenset[str] | None = None
    key: str = ""

    @property
    def counting_settings(self) -> tuple[object, ...]:
        """Return all settings that decide which messages count, without the members of an MCC group."""
        return (
            self.window, self.currency, self.user_token, self.card_product_token, self.mid, self.mccs, self.mcc_group,
            self.approvals_only, self.include_purchases, self.include_cashback, self.include_withdrawals,
            self.include_credits, self.include_transfers, self.since_ms if self.window is Window.LIFETIME else None,
        )  # fmt: skip

    def amount_of(self, event: "Event") -> int:
        """Return the amount of a message that the control counts, in minor units; 0 if it does not apply.

        The flags include or exclude the purchase and the cash back. Merchant ids are compared literally (``000123`` is not
        ``123``).
        """
        # Called twice for each control of each purchase, so it calls no function and compares categories by identity.
        if event.currency != self.currency:
            return 0
        if self.mid is not None:
            if event.mid != self.mid:
                return 0
        elif self.codes is not None and event.mcc not in self.codes:
            return 0
        velocity_category = event.velocity_category
        if velocity_category is VelocityCategory.PURCHASE:
            return (event.purchase if self.include_purchases else 0) + (event.cash if self.include_cashback else 0)
        if velocity_category is VelocityCategory.WITHDRAWAL:
            is_included = self.include_withdrawals
        elif velocity_category is VelocityCategory.CREDIT:
            is_included = self.include_credits
        else:
            is_included = self.include_transfers
        return event.purchase + event.cash if is_included else 0


def resolved_control(control: Control, groups: Groups | None = None) -> Control:
    """Return the control with ``codes`` and ``key`` computed from its settings and its MCC group, once for all purchases."""
    group_revision = 0
    if groups is not None and control.mcc_group is not None:
        group_revision = groups.revision_of(control.mcc_group)
        control = msgspec.structs.replace(control, mccs=groups.codes_of(control.mcc_group))
    settings = (*control.counting_settings, control.counting_revision, group_revision)
    codes = None if control.mccs is None else expanded(control.mccs)
    return msgspec.structs.replace(control, codes=codes, key=blake2b(repr(settings).encode(), digest_size=8).hexdigest())


def strictest_of(controls: tuple[Control, ...]) -> tuple[Control, ...]:
    """Return one control for each key, with the smallest limits of the controls with that key.

    A message that passes these passes all controls. The cost depends on the number of keys, not of controls.
    """
    strictest: dict[str, Control] = {}
    for control in controls:
        other = strictest.setdefault(control.key, control)
        limits = [limit for limit in (control.usage_limit, other.usage_limit) if limit is not None]
        strictest[control.key] = msgspec.structs.replace(
            other, amount_limit=min(control.amount_limit, other.amount_limit), usage_limit=min(limits, default=None)
        )
    return tuple(strictest.values())


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Amount in minor units and number of uses that controls with one key counted in a window. Neither is below 0."""

    window: int
    amount: int = 0
    count: int = 0


class Event(msgspec.Struct, frozen=True):
    """Message as controls count it: signed amounts in minor units, and the signed number of uses (0 for an increment)."""

    mid: str
    mcc: str
    currency: str
    purchase: int
    cash: int
    count: int
    is_approved: bool
    velocity_category: VelocityCategory = VelocityCategory.PURCHASE


class Change(NamedTuple):
    """Change of a usage by a message. A give-back has negative amounts.

    ``basis`` is the part of its chain that a give-back removes, as it was counted at ``time_ms``. A control removes nothing if
    it did not count that part, or counted it in an earlier window. ``basis`` is None for a message that is no give-back from a
    chain.
    """

    time_ms: Instant
    event: Event
    basis: Event | None = None


Windows = Mapping[Window, int]
"""The number of the window of each length that contains an instant.

TRANSACTION has no number: each transaction is a separate window.
"""


def windows_at(now: Instant) -> Windows:
    """Return the window of each length that contains an instant."""
    return _windows_of(now // DAY_MS)


# Every window consists of whole days, so all instants of a day share one cache entry.
@lru_cache(maxsize=4096)
def _windows_of(day: int) -> Windows:
    """Return the windows that contain a day, given in days since 1970-01-01 UTC. Weeks begin on Sunday 00:00:00 UTC."""
    moment = datetime.fromtimestamp(day * DAY_MS // 1000, UTC)
    return {
        Window.DAY: day,
        # 1970-01-01 was a Thursday, so day 3 was the first Sunday.
        Window.WEEK: (day - 3) // 7,
        Window.MONTH: moment.year * 12 + moment.month,
        Window.LIFETIME: 0,
    }


def window_start(control: Control, now: Instant) -> Instant | None:
    """Return the first instant of the control's window that contains ``now``; None for TRANSACTION."""
    match control.window:
        case Window.DAY:
            return now // DAY_MS * DAY_MS
        case Window.WEEK:
            return windows_at(now)[Window.WEEK] * 7 * DAY_MS + 3 * DAY_MS
        case Window.MONTH:
            moment = datetime.fromtimestamp(now // 1000, UTC)
            return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()) * 1000
        case Window.LIFETIME:
            return control.since_ms
        case Window.TRANSACTION:
            return None


def window_end(window: Window, now: Instant) -> Instant | None:
    """Return the first instant after the window that contains ``now``; None if the window has no end."""
    match window:
        case Window.DAY:
            return (now // DAY_MS + 1) * DAY_MS
        case Window.WEEK:
            return (windows_at(now)[window] + 1) * 7 * DAY_MS + 3 * DAY_MS
        case Window.MONTH:
            year, month = divmod(windows_at(now)[window], 12)
            start = datetime(year, month, 1, tzinfo=UTC) if month else datetime(year - 1, 12, 1, tzinfo=UTC)
            after = start.replace(year=start.year + 1, month=1) if start.month == 12 else start.replace(month=start.month + 1)
            return int(after.timestamp()) * 1000
        case Window.LIFETIME | Window.TRANSACTION:
            return None


def keeping(controls: Iterable[Control]) -> tuple[Control, ...]:
    """Return the controls with a stored usage: all except those with the window TRANSACTION."""
    return tuple(control for control in controls if control.window is not Window.TRANSACTION)


def standing(control: Control, usage: Usage | None, windows: Windows) -> Usage:
    """Return the usage in the current window: the stored one if it is of this window, else an empty one."""
    number = windows[control.window]
    return usage if usage is not None and usage.window == number else Usage(number)


def use_count(request_type: RequestType) -> int:
    """Return the number of uses of the card in a request: 0 for an increment, whose authorization was counted, else 1."""
    return 0 if request_type is RequestType.INCREMENT else 1


def event_if_approved(message: Authorization, currency: str) -> Event | None:
    """Return the event of a purchase that is approved in full; None for a request of zero."""
    if message.requested == 0:
        return None
    details = message.details
    purchase, cash = message.wanted - details.cash_back, details.cash_back
    return Event(
        details.mid,
        details.merchant.mcc,
        currency,
        purchase,
        cash,
        use_count(message.request_type),
        True,
        details.velocity_category,
    )


class LimitResult(msgspec.Struct, frozen=True):
    """Result of a control for a purchase: usage before it, amount of the purchase, and the reason to decline or None."""

    control: Control
    used_amount: int
    used_count: int
    amount: int
    reason: Reason | None


def judge(control: Control, usage: Usage | None, event: Event, windows: Windows) -> LimitResult | None:
    """Return a control's result for the event of a purchase; None if the control does not apply. Equality with a limit passes."""
    amount = control.amount_of(event)
    if amount == 0:
        return None
    used_amount = used_count = 0
    if usage is not None and usage.window == windows[control.window]:
        used_amount, used_count = usage.amount, usage.count
    reason = None
    if used_amount + amount > control.amount_limit:
        reason = Reason.AMOUNT_LIMIT
    elif control.usage_limit is not None and used_count + event.count > control.usage_limit:
        reason = Reason.COUNT_LIMIT
    return LimitResult(control, used_amount, used_count, amount, reason)


def usage_keys(controls: Iterable[Control], acting_user: str, owner: str) -> list[str]:
    """Return the keys of the controls' usages in an account.

    Each acting user has separate usages, because several may share an account.
    """
    if acting_user == owner:
        return [control.key for control in controls]
    return [f"{control.key} {acting_user}" for control in controls]


def counted(
    controls: Sequence[Control], keys: Sequence[str], usages: dict[str, Usage], changes: Sequence[Change], now: Instant
) -> dict[str, Usage]:
    """Return the usages of ``keeping`` controls after a message. Controls without a usage get a new entry."""
    after, windows = dict(usages), windows_at(now)
    for control, key in zip(controls, keys, strict=True):
        stands = standing(control, usages.get(key), windows)
        for change in changes:
            stands = _after(control, stands, change)
        after[key] = stands
    return after


def recounted(control: Control, past: Iterable[tuple[Instant, Sequence[Change]]], now: Instant) -> Usage:
    """Return the usage of a control in its current window, counted from history. LIFETIME begins with the control's creation."""
    stands = standing(control, None, windows_at(now))
    for time_ms, changes in past:
        if _is_present(control, time_ms, stands):
            for change in changes:
                stands = _after(control, stands, change)
    return stands


def _after(control: Control, stands: Usage, change: Change) -> Usage:
    """Return a usage after a change; the same object if the control does not count it. No usage falls below 0."""
    time_ms, event, basis = change
    if event.is_approved != control.approvals_only:
        return stands
    if basis is not None and not (control.amount_of(basis) and _is_present(control, time_ms, stands)):
        return stands
    amount = control.amount_of(event)
    if not amount and basis is None:
        return stands
    return Usage(stands.window, max(0, stands.amount + amount), max(0, stands.count + event.count))


def _is_present(control: Control, time_ms: Instant, stands: Usage) -> bool:
    """Return whether an instant is in the window of a usage."""
    if control.window is Window.LIFETIME:
        return time_ms >= control.since_ms
    return windows_at(time_ms)[control.window] == stands.window
