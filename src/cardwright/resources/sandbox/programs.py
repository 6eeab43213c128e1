"""Programs of the sandbox: creation, settings and reset."""

from typing import Annotated, Any, Literal

from msgspec import Meta, structs

from cardwright.core.money import exponent_of
from cardwright.core.problems import FORBIDDEN, Problem, bad_field
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import EmptyBody, Token
from cardwright.resources.common.route import Scope, Shape, get, post, put
from cardwright.storage.credentials import insert_credential
from cardwright.storage.programs import (
    ProgramSettings,
    find_program_token,
    insert_program,
    set_settings,
)
from cardwright.storage.reset import ProductionData, reset_program

# --- Shapes: what travels on the wire ------------------------------------------------


class ProgramCreate(Shape, frozen=True, kw_only=True):
    """A new, isolated program."""

    token: Token | None = None
    name: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    currency: Annotated[str, Meta(min_length=3, max_length=3)] | None = None


class ProgramAnswer(Shape, frozen=True, kw_only=True):
    """A program and its credentials. No later response has the credentials."""

    token: str
    name: str
    application_token: str
    access_token: str


class SettingsUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a program's settings. Absent fields stay unchanged."""

    mask_funding_source_tokens: bool | None = None
    mask_webhook_secrets: bool | None = None
    transaction_model: Literal["v1", "v2"] | None = None
    deposit_accounts: bool | None = None


# --- Rules: pure ---------------------------------------------------------------------


# --- Actions: what a caller can do with it -------------------------------------------


def create_program(call: Call, body: ProgramCreate) -> ProgramAnswer:
    """Create an isolated program with its credentials, such as for one test run."""
    if body.currency is not None and exponent_of(body.currency) is None:
        raise bad_field("currency", "must be an ISO 4217 alphabetic code")
    token = body.token or call.app.ids.token()
    while find_program_token(call.db, token) is not None:
        if body.token is not None:
            raise bad_field("token", "is the token of another program; omit the field to get a generated token")
        # After a reset, a seeded run draws the same tokens again, also those of programs that still exist.
        token = call.app.ids.token()
    answer = ProgramAnswer(
        token=token, name=body.name or token, application_token=call.app.ids.token(), access_token=call.app.ids.token()
    )
    program_id = insert_program(
        call.db, token=token, name=answer.name, short_code="".join(filter(str.isalnum, token))[:4].lower() or "prog",
        settings=ProgramSettings(currency=body.currency or call.program.settings.currency),
        clock=call.app.first_clock, now=call.app.real_clock(),
    )  # fmt: skip
    digest = call.app.vault.credential_digest(answer.application_token, answer.access_token)
    insert_credential(call.db, program_id, digest, call.app.real_clock())
    return answer


def get_program_settings(call: Call) -> dict[str, Any]:
    """Return the program of the credentials and its settings."""
    settings = structs.asdict(call.program.settings)
    return {"token": call.program.token, "name": call.program.name, "revision": call.program.revision, "settings": settings}


def update_program_settings(call: Call, body: SettingsUpdate) -> dict[str, Any]:
    """Change settings of the program."""
    changes = {name: value for name, value in structs.asdict(body).items() if value is not None}
    settings = structs.replace(call.program.settings, **changes)
    set_settings(call.db, call.program.id, settings)
    return {"token": call.program.token, "name": call.program.name, "settings": structs.asdict(settings)}


def reset(call: Call, _body: EmptyBody) -> dict[str, Any]:
    """Remove all data of the program except its credentials and settings, and set its clock back to the start."""
    try:
        removed = reset_program(call.db, call.program.id, call.app.first_clock)
    except ProductionData:
        raise Problem(FORBIDDEN, "the database is one of production mode") from None
    call.app.ids.restart()
    call.app.engine.clear()
    call.app.list_positions.clear(call.program.id)
    call.app.resets[call.program.id] += 1
    return removed


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Sandbox"

routes = [
    post("/programs", ProgramCreate, create_program, ProgramAnswer, scope=Scope.SANDBOX_ONLY),
    get("/program", get_program_settings, dict[str, Any], scope=Scope.SANDBOX),
    put("/program", SettingsUpdate, update_program_settings, dict[str, Any], scope=Scope.SANDBOX),
    post("/reset", EmptyBody, reset, dict[str, Any], status=200, scope=Scope.SANDBOX_ONLY),
]
