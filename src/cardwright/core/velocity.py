"""Velocity controls: how much and how often an account may be used within a window (wire reference, "Velocity controls").

Usage is kept with the account, a small entry for each control and acting user, and changed by every message in the same
commit. It is never summed over history on the way; only a control that an account has not met before, or that was edited,
looks back once.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from cardwright.core.kinds import Form
from cardwright.core.messages import Authorization, Flow
from cardwright.core.responses import Reason
from cardwright.core.spend import Groups, expanded
from cardwright.kit.clock import DAY_MS, Instant


class Window(StrEnum):
    """A window's length, as on the wire. Calendar windows in UTC; start inclusive, end exclusive."""

    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"
    LIFETIME = "LIFETIME"
    TRANSACTION = "TRANSACTION"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A velocity control as a decision sees it. ``amount_limit`` in minor units; ``usage_limit`` None: no limit.

    ``mccs`` are single codes and ranges of the scope, of its MCC group as that is now, None without such a scope.
    ``since_ms`` is the control's creation, from which LIFETIME counts; ``on_revision`` the program's revision at which it
    was last switched on again: what happened while it was off was not counted on the way. A ``shadow`` is counted like any
    other and refuses nobody. ``codes`` and ``key`` follow from the others (``settled``): the key stands for everything that
    decides what is counted, so controls that differ in their limits alone share it, and with it their usage.
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
    on_revision: int = 0
    codes: frozenset[str] | None = None
    key: str = ""

    def covers(self, mid: str, mcc: str) -> bool:
        """Whether a merchant is in the control's scope; ids are compared as they are (``000123`` is not ``123``)."""
        if self.mid is not None:
            return self.mid == mid
        return self.codes is None or mcc in self.codes

    def part_of(self, flow: Flow, purchase: int, cash: int) -> int:
        """How much of a message the control looks at: its own amount and the cash paid out with it, as the flags say."""
        match flow:
            case Flow.PURCHASE:
                return (purchase if self.include_purchases else 0) + (cash if self.include_cashback else 0)
            case Flow.WITHDRAWAL:
                return purchase + cash if self.include_withdrawals else 0
            case Flow.CREDIT:
                return purchase + cash if self.include_credits else 0
            case Flow.TRANSFER:
                return purchase + cash if self.include_transfers else 0


def settled(control: Control, groups: Groups | None = None) -> Control:
    """The control with what follows from its settings and its MCC group worked out: it is looked at for every purchase."""
    if groups is not None and control.mcc_group is not None:
        control = msgspec.structs.replace(control, mccs=groups.codes_of(control.mcc_group))
    said = (
        control.window, control.currency, control.user_token, control.card_product_token, control.mid, control.mccs,
        control.approvals_only, control.include_purchases, control.include_cashback, control.include_withdrawals,
        control.include_credits, control.include_transfers, control.on_revision,
        control.since_ms if control.window is Window.LIFETIME else None,
    )  # fmt: skip
    codes = None if control.mccs is None else expanded(control.mccs)
    return msgspec.structs.replace(control, codes=codes, key=blake2b(repr(said).encode(), digest_size=8).hexdigest())


def strictest(controls: tuple[Control, ...]) -> tuple[Control, ...]:
    """One control for everything that is counted, with the smallest limits of those that count it: what passes these passes
    all, and ninety controls cost no more than the few things that they count."""
    found: dict[str, Control] = {}
    for control in controls:
        other = found.setdefault(control.key, control)
        limits = [one.usage_limit for one in (control, other) if one.usage_limit is not None]
        found[control.key] = msgspec.structs.replace(
            other, amount_limit=min(control.amount_limit, other.amount_limit), usage_limit=min(limits, default=None)
        )
    return tuple(found.values())


class Use(NamedTuple):
    """What a message adds to the usage of the controls that count it: minor units and times."""

    amount: int
    times: int


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """How much of something that controls count, and how often, in which window."""

    window: int
    amount: int = 0
    count: int = 0

    def plus(self, use: Use) -> "Usage":
        """The standing after a use."""
        return Usage(self.window, self.amount + use.amount, self.count + use.times)


class Event(msgspec.Struct, frozen=True):
    """A message as controls count it: signed amounts of each sort, and the signed number of uses (0 for an increment)."""

    mid: str
    mcc: str
    currency: str
    purchase: int
    cash: int
    count: int
    is_approved: bool
    flow: Flow = Flow.PURCHASE


