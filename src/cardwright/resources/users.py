"""Users: the people who hold cards, each with an account of its own or with a share in a parent's."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs
from sqlalchemy import false, select
from sqlalchemy.sql.elements import ColumnElement

from cardwright.core.problems import (
    EMAIL_TAKEN,
    GROUP_UNKNOWN,
    NO_GRANDCHILDREN,
    PARENT_UNKNOWN,
    USER_NOT_FOUND,
    Problem,
    bad_field,
    bad_parameter,
)
from cardwright.core.snapshot import Account
from cardwright.core.words import HolderStatus
from cardwright.kit.clock import iso
from cardwright.resources import base
from cardwright.resources.app import Call
from cardwright.resources.base import Metadata, Token
from cardwright.resources.route import Paging, Route, Shape, get, post, put
from cardwright.resources.user_record import (
    Authentication,
    Identification,
    TransitionCreate,
    User,
    lock_users,
    record_transition,
    remember_user,
)
from cardwright.storage import records
from cardwright.storage.database import Row
from cardwright.storage.tables import holders, users

# --- Shapes: what travels on the wire ------------------------------------------------

Limit10 = Annotated[str, Meta(max_length=10)]
Limit32 = Annotated[str, Meta(max_length=32)]
Limit40 = Annotated[str, Meta(max_length=40)]
Limit255 = Annotated[str, Meta(max_length=255)]
Email = Annotated[str, Meta(min_length=1, max_length=255)]


class Profile(Shape, frozen=True, kw_only=True):
    """What can be said of a user at creation and later. ``zip`` is an older name of ``postal_code``."""

    first_name: Limit40 | None = None
    middle_name: Limit40 | None = None
    last_name: Limit40 | None = None
    honorific: Limit10 | None = None
    title: Limit255 | None = None
    gender: Literal["F", "M"] | None = None
    email: Email | None = None
    phone: Annotated[str, Meta(max_length=16)] | None = None
    password: Limit255 | None = None
    birth_date: Limit40 | None = None
    birth_place: Limit255 | None = None
    nationality: Limit255 | None = None
    address1: Limit255 | None = None
    address2: Limit255 | None = None
    city: Limit40 | None = None
    state: Limit32 | None = None
    postal_code: Limit10 | None = None
    zip: Limit10 | None = None
    country: Limit40 | None = None
    company: Limit255 | None = None
    corporate_card_holder: bool | None = None
    account_holder_group_token: Annotated[str, Meta(max_length=36)] | None = None
    identifications: Annotated[tuple[Identification, ...], Meta(max_length=20)] | None = None
    ssn: str | None = None
    passport_number: Limit40 | None = None
    passport_expiration_date: Limit40 | None = None
    id_card_number: Limit255 | None = None
    id_card_expiration_date: Limit40 | None = None
    ip_address: Annotated[str, Meta(max_length=39)] | None = None
    notes: Limit255 | None = None
    metadata: Metadata | None = None
    token: Token | None = None


class UserCreate(Profile, frozen=True, kw_only=True):
    """A new user. Nothing is required."""

    parent_token: Token | None = None
    uses_parent_account: bool | None = None
    active: bool | None = None


class UserUpdate(Profile, frozen=True, kw_only=True):
    """Changes of a user; what is absent stays, ``parent_token`` null ends the parenthood.

    The last three are here to be compared: they never change by an update, and a client that believes so must be told.
    """

    parent_token: Token | UnsetType | None = UNSET
    uses_parent_account: bool | None = None
    active: bool | None = None
    status: HolderStatus | None = None


class UserSearch(Shape, frozen=True, kw_only=True):
    """What a user is looked for by; conditions hold together, names by their beginning."""

    ssn: str | None = None
    dda: str | None = None
    first_name: Limit40 | None = None
    last_name: Limit40 | None = None
    phone: Limit255 | None = None
    email: Email | None = None


class NumberQuery(Shape, frozen=True, kw_only=True):
    """Whether a number is wanted whole."""

    full_ssn: bool = False


class Numbers(Shape, frozen=True, kw_only=True):
    """A user's identification numbers: whole, or the last four characters of each."""

    ssn: str | UnsetType = UNSET
    tin: str | UnsetType = UNSET
    sin: str | UnsetType = UNSET
    nin: str | UnsetType = UNSET


