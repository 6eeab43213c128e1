"""The outbox as a queue: due rows are claimed under a lease, and what came of each attempt is written down."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, Integer, Select, and_, bindparam, func, select

from cardwright.kit.clock import Instant, ProgramClock, iso_ms
from cardwright.outbox.events import Delivery
from cardwright.storage.tables import outbox, programs

LEASE_MARGIN_MS: Final = 20_000
"""How much longer than an attempt may last a claim holds: time to write the outcome down, even on a slow disk."""

BODY_KEPT: Final = 256
"""Characters of an answer's body that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRules:
    """Retry n of a failed notification comes ``base_s ** n`` seconds, of program time, after the failure before it.

    ``inline_retries`` holds for addresses that a simulation names itself. ``timeout_ms`` is real time, for one attempt.
    Source: wire reference 9.6.
    """

    base_s: int = 4
    retries: int = 10
    inline_retries: int = 3
    timeout_ms: int = 10_000


class Claim(NamedTuple):
    """A row of the outbox that this process may send until ``lease_ms``. ``endpoint_id`` is its endpoint, see ``Room``."""

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
    """How many more rows may be claimed: ``free`` in all, ``each`` for an endpoint unless ``endpoints`` says less.

    An endpoint's id is that of a registered webhook, or the program's id, negative, for the addresses that its simulations name.
    """

    free: int
    each: int
    endpoints: dict[int, int] = field(default_factory=dict)

    def take(self, endpoint_id: int) -> bool:
        """Takes a place for the endpoint; False when there is none."""
        left = self.endpoints.get(endpoint_id, self.each)
        if self.free == 0 or left == 0:
            return False
        self.free -= 1
        self.endpoints[endpoint_id] = left - 1
        return True

    def full(self) -> list[int]:
        """The endpoints that have no place left."""
        return [endpoint_id for endpoint_id, left in self.endpoints.items() if left == 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """What came of a claim: a status and the beginning of a body, or an error.

    ``is_last``: there is nobody to send to any more, so nothing was sent and nothing will be.
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
        """Only 200 is a success: 201, 204 and redirects are not (wire reference 9.6)."""
        return self.status == 200


# --- Claims ------------------------------------------------------------------------------

_ENDPOINT_ID = func.coalesce(outbox.c.webhook_id, -outbox.c.program_id)
_COLUMNS = (
    outbox.c.id, outbox.c.program_id, outbox.c.webhook_id, outbox.c.target, outbox.c.category, outbox.c.refs, outbox.c.tries,
    outbox.c.attempts, _ENDPOINT_ID.label("endpoint_id"),
)  # fmt: skip


# Built once: SQLAlchemy takes longer to build these statements than the database takes to run them on an idle outbox.
def _claimable() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Claims that ran out, in real time; and what is due by its program's clock.

    The second names the latest of all clocks besides, a constant, so that the index on ``due_ms`` bounds the look.
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
    # In the order of the index and no further: ties broken by id would have a backlog sorted for every claim.
    return query.order_by(outbox.c.due_ms).limit(bindparam("limit", type_=Integer))


_LOOKS = [_look(where) for where in _claimable()]

# PostgreSQL passes over what another process is claiming; SQLite has one writer and leaves the clause out.
_LOCKED_LOOKS = [query.with_for_update(of=outbox, skip_locked=True) for query in _LOOKS]

_MARK = (
    outbox.update()
    .where(outbox.c.id.in_(bindparam("ids", expanding=True)))
    .values(state=Delivery.SENDING, due_ms=bindparam("lease_ms"))
)


def is_any_claimable(db: Connection, real_ms: Instant, room: Room) -> bool:
    """Whether ``claim`` would find anything if there were room at all; reads only, so that idling costs no commit."""
    return any(db.execute(query, _parameters(real_ms, room, 1)).first() for query in _LOOKS)


def claim(db: Connection, real_ms: Instant, rules: RetryRules, room: Room) -> list[Claim]:
    """Claims due rows as far as there is room, which it takes; an endpoint without room does not stand in the others' way.

    Rows that another process has locked are passed over; rows whose claim has run out are claimed anew.
    """
    lease_ms = real_ms + rules.timeout_ms + LEASE_MARGIN_MS
    claims: list[Claim] = []
    for query in _LOCKED_LOOKS:
        while room.free > 0 and (rows := db.execute(query, _parameters(real_ms, room, room.free)).all()):
            taken = [Claim(**row._asdict(), lease_ms=lease_ms) for row in rows if room.take(row.endpoint_id)]
            assert taken, "an endpoint without room is not looked at"
            db.execute(_MARK, {"ids": [claim.id for claim in taken], "lease_ms": lease_ms})
            claims += taken
    return claims


def _parameters(real_ms: Instant, room: Room, limit: int) -> dict[str, Any]:
    return {"real_ms": real_ms, "full": room.full(), "limit": limit}


# --- Outcomes ----------------------------------------------------------------------------

# Whoever lost the claim has no say: the row is another's now, or not even the same row after a reset.
_OUTCOME = (
    outbox.update()
    .where(outbox.c.id == bindparam("row_id"), outbox.c.state == Delivery.SENDING, outbox.c.due_ms == bindparam("lease_ms"))
    .values(state=bindparam("to_state"), due_ms=bindparam("to_due_ms"), tries=bindparam("to_tries"), attempts=bindparam("log"))
)


def record(db: Connection, real_ms: Instant, rules: RetryRules, attempts: Sequence[DeliveryAttempt]) -> list[Delivery]:
    """Writes down what came of each claim and tells where its row stands now."""
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
    """The row's list of attempts, one longer."""
    line = {
        "at": iso_ms(clock.time_at(attempt.at_ms)), "status": attempt.status, "duration_ms": attempt.duration_ms,
        "error": attempt.error, "body": attempt.body[:BODY_KEPT],
    }  # fmt: skip
    return msgspec.json.encode([*msgspec.json.decode(attempt.claim.attempts), line]).decode()
