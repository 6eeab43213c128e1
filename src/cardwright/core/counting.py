"""A stored transaction as velocity controls count it (wire reference, "Counting algorithm")."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cardwright.core.kinds import ASKS, CREDITS, FORM_OF, Form
from cardwright.core.messages import Authorization, Details
from cardwright.core.record import Recorded
from cardwright.core.velocity import Control, Event, use_count
from cardwright.kit.clock import Instant


class Past(NamedTuple):
    """An event of an account's history: when it was decided, on a card of which product, and what it counts."""

    at: Instant
    row_id: int
    product_token: str
    event: Event


def events_for(control: Control, past: Iterable[Past]) -> Iterator[tuple[Instant, Event]]:
    """The events that a control could count: one of a card product sees the cards of that product only."""
    for one in past:
        if control.card_product_token in (None, one.product_token):
            yield one.at, one.event


def asked_of(row: Recorded, details: Details) -> Authorization:
    """The purchase that a row records, as it came in; ``details`` may hold what the decision added."""
    form = FORM_OF[row.kind]
    fees = () if form is Form.BALANCE_INQUIRY or form in CREDITS else details.fees
    surcharge = sum(fee.amount for fee in fees if fee.type == "ACQUIRER_FEE" and fee.credit_debit == "D")
    return Authorization(amount=row.request_amount - details.cash_back - surcharge, details=details, form=form)


def event_of(row: Recorded, details: Details) -> Event | None:
    """The event that a message is to the controls; None when none of them counts it.

    What follows an authorization says itself what it adds: a partial reversal gives its amount back, a full one the use
    too, a clearing counts as far as it goes beyond the hold, a refund lowers the amount.
    """
    if row.kind in ASKS:
        return _asked(row, details)
    if details.use is None or row.impacted is None:
        return None
    amount, count = details.use
    return Event(details.mid, details.merchant.mcc, row.currency, amount, 0, count, True, details.flow)


def _asked(row: Recorded, details: Details) -> Event | None:
    """A purchase: what was approved of it, or what was asked when it was declined; nothing for an account verification."""
    approved = row.impacted is not None
    amount = row.amount if approved else row.request_amount
    if amount == 0:
        return None
    cash = min(details.cash_back, amount)
    count = use_count(FORM_OF[row.kind])
    return Event(details.mid, details.merchant.mcc, row.currency, amount - cash, cash, count, approved, details.flow)
