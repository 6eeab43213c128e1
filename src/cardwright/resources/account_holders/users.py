"""Users: cardholders, each with an account or with a share in a parent's account."""

import re
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, structs
from sqlalchemy import select

from cardwright.core.enums import HolderStatus
from cardwright.core.problems import (
    EMAIL_TAKEN,
    GROUP_UNKNOWN,
    NO_GRANDCHILDREN,
    PARENT_UNKNOWN,
    USER_NOT_FOUND,
    Problem,
    bad_field,
)
from cardwright.core.snapshot import Account
from cardwright.kit.clock import Instant, iso
from cardwright.resources.account_holders import user_lookup, user_secrets
from cardwright.resources.account_holders.account_holder_groups import FIRST_STATUS, find_group
from cardwright.resources.account_holders.deposit_accounts import DepositAccountCreate, open_deposit_account, with_deposit_account
from cardwright.resources.account_holders.user_model import (
    Authentication,
    HolderGroupToken,
    Identification,
    Profile,
    TransitionCreate,
    User,
    lock_users,
    record_transition,
    record_user_version,
)
from cardwright.resources.account_holders.user_secrets import Secrets, seal, secrets_after, unseal
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Metadata, Token, parse_date, text_metadata
from cardwright.resources.common.route import Paging, get, post, put
from cardwright.storage import records
from cardwright.storage.account_transactions import NOTHING_RECENT
from cardwright.storage.builtin_resources import DEFAULT_GROUP
from cardwright.storage.database import Row
from cardwright.storage.tables import holders, users

# --- Shapes: what travels on the wire ------------------------------------------------


class UserCreate(Profile, frozen=True, kw_only=True):
    """A new user. No field is required."""

    parent_token: Token | None = None
    uses_parent_account: bool | None = False
    active: bool | None = True
    corporate_card_holder: bool | None = False
    account_holder_group_token: HolderGroupToken | None = DEFAULT_GROUP
    metadata: Metadata | None = msgspec.field(default_factory=dict)


class UserUpdate(Profile, frozen=True, kw_only=True):
    """Changes of a user. Absent fields stay unchanged; a null ``parent_token`` removes the parent.

    ``uses_parent_account``, ``active`` and ``status`` are refused unless they equal the current values, because an update
    cannot change them.
    """

    parent_token: Token | UnsetType | None = UNSET
    uses_parent_account: bool | None = None
    active: bool | None = None
    status: HolderStatus | None = None


# --- Rules: pure ---------------------------------------------------------------------

MASKED_SSN = "_" * 11

PLAIN = frozenset(Profile.__struct_fields__) - {
    "password", "birth_date", "zip", "postal_code", "account_holder_group_token", "identifications", "ssn", "metadata", "token",
}  # fmt: skip
"""The request fields that a response shows as they were sent."""

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_SSN = re.compile(r"[0-9]{9}|[0-9]{4}")
_STRONG = tuple(re.compile(kind) for kind in (r"[0-9]", r"[a-z]", r"[A-Z]", r"[^0-9a-zA-Z\s]"))


def check_profile(body: Profile) -> None:
    """Raise a problem if a field has an invalid format. The problem names the field and never contains a secret."""
    # The column has the case-folded address, and folding can lengthen a text.
    if body.email is not None and not (_ADDRESS.fullmatch(body.email) and len(body.email.casefold()) <= 255):
        raise bad_field("email", "must be an email address")
    if body.password and not all(kind.search(body.password) for kind in _STRONG):
        raise bad_field("password", "must have a digit, a lower-case letter, an upper-case letter and a symbol")
    if body.ssn is not None and not _SSN.fullmatch(body.ssn):
        raise bad_field("ssn", "must be nine digits, or the last four")
    for index, item in enumerate(body.identifications or ()):
        if item.type == "SSN" and not _SSN.fullmatch(item.value):
            raise bad_field(f"identifications[{index}].value", "must be nine digits, or the last four")


def masked(item: Identification) -> Identification:
    """Return the identification with a masked value: the last four characters if there are at least eight, else none."""
    shown = f"___-__-{item.value[-4:]}" if len(item.value) >= 8 else MASKED_SSN
    return structs.replace(item, value=shown)


