"""Delivery queues: claims of due outbox rows under a lease, and the records of their attempts.

A queue has the rows of one webhook, or of the simulations that name one endpoint. Several queues can have the same endpoint.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Connection, Integer, bindparam, select, text

from cardwright.kit.clock import Instant, ProgramClock, iso_ms
from cardwright.outbox.endpoint import endpoint_id_of, url_of
from cardwright.outbox.events import Delivery
from cardwright.outbox.room import Room
from cardwright.storage.database import Row
from cardwright.storage.tables import outbox, programs

LEASE_MARGIN_MS: Final = 20_000
"""Duration of a lease beyond the maximum duration of an attempt, in milliseconds.

It is the time to record the outcome, even on a slow disk.
"""

BODY_KEPT: Final = 256
"""Maximum number of stored characters of a response's body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRules:
    """Rules of retries: retry n comes ``base_s ** n`` seconds of program time after the previous failure.

    ``inline_retries`` is the limit for endpoints that a simulation names itself. ``timeout_ms`` is the real time of one
    attempt. Source: wire reference 9.6.
    """

    base_s: int = 4
    retries: int = 10
    inline_retries: int = 3
    timeout_ms: int = 10_000


class Claim(NamedTuple):
    """Row of the outbox that this process may send until ``lease_ms``.

    ``endpoint_id`` is its endpoint, see ``Room``. ``has_answered`` is that of its queue.
    """

    id: int
    program_id: int
    webhook_id: int | None
    target: bytes | None
    category: int
    refs: str
    tries: int
    attempts: str
    endpoint_id: int
    has_answered: bool
    lease_ms: Instant


class Queue(NamedTuple):
    """Queue with a due row. ``due_ms`` of the first row and ``now_ms`` are times of its program.

    ``is_open`` is False if the webhook does not exist or is inactive: its rows fail without a post, so they need no room.
    ``has_answered`` is True after a delivery in the last ``RECENT_MS``, by any process.
    """

    id: int
    endpoint_id: int
    due_ms: Instant
    now_ms: Instant
    is_open: bool
    has_answered: bool


class Work(NamedTuple):
    """Queues with a due row among the next ``QUEUES_MAX`` queues, and whether a lease has expired.

    ``after`` is the last of these queues if there may be further ones.
    """

    queues: list[Queue]
    after: int | None
    has_expired: bool


