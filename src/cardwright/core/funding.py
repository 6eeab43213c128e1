"""Funding of a purchase: money of the account first, then Just-in-Time Funding (wire reference, "JIT Funding")."""

import msgspec

from cardwright.core.messages import Authorization
from cardwright.core.money import fits
from cardwright.core.responses import Reason
from cardwright.core.snapshot import Snapshot
from cardwright.core.transaction_types import CASH_MACHINE, RequestType


class Funding(msgspec.Struct, frozen=True):
    """Approved amount and the JIT load in it, in minor units; or the reason to decline."""

    reason: Reason
    amount: int
    load: int
    order_refused: bool = False


def fund(snapshot: Snapshot, message: Authorization, fee: int = 0) -> Funding:
    """Return the funding of a request. Managed JIT loads the whole shortage or nothing.

    The money must suffice for the real-time ``fee`` too; the fee's own transaction loads and takes it, so the load here
    excludes it. A partial approval covers goods and surcharge and never cash, because card networks allow no cash back with
    one. A part that is not more than the surcharge buys nothing, so it is declined. An amount beyond the limit of an account is
    declined for lack of funds.
    """
    wanted = message.wanted
    if not wanted:
        # A purchase of zero is an account verification; a balance inquiry never has an amount.
        return Funding(Reason.APPROVED if message.request_type is RequestType.BALANCE_INQUIRY else Reason.VERIFIED, 0, 0)
    ledger, held = snapshot.account.money(snapshot.currency)
    if not fits(ledger, held, wanted):
        return Funding(Reason.NOT_SUFFICIENT_FUNDS, 0, 0)
    controls = snapshot.product.config.transaction_controls
    usable = max(0, ledger - held) if controls.allow_gpa_auth else 0
    if wanted + fee <= usable:
        return Funding(Reason.APPROVED, wanted, 0)
    if snapshot.source is not None:
        if not snapshot.source.active:
            return Funding(Reason.NOT_SUFFICIENT_FUNDS, 0, 0, order_refused=True)
        return Funding(Reason.APPROVED, wanted, max(0, wanted - usable))
    # No partial approval of a hold that an MCC group raises (wire reference, "Partial approval"). The same applies to cash
    # from a machine and to a purchase with a fee (choice).
    is_whole = message.increase or fee or message.request_type in CASH_MACHINE
    may_be_partial = controls.enable_partial_auth_approval and not is_whole
    if usable and may_be_partial and message.details.merchant.partial_approval_capable:
        part = min(usable, message.requested - message.details.cash_back)
        if part > message.surcharge:
            return Funding(Reason.PARTIALLY_APPROVED, part, 0)
    return Funding(Reason.NOT_SUFFICIENT_FUNDS, 0, 0)
