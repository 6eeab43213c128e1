"""User model: the stored user, the data that decisions use, and the records of its status transitions."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import select

from cardwright.core.enums import HolderStatus
from cardwright.core.snapshot import UserFact
from cardwright.kit.clock import iso, iso_ms
from cardwright.outbox.events import Category
from cardwright.resources.account_holders.deposit_accounts import ShownAccount
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import OR_NONE, Day, Limit10, Limit32, Limit40, Metadata, Text255, Token
from cardwright.resources.common.route import Shape
from cardwright.storage import history, records
from cardwright.storage.database import Row
from cardwright.storage.tables import user_transitions, users

# --- Shapes: what travels on the wire ------------------------------------------------

IdentificationType = Literal[
    "SSN", "TIN", "SIN", "NIN", "PASSPORT_NUMBER", "DRIVERS_LICENSE", "BUSINESS_NUMBER", "BUSINESS_TAX_ID", "TAXPAYER_REFERENCE"
]
Email = Annotated[str, Meta(min_length=1, max_length=255)]
HolderGroupToken = Annotated[str, Meta(max_length=36), OR_NONE]

Channel = Literal["API", "IVR", "FRAUD", "ADMIN", "SYSTEM"]
ReasonCode = Literal[
    "00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15", "16", "17",
    "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32", "86",
]  # fmt: skip


class Identification(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """An identification number: whole in a request and in the vault, masked in a response."""

    type: IdentificationType
    value: Annotated[str, Meta(min_length=1, max_length=255)]
    expiration_date: Annotated[str, Meta(max_length=40)] | None = None
    issuing_country: Annotated[str, Meta(max_length=40)] | None = None

    def __repr__(self) -> str:
        return f"Identification(type={self.type!r})"


class Profile(Shape, frozen=True, kw_only=True):
    """The fields of a user that creation and updates have in common. ``zip`` is an older name of ``postal_code``."""

    first_name: Limit40 | None = None
    middle_name: Limit40 | None = None
    last_name: Limit40 | None = None
    honorific: Limit10 | None = None
    title: Text255 | None = None
    gender: Literal["F", "M"] | None = None
    email: Email | None = None
    phone: Annotated[str, Meta(max_length=16)] | None = None
    password: Annotated[str, Meta(max_length=255), OR_NONE] | None = None
    birth_date: Annotated[Day, Meta(max_length=40)] | None = None
    birth_place: Text255 | None = None
    nationality: Text255 | None = None
    address1: Text255 | None = None
    address2: Text255 | None = None
    city: Limit40 | None = None
    state: Limit32 | None = None
    postal_code: Limit10 | None = None
    zip: Limit10 | None = None
    country: Limit40 | None = None
    company: Text255 | None = None
    corporate_card_holder: bool | None = None
    account_holder_group_token: HolderGroupToken | None = None
    identifications: Annotated[tuple[Identification, ...], Meta(max_length=20)] | None = None
    ssn: str | None = None
    passport_number: Limit40 | None = None
    passport_expiration_date: Limit40 | None = None
    id_card_number: Text255 | None = None
    id_card_expiration_date: Limit40 | None = None
    ip_address: Annotated[str, Meta(max_length=39)] | None = None
    notes: Text255 | None = None
    metadata: Metadata | None = None
    token: Token | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(token={self.token!r})"


class Authentication(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """The verification state of the email address, and the last change of the password. Cardwright verifies neither."""

    email_verified: bool
    last_password_update_channel: Literal["USER_CHANGE", "USER_RESET"] | None = None
    last_password_update_time: str | None = None


class User(Shape, frozen=True, kw_only=True):
    """A cardholder. ``ssn`` and ``identifications`` are masked. The password is never returned."""

    token: str
    active: bool
    honorific: str | UnsetType = UNSET
    gender: str | UnsetType = UNSET
    first_name: str | UnsetType = UNSET
    middle_name: str | UnsetType = UNSET
    last_name: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    address1: str | UnsetType = UNSET
    address2: str | UnsetType = UNSET
    city: str | UnsetType = UNSET
    state: str | UnsetType = UNSET
    zip: str | UnsetType = UNSET
    postal_code: str | UnsetType = UNSET
    country: str | UnsetType = UNSET
    birth_date: str | UnsetType = UNSET
    birth_place: str | UnsetType = UNSET
    nationality: str | UnsetType = UNSET
    phone: str | UnsetType = UNSET
    company: str | UnsetType = UNSET
    ip_address: str | UnsetType = UNSET
    ssn: str | UnsetType = UNSET
    identifications: tuple[Identification, ...] | UnsetType = UNSET
    passport_number: str | UnsetType = UNSET
    passport_expiration_date: str | UnsetType = UNSET
    id_card_number: str | UnsetType = UNSET
    id_card_expiration_date: str | UnsetType = UNSET
    notes: str | UnsetType = UNSET
    parent_token: str | UnsetType = UNSET
    uses_parent_account: bool
    corporate_card_holder: bool
    created_time: str
    last_modified_time: str
    metadata: dict[str, str]
    account_holder_group_token: str
    status: HolderStatus
    authentication: Authentication | UnsetType = UNSET
    deposit_account: ShownAccount | UnsetType = UNSET


class TransitionCreate(Shape, frozen=True, kw_only=True):
    """A change of a user's status."""

    status: HolderStatus
    reason_code: ReasonCode
    channel: Channel
    user_token: Token
    reason: Annotated[str, Meta(max_length=255)] | None = None
    token: Token | None = None