def profile_changes(body: Profile, *, shows_zip: bool) -> dict[str, Any]:
    """Return the fields of a user that a request sets, in the form in which a response shows them."""
    changes = {name: value for name in PLAIN if (value := getattr(body, name)) is not None}
    if body.birth_date is not None:
        changes["birth_date"] = parse_date("birth_date", body.birth_date)
    if body.metadata is not None:
        changes["metadata"] = text_metadata(body.metadata)
    if body.ssn is not None:
        changes["ssn"] = MASKED_SSN
    if body.identifications is not None:
        changes["identifications"] = tuple(masked(item) for item in body.identifications) or UNSET
    postal_code = body.zip if body.postal_code is None else body.postal_code
    if postal_code is not None:
        changes["postal_code"] = postal_code
        # A user whose request had `zip` keeps it in responses, always as a copy of `postal_code`.
        changes |= {"zip": postal_code} if shows_zip or body.zip is not None else {}
    # The wire allows an empty token here. It names no group.
    if body.account_holder_group_token:
        changes["account_holder_group_token"] = body.account_holder_group_token
    return changes


def authentication_of(user: User, password_changed: bool, now: Instant) -> Authentication | UnsetType:
    """Return the user's ``authentication`` after a request; UNSET if the user has neither an email address nor a password."""
    if password_changed:
        when = iso(now)
        return Authentication(email_verified=False, last_password_update_channel="USER_CHANGE", last_password_update_time=when)
    if user.authentication is UNSET and user.email is not UNSET:
        return Authentication(email_verified=False)
    return user.authentication


def new_user(body: UserCreate, changes: dict[str, Any], token: str, now: Instant, first_status: HolderStatus) -> User:
    """Return the user that a request creates.

    ``changes`` is the result of ``profile_changes``. ``first_status`` is the first status of the user's group.
    """
    # With `active: false` the user's purchases are declined, which is the effect of the status SUSPENDED.
    status = HolderStatus.SUSPENDED if body.active is False else first_status
    defaults = {"corporate_card_holder": False, "metadata": {}, "account_holder_group_token": DEFAULT_GROUP}
    stated: dict[str, Any] = defaults | changes
    user = User(
        **stated,
        token=token,
        active=status.is_active,
        parent_token=UNSET if body.parent_token is None else body.parent_token,
        uses_parent_account=body.uses_parent_account is True,
        created_time=iso(now),
        last_modified_time=iso(now),
        status=status,
    )
    return structs.replace(user, authentication=authentication_of(user, bool(body.password), now))


def check_unchangeable(before: User, body: UserUpdate) -> None:
    """Raise a problem if an update would change a field that updates cannot change.

    A field with its current value is accepted.
    """
    if body.uses_parent_account not in (None, before.uses_parent_account):
        raise bad_field("uses_parent_account", "can never be changed")
    for name in ("active", "status"):
        if getattr(body, name) not in (None, getattr(before, name)):
            raise bad_field(name, "is changed by POST /v3/usertransitions")


# --- Queries: this resource's SQL ----------------------------------------------------


def open_account(call: Call) -> int:
    """Insert an account without money and return its id."""
    state = msgspec.msgpack.encode(Account())
    return records.insert(call.db, holders, program_id=call.program.id, revision=1, state=state, recent=NOTHING_RECENT)


def email_is_taken(call: Call, email: str | None, own_id: int | None = None) -> bool:
    """Return True if another user of the program has the address. ``email`` is case-folded."""
    query = select(users.c.id).where(users.c.program_id == call.program.id, users.c.email == email)
    return email is not None and call.db.scalar(query) not in (None, own_id)


def has_children(call: Call, user_id: int) -> bool:
    """Return True if the user is a parent."""
    return call.db.scalar(select(users.c.id).where(users.c.parent_id == user_id).limit(1)) is not None


def status_of_new(call: Call, group_token: str | None) -> HolderStatus:
    """Return the first status of a new member of a group. Raises GROUP_UNKNOWN if the group does not exist."""
    if not group_token or group_token == DEFAULT_GROUP:
        return HolderStatus.ACTIVE
    group = find_group(call, group_token)
    if group is None:
        raise Problem(GROUP_UNKNOWN)
    return FIRST_STATUS[group.config.kyc_required]


# --- Actions: what a caller can do with it -------------------------------------------


def find_parent(call: Call, token: str | None) -> Row | None:
    """Return the row of a new user's parent, locked; None without a token.

    Raises PARENT_UNKNOWN for an unknown parent and NO_GRANDCHILDREN if the parent itself has a parent.
    """
    if token is None:
        return None
    parent = lock_users(call, token).get(token)
    if parent is None:
        raise Problem(PARENT_UNKNOWN)
    if parent.parent_id is not None:
        raise Problem(NO_GRANDCHILDREN)
    return parent


