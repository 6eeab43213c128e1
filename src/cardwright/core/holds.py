"""How much is held, and for how long: what MCC groups change of both (wire reference, "MCC groups")."""

import msgspec

from cardwright.core.messages import Authorization, Flow
from cardwright.core.snapshot import Snapshot
from cardwright.core.spend import HOLD_DAYS


def raised(seen: Snapshot, asked: Authorization) -> Authorization:
    """The purchase with its hold raised by the merchant's MCC groups; of several increases the largest counts (a choice).

    Only a purchase that is cleared later is raised, and neither an account verification nor what a product opts out of.
    """
    increases = seen.spend.categories.increases
    if not increases or not _obeys(seen) or not asked.requested or asked.details.flow is not Flow.PURCHASE:
        return asked
    return msgspec.structs.replace(asked, increase=max(one.of(asked.requested) for one in increases))


def hold_expiration_days(seen: Snapshot) -> int:
    """After how many days the hold of the purchase is let go: what the merchant's MCC groups say, else the default."""
    days = seen.spend.categories.hold_days
    return HOLD_DAYS if days is None or not _obeys(seen) else days


def _obeys(seen: Snapshot) -> bool:
    return seen.product.config.transaction_controls.allow_mcc_group_authorization_controls
