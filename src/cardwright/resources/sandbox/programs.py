"""The sandbox: programs of one's own, time that one holds, and a clean slate."""

import asyncio
from typing import Annotated, Any, Literal

from msgspec import Meta, structs

from cardwright.core.money import exponent_of
from cardwright.core.problems import bad_field
from cardwright.kit.clock import Instant, ProgramClock, iso_ms, parse_instant
from cardwright.resources.common.call import Call, EngineCall
from cardwright.resources.common.fields import EmptyBody, Token, parse_duration
from cardwright.resources.common.route import Scope, Shape, get, post, put
from cardwright.storage.programs import (
    ProgramSettings,
    find_program_token,
    get_program,
    insert_credential,
    insert_program,
    set_clock,
    set_settings,
)
from cardwright.storage.reset import reset_program

# --- Shapes: what travels on the wire ------------------------------------------------


class ProgramCreate(Shape, frozen=True, kw_only=True):
    """A new program, a world of its own with its own credentials."""

    token: Token | None = None
    name: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    currency: Annotated[str, Meta(min_length=3, max_length=3)] | None = None


class ProgramAnswer(Shape, frozen=True, kw_only=True):
    """A program and the credentials that open it; the only time that they are told."""

    token: str
    name: str
    application_token: str
    access_token: str


class SettingsUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a program's settings; what is absent stays."""

    mask_funding_source_tokens: bool | None = None
    mask_webhook_secrets: bool | None = None
    transaction_model: Literal["v1", "v2"] | None = None
    deposit_accounts: bool | None = None


class ClockRequest(Shape, frozen=True, kw_only=True):
    """What to do with the clock: exactly one of ``set`` (a date-time), ``by`` (``8d``, ``90m``, ``1500ms``), ``freeze``."""

    set: str | None = None
    by: str | None = None
    freeze: bool | None = None


# --- Rules: pure ---------------------------------------------------------------------

LATEST = parse_instant("9000-01-01")


def changed_clock(clock: ProgramClock, request: ClockRequest, real_ms: Instant) -> ProgramClock:
    """The clock after the request. Time goes forward only: what happened before cannot be unmade, only reset."""
    if sum(value is not None for value in (request.set, request.by, request.freeze)) != 1:
        raise bad_field("set, by, freeze", "exactly one of them must be given")
    now = clock.time_at(real_ms)
    if request.freeze is not None:
        return ProgramClock(0, now) if request.freeze else ProgramClock(now - real_ms)
    target = now + parse_duration("by", request.by) if request.by is not None else _parse_time(request.set or "")
    if target < now:
        raise bad_field("set", f"must not be before the program's present time {iso_ms(now)}; POST /sandbox/reset starts again")
    if target > LATEST:
        raise bad_field("set" if request.set else "by", "must not lead beyond the year 9000")
    # A frozen clock says nothing of real time, or a seeded run would not repeat.
    return ProgramClock(0, target) if clock.frozen_ms is not None else ProgramClock(target - real_ms)


def _parse_time(text: str) -> Instant:
    try:
        return parse_instant(text)
    except ValueError:
        raise bad_field("set", "must be a date-time, yyyy-MM-ddTHH:mm:ssZ") from None


# --- Actions: what one can do with it ------------------------------------------------


def create_program(call: Call, body: ProgramCreate) -> ProgramAnswer:
    """Makes a program with credentials of its own, so that a test run has its own world."""
    if body.currency is not None and exponent_of(body.currency) is None:
        raise bad_field("currency", "must be an ISO 4217 alphabetic code")
    token = body.token or call.app.ids.token()
    while find_program_token(call.db, token) is not None:
        if body.token is not None:
            raise bad_field("token", "is the token of another program; leave it out to have one made")
        # After a reset a seeded run draws the tokens of programs that are still there once more.
        token = call.app.ids.token()
    answer = ProgramAnswer(
        token=token, name=body.name or token, application_token=call.app.ids.token(), access_token=call.app.ids.token()
    )
    program_id = insert_program(
        call.db, token=token, name=answer.name, short_code="".join(filter(str.isalnum, token))[:4].lower() or "prog",
        settings=ProgramSettings(currency=body.currency or call.program.settings.currency),
        clock=call.program.clock, now=call.now,
    )  # fmt: skip
    digest = call.app.vault.credential_digest(answer.application_token, answer.access_token)
    insert_credential(call.db, program_id, digest)
    return answer


def get_program_settings(call: Call) -> dict[str, Any]:
    """Returns the program that the credentials open, and its settings."""
    settings = structs.asdict(call.program.settings)
    return {"token": call.program.token, "name": call.program.name, "revision": call.program.revision, "settings": settings}


def update_program_settings(call: Call, body: SettingsUpdate) -> dict[str, Any]:
    """Changes settings of the program."""
    changes = {name: value for name, value in structs.asdict(body).items() if value is not None}
    settings = structs.replace(call.program.settings, **changes)
    set_settings(call.db, call.program.id, settings)
    return {"token": call.program.token, "name": call.program.name, "settings": structs.asdict(settings)}


def get_clock(call: Call) -> dict[str, Any]:
    """Returns the program's time."""
    return _clock_answer(call.program.clock, call.now)


async def change_clock(call: EngineCall, body: ClockRequest) -> dict[str, Any]:
    """Freezes, sets or advances the program's clock; what is due then has happened when this answers."""
    app = call.app
    answer = await asyncio.to_thread(_set_clock, call, body)
    await app.settle(call.program_id)
    # Retries of notifications are due by the program's clock too.
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
    # Who stands still has no distance to the real time that would mean anything, and equal calls give equal bytes.
    return {"now": iso_ms(now), "frozen": is_frozen, "offset_ms": 0 if is_frozen else clock.offset_ms}


def reset(call: Call, _body: EmptyBody) -> dict[str, Any]:
    """Removes everything of the program but its credentials and settings, and sets its clock to where it began."""
    removed = reset_program(call.db, call.program.id, call.app.first_clock)
    call.app.ids.restart()
    call.app.engine.forget()
    call.app.ranks.clear(call.program.id)
    call.app.resets[call.program.id] += 1
    return removed


# --- Routes: parse, act, view --------------------------------------------------------

TAG = "Sandbox"

routes = [
    post("/programs", ProgramCreate, create_program, ProgramAnswer, scope=Scope.SANDBOX_ONLY),
    get("/program", get_program_settings, dict[str, Any], scope=Scope.SANDBOX),
    put("/program", SettingsUpdate, update_program_settings, dict[str, Any], scope=Scope.SANDBOX),
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
    post("/reset", EmptyBody, reset, dict[str, Any], status=200, scope=Scope.SANDBOX_ONLY),
]
