"""Card transitions: changes of a card's state or fulfillment, and the record of each. A state changes in no other way."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs
from sqlalchemy import select

from cardwright.core.enums import CardState, HolderStatus
from cardwright.core.problems import (
    BAD_CARD_TRANSITION,
    CARD_NOT_FOUND,
    CARD_UNKNOWN,
    HOLDER_NOT_ACTIVE,
    TRANSITION_NOT_FOUND,
    Problem,
    bad_field,
)
from cardwright.kit.clock import Instant, iso, iso_ms
from cardwright.outbox.events import Category
from cardwright.resources.account_holders.user_model import Channel, ReasonCode, User
from cardwright.resources.account_holders.user_secrets import shown_number, unseal
from cardwright.resources.cards.card_model import (
    Card,
    CardFulfillment,
    FulfillmentStatus,
    StoredCard,
    change_card,
    expiry_of,
    lock_card,
)
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Day, Text255, Token, parse_date
from cardwright.resources.common.route import Paging, Shape, get, post
from cardwright.storage import records
from cardwright.storage.database import Row
from cardwright.storage.tables import card_transitions, cards, users

# --- Shapes: what travels on the wire ------------------------------------------------

TransitionType = Literal[
    "fulfillment.issued", "state.activated", "state.suspended", "state.reinstated", "state.terminated", "state.limited",
    "fulfillment.digitally_presented",
]  # fmt: skip
Reason = Annotated[str, Meta(max_length=255)]


class UserValidations(Shape, frozen=True, kw_only=True):
    """The expected data of the cardholder. ``ssn`` is the whole number or at least its last four digits."""

    birth_date: Day | None = None
    phone: Text255 | None = None
    ssn: Text255 | None = None
    random_name_line1_postfix: Annotated[str, Meta(min_length=6, max_length=6)] | None = None


class Validations(Shape, frozen=True, kw_only=True):
    """Checks that must pass before the transition."""

    user: UserValidations | None = UserValidations()


class UserValidated(Shape, frozen=True, kw_only=True):
    """The checks that passed."""

    birth_date: bool = False
    phone: bool = False
    ssn: bool = False
    random_name_line1_postfix: bool = False


class Validated(Shape, frozen=True, kw_only=True):
    """The outcome of ``validations``. It is always present."""

    user: UserValidated = UserValidated()


class Metadata(Shape, frozen=True, kw_only=True):
    """The metadata of the card or of its user at the time of the transition."""

    metadata: dict[str, str]


class Cause(Shape, frozen=True, kw_only=True):
    """The channel and the reason of a transition."""

    channel: Channel
    reason: Reason | None = None
    reason_code: ReasonCode | None = None
    token: Token | None = None


class CardTransitionCreate(Cause, frozen=True, kw_only=True):
    """A new state for a card.

    ``sync_state_with_dwts`` has no effect, because digital wallet tokens are not implemented.
    """

    card_token: Token
    state: Literal["ACTIVE", "LIMITED", "SUSPENDED", "TERMINATED"]
    sync_state_with_dwts: bool | None = False
    validations: Validations | None = Validations()


class CardTransition(Shape, frozen=True, kw_only=True):
    """A transition, with the card's data right after it."""

    token: str
    card_token: str
    user_token: str
    state: CardState
    reason: str | UnsetType = UNSET
    reason_code: ReasonCode | UnsetType = UNSET
    channel: Channel
    fulfillment_status: FulfillmentStatus
    validations: Validated
    type: TransitionType
    created_time: str
    card_product_token: str
    last_four: str
    pan: str
    expiration: str
    expiration_time: str
    barcode: str
    pin_is_set: bool
    user: Metadata
    card: Metadata
    bulk_issuance_token: str | UnsetType = UNSET
    created_timestamp: str
    expedite: bool | UnsetType = UNSET
    fulfillment: CardFulfillment | UnsetType = UNSET
    new_pan_from_card_token: str | UnsetType = UNSET
    reissue_pan_from_card_token: str | UnsetType = UNSET


# --- Rules: pure ---------------------------------------------------------------------

NEXT = {
    CardState.UNACTIVATED: {CardState.ACTIVE, CardState.SUSPENDED, CardState.TERMINATED},
    CardState.ACTIVE: {CardState.ACTIVE, CardState.LIMITED, CardState.SUSPENDED, CardState.TERMINATED},
    CardState.LIMITED: {CardState.LIMITED, CardState.ACTIVE, CardState.SUSPENDED, CardState.TERMINATED},
    CardState.SUSPENDED: {CardState.SUSPENDED, CardState.ACTIVE, CardState.TERMINATED},
    CardState.TERMINATED: set(),
}
"""The states that may follow each state (wire reference 9.1). The same state again is recorded; only TERMINATED is final."""

