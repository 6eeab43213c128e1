"""What a decision says: the outcome of a message, what it books, and how its account and its chain stand afterwards."""

from typing import NamedTuple

import msgspec

from cardwright.core.enums import State
from cardwright.core.responses import APPROVALS, Reason
from cardwright.core.snapshot import Account, Chain, Snapshot


class Legs(NamedTuple):
    """One journal entry: what each account of the chart gains, in minor units; the sum is zero.

    ``program_funding`` is the funding source (negative: drawn), ``available`` and ``held`` the cardholder's account,
    ``settlement`` what is owed to the network; ``fees`` what the program earned, ``transit`` what is between two accounts,
    ``overdraft`` the program's own account for what clearings took beyond the money of a preloaded account (negative: given),
    ``deposits`` what banks sent by direct deposit (negative) or took.
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


class FeeStep(msgspec.Struct, frozen=True, kw_only=True):
    """The transaction of a real-time fee beside a message's own, in minor units; ``fee`` and ``group`` are JSON.

    ``hold_left`` and ``load_left`` are of one that begins the fee's chain; ``root`` is that chain's root after one that follows.
    """

    kind: int
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
    """What became of a message. Amounts in minor units of ``currency``.

    ``requested`` was asked for, ``amount`` counts, ``impacted`` is the signed effect on the balances (None when refused),
    ``moved`` the signed amount of the funding order in this message. ``hold_left`` and ``load_left`` are of a message that
    begins a chain, as are ``cleared``, what it settled itself, and ``due_ms``, when its hold expires. ``chain`` is the chain's
    root after a message that follows one, ``released`` the rest of a hold that a completion gave back, ``left`` what stays
    authorized after a reversal or an advice. ``use`` is what such a message adds to velocity usage, amount and count;
    ``limited_by`` the name of the control that refused. ``fee`` is what the message does to a real-time fee, after itself;
    ``unload`` what of announced money is to go back to the funding source when it comes, or no longer is.
    """

    kind: int
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
    use: tuple[int, int] = (0, 0)
    limited_by: str | None = None
    fee: FeeStep | None = None
    unload: int = 0

    @property
    def is_approved(self) -> bool:
        """Whether the message was approved, in full or in part."""
        return self.reason in APPROVALS


def declined(
    snapshot: Snapshot, kind: int, reason: Reason, requested: int, *, order_refused: bool = False, limited_by: str | None = None
) -> Decision:
    """A refusal: nothing moves."""
    return Decision(
        kind=kind, state=State.DECLINED, reason=reason, currency=snapshot.currency, requested=requested, amount=requested,
        impacted=None, moved=0, legs=NOTHING, account=snapshot.account, order_refused=order_refused,
        limited_by=limited_by,
    )  # fmt: skip
