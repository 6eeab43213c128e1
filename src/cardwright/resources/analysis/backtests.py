"""Backtests: replays of the past purchases of a program under changed spend controls, and the decisions that differ."""

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.exc import IntegrityError

from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.problems import BACKTEST_NOT_FOUND, BUSY, Problem, bad_field, bad_parameter
from cardwright.kit.canonical import reading
from cardwright.kit.clock import DAY_MS, Instant, iso, iso_ms, parse_instant
from cardwright.resources.analysis.backtest_changes import AuthChanges, ChangedControls, ExemptionChanges, VelocityChanges
from cardwright.resources.analysis.backtest_worker import AUTH, VELOCITY, ControlType
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import OR_NONE, Token, is_day
from cardwright.resources.common.route import Paging, Route, Scope, Shape, get, post
from cardwright.storage import records
from cardwright.storage.backtests import (
    QUEUED,
    RUNNING,
    UNFINISHED,
    Job,
    Sums,
    count_accounts,
    count_unfinished,
    list_flips,
    remove,
)
from cardwright.storage.database import Row
from cardwright.storage.programs import get_program
from cardwright.storage.tables import backtests

# --- Shapes: what travels on the wire ------------------------------------------------

UNFINISHED_MAX = 10
"""The maximum number of queued and running backtests of a program."""


def parse_date_time(text: str) -> Instant:
    """Return the instant of a date or a date-time. Raises ValueError for any other text."""
    if not is_day(text[:10]) or text[10:11] not in ("", "T"):
        raise ValueError(text)
    return parse_instant(text)


def parse_end(text: str) -> Instant:
    """Return the first instant after a date, or after the millisecond of a date-time. Raises ValueError for any other text."""
    last = parse_date_time(text)
    return last + DAY_MS if is_day(text) else last + 1


