"""Users: the people who hold cards, each with an account of its own or with a share in a parent's."""

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
    """A new user. Nothing is required."""

    parent_token: Token | None = None
    uses_parent_account: bool | None = False
    active: bool | None = True
    corporate_card_holder: bool | None = False
    account_holder_group_token: HolderGroupToken | None = DEFAULT_GROUP
    metadata: Metadata | None = msgspec.field(default_factory=dict)


class UserUpdate(Profile, frozen=True, kw_only=True):
    """Changes of a user; what is absent stays, ``parent_token`` null ends the parenthood.

    The last three are here to be compared: they never change by an update, and a client that believes so must be told.
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
"""Fields of a request that are shown as they were sent."""

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
_SSN = re.compile(r"[0-9]{9}|[0-9]{4}")
_STRONG = tuple(re.compile(kind) for kind in (r"[0-9]", r"[a-z]", r"[A-Z]", r"[^0-9a-zA-Z\s]"))


def check_profile(body: Profile) -> None:
    """Refuses texts that are not what their field is for. Raises a problem that names the field and never shows a secret."""
    # What is compared is the folded address, and folding can make it longer.
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
    """The identification as it is shown: the last four characters, where that is no more than half of them."""
    shown = f"___-__-{item.value[-4:]}" if len(item.value) >= 8 else MASKED_SSN
    return structs.replace(item, value=shown)


def profile_changes(body: Profile, *, shows_zip: bool) -> dict[str, Any]:
    """The fields of a user that a request sets, as they are shown."""
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
        # Who speaks of `zip` is answered with it too, and it is always a copy.
        changes |= {"zip": postal_code} if shows_zip or body.zip is not None else {}
    # An empty token is no token: the wire's limits begin at nought characters here.
    if body.account_holder_group_token:
        changes["account_holder_group_token"] = body.account_holder_group_token
    return changes


def authentication_of(user: User, password_changed: bool, now: Instant) -> Authentication | UnsetType:
    """What a user's answer says of its e-mail address and password; nothing when it has neither."""
    if password_changed:
        when = iso(now)
        return Authentication(email_verified=False, last_password_update_channel="USER_CHANGE", last_password_update_time=when)
    if user.authentication is UNSET and user.email is not UNSET:
        return Authentication(email_verified=False)
    return user.authentication


def new_user(body: UserCreate, changes: dict[str, Any], token: str, now: Instant, first_status: HolderStatus) -> User:
    """The user that a request makes, with the fields that ``profile_changes`` found in it, and its group's first status."""
    # The wire takes `active: false` and declines the user's purchases from then on; the status that means this is SUSPENDED.
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
    """Refuses an update that means to change what an update cannot; a field that says what is true already is harmless."""
    if body.uses_parent_account not in (None, before.uses_parent_account):
        raise bad_field("uses_parent_account", "can never be changed")
    for name in ("active", "status"):
        if getattr(body, name) not in (None, getattr(before, name)):
            raise bad_field(name, "is changed by POST /v3/usertransitions")


# --- Queries: this resource's SQL ----------------------------------------------------


def open_account(call: Call) -> int:
    """A new account without money; returns the id of its holder."""
    state = msgspec.msgpack.encode(Account())
    return records.insert(call.db, holders, program_id=call.program.id, revision=1, state=state, recent=NOTHING_RECENT)


def email_is_taken(call: Call, email: str | None, own_id: int | None = None) -> bool:
    """Whether another user of the program has the address. ``email`` is folded."""
    query = select(users.c.id).where(users.c.program_id == call.program.id, users.c.email == email)
    return email is not None and call.db.scalar(query) not in (None, own_id)


def has_children(call: Call, user_id: int) -> bool:
    """Whether the user is the parent of another."""
    return call.db.scalar(select(users.c.id).where(users.c.parent_id == user_id).limit(1)) is not None


def status_of_new(call: Call, group_token: str | None) -> HolderStatus:
    """The status with which a new member of a group begins. Raises a problem when there is no such group."""
    if not group_token or group_token == DEFAULT_GROUP:
        return HolderStatus.ACTIVE
    group = find_group(call, group_token)
    if group is None:
        raise Problem(GROUP_UNKNOWN)
    return FIRST_STATUS[group.config.kyc_required]


# --- Actions: what one can do with it ------------------------------------------------


def find_parent(call: Call, token: str | None) -> Row | None:
    """The parent of a new user, if it is to have one. A child of a user may have no children."""
    if token is None:
        return None
    parent = lock_users(call, token).get(token)
    if parent is None:
        raise Problem(PARENT_UNKNOWN)
    if parent.parent_id is not None:
        raise Problem(NO_GRANDCHILDREN)
    return parent


def create_user(call: Call, body: UserCreate) -> str:
    """Creates a user, who can hold cards at once."""
    check_profile(body)
    if body.uses_parent_account and body.parent_token is None:
        raise bad_field("parent_token", "may not be null where uses_parent_account is true")
    changes = profile_changes(body, shows_zip=False)
    email = None if body.email is None else body.email.casefold()
    # Asked before the look for a repeat: an equal request may commit between the two, and then the look must find it.
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
    """Returns a user, active or not."""
    row = crud.get_row(call, users, USER_NOT_FOUND)
    return with_deposit_account(call, row.doc, row.id)


def list_users(call: Call) -> records.Listing:
    """Lists the program's users."""
    return crud.list_resources(call, users)


def parent_after(call: Call, row: Row, before: User, token: str | None, rows: dict[str, Row]) -> int | None:
    """The id of the parent that an update gives; raises a problem when the user or the parent cannot be part of that."""
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
    """Changes a user's data, not its status."""
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
    """Lists the users whose parent this user is."""
    parent = crud.get_row(call, users, USER_NOT_FOUND, call.path["parent_token"])
    return crud.list_resources(call, users, users.c.parent_id == parent.id)


# --- Routes: parse, act, view --------------------------------------------------------

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
