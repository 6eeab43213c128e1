"""How long a hold lasts (wire reference, "Expiry, partial approval, increments, duplicates")."""

from cardwright.core.messages import Authorization
from cardwright.core.snapshot import Chain, Snapshot
from cardwright.kit.clock import DAY_MS, Instant

HOLD_MS = 7 * DAY_MS
"""The life of a hold for which nobody has said anything else."""


def due_time(_seen: Snapshot, asked: Authorization, now: Instant) -> Instant:
    """When what is left of the hold that is approved now will be let go of: what a pre-authorization says, else seven days."""
    return now + (HOLD_MS if asked.details.hold_ms is None else asked.details.hold_ms)


def is_due(chain: Chain, now: Instant) -> bool:
    """Whether time is up for what is left of the hold."""
    return chain.hold_left > 0 and 0 < chain.due_ms <= now