NO_WORK: Final = Work([], None, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """Outcome of a claim: a status and the beginning of a body, or an error.

    ``is_last`` is True if the webhook does not exist or is inactive: no post was made and none will be.
    """

    claim: Claim
    at_ms: Instant
    status: int | None = None
    duration_ms: int = 0
    error: str | None = None
    body: str = ""
    is_last: bool = False

    @property
    def is_delivered(self) -> bool:
        """Return whether the status is 200. Others such as 201, 204 and redirects are failures (wire reference 9.6)."""
        return self.status == 200


# --- Claims ------------------------------------------------------------------------------

QUEUES_MAX: Final = 1_000
"""Maximum number of queues that one query looks at."""

CLOSED_MAX: Final = 64
"""Maximum number of rows of closed queues in one claim."""

RECENT_MS: Final = 3_600_000
"""Maximum age of a delivery after which an endpoint counts as answering in a process that has not posted to it."""

EXPIRED_MAX: Final = 1_000
"""Maximum number of expired leases that one transaction ends."""

FIRST_QUEUE: Final = -(1 << 63)

# `state = 1` is DUE, `state = 2` is DELIVERED. Each step of the recursion finds the next queue in the index. Then the first due
# and the last delivered row of each queue are read. So the number of index entries that the query reads does not depend on the
# length of the queues. A queue has one program and one clock: if its first row is not due, no row is. The LIMIT of `heads` makes
# both databases run its subqueries once for each queue. With two inequalities for `queue_id`, only the index of queues has the
# order of the last delivery.
_DUE_QUEUES = text("""
    WITH RECURSIVE queues (id, number) AS (
        SELECT (SELECT queue_id FROM outbox WHERE state = 1 AND queue_id > :after ORDER BY queue_id LIMIT 1), 1
        UNION ALL
        SELECT (SELECT queue_id FROM outbox WHERE state = 1 AND queue_id > queues.id ORDER BY queue_id LIMIT 1), number + 1
        FROM queues WHERE id IS NOT NULL AND number < :queues_max
    ), heads AS (
        SELECT id, number,
            (SELECT due_ms FROM outbox WHERE state = 1 AND queue_id = queues.id ORDER BY due_ms LIMIT 1) AS due_ms,
            (SELECT program_id FROM outbox WHERE state = 1 AND queue_id = queues.id ORDER BY due_ms LIMIT 1) AS program_id,
            (
                SELECT due_ms FROM outbox WHERE state = 2 AND queue_id >= queues.id AND queue_id <= queues.id
                ORDER BY queue_id DESC, due_ms DESC LIMIT 1
            ) AS delivered_ms
        FROM queues WHERE id IS NOT NULL LIMIT :queues_max
    ), clocks AS (
        SELECT id, coalesce(clock_frozen_ms, clock_offset_ms + :real_ms) AS now_ms FROM programs
    )
    SELECT heads.id, number, heads.program_id, due_ms, now_ms, delivered_ms, webhooks.active, webhooks.doc
    FROM heads JOIN clocks ON clocks.id = heads.program_id LEFT JOIN webhooks ON webhooks.id = heads.id
    WHERE due_ms <= now_ms OR number = :queues_max
""").bindparams(
    bindparam("after", type_=BigInteger), bindparam("real_ms", type_=BigInteger), bindparam("queues_max", type_=Integer)
)

# PostgreSQL skips rows that another process is claiming. SQLite has a single writer and needs no lock clause.
_CLAIM = (
    select(
        outbox.c.id, outbox.c.program_id, outbox.c.webhook_id, outbox.c.target, outbox.c.category, outbox.c.refs,
        outbox.c.tries, outbox.c.attempts,
    )
    .where(
        outbox.c.state == int(Delivery.DUE), outbox.c.queue_id == bindparam("queue", type_=BigInteger),
        outbox.c.due_ms <= bindparam("now_ms"),
    )
    .order_by(outbox.c.due_ms)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(skip_locked=True)
)  # fmt: skip

_MARK = (
    outbox.update()
    .where(outbox.c.id.in_(bindparam("ids", expanding=True)))
    .values(state=Delivery.SENDING, due_ms=bindparam("lease_ms"))
)

_EXPIRED = (
    select(outbox.c.id)
    .where(outbox.c.state == int(Delivery.SENDING), outbox.c.due_ms <= bindparam("real_ms"))
    .limit(bindparam("limit", type_=Integer))
)

_END_LEASES = (
    outbox.update()
    .where(outbox.c.id.in_(_EXPIRED.with_for_update(skip_locked=True)))
    .values(state=Delivery.DUE, due_ms=outbox.c.created_ms)
)


def _plan_for_present_size(db: Connection) -> None:
    """Make PostgreSQL plan the statements of this transaction anew.

    It would reuse the plan of an empty outbox, a scan of the whole table, until the table is analyzed.
    """
    if db.dialect.name == "postgresql":
        db.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))


def find_work(db: Connection, real_ms: Instant, after: int | None) -> Work:
    """Return the work of the next ``QUEUES_MAX`` queues after this id; None means from the first one. It only reads."""
    parameters = {"after": FIRST_QUEUE if after is None else after, "real_ms": real_ms, "queues_max": QUEUES_MAX}
    _plan_for_present_size(db)
    rows = db.execute(_DUE_QUEUES, parameters).all()
    queues = [_queue(row, real_ms) for row in rows if row.due_ms <= row.now_ms]
    has_expired = db.execute(_EXPIRED, {"real_ms": real_ms, "limit": 1}).first() is not None
    return Work(queues, next((row.id for row in rows if row.number == QUEUES_MAX), None), has_expired)


def _queue(row: Row, real_ms: Instant) -> Queue:
    endpoint_id = row.id if row.doc is None else endpoint_id_of(row.program_id, url_of(row.doc))
    has_answered = row.delivered_ms is not None and row.delivered_ms >= real_ms - RECENT_MS
    return Queue(row.id, endpoint_id, row.due_ms, row.now_ms, row.id < 0 or bool(row.active), has_answered)


def end_leases(db: Connection, real_ms: Instant) -> int:
    """Return rows with an expired lease to their queues, due at once. Return their number.

    Their process was killed. Leases expire in real time, the rows are due in the time of their program.
    """
    _plan_for_present_size(db)
    return db.execute(_END_LEASES, {"real_ms": real_ms, "limit": EXPIRED_MAX}).rowcount


