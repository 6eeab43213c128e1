"""The decision: a pure function from what is seen and asked to an outcome and the account as it is afterwards."""

import msgspec

from cardwright.core.checks import first_refusal
from cardwright.core.funding import Funding, fund
from cardwright.core.messages import Authorization, Message
from cardwright.core.responses import APPROVALS, Reason
from cardwright.core.snapshot import Account, Snapshot
from cardwright.core.words import TYPE_NUMBER, State
from cardwright.kit.clock import Instant

AUTHORIZATION = TYPE_NUMBER["authorization"]
AUTHORIZATION_CASHBACK = TYPE_NUMBER["authorization.cashback"]


class Decision(msgspec.Struct, frozen=True):
    """What became of a message. Amounts in minor units of ``currency``.

    ``requested`` was asked for, ``amount`` counts, ``moved`` was loaded onto the account by JIT Funding, ``held`` is the
    hold it leaves, ``impacted`` the signed effect on the balances (None when refused).
    """

    kind: int
    state: State
    reason: Reason
    currency: str
    requested: int
    amount: int
    moved: int
    held: int
    impacted: int | None
    order_refused: bool
    account: Account

    @property
    def is_approved(self) -> bool:
        """Whether the message was approved, in full or in part."""
        return self.reason in APPROVALS


def decide(seen: Snapshot, message: Message, now: Instant) -> Decision:
    """Decides one message. Touches nothing: the same snapshot, message and instant always give the same decision."""
    return decide_authorization(seen, message, now)


def decide_authorization(seen: Snapshot, asked: Authorization, now: Instant) -> Decision:
    """An authorization: refused by the first check that fails, else funded and held."""
    refusal = first_refusal(seen, asked, now)
    if refusal is not None:
        return _declined(seen, asked, refusal, order_refused=False)
    funding = fund(seen, asked)
    if funding.reason not in APPROVALS:
        return _declined(seen, asked, funding.reason, order_refused=funding.order_refused)
    return _held(seen, asked, funding)


def _kind(asked: Authorization) -> int:
    return AUTHORIZATION_CASHBACK if asked.details.cash_back else AUTHORIZATION


def _declined(seen: Snapshot, asked: Authorization, reason: Reason, *, order_refused: bool) -> Decision:
    requested = asked.requested
    return Decision(
        _kind(asked), State.DECLINED, reason, seen.currency, requested, requested, 0, 0, None, order_refused, seen.account
    )


def _held(seen: Snapshot, asked: Authorization, funding: Funding) -> Decision:
    ledger, held = seen.account.money(seen.currency)
    amount = funding.amount
    account = seen.account.after(seen.currency, ledger + funding.load, held + amount) if amount else seen.account
    # An amount of zero is an account verification: nothing is held, so nothing will follow.
    state = State.PENDING if amount else State.CLEARED
    return Decision(
        _kind(asked), state, funding.reason, seen.currency, asked.requested, amount, funding.load, amount, -amount, False, account
    )
