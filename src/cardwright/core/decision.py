"""Decisions: the outcome of a message, its journal entry, and its account and chain afterwards."""

from typing import NamedTuple

import msgspec

from cardwright.core.enums import State
from cardwright.core.responses import APPROVALS, Reason
from cardwright.core.snapshot import Account, Chain, Snapshot


class Legs(NamedTuple):
    """Journal entry: the change of each account of the chart, in minor units. The sum is zero.

    ``program_funding`` is the funding source (negative: drawn). ``available`` and ``held`` are the cardholder's account.
    ``settlement`` is the debt to the network, ``fees`` the program's income, ``transit`` the money between two accounts.
    ``overdraft`` is the program's account for amounts that clearings took beyond the money of a preloaded account (negative:
    given). ``deposits`` is the money that banks sent by direct deposit (negative) or took.
    """

    program_funding: int = 0
    available: int = 0
    held: int = 0
    settlement: int = 0
    fees: int = 0
    transit: int = 0
    overdraft: int = 0
    deposits: int = 0


NOTHING = Legs()


class UsageChange(NamedTuple):
    """Change of velocity usage by a message that follows another, or by a credit: minor units and uses of the card.

    Both are negative for a give-back. The change counts in the window in which the message is decided. Authorizations do not
    set it: they count by their amount.
    """

    amount: int
    uses: int


NO_USAGE_CHANGE = UsageChange(0, 0)


class FeeStep(msgspec.Struct, frozen=True, kw_only=True):
    """Transaction of a real-time fee, next to the message's own, in minor units. ``fee`` and ``group`` are JSON.

    A step that begins the fee's chain sets ``hold_left`` and ``load_left``. A step that follows sets ``root``, the root of that
    chain afterwards.
    """

    type_id: int
    state: State
    amount: int
    impacted: int
    legs: Legs
    fee: str
    group: str
    moved: int = 0
    hold_left: int = 0
    load_left: int = 0
    root: Chain | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a message. Amounts are minor units of ``currency``.

    ``requested`` is the requested amount, ``amount`` the approved amount, or the requested one if the message is declined.
    ``impacted`` is the signed effect on the balances, None if declined. ``moved`` is the signed amount of the funding order in
    this message. A message that begins a chain sets ``hold_left``, ``load_left``, ``cleared`` (the amount that it settled
    itself) and ``due_ms`` (the expiry of its hold).

    A message that follows sets ``chain``, the root afterwards. A completion sets ``released``, the returned rest of the hold. A
    reversal or an advice sets ``left``, the amount that stays authorized. ``use`` is the change of velocity usage. ``limited_by``
    names the control that declined. ``fee`` is the real-time fee's transaction after the message. ``unload`` is the part of a
    pending credit that its clearing sends to the funding source.
    """

    type_id: int
    state: State
    reason: Reason
    currency: str
    requested: int
    amount: int
    impacted: int | None
    moved: int
    legs: Legs
    account: Account
    hold_left: int = 0
    load_left: int = 0
    cleared: int = 0
    due_ms: int = 0
    released: int = 0
    left: int = 0
    order_refused: bool = False
    chain: Chain | None = None
    use: UsageChange = NO_USAGE_CHANGE
    limited_by: str | None = None
    fee: FeeStep | None = None
    unload: int = 0

    @property
    def is_approved(self) -> bool:
        """Return whether the message was approved, in full or in part."""
        return self.reason in APPROVALS


def approved(
    snapshot: Snapshot, type_id: int, state: State, amount: int, *, impacted: int, requested: int | None = None, moved: int = 0,
    legs: Legs = NOTHING, reason: Reason = Reason.APPROVED, hold_left: int = 0, load_left: int = 0, cleared: int = 0,
    due_ms: int = 0, released: int = 0, left: int = 0, chain: Chain | None = None, use: UsageChange = NO_USAGE_CHANGE,
    unload: int = 0,
) -> Decision:  # fmt: skip
    """Return an approval that books ``legs``. The account afterwards follows from them.

    ``requested`` is ``amount`` unless given. The other arguments are the fields of ``Decision``.
    """
    account = snapshot.account
    if legs is not NOTHING:
        account = account.moved(snapshot.currency, legs.available + legs.held, legs.held)
    return Decision(
        type_id=type_id, state=state, reason=reason, currency=snapshot.currency,
        requested=amount if requested is None else requested,
        amount=amount, impacted=impacted, moved=moved, legs=legs, account=account, hold_left=hold_left, load_left=load_left,
        cleared=cleared, due_ms=due_ms, released=released, left=left, chain=chain, use=use, unload=unload,
    )  # fmt: skip


def declined(
    snapshot: Snapshot, type_id: int, reason: Reason, requested: int, *,
    order_refused: bool = False, limited_by: str | None = None,
) -> Decision:  # fmt: skip
    """Return a refusal. It books nothing."""
    return Decision(
        type_id=type_id, state=State.DECLINED, reason=reason, currency=snapshot.currency, requested=requested, amount=requested,
        impacted=None, moved=0, legs=NOTHING, account=snapshot.account, order_refused=order_refused,
        limited_by=limited_by,
    )  # fmt: skip
