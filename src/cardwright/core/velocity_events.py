"""Counting: the messages of an account as velocity controls count them (wire reference, "Counting algorithm").

The counted amount of a chain is a list of parts: its requests, and the amounts of clearings beyond the hold. A give-back is a
reversal, an advice, an expiry, or a refund that names its purchase. It takes its amount from the parts of its chain, the newest
first, and within a part the purchase before the cash. So it lowers a usage by at most the amount that the chain added.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from cardwright.core.messages import Authorization, ChainPart, Details, surcharge_of
from cardwright.core.money import LARGEST
from cardwright.core.transaction_row import TransactionRow, cash_back_of
from cardwright.core.transaction_types import CREDITS, REFUNDS, REQUEST_TYPE_OF, REQUEST_TYPES, RequestType
from cardwright.core.velocity import Change, Control, Event, use_count
from cardwright.kit.clock import Instant

Parts = tuple[ChainPart, ...]

UNCHANGED: tuple[Change, ...] = ()
"""The changes of a message that no control counts."""


class Past(NamedTuple):
    """Message of an account's history: the time of its decision, the product of its card, and its changes of usages."""

    time_ms: Instant
    row_id: int
    product_token: str
    changes: Sequence[Change]


def changes_for(control: Control, past: Iterable[Past]) -> Iterator[tuple[Instant, Sequence[Change]]]:
    """Yield the messages that a control could count. A control for a card product counts only the cards of that product."""
    for message in past:
        if control.card_product_token in (None, message.product_token):
            yield message.time_ms, message.changes


class ChainParts:
    """Parts of all chains of a history, updated while its messages are read in the order of their decisions."""

    def __init__(self) -> None:
        self._parts: dict[int, Parts] = {}

    def changes(self, row: TransactionRow, details: Details, event: Event | None) -> Sequence[Change]:
        """Return the changes by a message. ``event`` may differ from the event in history (``core.backtest``)."""
        if event is None:
            return UNCHANGED
        chain_id = counted_chain(row, details)
        known = () if chain_id is None else self._parts.get(chain_id, ())
        changes, parts = applied(event, row.created_ms, known, has_chain=chain_id is not None)
        if chain_id is not None and parts != known:
            self._parts[chain_id] = parts
        return changes


def counted_chain(row: TransactionRow, details: Details) -> int | None:
    """Return the root of the chain that a message counts for; None for a refund that names no purchase."""
    if row.type_id in REFUNDS:
        return details.refund_of
    return row.id if row.root_id is None else row.root_id


def applied(event: Event, time_ms: Instant, parts: Parts, *, has_chain: bool = True) -> tuple[Sequence[Change], Parts]:
    """Return the changes by a message, and the parts of its chain after it."""
    amount = event.purchase + event.cash
    if amount >= 0 or not has_chain:
        if not event.is_approved or not has_chain:
            return (Change(time_ms, event),), parts
        part = ChainPart(time_ms, event.mid, event.mcc, event.velocity_category, event.purchase, event.cash, event.count)
        return (Change(time_ms, event),), (*parts, part)
    return _taken(event, parts)


def _taken(event: Event, parts: Parts) -> tuple[Sequence[Change], Parts]:
    """Take a give-back from the parts of its chain, the newest first."""
    left, uses = -event.purchase - event.cash, -event.count
    changes, kept = list[Change](), list[ChainPart]()
    for part in reversed(parts):
        amount, use = min(left, part.left), min(uses, part.uses)
        if amount or use:
            after = replace(part, taken=part.taken + amount, uses=part.uses - use)
            purchase = min(after.taken, part.purchase) - min(part.taken, part.purchase)
            back = _event(event, part, -purchase, purchase - amount, -use)
            changes.append(Change(part.time_ms, back, _event(event, part, part.purchase, part.cash, 0)))
            left, uses, part = left - amount, uses - use, after
        if part.left or part.uses:
            kept.append(part)
    return changes, tuple(reversed(kept))


def _event(event: Event, part: ChainPart, purchase: int, cash: int, count: int) -> Event:
    return Event(part.mid, part.mcc, event.currency, purchase, cash, count, True, part.velocity_category)


def parts_of(root: TransactionRow, details: Details) -> Parts:
    """Return the parts of the chain that a row begins, as its next message finds them.

    They are stored if the chain has more than one part, or a refund named it. Otherwise they follow from the root: the amounts
    on hold and cleared have not been given back.
    """
    if details.parts is not None:
        return details.parts
    event = event_of(root, details)
    if event is None or not event.is_approved or (amount := event.purchase + event.cash) <= 0:
        return ()
    left = min(amount, root.hold_left + abs(root.cleared))
    uses = event.count if left else 0
    return (
        ChainPart(
            root.created_ms, event.mid, event.mcc, event.velocity_category, event.purchase, event.cash, uses, amount - left
        ),
    )


def are_stored(row: TransactionRow, event: Event, known: Details) -> bool:
    """Return whether the parts of a chain no longer follow from its root alone after a message."""
    return known.parts is not None or row.type_id in REFUNDS or event.purchase + event.cash > 0


def request_of_row(row: TransactionRow, details: Details) -> Authorization:
    """Return the purchase that a row records, as received. ``details`` may contain fields that the decision added."""
    request_type = REQUEST_TYPE_OF[row.type_id]
    fees = () if request_type is RequestType.BALANCE_INQUIRY or request_type in CREDITS else details.fees
    surcharge = surcharge_of(fees)
    return Authorization(amount=row.request_amount - details.cash_back - surcharge, details=details, request_type=request_type)


def event_of(row: TransactionRow, details: Details) -> Event | None:
    """Return the event of a message for the controls; None if none of them counts it.

    A follow-up stores its own change of usage (``Details.use``). A partial reversal gives its amount back, a full one the use
    too. A clearing counts its amount beyond the hold. A refund gives its amount back.
    """
    if row.type_id in REQUEST_TYPES:
        return _event_of_request(row, details)
    if details.use is None or row.impacted is None:
        return None
    amount, count = details.use
    return Event(details.mid, details.merchant.mcc, row.currency, amount, 0, count, True, details.velocity_category)


def _event_of_request(row: TransactionRow, details: Details) -> Event | None:
    """Return the event of a request: its approved amount, or the requested one if it was declined.

    None for an account verification, or for an amount beyond the limit of an account, whose sums would leave 64 bits.
    """
    approved = row.impacted is not None
    amount = row.amount if approved else row.request_amount
    if amount == 0 or amount >= LARGEST:
        return None
    cash = cash_back_of(row.code, details)
    count = use_count(REQUEST_TYPE_OF[row.type_id])
    return Event(details.mid, details.merchant.mcc, row.currency, amount - cash, cash, count, approved, details.velocity_category)
