"""Credentials of a program: the list, new pairs, rotation and revocation."""

from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from cardwright.core.problems import CREDENTIAL_NOT_FOUND, CREDENTIALS_FULL, LAST_CREDENTIAL, Problem
from cardwright.kit.clock import Instant, iso
from cardwright.kit.ids import Ids
from cardwright.kit.vault import Vault
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import EmptyBody
from cardwright.resources.common.route import Route, Scope, Shape, get, post
from cardwright.storage import credentials as storage
from cardwright.storage.credentials import has_credential, insert_credential, lock_credentials, revoke_credential

CREDENTIALS_MAX = 10
"""Maximum number of valid credentials of a program."""

# --- Shapes: what travels on the wire ------------------------------------------------


class Credential(Shape, frozen=True, kw_only=True):
    """A credential without its tokens, of which only a keyed hash is stored."""

    token: str
    created_time: str
    given: bool
    revoked_time: str | UnsetType = UNSET


class CredentialList(Shape, frozen=True, kw_only=True):
    """The valid credentials of a program, oldest first."""

    count: int
    data: tuple[Credential, ...]


class CredentialCreated(Shape, frozen=True, kw_only=True):
    """A new credential. No later response has its tokens."""

    token: str
    created_time: str
    application_token: str
    access_token: str


class RevokeQuery(Shape, frozen=True, kw_only=True):
    """The query of a revocation."""

    force: bool = False


# --- Rules: pure ---------------------------------------------------------------------


def credential_of(row: storage.Credential) -> Credential:
    """Return a stored credential in the form of the API."""
    return Credential(token=row.token, created_time=iso(row.created_ms), given=row.is_given)


def find_credential(rows: list[storage.Credential], token: str) -> storage.Credential:
    """Return the valid credential with this token. Raises CREDENTIAL_NOT_FOUND."""
    row = next((row for row in rows if row.token == token), None)
    if row is None:
        raise Problem(CREDENTIAL_NOT_FOUND)
    return row


# --- Actions: what a caller can do with it -------------------------------------------
# The command line calls the functions that take a connection.


def add_to(db: Connection, program_id: int, vault: Vault, ids: Ids, now: Instant, replaced: str | None) -> CredentialCreated:
    """Insert a new credential of a program and return it with its tokens.

    ``replaced`` is the token of the valid credential that a rotation replaces; it stays valid. Raises CREDENTIAL_NOT_FOUND
    and CREDENTIALS_FULL.
    """
    rows = lock_credentials(db, program_id)
    if replaced is not None:
        find_credential(rows, replaced)
    if len(rows) >= CREDENTIALS_MAX:
        raise Problem(CREDENTIALS_FULL, str(len(rows)))
    application_token, access_token = ids.token(), ids.token()
    while has_credential(db, digest := vault.credential_digest(application_token, access_token)):
        # After a reset, a seeded run draws the same tokens again, also those of credentials that still exist.
        application_token, access_token = ids.token(), ids.token()
    row = insert_credential(db, program_id, digest, now)
    return CredentialCreated(
        token=row.token, created_time=iso(now), application_token=application_token, access_token=access_token
    )


def revoke_in(db: Connection, program_id: int, token: str, now: Instant, *, is_forced: bool) -> Credential:
    """Revoke a credential of a program. Raises CREDENTIAL_NOT_FOUND, and LAST_CREDENTIAL unless ``is_forced``."""
    rows = lock_credentials(db, program_id)
    row = find_credential(rows, token)
    if len(rows) == 1 and not is_forced:
        raise Problem(LAST_CREDENTIAL)
    revoke_credential(db, program_id, token, now)
    return Credential(token=token, created_time=iso(row.created_ms), given=row.is_given, revoked_time=iso(now))


def list_credentials(call: Call) -> CredentialList:
    """List the valid credentials of the program, without their tokens."""
    rows = storage.list_credentials(call.db, call.program.id)
    return CredentialList(count=len(rows), data=tuple(map(credential_of, rows)))


def get_credential(call: Call) -> Credential:
    """Return a valid credential, without its tokens."""
    return credential_of(find_credential(storage.list_credentials(call.db, call.program.id), call.token))


def add_credential(call: Call, _body: EmptyBody) -> CredentialCreated:
    """Create a further credential of the program."""
    return add_to(call.db, call.program.id, call.app.vault, call.app.ids, call.app.real_clock(), None)


def rotate_credential(call: Call, _body: EmptyBody) -> CredentialCreated:
    """Create the successor of a credential. The old one stays valid until it is revoked."""
    return add_to(call.db, call.program.id, call.app.vault, call.app.ids, call.app.real_clock(), call.token)


def revoke_credential_of(call: Call) -> Credential:
    """Revoke a credential. It is refused by all server processes within a second, and never becomes valid again."""
    return revoke_in(call.db, call.program.id, call.token, call.app.real_clock(), is_forced=call.query.force)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Sandbox"

routes = [
    get("/credentials", list_credentials, CredentialList, scope=Scope.SANDBOX),
    get("/credentials/{token}", get_credential, Credential, scope=Scope.SANDBOX),
    post("/credentials", EmptyBody, add_credential, CredentialCreated, scope=Scope.SANDBOX),
    post("/credentials/{token}/rotate", EmptyBody, rotate_credential, CredentialCreated, scope=Scope.SANDBOX),
    Route(
        "DELETE", "/credentials/{token}", revoke_credential_of, answer=Credential, query=RevokeQuery, scope=Scope.SANDBOX,
        fields=False, operation_id="revoke_credential",
    ),
]  # fmt: skip