def claimable(queues: Sequence[Queue], room: Room) -> list[Queue]:
    """Return the queues with room for a post, in the order of their claims.

    Answering endpoints come first, then new ones, then silent ones. Within a state, the endpoint with the oldest latest post
    comes first, so no endpoint is left out for ever. Of the queues of an endpoint, that with the longest delay comes first.
    """
    for queue in queues:
        if queue.has_answered:
            room.learn(queue.endpoint_id)
    free = [queue for queue in queues if not queue.is_open or room.free(queue.endpoint_id)]
    return sorted(free, key=lambda queue: (room.record(queue.endpoint_id), queue.due_ms))


def claim(db: Connection, real_ms: Instant, rules: RetryRules, queues: Iterable[Queue], room: Room) -> list[Claim]:
    """Claim due rows of the queues while ``room`` has room for their endpoints. Rows locked by another process are skipped."""
    lease_ms = real_ms + rules.timeout_ms + LEASE_MARGIN_MS
    claims, closed = list[Claim](), CLOSED_MAX
    _plan_for_present_size(db)
    for queue in queues:
        limit = room.free(queue.endpoint_id) if queue.is_open else closed
        if not limit:
            continue
        rows = db.execute(_CLAIM, {"queue": queue.id, "now_ms": queue.now_ms, "limit": limit}).all()
        if not rows:
            continue
        if queue.is_open:
            room.take(queue.endpoint_id, len(rows))
        else:
            closed -= len(rows)
        claims += [Claim(*row, queue.endpoint_id, queue.has_answered, lease_ms) for row in rows]
    if claims:
        db.execute(_MARK, {"ids": [claim.id for claim in claims], "lease_ms": lease_ms})
    return claims


# --- Outcomes ----------------------------------------------------------------------------

# Only for an unchanged lease: after its expiry another process may have claimed the row, or a reset replaced it.
_OUTCOME = (
    outbox.update()
    .where(outbox.c.id == bindparam("row_id"), outbox.c.state == Delivery.SENDING, outbox.c.due_ms == bindparam("lease_ms"))
    .values(state=bindparam("to_state"), due_ms=bindparam("to_due_ms"), tries=bindparam("to_tries"), attempts=bindparam("log"))
)


def record(db: Connection, real_ms: Instant, rules: RetryRules, attempts: Sequence[DeliveryAttempt]) -> list[Delivery]:
    """Record the outcomes of claims. Return the new state of each row."""
    clocks = _load_clocks(db, {attempt.claim.program_id for attempt in attempts})
    outcomes = [_outcome(attempt, clocks[attempt.claim.program_id], real_ms, rules) for attempt in attempts]
    if outcomes:
        db.execute(_OUTCOME, outcomes)
    return [Delivery(outcome["to_state"]) for outcome in outcomes]


def _load_clocks(db: Connection, program_ids: Iterable[int]) -> dict[int, ProgramClock]:
    columns = (programs.c.id, programs.c.clock_offset_ms, programs.c.clock_frozen_ms)
    rows = db.execute(select(*columns).where(programs.c.id.in_(program_ids)))
    return {row.id: ProgramClock(row.clock_offset_ms, row.clock_frozen_ms) for row in rows}


def _outcome(attempt: DeliveryAttempt, clock: ProgramClock, real_ms: Instant, rules: RetryRules) -> dict[str, Any]:
    claim, now = attempt.claim, clock.time_at(real_ms)
    tries = claim.tries + (not attempt.is_last)
    retries = rules.retries if claim.target is None else rules.inline_retries
    if attempt.is_delivered:
        state, due_ms = Delivery.DELIVERED, real_ms
    elif attempt.is_last or tries > retries:
        state, due_ms = Delivery.DEAD, real_ms
    else:
        state, due_ms = Delivery.DUE, now + 1000 * rules.base_s**tries
    return {
        "row_id": claim.id, "lease_ms": claim.lease_ms, "to_state": int(state), "to_due_ms": due_ms, "to_tries": tries,
        "log": _log(attempt, clock),
    }  # fmt: skip


def _log(attempt: DeliveryAttempt, clock: ProgramClock) -> str:
    """Return the row's list of attempts with this one."""
    line = {
        "at": iso_ms(clock.time_at(attempt.at_ms)), "status": attempt.status, "duration_ms": attempt.duration_ms,
        "error": attempt.error, "body": attempt.body[:BODY_KEPT],
    }  # fmt: skip
    return msgspec.json.encode([*msgspec.json.decode(attempt.claim.attempts), line]).decode()
