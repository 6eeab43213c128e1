"""Holds: their amount and duration, from the message and the merchant's MCC groups.

See "MCC groups" and "Expiry, partial approval, increments, duplicates" in the wire reference.
"""

import msgspec

from cardwright.core.messages import Authorization, Details, VelocityCategory
from cardwright.core.snapshot import Chain, Snapshot
from cardwright.core.spend_controls import HOLD_DAYS
from cardwright.core.transaction_types import RequestType
from cardwright.kit.clock import DAY_MS, Instant

RAISED = (RequestType.PURCHASE, RequestType.PIN_HOLD)
"""Request types with a later clearing, whose hold may exceed the request."""


def due_time(snapshot: Snapshot, details: Details, now: Instant) -> Instant:
    """Return the expiry of a hold that is approved now. A pre-authorization may set its own duration."""
    asks_for = details.hold_ms
    return now + (hold_expiration_days(snapshot) * DAY_MS if asks_for is None else asks_for)


def is_due(chain: Chain, now: Instant) -> bool:
    """Return whether the chain has an open hold that is due."""
    return chain.hold_left > 0 and 0 < chain.due_ms <= now


def raised(snapshot: Snapshot, message: Authorization) -> Authorization:
    """Return the purchase with its hold increased by the merchant's MCC groups.

    The largest of several increases applies (a choice). Only the hold of a purchase with a later clearing is increased. Account
    verifications and products that opt out have no increase.
    """
    increases = snapshot.spend.categories.increases
    is_cleared_later = message.request_type in RAISED and message.details.velocity_category is VelocityCategory.PURCHASE
    if not increases or not _obeys(snapshot) or not message.requested or not is_cleared_later:
        return message
    return msgspec.structs.replace(message, increase=max(increase.of(message.requested) for increase in increases))


def hold_expiration_days(snapshot: Snapshot) -> int:
    """Return the duration of the purchase's hold in days: the value of the merchant's MCC groups, else the default."""
    days = snapshot.spend.categories.hold_days
    return HOLD_DAYS if days is None or not _obeys(snapshot) else days


def _obeys(snapshot: Snapshot) -> bool:
    return snapshot.product.config.transaction_controls.allow_mcc_group_authorization_controls
