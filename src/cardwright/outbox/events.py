"""Events: changes that webhooks can subscribe to, and the outbox rows of their notifications."""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection, select

from cardwright.kit.clock import Instant
from cardwright.storage.tables import outbox, webhooks

BATCH_MAX = 10
"""Maximum number of events of one category in a notification (wire reference, "Delivery")."""


class Category(IntEnum):
    """Category of an event: the base of its name, and the array of its objects in a notification."""

    TRANSACTION = 1
    CARD = 2
    USER = 3
    DEPOSIT = 4
    DEPOSIT_ACCOUNT = 5

    @property
    def base(self) -> str:
        """Return the first part of the event's name."""
        return _BASES[self]

    @property
    def array(self) -> str:
        """Return the single top-level key of the notification."""
        return "cards" if self is Category.CARD else f"{self.base}s"


_BASES: Final = {
    Category.TRANSACTION: "transaction",
    Category.CARD: "cardtransition",
    Category.USER: "usertransition",
    Category.DEPOSIT: "directdeposittransition",
    Category.DEPOSIT_ACCOUNT: "directdepositaccounttransition",
}

CATEGORIES: Final = {category.base: category for category in Category}
"""The categories by the base of their events' names."""

PLURALS: Final = {f"{category.base}s.": f"{category.base}." for category in (Category.DEPOSIT, Category.DEPOSIT_ACCOUNT)}
"""Second spellings of a base in a subscription. The names of these events are unverified in the wire reference."""


class Event(NamedTuple):
    """Change that webhooks can subscribe to. ``name`` is the complete name, ``ref`` the id or token of the object to show."""

    program_id: int
    created_ms: Instant
    category: Category
    name: str
    ref: str | int


class Target(NamedTuple):
    """Address that a simulation names for its own notification: the id of its endpoint, and the sealed address."""

    endpoint_id: int
    sealed: bytes


class Delivery(IntEnum):
    """State of an outbox row.

    ``SENDING`` is a claim: a process is posting the row, and ``due_ms`` is the end of its lease in real time. Program time
    would not work: a frozen clock would never end the lease of a dead process. A clock set ahead would end a live lease at
    once.

    ``DELIVERED`` and ``DEAD`` are final. ``due_ms`` is then the real time of the last attempt's outcome, from which the
    retention time counts.
    """

    DUE = 1
    DELIVERED = 2
    DEAD = 3
    SENDING = 4


class Subscription(msgspec.Struct, frozen=True):
    """Webhook, with the fields that matching needs."""

    id: int
    events: tuple[str, ...]


class _Doc(msgspec.Struct):
    events: tuple[str, ...]


def matches(subscribed: Sequence[str], name: str) -> bool:
    """Return whether a subscription covers an event: ``*``, ``<base>.*``, or the exact name, case-sensitive."""
    return "*" in subscribed or name in subscribed or f"{name.split('.', 1)[0]}.*" in subscribed


def load_subscriptions(db: Connection, program_id: int) -> list[Subscription]:
    """Return the program's active webhooks, oldest first."""
    query = select(webhooks.c.id, webhooks.c.doc).where(webhooks.c.program_id == program_id, webhooks.c.active)
    rows = db.execute(query.order_by(webhooks.c.id))
    return [Subscription(row.id, tuple(map(_canonical, msgspec.json.decode(row.doc, type=_Doc).events))) for row in rows]


def _canonical(pattern: str) -> str:
    """Return the pattern with the first spelling of its base."""
    plural = next((plural for plural in PLURALS if pattern.startswith(plural)), None)
    return pattern if plural is None else PLURALS[plural] + pattern.removeprefix(plural)


def interested(subscriptions: Iterable[Subscription], name: str) -> list[int]:
    """Return the ids of the webhooks that subscribe to this event, each once."""
    return [subscription.id for subscription in subscriptions if matches(subscription.events, name)]


def publish(db: Connection, program_id: int, now: Instant, category: Category, name: str, ref: str) -> bool:
    """Insert one event into the outbox for every webhook that subscribes to it. Return whether there is such a webhook."""
    event = Event(program_id, now, category, f"{category.base}.{name}", ref)
    rows = notifications([event], {program_id: load_subscriptions(db, program_id)})
    if rows:
        db.execute(outbox.insert(), rows)
    return bool(rows)


def notifications(events: Iterable[Event], subscriptions: Mapping[int, Sequence[Subscription]]) -> list[dict[str, object]]:
    """Return the outbox rows for the events of one commit, each with at most ``BATCH_MAX`` events of one webhook and category.

    ``subscriptions`` are those of each program, by its id.
    """
    groups: dict[tuple[int, int, Category], list[Event]] = {}
    for event in events:
        for webhook_id in interested(subscriptions[event.program_id], event.name):
            groups.setdefault((event.program_id, webhook_id, event.category), []).append(event)
    return [
        outbox_row(program_id, chunk[0].created_ms, category, [event.ref for event in chunk], webhook_id=webhook_id)
        for (program_id, webhook_id, category), group in groups.items()
        for chunk in (group[start : start + BATCH_MAX] for start in range(0, len(group), BATCH_MAX))
    ]


def outbox_row(
    program_id: int,
    now: Instant,
    category: Category,
    refs: Sequence[str | int],
    *,
    webhook_id: int | None = None,
    target: Target | None = None,
) -> dict[str, object]:
    """Return a row of the outbox, due at once, for a registered webhook or for the address in a request."""
    return {
        "program_id": program_id,
        "webhook_id": webhook_id,
        "target": target.sealed if target is not None else None,
        "category": int(category),
        "refs": msgspec.json.encode(refs).decode(),
        "state": int(Delivery.DUE),
        "due_ms": now,
        "tries": 0,
        "created_ms": now,
        "attempts": "[]",
        "queue_id": target.endpoint_id if target is not None else webhook_id,
    }