class Transition(Shape, frozen=True, kw_only=True):
    """A status that a user entered, with its reason. ``metadata`` is the user's metadata at that time."""

    token: str
    status: HolderStatus
    reason_code: ReasonCode
    reason: str | UnsetType = UNSET
    channel: Channel
    created_time: str
    last_modified_time: str
    user_token: str
    created_timestamp: str
    metadata: dict[str, str]


# --- Rules: pure ---------------------------------------------------------------------


def user_fact_doc(user: User) -> str:
    """Return the JSON of the user's data that decisions use."""
    address1, postal_code = user.address1 or None, user.postal_code or None
    fact = UserFact(
        token=user.token, status=user.status, address1=address1, postal_code=postal_code,
        account_holder_group_token=user.account_holder_group_token, metadata=user.metadata,
    )  # fmt: skip
    return records.text_of(fact)


# --- Queries: this resource's SQL ----------------------------------------------------


def lock_users(call: Call, *tokens: str) -> dict[str, Row]:
    """Return the existing users with these tokens, locked until the commit in the order of their ids.

    Without the locks, two concurrent requests could make two users each other's parents, and a status could be overwritten. The
    global order of locks: users before accounts.
    """
    query = select(users).where(users.c.program_id == call.program.id, users.c.token.in_(tokens)).order_by(users.c.id)
    return {row.token: row for row in call.db.execute(query.with_for_update(key_share=True))}


def record_user_version(call: Call, user_id: int, holder_id: int, user: User) -> None:
    """Increase the revision of the account and save the user's state in the history.

    The new revision invalidates the caches of all processes. ``holder_id`` is the account that the user draws on, which is the
    parent's with ``uses_parent_account``.
    """
    revision = history.raise_holder_revision(call.db, holder_id)
    history.save_version(call.db, call.program.id, history.Kind.USER, user_id, revision, call.now, user_fact_doc(user))


# --- Actions: what a caller can do with it -------------------------------------------


def record_transition(call: Call, user_id: int, user: User, body: TransitionCreate) -> str:
    """Insert a transition of a user who already has the new status, and publish its event. Return its JSON."""
    transition = Transition(
        token=body.token or call.app.ids.token(),
        status=body.status,
        reason_code=body.reason_code,
        reason=UNSET if body.reason is None else body.reason,
        channel=body.channel,
        created_time=iso(call.now),
        last_modified_time=iso(call.now),
        user_token=user.token,
        created_timestamp=iso_ms(call.now),
        metadata=user.metadata,
    )
    _, doc = crud.insert(call, user_transitions, body, transition, user_id=user_id)
    call.publish(Category.USER, body.status.lower(), transition.token)
    return doc