ENTERING: dict[CardState, TransitionType] = {
    CardState.ACTIVE: "state.activated",
    CardState.LIMITED: "state.limited",
    CardState.SUSPENDED: "state.suspended",
    CardState.TERMINATED: "state.terminated",
}


def type_of(before: CardState, after: CardState) -> TransitionType:
    """Return the type of a transition, which is also the second part of its event's name."""
    is_back = (before, after) == (CardState.SUSPENDED, CardState.ACTIVE)
    return "state.reinstated" if is_back else ENTERING[after]


def is_right_number(given: str, known: str | UnsetType) -> bool:
    """Return True if ``given`` is the end of the known number and has at least four digits."""
    return known is not UNSET and len(given) >= 4 and known.endswith(given)


def transition_of(card: Card, holder: User, kind: TransitionType, cause: Cause, token: str, now: Instant) -> CardTransition:
    """Return the record of a transition. ``card`` is the card after it."""
    return CardTransition(
        token=token,
        card_token=card.token,
        user_token=card.user_token,
        state=card.state,
        reason=UNSET if cause.reason is None else cause.reason,
        reason_code=UNSET if cause.reason_code is None else cause.reason_code,
        channel=cause.channel,
        fulfillment_status=card.fulfillment_status,
        validations=Validated(),
        type=kind,
        created_time=iso(now),
        card_product_token=card.card_product_token,
        last_four=card.last_four,
        pan=card.pan,
        expiration=card.expiration,
        # Only here does the wire show this time with milliseconds (observed).
        expiration_time=card.expiration_time.replace("Z", ".000Z"),
        barcode=card.barcode,
        pin_is_set=card.pin_is_set,
        user=Metadata(metadata=holder.metadata),
        card=Metadata(metadata=card.metadata),
        bulk_issuance_token=card.bulk_issuance_token,
        created_timestamp=iso_ms(now),
        expedite=True if card.expedite else UNSET,
        fulfillment=card.fulfillment,
        new_pan_from_card_token=card.new_pan_from_card_token,
        reissue_pan_from_card_token=card.reissue_pan_from_card_token,
    )


# --- Queries: this resource's SQL ----------------------------------------------------


def get_holder(call: Call, user_id: int) -> Row:
    """Return the row of the user who holds a card."""
    return call.db.execute(select(users).where(users.c.id == user_id)).one()


# --- Actions: what a caller can do with it -------------------------------------------


def record_transition(
    call: Call, stored: StoredCard, kind: TransitionType, cause: Cause, validated: UserValidated | None = None
) -> str:
    """Insert a transition, publish its event and return its JSON. All card transitions pass through this function."""
    holder = msgspec.json.decode(get_holder(call, stored.user_id).doc, type=User)
    token = cause.token or call.app.ids.token()
    transition = transition_of(stored.card, holder, kind, cause, token, call.now)
    if validated is not None:
        transition = structs.replace(transition, validations=Validated(user=validated))
    _, doc = crud.insert(call, card_transitions, cause, transition, card_id=stored.id)
    call.publish(Category.CARD, kind, token)
    return doc


def enter_state(
    call: Call, stored: StoredCard, state: CardState, cause: Cause, validated: UserValidated | None = None
) -> tuple[StoredCard, str]:
    """Change a locked card to a state that may follow; return the changed card and the transition's JSON.

    The first activation of a reissue also terminates its source card, unless ``activation_actions`` say otherwise.
    """
    kind = type_of(stored.card.state, state)
    is_first = state is CardState.ACTIVE and not stored.memory.is_activated
    source = lock_source(call, stored) if is_first else None
    after = structs.replace(stored.card, state=state, state_reason=cause.reason or f"Card {kind.partition('.')[2]}")
    if is_first:
        changed = activate_first(call, stored, after, cause)
    else:
        changed = change_card(call, stored, after, reason_code=cause.reason_code)
    doc = record_transition(call, changed, kind, cause, validated)
    if source is not None:
        terminate_source(call, source)
    return changed, doc


def activate_first(call: Call, stored: StoredCard, after: Card, cause: Cause) -> StoredCard:
    """Store the first activation of a card. Its lifetime begins again if its product requires that."""
    life, expires_ms = stored.memory.life_from_activation, stored.memory.expires_ms
    if life is not None:
        expiry = expiry_of(call.now, life)
        after, expires_ms = structs.replace(after, **expiry.fields), expiry.expires_ms
    return change_card(call, stored, after, reason_code=cause.reason_code, expires_ms=expires_ms, is_activated=True)


