"""User secrets: identification numbers and a password hash in the vault, and the operation that returns the numbers."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, structs

from cardwright.core.problems import USER_NOT_FOUND
from cardwright.resources.account_holders.user_model import Identification, Profile
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import Shape, get
from cardwright.storage import records
from cardwright.storage.database import Row
from cardwright.storage.envelopes import user_context
from cardwright.storage.tables import users

# --- Shapes: what travels on the wire ------------------------------------------------


class NumberQuery(Shape, frozen=True, kw_only=True):
    """The form of the numbers: whole if ``full_ssn`` is true, else the last four characters."""

    full_ssn: bool = False


class Numbers(Shape, frozen=True, kw_only=True):
    """A user's identification numbers: whole, or the last four characters of each."""

    ssn: str | UnsetType = UNSET
    tin: str | UnsetType = UNSET
    sin: str | UnsetType = UNSET
    nin: str | UnsetType = UNSET


class Secrets(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """The secrets of a user in the vault: identification numbers as sent, and a keyed hash of the password."""

    ssn: str | None = None
    identifications: tuple[Identification, ...] = ()
    password_hash: str | None = None

    def __repr__(self) -> str:
        return "Secrets()"


# --- Rules: pure ---------------------------------------------------------------------


def shown_number(secrets: Secrets, kind: str, whole: bool) -> str | UnsetType:
    """Return the first number of a kind, whole or its last four characters; UNSET if the user has none."""
    named = [secrets.ssn] if kind == "SSN" and secrets.ssn is not None else []
    numbers = named + [item.value for item in secrets.identifications if item.type == kind]
    return (numbers[0] if whole else numbers[0][-4:]) if numbers else UNSET


# --- Actions: what a caller can do with it -------------------------------------------


def keyed_hash(call: Call, purpose: str, secret: str) -> str:
    """Return a hash with the vault's key. Without the key, a search by trial does not find the secret, even if it is short."""
    return call.app.vault.credential_digest(f"{purpose} of {call.program.token}", secret).hex()


def secrets_after(call: Call, before: Secrets, body: Profile, token: str) -> Secrets:
    """Return the secrets of the user after a request that may change some of them."""
    changes: dict[str, Any] = {name: value for name in ("ssn", "identifications") if (value := getattr(body, name)) is not None}
    if body.password:
        changes["password_hash"] = keyed_hash(call, f"password of {token}", body.password)
    return structs.replace(before, **changes)


def seal(call: Call, token: str, secrets: Secrets) -> bytes | None:
    """Return the encrypted secrets, which decrypt only for this user; None if there are none."""
    if secrets == Secrets():
        return None
    return call.app.vault.seal(records.text_of(secrets), user_context(call.program.token, token))


def unseal(call: Call, row: Row) -> Secrets:
    """Return the decrypted secrets of a row of ``users``."""
    if row.sealed is None:
        return Secrets()
    return msgspec.json.decode(call.app.vault.open(bytes(row.sealed), user_context(call.program.token, row.token)), type=Secrets)


def get_numbers(call: Call) -> Numbers:
    """Return a user's identification numbers.

    Each number is cut to its last four characters unless the whole number is requested.
    """
    secrets = unseal(call, crud.get_row(call, users, USER_NOT_FOUND))
    kinds = ("SSN", "TIN", "SIN", "NIN")
    return Numbers(**{kind.lower(): shown_number(secrets, kind, call.query.full_ssn) for kind in kinds})


# --- Routes: parse, act, render ------------------------------------------------------

routes = [get("/users/{token}/ssn", get_numbers, Numbers, query=NumberQuery, fields=False)]
