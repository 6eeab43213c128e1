"""Card transitions: every change of a card's state or fulfilment, who made it and why; a card's state changes in no other way."""

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
    """What the caller believes of the cardholder; ``ssn`` is its last four digits or all of them."""

    birth_date: Day | None = None
    phone: Text255 | None = None
    ssn: Text255 | None = None
    random_name_line1_postfix: Annotated[str, Meta(min_length=6, max_length=6)] | None = None


class Validations(Shape, frozen=True, kw_only=True):
    """Claims to be checked before the transition is made."""

    user: UserValidations | None = UserValidations()


class UserValidated(Shape, frozen=True, kw_only=True):
    """Which claims were checked and found right."""

    birth_date: bool = False
    phone: bool = False
    ssn: bool = False
    random_name_line1_postfix: bool = False


class Validated(Shape, frozen=True, kw_only=True):
    """The outcome of ``validations``; always there."""

    user: UserValidated = UserValidated()


class Metadata(Shape, frozen=True, kw_only=True):
    """The metadata of the card or of its holder, as it was then."""

    metadata: dict[str, str]


class Cause(Shape, frozen=True, kw_only=True):
    """Who changes a card, and why."""

    channel: Channel
    reason: Reason | None = None
    reason_code: ReasonCode | None = None
    token: Token | None = None


class CardTransitionCreate(Cause, frozen=True, kw_only=True):
    """A new state for a card. There are no digital wallet tokens here that ``sync_state_with_dwts`` could move."""

    card_token: Token
    state: Literal["ACTIVE", "LIMITED", "SUSPENDED", "TERMINATED"]
    sync_state_with_dwts: bool | None = False
    validations: Validations | None = Validations()


class CardTransition(Shape, frozen=True, kw_only=True):
    """A transition, with the card as it was right after it."""

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
"""The states that a card may go to (wire reference 9.1). The same state again is recorded; only TERMINATED is final."""

ENTERING: dict[CardState, TransitionType] = {
    CardState.ACTIVE: "state.activated",
    CardState.LIMITED: "state.limited",
    CardState.SUSPENDED: "state.suspended",
    CardState.TERMINATED: "state.terminated",
}


def type_of(before: CardState, after: CardState) -> TransitionType:
    """The transition's type, which is also the second half of its event's name."""
    is_back = (before, after) == (CardState.SUSPENDED, CardState.ACTIVE)
    return "state.reinstated" if is_back else ENTERING[after]


def is_right_number(given: str, known: str | UnsetType) -> bool:
    """Whether these are the last digits of the number, at least four of them."""
    return known is not UNSET and len(given) >= 4 and known.endswith(given)


def transition_of(card: Card, holder: User, kind: TransitionType, cause: Cause, token: str, now: Instant) -> CardTransition:
    """The record of what just happened to a card."""
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
        # Alone among the wire's times of cards this one has milliseconds (observed).
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
    """The user who holds a card."""
    return call.db.execute(select(users).where(users.c.id == user_id)).one()


# --- Actions: what one can do with it ------------------------------------------------


def record_transition(
    call: Call, stored: StoredCard, kind: TransitionType, cause: Cause, validated: UserValidated | None = None
) -> str:
    """Keeps and tells what just happened to a card; every transition, whoever caused it, comes through here."""
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
    """Brings a locked card into a state that it may enter, with all that follows; the card and the transition's JSON."""
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
    """Makes a card usable for the first time; its life begins again when its product said so."""
    life, expires_ms = stored.memory.life_from_activation, stored.memory.expires_ms
    if life is not None:
        expiry = expiry_of(call.now, life)
        after, expires_ms = structs.replace(after, **expiry.fields), expiry.expires_ms
    return change_card(call, stored, after, reason_code=cause.reason_code, expires_ms=expires_ms, is_activated=True)


def lock_source(call: Call, stored: StoredCard) -> StoredCard | None:
    """The card that ends when this reissue of it is activated, if there is one."""
    card = stored.card
    keeps_source = card.activation_actions is not UNSET and card.activation_actions.terminate_reissued_source_card is False
    if card.reissue_pan_from_card_token is UNSET or keeps_source:
        return None
    source = lock_card(call, card.reissue_pan_from_card_token)
    # A source that has another number may have been given to another user since; it is no longer this one's to end.
    return source if source is not None and source.user_id == stored.user_id else None


def terminate_source(call: Call, source: StoredCard) -> None:
    """Ends a card that another one took the place of, unless it has ended already."""
    if source.card.state is not CardState.TERMINATED:
        enter_state(call, source, CardState.TERMINATED, Cause(channel="SYSTEM", reason="Card reissued", reason_code="01"))


def create_transition(call: Call, body: CardTransitionCreate) -> str:
    """Changes a card's state: activates, limits, suspends, reinstates or terminates it."""
    # The lock comes before the look for a repeat, so that of two equal requests at once the second finds the first one's work.
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
    """What the request wants to have checked."""
    validations = body.validations.user if body.validations is not None else None
    return validations or UserValidations()


def check_may_activate(call: Call, stored: StoredCard, holder: HolderStatus) -> None:
    """Raises a problem when the card may not become ACTIVE now: only the holder himself counts, not his parent."""
    if not holder.is_active:
        raise Problem(HOLDER_NOT_ACTIVE)
    # A life that is measured from the first activation has not begun before it.
    begins = stored.memory.life_from_activation is not None and not stored.memory.is_activated
    is_new = stored.card.state is not CardState.ACTIVE
    if is_new and not begins and call.now >= stored.memory.expires_ms:
        raise Problem(BAD_CARD_TRANSITION, f"the card expired at {stored.card.expiration_time}")


def validate(call: Call, holder: Row, claims: UserValidations) -> UserValidated:
    """Which claims are right. Raises a problem for the first wrong one; what the holder never told cannot be right.

    Nothing random is ever printed on a card here, so ``random_name_line1_postfix`` stays unchecked.
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
    """Returns a card transition."""
    return str(crud.get_row(call, card_transitions, TRANSITION_NOT_FOUND).doc)


def list_transitions(call: Call) -> records.Listing:
    """Lists a card's transitions, newest first."""
    card = crud.get_row(call, cards, CARD_NOT_FOUND)
    return crud.list_resources(call, card_transitions, card_transitions.c.card_id == card.id)


# --- Routes: parse, act, view --------------------------------------------------------

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