def lock_source(call: Call, stored: StoredCard) -> StoredCard | None:
    """Return the source card that the first activation of this reissue terminates, locked; None if there is none."""
    card = stored.card
    keeps_source = card.activation_actions is not UNSET and card.activation_actions.terminate_reissued_source_card is False
    if card.reissue_pan_from_card_token is UNSET or keeps_source:
        return None
    source = lock_card(call, card.reissue_pan_from_card_token)
    # A source card with another number may have moved to another user since. Then this reissue does not terminate it.
    return source if source is not None and source.user_id == stored.user_id else None


def terminate_source(call: Call, source: StoredCard) -> None:
    """Terminate a card that another card replaces, unless it is already terminated."""
    if source.card.state is not CardState.TERMINATED:
        enter_state(call, source, CardState.TERMINATED, Cause(channel="SYSTEM", reason="Card reissued", reason_code="01"))


def create_transition(call: Call, body: CardTransitionCreate) -> str:
    """Change a card's state.

    The new state activates, limits, suspends, reinstates or terminates the card.
    """
    # Lock the card before the replay check: of two concurrent equal requests, the second must find the transition of the first.
    stored = lock_card(call, body.card_token)
    if (replay := crud.find_replay(call, card_transitions, body)) is not None:
        return replay
    if stored is None:
        raise Problem(CARD_UNKNOWN)
    state = CardState(body.state)
    if state not in NEXT[stored.card.state]:
        raise Problem(BAD_CARD_TRANSITION, f"{stored.card.state} to {state}")
    holder = get_holder(call, stored.user_id)
    validated = validate(call, holder, claims_of(body))
    if state is CardState.ACTIVE:
        check_may_activate(call, stored, HolderStatus(holder.status))
    return enter_state(call, stored, state, body, validated)[1]


def claims_of(body: CardTransitionCreate) -> UserValidations:
    """Return the checks that the request asks for."""
    validations = body.validations.user if body.validations is not None else None
    return validations or UserValidations()


def check_may_activate(call: Call, stored: StoredCard, holder: HolderStatus) -> None:
    """Raise a problem unless the card may become ACTIVE now.

    Raises HOLDER_NOT_ACTIVE if its user is not active; the status of a parent does not count. Raises BAD_CARD_TRANSITION if the
    card has expired.
    """
    if not holder.is_active:
        raise Problem(HOLDER_NOT_ACTIVE)
    # A lifetime that counts from the first activation cannot end before it.
    begins = stored.memory.life_from_activation is not None and not stored.memory.is_activated
    is_new = stored.card.state is not CardState.ACTIVE
    if is_new and not begins and call.now >= stored.memory.expires_ms:
        raise Problem(BAD_CARD_TRANSITION, f"the card expired at {stored.card.expiration_time}")


def validate(call: Call, holder: Row, claims: UserValidations) -> UserValidated:
    """Return the checks that passed. Raises a problem that names the first field that does not match.

    Data that the cardholder does not have never matches. ``random_name_line1_postfix`` is not checked, because no random text
    is printed on cards.
    """
    known = msgspec.json.decode(holder.doc, type=User)
    birth_date = None if claims.birth_date is None else parse_date("validations.user.birth_date", claims.birth_date)
    limit_results = {
        "birth_date": None if birth_date is None else birth_date == known.birth_date,
        "phone": None if claims.phone is None else claims.phone == known.phone,
        "ssn": None if claims.ssn is None else is_right_number(claims.ssn, shown_number(unseal(call, holder), "SSN", True)),
    }
    for name, verdict in limit_results.items():
        if verdict is False:
            raise bad_field(f"validations.user.{name}", "does not match the cardholder")
    return UserValidated(**{name: verdict is True for name, verdict in limit_results.items()})


def get_transition(call: Call) -> str:
    """Return a card transition."""
    return str(crud.get_row(call, card_transitions, TRANSITION_NOT_FOUND).doc)


def list_transitions(call: Call) -> records.Listing:
    """List a card's transitions, newest first."""
    card = crud.get_row(call, cards, CARD_NOT_FOUND)
    return crud.list_resources(call, card_transitions, card_transitions.c.card_id == card.id)


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Card transitions"

routes = [
    post(
        "/cardtransitions",
        CardTransitionCreate,
        create_transition,
        CardTransition,
        operation_id="card_transitions_create_transition",
    ),
    get("/cardtransitions/{token}", get_transition, CardTransition, operation_id="card_transitions_get_transition"),
    get(
        "/cardtransitions/card/{token}",
        list_transitions,
        CardTransition,
        paging=Paging(sort_by="-createdTime", count_min=0),
        operation_id="card_transitions_list_transitions",
    ),
]