# A batch has one present instant, and its messages ask for the same few windows.
@lru_cache(maxsize=4096)
def window_number(window: Window, now: Instant) -> int:
    """Which window of its kind an instant is in. Weeks begin on Sunday 00:00:00 UTC."""
    day = now // DAY_MS
    match window:
        case Window.DAY:
            return day
        case Window.WEEK:
            # 1970-01-01 was a Thursday, so day 3 was the first Sunday.
            return (day - 3) // 7
        case Window.MONTH:
            moment = datetime.fromtimestamp(now // 1000, UTC)
            return moment.year * 12 + moment.month
        case Window.LIFETIME | Window.TRANSACTION:
            return 0


def window_start(control: Control, now: Instant) -> Instant | None:
    """The first instant of the control's window that ``now`` is in; None when the window is the transaction itself."""
    match control.window:
        case Window.DAY:
            return now // DAY_MS * DAY_MS
        case Window.WEEK:
            return window_number(Window.WEEK, now) * 7 * DAY_MS + 3 * DAY_MS
        case Window.MONTH:
            moment = datetime.fromtimestamp(now // 1000, UTC)
            return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()) * 1000
        case Window.LIFETIME:
            return control.since_ms
        case Window.TRANSACTION:
            return None


def window_end(window: Window, now: Instant) -> Instant | None:
    """The first instant after the window that ``now`` is in; None when it has no end."""
    match window:
        case Window.DAY:
            return (now // DAY_MS + 1) * DAY_MS
        case Window.WEEK:
            return (window_number(window, now) + 1) * 7 * DAY_MS + 3 * DAY_MS
        case Window.MONTH:
            year, month = divmod(window_number(window, now), 12)
            start = datetime(year, month, 1, tzinfo=UTC) if month else datetime(year - 1, 12, 1, tzinfo=UTC)
            after = start.replace(year=start.year + 1, month=1) if start.month == 12 else start.replace(month=start.month + 1)
            return int(after.timestamp()) * 1000
        case Window.LIFETIME | Window.TRANSACTION:
            return None


def use_of(control: Control, event: Event) -> Use | None:
    """What an event adds to a control's usage, None when the control does not count it."""
    if event.currency != control.currency or event.is_approved != control.approvals_only:
        return None
    if not control.covers(event.mid, event.mcc):
        return None
    amount = control.part_of(event.flow, event.purchase, event.cash)
    return Use(amount, event.count) if amount else None


def standing(control: Control, usage: Usage | None, now: Instant) -> Usage:
    """The usage in the present window: what is kept if it is of this window, else nothing yet."""
    number = window_number(control.window, now)
    return usage if usage is not None and usage.window == number else Usage(number)


def use_count(form: Form) -> int:
    """How many uses of the card a message is: an increment is more of one that was counted."""
    return 0 if form is Form.INCREMENT else 1


class Verdict(NamedTuple):
    """A control and what it says to a purchase: used before, asked now, and the reason for refusing, if any."""

    control: Control
    used_amount: int
    used_count: int
    amount: int
    reason: Reason | None


def judge(control: Control, usage: Usage | None, asked: Authorization, currency: str, now: Instant) -> Verdict | None:
    """A control's verdict on a purchase; None when it does not apply. Equality with a limit passes."""
    details = asked.details
    if currency != control.currency or not control.covers(details.mid, details.merchant.mcc) or asked.requested == 0:
        return None
    amount = control.part_of(details.flow, asked.wanted - details.cash_back, details.cash_back)
    if amount == 0:
        return None
    if control.window is Window.TRANSACTION:
        return Verdict(control, 0, 0, amount, Reason.AMOUNT_LIMIT if amount > control.amount_limit else None)
    stands = standing(control, usage, now)
    used_amount, used_count = max(0, stands.amount), max(0, stands.count)
    reason = None
    if used_amount + amount > control.amount_limit:
        reason = Reason.AMOUNT_LIMIT
    elif control.usage_limit is not None and used_count + use_count(asked.form) > control.usage_limit:
        reason = Reason.COUNT_LIMIT
    return Verdict(control, used_amount, used_count, amount, reason)


def usage_key(control: Control, acting_user: str, owner: str) -> str:
    """Where an account keeps the usage of what a control counts: a cap is each user's, and several may share an account."""
    return control.key if acting_user == owner else f"{control.key} {acting_user}"


def counted(
    controls: Sequence[Control], keys: Sequence[str], usages: dict[str, Usage], event: Event | None, now: Instant
) -> dict[str, Usage]:
    """The usages after an event; entries of what an account meets for the first time are begun."""
    after = dict(usages)
    for control, key in zip(controls, keys, strict=True):
        if control.window is Window.TRANSACTION:
            continue
        stands = standing(control, usages.get(key), now)
        use = use_of(control, event) if event is not None else None
        after[key] = stands if use is None else stands.plus(use)
    return after


def needs_history(control: Control, usage: Usage | None) -> bool:
    """Whether a control must look back: nothing has counted for the account yet what it counts."""
    return control.window is not Window.TRANSACTION and usage is None


def recounted(control: Control, events: Iterable[tuple[Instant, Event]], now: Instant) -> Usage:
    """The usage that history gives a control in its present window; LIFETIME does not look back beyond its creation."""
    stands, is_lifetime = standing(control, None, now), control.window is Window.LIFETIME
    for at, event in events:
        is_old = at < control.since_ms if is_lifetime else window_number(control.window, at) != stands.window
        if not is_old and (use := use_of(control, event)) is not None:
            stands = stands.plus(use)
    return stands