class Secrets(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """What the vault keeps of a user: numbers as they were sent, of the password only a keyed hash."""

    ssn: str | None = None
    identifications: tuple[Identification, ...] = ()
    password_hash: str | None = None


# --- Rules: pure ---------------------------------------------------------------------

DEFAULT_GROUP = "DEFAULT_AHG"
"""The one account holder group there is. It asks for no KYC, so its members are ACTIVE at once."""

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
    # An empty token is no token: the wire's limits begin at nought characters here.
    if body.account_holder_group_token not in (None, "", DEFAULT_GROUP):
        raise Problem(GROUP_UNKNOWN)


def masked(item: Identification) -> Identification:
    """The identification as it is shown: the last four characters, of a number of four or fewer nothing."""
    shown = f"___-__-{item.value[-4:]}" if len(item.value) > 4 else MASKED_SSN
    return structs.replace(item, value=shown)


def profile_changes(body: Profile, *, shows_zip: bool) -> dict[str, Any]:
    """The fields of a user that a request sets, as they are shown."""
    changes = {name: value for name in PLAIN if (value := getattr(body, name)) is not None}
    if body.birth_date is not None:
        changes["birth_date"] = base.parse_date("birth_date", body.birth_date)
    if body.metadata is not None:
        changes["metadata"] = base.text_metadata(body.metadata)
    if body.ssn is not None:
        changes["ssn"] = MASKED_SSN
    if body.identifications is not None:
        changes["identifications"] = tuple(masked(item) for item in body.identifications) or UNSET
    postal_code = body.zip if body.postal_code is None else body.postal_code
    if postal_code is not None:
        changes["postal_code"] = postal_code
        # Who speaks of `zip` is answered with it too, and it is always a copy.
        changes |= {"zip": postal_code} if shows_zip or body.zip is not None else {}
    return changes


def authentication_of(user: User, password_changed: bool, now: str) -> Authentication | UnsetType:
    """What a user's answer says of its e-mail address and password; nothing when it has neither."""
    if password_changed:
        return Authentication(email_verified=False, last_password_update_channel="USER_CHANGE", last_password_update_time=now)
    return Authentication(email_verified=False) if user.authentication is UNSET and user.email is not UNSET else user.authentication


def check_unchangeable(before: User, body: UserUpdate) -> None:
    """Refuses an update that means to change what an update cannot; a field that says what is true already is harmless."""
    if body.uses_parent_account not in (None, before.uses_parent_account):
        raise bad_field("uses_parent_account", "can never be changed")
    for name in ("active", "status"):
        if getattr(body, name) not in (None, getattr(before, name)):
            raise bad_field(name, "is changed by POST /v3/usertransitions")


def begins(name: str, start: str | None) -> bool:
    """Whether a name begins with a text, whatever the case."""
    return start is None or name.casefold().startswith(start.casefold())


def shown_number(secrets: Secrets, kind: str, whole: bool) -> str | UnsetType:
    """A number of one kind, whole or its last four characters; of several the first."""
    named = [secrets.ssn] if kind == "SSN" and secrets.ssn is not None else []
    numbers = named + [item.value for item in secrets.identifications if item.type == kind]
    return (numbers[0] if whole else numbers[0][-4:]) if numbers else UNSET


# --- Queries: this resource's SQL ----------------------------------------------------


def open_account(call: Call) -> int:
    """A new account without money; returns the id of its holder."""
    state = msgspec.msgpack.encode(Account())
    return records.insert(call.db, holders, program_id=call.program.id, revision=1, state=state)


def check_email_is_free(call: Call, email: str | None, own_id: int | None = None) -> None:
    """Refuses an address that another user of the program has. ``email`` is folded."""
    query = select(users.c.id).where(users.c.program_id == call.program.id, users.c.email == email)
    if email is not None and call.db.scalar(query) not in (None, own_id):
        raise Problem(EMAIL_TAKEN)


def has_children(call: Call, user_id: int) -> bool:
    """Whether the user is the parent of another."""
    return call.db.scalar(select(users.c.id).where(users.c.parent_id == user_id).limit(1)) is not None


def list_matching(call: Call, keep: Callable[[Row], bool], *conditions: ColumnElement[bool]) -> records.Listing:
    """The call's page of the users that meet the conditions and that ``keep`` takes, read only as far as the page reaches.

    Case is folded here and not in SQL: the two databases fold differently, and neither folds all of Unicode.
    """
    page = call.list_page
    name = page.sort_by.removeprefix("-")
    if name not in records.SYSTEM_SORTS:
        raise bad_parameter("sort_by", f"must be one of {', '.join(records.SYSTEM_SORTS)}, not {name}")
    keys = (users.c[records.SYSTEM_SORTS[name]], users.c.id)
    order = [key.desc() if page.sort_by.startswith("-") else key.asc() for key in keys]
    query = select(users.c.token, users.c.doc, users.c.sealed).where(users.c.program_id == call.program.id, *conditions)
    docs: list[str] = []
    with call.db.execution_options(yield_per=500).execute(query.order_by(*order)) as found:
        for row in found:
            docs += [row.doc] if keep(row) else []
            if len(docs) > page.start_index + page.count:
                break
    return records.Listing(docs[page.start_index : page.start_index + page.count], len(docs) > page.start_index + page.count)


# --- Actions: what one can do with it ------------------------------------------------


def keyed_hash(call: Call, purpose: str, secret: str) -> str:
    """A hash that nobody can guess a short secret from without the vault's key."""
    return call.app.vault.credential_digest(f"{purpose} of {call.program.token}", secret).hex()


def without_secrets(call: Call, body: UserCreate) -> UserCreate:
    """The request as it is compared with a repeat: a plain hash of nine digits would give them away."""
    hidden = {name: keyed_hash(call, name, value) for name in ("ssn", "password") if (value := getattr(body, name)) is not None}
    items = tuple(
        structs.replace(item, value=keyed_hash(call, "identification", item.value)) for item in body.identifications or ()
    )
    return structs.replace(body, **hidden, identifications=None if body.identifications is None else items)


def secrets_after(call: Call, before: Secrets, body: Profile, token: str) -> Secrets:
    """What the vault is to keep of the user."""
    changes: dict[str, Any] = {name: value for name in ("ssn", "identifications") if (value := getattr(body, name)) is not None}
    if body.password:
        changes["password_hash"] = keyed_hash(call, f"password of {token}", body.password)
    return structs.replace(before, **changes)


def seal(call: Call, token: str, secrets: Secrets) -> bytes | None:
    """The user's secrets in an envelope that opens for this user alone."""
    if secrets == Secrets():
        return None
    return call.app.vault.seal(records.text_of(secrets), f"user:{call.program.token}:{token}")


def unseal(call: Call, row: Row) -> Secrets:
    """The secrets of a row of ``users``."""
    if row.sealed is None:
        return Secrets()
    return msgspec.json.decode(call.app.vault.open(bytes(row.sealed), f"user:{call.program.token}:{row.token}"), type=Secrets)


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
    shared = body.uses_parent_account is True
    if shared and body.parent_token is None:
        raise bad_field("parent_token", "may not be null where uses_parent_account is true")
    changes = profile_changes(body, shows_zip=False)
    compared = without_secrets(call, body)
    if (replay := base.find_replay(call, users, compared)) is not None:
        return replay
    parent = find_parent(call, body.parent_token)
    email = None if body.email is None else body.email.casefold()
    check_email_is_free(call, email)
    # The wire takes `active: false` and declines the user's purchases from then on; the status that means this is SUSPENDED.
    status = HolderStatus.SUSPENDED if body.active is False else HolderStatus.ACTIVE
    user = User(
        **({"corporate_card_holder": False, "metadata": {}} | changes),
        token=body.token or call.app.ids.token(),
        active=status.is_active,
        parent_token=UNSET if body.parent_token is None else body.parent_token,
        uses_parent_account=shared,
        created_time=iso(call.now),
        last_modified_time=iso(call.now),
        account_holder_group_token=DEFAULT_GROUP,
        status=status,
    )
    user = structs.replace(user, authentication=authentication_of(user, bool(body.password), iso(call.now)))
    holder_id = parent.holder_id if parent is not None and shared else open_account(call)
    user_id, doc = base.insert(
        call, users, compared, user, holder_id=holder_id, parent_id=None if parent is None else parent.id, status=status,
        email=email, phone=body.phone, sealed=seal(call, user.token, secrets_after(call, Secrets(), body, user.token)),
    )  # fmt: skip
    remember_user(call, user_id, holder_id, user)
    first = TransitionCreate(status=status, reason_code="00", channel="SYSTEM", user_token=user.token)
    record_transition(call, user_id, user, first)
    return doc


def get_user(call: Call) -> str:
    """Returns a user, active or not."""
    return str(base.get_row(call, users, USER_NOT_FOUND).doc)


def list_users(call: Call) -> records.Listing:
    """Lists the program's users."""
    return base.list_resources(call, users)


def parent_after(call: Call, row: Row, before: User, token: str | None, found: dict[str, Row]) -> int | None:
    """The id of the parent that an update gives; raises a problem when the user or the parent cannot be part of that."""
    parent = None if token is None else found.get(token)
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
    found = lock_users(call, call.token, *([parent_token] if isinstance(parent_token, str) else []))
    row = found.get(call.token)
    if row is None:
        raise Problem(USER_NOT_FOUND)
    base.check_same_token(call, body)
    before = msgspec.json.decode(row.doc, type=User)
    check_profile(body)
    check_unchangeable(before, body)
    changes = profile_changes(body, shows_zip=before.zip is not UNSET)
    parent_id = row.parent_id
    if parent_token is not UNSET:
        parent_id = parent_after(call, row, before, parent_token, found)
        changes["parent_token"] = UNSET if parent_token is None else parent_token
    email = row.email if body.email is None else body.email.casefold()
    check_email_is_free(call, email, row.id)
    kept = unseal(call, row)
    secrets = secrets_after(call, kept, body, row.token)
    after = structs.replace(before, **changes)
    password_changed = secrets.password_hash != kept.password_hash
    after = structs.replace(after, authentication=authentication_of(after, password_changed, iso(call.now)))
    doc, changed = base.update(
        call, users, row, before, after, parent_id=parent_id, email=email, phone=row.phone if body.phone is None else body.phone,
        sealed=row.sealed if secrets == kept else seal(call, row.token, secrets),
    )  # fmt: skip
    if changed:
        remember_user(call, row.id, row.holder_id, after)
    return doc


def list_children(call: Call) -> records.Listing:
    """Lists the users whose parent this user is."""
    parent = base.get_row(call, users, USER_NOT_FOUND, call.path["parent_token"])
    return base.list_resources(call, users, users.c.parent_id == parent.id)


def list_by_phone(call: Call) -> records.Listing:
    """Lists the users with exactly this phone number."""
    return base.list_resources(call, users, users.c.phone == call.path["phone_number"])


def look_up(call: Call, body: UserSearch) -> records.Listing:
    """Lists the users that match; a request without conditions lists all."""
    conditions = [users.c.phone == body.phone] if body.phone is not None else []
    conditions += [users.c.email == body.email.casefold()] if body.email is not None else []
    # There are no deposit accounts here, so nobody has that one.
    conditions += [false()] if body.dda is not None else []
    conditions += [users.c.sealed.is_not(None)] if body.ssn is not None else []
    if body.ssn is None and not body.first_name and not body.last_name:
        return base.list_resources(call, users, *conditions)

    def matches(row: Row) -> bool:
        user = msgspec.json.decode(row.doc, type=User)
        if not begins(user.first_name or "", body.first_name) or not begins(user.last_name or "", body.last_name):
            return False
        if body.ssn is None:
            return True
        secrets = unseal(call, row)
        return body.ssn in (secrets.ssn, *(item.value for item in secrets.identifications))

    return list_matching(call, matches, *conditions)


def get_numbers(call: Call) -> Numbers:
    """Returns a user's identification numbers: their last four digits, or whole on request."""
    secrets = unseal(call, base.get_row(call, users, USER_NOT_FOUND))
    kinds = ("SSN", "TIN", "SIN", "NIN")
    return Numbers(**{kind.lower(): shown_number(secrets, kind, call.query.full_ssn) for kind in kinds})


# --- Routes: parse, act, view --------------------------------------------------------

routes = [
    post("/users", UserCreate, create_user, User),
    get("/users", list_users, User, paging=Paging()),
    get("/users/{token}", get_user, User),
    put("/users/{token}", UserUpdate, update_user, User),
    get("/users/{parent_token}/children", list_children, User, paging=Paging()),
    get("/users/phonenumber/{phone_number}", list_by_phone, User, paging=Paging()),
    Route("POST", "/users/lookup", look_up, body=UserSearch, answer=User, paging=Paging()),
    get("/users/{token}/ssn", get_numbers, Numbers, query=NumberQuery, fields=False),
]
