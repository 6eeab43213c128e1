"""Program clock: its reading, freezing, setting and advancing."""

import asyncio
from typing import Any

from cardwright.core.problems import bad_field
from cardwright.kit.clock import Instant, ProgramClock, iso_ms, parse_instant
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import parse_duration
from cardwright.resources.common.route import Scope, Shape, get, post
from cardwright.storage.programs import (
    get_program,
    set_clock,
)

# --- Shapes: what travels on the wire ------------------------------------------------


class ClockRequest(Shape, frozen=True, kw_only=True):
    """A change of the clock: exactly one of ``set`` (a date-time), ``by`` (``8d``, ``90m``, ``1500ms``) and ``freeze``."""

    set: str | None = None
    by: str | None = None
    freeze: bool | None = None


# --- Rules: pure ---------------------------------------------------------------------

LATEST = parse_instant("9000-01-01")


def changed_clock(clock: ProgramClock, request: ClockRequest, real_ms: Instant) -> ProgramClock:
    """Return the clock after the request. Raises a problem that names the field.

    Time only goes forward, because past decisions cannot be undone. Only a reset goes back.
    """
    if sum(value is not None for value in (request.set, request.by, request.freeze)) != 1:
        raise bad_field("set, by, freeze", "exactly one of them must be given")
    now = clock.time_at(real_ms)
    if request.freeze is not None:
        return ProgramClock(0, now) if request.freeze else ProgramClock(now - real_ms)
    target = now + parse_duration("by", request.by) if request.by is not None else _parse_time(request.set or "")
    if target < now:
        raise bad_field("set", f"must not be before the program's current time {iso_ms(now)}; POST /sandbox/reset goes back")
    if target > LATEST:
        raise bad_field("set" if request.set else "by", "must not lead beyond 9000-01-01T00:00:00Z")
    # A frozen clock is independent of real time; otherwise a seeded run would not repeat.
    return ProgramClock(0, target) if clock.frozen_ms is not None else ProgramClock(target - real_ms)


def _parse_time(text: str) -> Instant:
    try:
        return parse_instant(text)
    except ValueError:
        raise bad_field("set", "must be a date-time, yyyy-MM-ddTHH:mm:ssZ") from None


# --- Actions: what a caller can do with it -------------------------------------------


def get_clock(call: Call) -> dict[str, Any]:
    """Return the program's time."""
    return _clock_answer(call.program.clock, call.now)


async def change_clock(call: EngineCall, body: ClockRequest) -> dict[str, Any]:
    """Freeze, set or advance the program's clock.

    Everything that becomes due by the change is carried out before the response.
    """
    app = call.app
    answer = await asyncio.to_thread(_set_clock, call, body)
    await app.settle(call.program_id)
    # Retries of webhooks are due by the program's clock too.
    app.wake_outbox()
    return answer


def _set_clock(call: EngineCall, body: ClockRequest) -> dict[str, Any]:
    real_ms = call.app.real_clock()
    with call.app.database.write() as db:
        clock = changed_clock(get_program(db, call.program_id).clock, body, real_ms)
        set_clock(db, call.program_id, clock)
    return _clock_answer(clock, clock.time_at(real_ms))


def _clock_answer(clock: ProgramClock, now: Instant) -> dict[str, Any]:
    is_frozen = clock.frozen_ms is not None
    # A frozen clock has no meaningful offset from real time. With 0, equal calls get equal responses.
    return {"now": iso_ms(now), "frozen": is_frozen, "offset_ms": 0 if is_frozen else clock.offset_ms}


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Sandbox"

routes = [
    get("/clock", get_clock, dict[str, Any], scope=Scope.SANDBOX),
    post("/clock", ClockRequest, change_clock, dict[str, Any], status=200, scope=Scope.SANDBOX_ONLY),
    post(
        "/clock/advance",
        ClockRequest,
        change_clock,
        dict[str, Any],
        status=200,
        scope=Scope.SANDBOX_ONLY,
        operation_id="change_clock_advance",
    ),
]