class BacktestCreate(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes of spend controls to replay past purchases under.

    Both dates are inclusive. By default, the range is the whole history until now. An unknown field is refused, because a
    backtest without it would not test the intended change.
    """

    token: Token | None = None
    name: Annotated[str, Meta(max_length=255), OR_NONE] | None = None
    start_date: Annotated[str, reading(parse_date_time)] | None = None
    end_date: Annotated[str, reading(parse_end)] | None = None
    velocity_controls: VelocityChanges | None = VelocityChanges()
    auth_controls: AuthChanges | None = AuthChanges()
    exempt_mids: ExemptionChanges | None = ExemptionChanges()


class Outcomes(Shape, frozen=True, kw_only=True):
    """The outcomes of the purchases. Amounts are texts with exact decimals. ``approval_rate`` is in percent."""

    approved: int
    declined: int
    approved_amount: str
    approval_rate: Decimal | None


class Progress(Shape, frozen=True, kw_only=True):
    """The progress of a backtest: the accounts done, and all accounts of the program."""

    accounts: int
    accounts_total: int


class Flips(Shape, frozen=True, kw_only=True):
    """The purchases whose decision differs. ``kept`` of them can be listed."""

    to_declined: int
    to_declined_amount: str
    to_approved: int
    to_approved_amount: str
    kept: int


class DeclinedBy(Shape, frozen=True, kw_only=True):
    """The purchases that a control declines under the change, whether or not they were declined before."""

    control: str
    control_type: ControlType
    purchases: int
    request_amount: str


class Backtest(Shape, frozen=True, kw_only=True):
    """A backtest with its results so far. ``approval_rate_change`` is in percentage points."""

    token: str
    name: str | UnsetType = UNSET
    state: str
    error: str | UnsetType = UNSET
    created_time: str
    start_time: str
    end_time: str
    velocity_controls: VelocityChanges
    auth_controls: AuthChanges
    exempt_mids: ExemptionChanges
    progress: Progress
    purchases: int
    before: Outcomes
    after: Outcomes
    approval_rate_change: Decimal | None
    flips: Flips
    declined_by: list[DeclinedBy]


# --- Rules: pure ---------------------------------------------------------------------


def parse_range(body: BacktestCreate, now: Instant) -> tuple[Instant, Instant]:
    """Return the first instant of the range and the first one after it. Raises a problem if the range is empty.

    The range ends at the current time at the latest.
    """
    start = _instant("start_date", body.start_date, parse_date_time) if body.start_date else 0
    end = min(now + 1, _instant("end_date", body.end_date, parse_end)) if body.end_date else now + 1
    if end <= start:
        raise bad_field("end_date", "must not be before start_date, which must not be in the future")
    return start, end


def _instant(field: str, text: str, parse: Callable[[str], Instant]) -> Instant:
    try:
        return parse(text)
    except ValueError:
        raise bad_field(field, "must be yyyy-MM-dd or yyyy-MM-ddTHH:mm:ss") from None


def percent(part: int, whole: int) -> Decimal | None:
    """Return a rate in percent with four decimals, rounded down; None if ``whole`` is 0."""
    return Decimal(part * 1_000_000 // whole) / 10_000 if whole else None


def state_of(row: Row, real_ms: Instant) -> str:
    """Return the state as a response shows it: INTERRUPTED if the backtest is running and its lease has expired."""
    return "INTERRUPTED" if row.state == RUNNING and row.lease_ms < real_ms else str(row.state)


def shown(row: Row, state: str, currency: str) -> Backtest:
    """Return a backtest with its results so far."""
    request = msgspec.json.decode(row.doc, type=BacktestCreate)
    job = msgspec.json.decode(row.job, type=Job)
    sums, places = msgspec.json.decode(row.sums, type=Sums), exponent_of(currency) or 0
    total = sums.purchases
    rates = percent(sums.approved_before, total), percent(sums.approved_after, total)
    return Backtest(
        token=row.token,
        name=request.name or UNSET,
        state=state,
        error=sums.error or UNSET,
        created_time=iso(row.created_ms),
        start_time=iso_ms(job.start_ms),
        end_time=iso_ms(job.end_ms),
        velocity_controls=request.velocity_controls or VelocityChanges(),
        auth_controls=request.auth_controls or AuthChanges(),
        exempt_mids=request.exempt_mids or ExemptionChanges(),
        progress=Progress(accounts=sums.accounts, accounts_total=max(job.accounts, sums.accounts)),
        purchases=total,
        before=Outcomes(
            approved=sums.approved_before, declined=total - sums.approved_before,
            approved_amount=decimal_text(sums.amount_before, places), approval_rate=rates[0],
        ),
        after=Outcomes(
            approved=sums.approved_after, declined=total - sums.approved_after,
            approved_amount=decimal_text(sums.amount_after, places), approval_rate=rates[1],
        ),
        approval_rate_change=None if rates[0] is None or rates[1] is None else rates[1] - rates[0],
        flips=Flips(
            to_declined=sums.to_declined, to_declined_amount=decimal_text(sums.to_declined_amount, places),
            to_approved=sums.to_approved, to_approved_amount=decimal_text(sums.to_approved_amount, places), kept=sums.flips,
        ),
        declined_by=[
            DeclinedBy(control=token, control_type=kind, purchases=count, request_amount=decimal_text(amount, places))
            for kind, counts in ((AUTH, sums.blocked_by), (VELOCITY, sums.declined_by))
            for token, (count, amount) in sorted(counts.items())
        ],
    )  # fmt: skip


# --- Queries: this resource's SQL ----------------------------------------------------


def get_row(call: Call) -> Row:
    """Return the backtest with the path's token. Raises BACKTEST_NOT_FOUND if the program has none."""
    return crud.get_row(call, backtests, BACKTEST_NOT_FOUND)


def job_of(call: Call, body: BacktestCreate) -> Job:
    """Return the job of a request. Raises a problem if a change would be refused as a real change."""
    start, end = parse_range(body, call.now)
    attempt = ChangedControls(call, start)
    return Job(
        program_id=call.program.id, start_ms=start, end_ms=end, accounts=count_accounts(call.db, call.program.id),
        velocity=attempt.velocity(body.velocity_controls or VelocityChanges()),
        auth=attempt.auth(body.auth_controls or AuthChanges()),
        exempt=attempt.exempt(body.exempt_mids or ExemptionChanges()),
    )  # fmt: skip


# --- Actions: what a caller can do with it -------------------------------------------


async def create_backtest(call: EngineCall, body: BacktestCreate) -> bytes:
    """Start a backtest.

    It runs in the background. Its progress is part of the backtest.
    """
    try:
        text = await asyncio.to_thread(_create, call, body)
    except IntegrityError:
        # A concurrent request inserted the same token after our replay check. A second replay check finds its row.
        text = await asyncio.to_thread(_create, call, body)
    call.app.wake_backtests()
    return text.encode()


def _create(call: EngineCall, body: BacktestCreate) -> str:
    app = call.app
    with app.database.write() as db:
        program = get_program(db, call.program_id)
        full = Call(app, db, program, program.clock.time_at(app.real_clock()), call.path)
        row = crud.find_replay_row(full, backtests, body)
        if row is None:
            job = job_of(full, body)
            if count_unfinished(db, program.id) >= UNFINISHED_MAX:
                raise Problem(BUSY, f"{UNFINISHED_MAX} backtests are queued or running; try again when one has finished")
            token = body.token or app.ids.token()
            records.insert(
                db, backtests, program_id=program.id, token=token, request_hash=crud.fingerprint(app, body),
                created_ms=full.now, modified_ms=full.now, doc=records.text_of(body), state=QUEUED,
                job=msgspec.json.encode(job).decode(), cursor=0, sums=records.text_of(Sums()), lease_ms=0,
            )  # fmt: skip
            row = records.find(db, backtests, program.id, token)
        assert row is not None, "the row exists or was just inserted"
        return records.text_of(shown(row, state_of(row, app.real_clock()), program.settings.currency))


def get_backtest(call: Call) -> Backtest:
    """Return a backtest with its progress and its results so far."""
    row = get_row(call)
    real_ms = call.app.real_clock()
    if row.state in UNFINISHED and row.lease_ms < real_ms:
        # It is queued, or its process has ended. The runner of this process continues it after its last stored part.
        call.app.wake_backtests()
    return shown(row, state_of(row, real_ms), call.program.settings.currency)


def list_backtest_flips(call: Call) -> records.Listing:
    """List the purchases whose decision differs, in the order in which the backtest found them."""
    page = call.list_page
    if page.sort_by != FLIP_PAGING.sort_by:
        raise bad_parameter("sort_by", f"must be {FLIP_PAGING.sort_by}")
    docs: Sequence[str] = list_flips(call.db, get_row(call).id, page.start_index, page.count + 1)
    return records.Listing(docs[: page.count], len(docs) > page.count)


def delete_backtest(call: Call) -> None:
    """Delete a backtest and its results.

    A running backtest ends.
    """
    remove(call.db, get_row(call))


# --- Routes: parse, act, render ------------------------------------------------------

FLIP_PAGING = Paging(count=25, sort_by="number")

TAG = "Backtests"

routes = [
    post("/backtests", BacktestCreate, create_backtest, Backtest, scope=Scope.SANDBOX),
    get("/backtests/{token}", get_backtest, Backtest, scope=Scope.SANDBOX),
    get("/backtests/{token}/flips", list_backtest_flips, dict[str, Any], paging=FLIP_PAGING, scope=Scope.SANDBOX),
    Route("DELETE", "/backtests/{token}", delete_backtest, status=204, scope=Scope.SANDBOX, fields=False),
]
