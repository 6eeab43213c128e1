"""Where the money for a purchase comes from: the account itself, then Just-in-Time Funding (wire reference, "JIT Funding")."""

import msgspec

from cardwright.core.messages import Authorization
from cardwright.core.money import fits
from cardwright.core.responses import Reason
from cardwright.core.snapshot import Snapshot
from cardwright.core.transaction_types import CASH_MACHINE, RequestType


class Funding(msgspec.Struct, frozen=True):
    """How much is approved and how much of it is loaded for the purpose, in minor units; or why nothing is."""

    reason: Reason
    amount: int
    load: int
    order_refused: bool = False


def fund(snapshot: Snapshot, message: Authorization, fee: int = 0) -> Funding:
    """Finds the money for what is asked. Managed JIT loads the whole shortage or nothing, never a part of it.

    There must be enough for the real-time ``fee`` too, whose own transaction takes it; what is loaded here is without it.
    A part covers goods and surcharge and never the cash: card networks allow no cash back with a partial approval. A part
    that is not more than the surcharge buys nothing, so it is a decline.
    An amount that no account can hold is refused like one that this account does not have.
    """
    wanted = message.wanted
    if not wanted:
        # A purchase of zero asks whether the card is good; a balance inquiry never has an amount.
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
    # A hold that an MCC group raises is approved whole or not at all (wire reference, "Partial approval"), and a cash machine
    # counts out the whole amount or nothing. So is what costs a fee (choice).
    is_whole = message.increase or fee or message.request_type in CASH_MACHINE
    may_be_partial = controls.enable_partial_auth_approval and not is_whole
    if usable and may_be_partial and message.details.merchant.partial_approval_capable:
        part = min(usable, message.requested - message.details.cash_back)
        if part > message.surcharge:
            return Funding(Reason.PARTIALLY_APPROVED, part, 0)
    return Funding(Reason.NOT_SUFFICIENT_FUNDS, 0, 0)
