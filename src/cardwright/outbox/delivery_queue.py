"""Delivery queue: claims of due outbox rows under a lease, and the records of their attempts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, Integer, Select, and_, bindparam, func, select

from cardwright.kit.clock import Instant, ProgramClock, iso_ms
from cardwright.outbox.events import Delivery
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
    """Row of the outbox that this process may send until ``lease_ms``. ``endpoint_id`` is its endpoint, see ``Room``."""

    id: int
    program_id: int
    webhook_id: int | None
    target: bytes | None
    category: int
    refs: str
    tries: int
    attempts: str
    endpoint_id: int
    lease_ms: Instant


@dataclass(slots=True)
class Room:
    """Number of rows that may still be claimed.

    ``free`` is the total, ``each`` the number for an endpoint that ``endpoints`` does not have. The id of an endpoint is that
    of its webhook. The endpoints that simulations name share the negative id of their program.
    """

    free: int
    each: int
    endpoints: dict[int, int] = field(default_factory=dict)

    def take(self, endpoint_id: int) -> bool:
        """Take a place for the endpoint. Return False if there is none."""
        left = self.endpoints.get(endpoint_id, self.each)
        if self.free == 0 or left == 0:
            return False
        self.free -= 1
        self.endpoints[endpoint_id] = left - 1
        return True

    def full(self) -> list[int]:
        """Return the endpoints without a free place."""
        return [endpoint_id for endpoint_id, left in self.endpoints.items() if left == 0]


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

_ENDPOINT_ID = func.coalesce(outbox.c.webhook_id, -outbox.c.program_id)
_COLUMNS = (
    outbox.c.id, outbox.c.program_id, outbox.c.webhook_id, outbox.c.target, outbox.c.category, outbox.c.refs, outbox.c.tries,
    outbox.c.attempts, _ENDPOINT_ID.label("endpoint_id"),
)  # fmt: skip


# Built once: on an idle outbox, building these statements takes longer than running them.
def _claimable() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions of expired leases, in real time, and of due rows, in their program's time.

    The second also compares with the latest program time, a constant, so that the index on ``due_ms`` limits the scan.
    """
    real_ms = bindparam("real_ms", type_=BigInteger)
    program_now = func.coalesce(programs.c.clock_frozen_ms, programs.c.clock_offset_ms + real_ms)
    latest = select(func.max(program_now)).select_from(programs).scalar_subquery()
    ran_out = and_(outbox.c.state == Delivery.SENDING, outbox.c.due_ms <= real_ms)
    is_due = and_(outbox.c.state == int(Delivery.DUE), outbox.c.due_ms <= latest, outbox.c.due_ms <= program_now)
    return ran_out, is_due


def _look(where: ColumnElement[bool]) -> Select[Any]:
    has_room = _ENDPOINT_ID.not_in(bindparam("full", expanding=True))
    query = select(*_COLUMNS).join(programs, programs.c.id == outbox.c.program_id).where(where, has_room)
    # Only in the order of the index: with ties ordered by id, every claim would sort the backlog.
    return query.order_by(outbox.c.due_ms).limit(bindparam("limit", type_=Integer))


_LOOKS = [_look(where) for where in _claimable()]

# PostgreSQL skips rows that another process is claiming. SQLite has a single writer and needs no lock clause.
_LOCKED_LOOKS = [query.with_for_update(of=outbox, skip_locked=True) for query in _LOOKS]

_MARK = (
    outbox.update()
    .where(outbox.c.id.in_(bindparam("ids", expanding=True)))
    .values(state=Delivery.SENDING, due_ms=bindparam("lease_ms"))
)


def is_any_claimable(db: Connection, real_ms: Instant, room: Room) -> bool:
    """Return whether ``claim`` would find a row with enough room. It only reads, so an idle outbox causes no commit."""
    return any(db.execute(query, _parameters(real_ms, room, 1)).first() for query in _LOOKS)


def claim(db: Connection, real_ms: Instant, rules: RetryRules, room: Room) -> list[Claim]:
    """Claim due rows while ``room`` has places. An endpoint without a place does not block others.

    Rows locked by another process are skipped. Rows with an expired lease are claimed again.
    """
    lease_ms = real_ms + rules.timeout_ms + LEASE_MARGIN_MS
    claims: list[Claim] = []
    for query in _LOCKED_LOOKS:
        while room.free > 0 and (rows := db.execute(query, _parameters(real_ms, room, room.free)).all()):
            taken = [Claim(**row._asdict(), lease_ms=lease_ms) for row in rows if room.take(row.endpoint_id)]
            assert taken, "the query excludes endpoints without room"
            db.execute(_MARK, {"ids": [claim.id for claim in taken], "lease_ms": lease_ms})
            claims += taken
    return claims


def _parameters(real_ms: Instant, room: Room, limit: int) -> dict[str, Any]:
    return {"real_ms": real_ms, "full": room.full(), "limit": limit}


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