def create_user(call: Call, body: UserCreate) -> str:
    """Create a user.

    The user can hold cards at once.
    """
    check_profile(body)
    if body.uses_parent_account and body.parent_token is None:
        raise bad_field("parent_token", "may not be null where uses_parent_account is true")
    changes = profile_changes(body, shows_zip=False)
    email = None if body.email is None else body.email.casefold()
    # Read before the replay check: an equal request may commit between both reads, and the replay check must find it then.
    taken = email_is_taken(call, email)
    if crud.find_replay(call, users, body) is not None:
        row = crud.get_row(call, users, USER_NOT_FOUND, body.token)
        return with_deposit_account(call, row.doc, row.id)
    parent = find_parent(call, body.parent_token)
    if taken:
        raise Problem(EMAIL_TAKEN)
    first_status = status_of_new(call, body.account_holder_group_token)
    user = new_user(body, changes, body.token or call.app.ids.token(), call.now, first_status)
    holder_id = parent.holder_id if parent is not None and body.uses_parent_account else open_account(call)
    user_id, doc = crud.insert(
        call, users, body, user, holder_id=holder_id, parent_id=None if parent is None else parent.id, status=user.status,
        email=email, phone=body.phone, sealed=seal(call, user.token, secrets_after(call, Secrets(), body, user.token)),
    )  # fmt: skip
    record_user_version(call, user_id, holder_id, user)
    first = TransitionCreate(status=user.status, reason_code="00", channel="SYSTEM", user_token=user.token)
    record_transition(call, user_id, user, first)
    if not call.program.settings.deposit_accounts:
        return doc
    open_deposit_account(call, user_id, user.token, DepositAccountCreate(user_token=user.token))
    return with_deposit_account(call, doc, user_id)


def get_user(call: Call) -> str:
    """Return a user, active or not."""
    row = crud.get_row(call, users, USER_NOT_FOUND)
    return with_deposit_account(call, row.doc, row.id)


def list_users(call: Call) -> records.Listing:
    """List the program's users."""
    return crud.list_resources(call, users)


def parent_after(call: Call, row: Row, before: User, token: str | None, rows: dict[str, Row]) -> int | None:
    """Return the id of the parent after an update. Raises a problem if the user or the parent does not allow it."""
    parent = None if token is None else rows.get(token)
    if token is not None and parent is None:
        raise Problem(PARENT_UNKNOWN)
    parent_id = None if parent is None else int(parent.id)
    if parent_id == row.parent_id:
        return parent_id
    if before.uses_parent_account:
        raise bad_field("parent_token", "can never be changed where uses_parent_account is true")
    if parent_id == row.id:
        raise bad_field("parent_token", "may not be the user's own token")
    if parent is not None and (parent.parent_id is not None or has_children(call, row.id)):
        raise Problem(NO_GRANDCHILDREN)
    return parent_id


def update_user(call: Call, body: UserUpdate) -> str:
    """Change a user's data.

    A status changes by a user transition only.
    """
    parent_token = body.parent_token
    rows = lock_users(call, call.token, *([parent_token] if isinstance(parent_token, str) else []))
    row = rows.get(call.token)
    if row is None:
        raise Problem(USER_NOT_FOUND)
    crud.check_same_token(call, body)
    before = msgspec.json.decode(row.doc, type=User)
    check_profile(body)
    check_unchangeable(before, body)
    changes = profile_changes(body, shows_zip=before.zip is not UNSET)
    status_of_new(call, body.account_holder_group_token)
    parent_id = row.parent_id
    if parent_token is not UNSET:
        parent_id = parent_after(call, row, before, parent_token, rows)
        changes["parent_token"] = UNSET if parent_token is None else parent_token
    email = row.email if body.email is None else body.email.casefold()
    if email_is_taken(call, email, row.id):
        raise Problem(EMAIL_TAKEN)
    kept = unseal(call, row)
    secrets = secrets_after(call, kept, body, row.token)
    after = structs.replace(before, **changes)
    password_changed = secrets.password_hash != kept.password_hash
    after = structs.replace(after, authentication=authentication_of(after, password_changed, call.now))
    doc, changed = crud.update(
        call, users, row, before, after, parent_id=parent_id, email=email, phone=row.phone if body.phone is None else body.phone,
        sealed=row.sealed if secrets == kept else seal(call, row.token, secrets),
    )  # fmt: skip
    if changed:
        record_user_version(call, row.id, row.holder_id, after)
    return doc


def list_children(call: Call) -> records.Listing:
    """List the users whose parent is this user."""
    parent = crud.get_row(call, users, USER_NOT_FOUND, call.path["parent_token"])
    return crud.list_resources(call, users, users.c.parent_id == parent.id)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Users"

routes = [
    post("/users", UserCreate, create_user, User),
    get("/users", list_users, User, paging=Paging()),
    get("/users/{token}", get_user, User),
    put("/users/{token}", UserUpdate, update_user, User),
    get("/users/{parent_token}/children", list_children, User, paging=Paging()),
    *user_lookup.routes,
    *user_secrets.routes,
]
