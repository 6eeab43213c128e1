"""How much is held, and for how long: what MCC groups and the message itself say of both.

See "MCC groups" and "Expiry, partial approval, increments, duplicates" in the wire reference.
"""

import msgspec

from cardwright.core.messages import Authorization, Details, VelocityCategory
from cardwright.core.snapshot import Chain, Snapshot
from cardwright.core.spend_controls import HOLD_DAYS
from cardwright.core.transaction_types import RequestType
from cardwright.kit.clock import DAY_MS, Instant

RAISED = (RequestType.PURCHASE, RequestType.PIN_HOLD)
"""What is cleared later, and may be held higher than was asked for."""


def due_time(snapshot: Snapshot, details: Details, now: Instant) -> Instant:
    """When what is left of a hold that is approved now will be let go of: a pre-authorization may say so itself."""
    asks_for = details.hold_ms
    return now + (hold_expiration_days(snapshot) * DAY_MS if asks_for is None else asks_for)


def is_due(chain: Chain, now: Instant) -> bool:
    """Whether time is up for what is left of the hold."""
    return chain.hold_left > 0 and 0 < chain.due_ms <= now


def raised(snapshot: Snapshot, message: Authorization) -> Authorization:
    """The purchase with its hold raised by the merchant's MCC groups; of several increases the largest counts (a choice).

    Only a purchase that is cleared later is raised, and neither an account verification nor what a product opts out of.
    """
    increases = snapshot.spend.categories.increases
    is_cleared_later = message.request_type in RAISED and message.details.velocity_category is VelocityCategory.PURCHASE
    if not increases or not _obeys(snapshot) or not message.requested or not is_cleared_later:
        return message
    return msgspec.structs.replace(message, increase=max(increase.of(message.requested) for increase in increases))


def hold_expiration_days(snapshot: Snapshot) -> int:
    """After how many days the hold of the purchase is let go: what the merchant's MCC groups say, else the default."""
    days = snapshot.spend.categories.hold_days
    return HOLD_DAYS if days is None or not _obeys(snapshot) else days


def _obeys(snapshot: Snapshot) -> bool:
    return snapshot.product.config.transaction_controls.allow_mcc_group_authorization_controls
