"""Issuance: creation of cards, with their number, lifetime, PIN, and the source card that a new card replaces."""

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from cardwright.core.enums import CardState, HolderStatus
from cardwright.core.expiry import ExpirationUnit, mmyy
from cardwright.core.pan import last_four, mask
from cardwright.core.problems import (
    CARD_CREATION_OFF,
    CARD_SOURCE_INVALID,
    CARD_UNKNOWN,
    PRODUCT_UNKNOWN,
    USER_UNKNOWN,
    Problem,
    bad_field,
)
from cardwright.kit.canonical import reading
from cardwright.kit.clock import iso
from cardwright.resources.cards.card_model import (
    ActivationActions,
    Card,
    CardFulfillment,
    CardMemory,
    Expiry,
    Instrument,
    LifeTime,
    StoredCard,
    clear_pan,
    expiry_of,
    lock_card,
    record_card_version,
    stored_of,
)
from cardwright.resources.cards.card_numbers import Number, draw_barcode, draw_number, number_of
from cardwright.resources.cards.card_transitions import Cause, enter_state, record_transition, terminate_source
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import OR_NONE, Metadata, Token, text_metadata
from cardwright.resources.common.route import Shape
from cardwright.resources.programs.card_product_config import Branch
from cardwright.resources.programs.card_products import leaf
from cardwright.storage import records
from cardwright.storage.database import Row
from cardwright.storage.envelopes import pin_context
from cardwright.storage.tables import card_products, cards, users

# --- Shapes: what travels on the wire ------------------------------------------------

SourceToken = Annotated[str, Meta(max_length=36), OR_NONE]
"""The token of a source card. An empty text counts as absent."""


class CardOffset(Branch, frozen=True, kw_only=True):
    """The lifetime of this card, in place of the lifetime that its product sets."""

    unit: ExpirationUnit | None = None
    value: int | None = None


def with_defaults(actions: ActivationActions) -> ActivationActions:
    """Return the actions as a response shows them: ``terminate_reissued_source_card`` has its default."""
    return msgspec.structs.replace(actions, terminate_reissued_source_card=actions.terminate_reissued_source_card is not False)


class CardCreate(Shape, frozen=True, kw_only=True):
    """A new card.

    ``account_token`` and ``bulk_issuance_token`` are stored and returned without a check, because accounts and bulk issuances
    are not implemented.
    """

    user_token: Token
    card_product_token: Token
    token: Token | None = None
    fulfillment: CardFulfillment | None = None
    expiration_offset: CardOffset | None = CardOffset()
    expedite: bool | None = False
    metadata: Metadata | None = msgspec.field(default_factory=dict)
    activation_actions: Annotated[ActivationActions, reading(with_defaults)] | None = None
    reissue_pan_from_card_token: SourceToken | None = None
    new_pan_from_card_token: SourceToken | None = None
    translate_pin_from_card_token: SourceToken | None = None
    bulk_issuance_token: SourceToken | None = None
    account_token: SourceToken | None = None
    copy_pin_from_source_card: bool | None = True
    generate_new_pan: bool | None = False


# --- Rules: pure ---------------------------------------------------------------------

NEW_CARD = Cause(channel="SYSTEM", reason="New card", reason_code="00")
ACTIVATED_AT_ISSUE = Cause(channel="SYSTEM", reason="New card activated", reason_code="00")


class MinOffsetView(msgspec.Struct):
    """The ``min_offset`` of a product."""

    unit: ExpirationUnit
    value: int


class OffsetView(msgspec.Struct):
    """The ``expiration_offset`` of a product."""

    unit: ExpirationUnit
    value: int
    min_offset: MinOffsetView | None = None

    @property
    def life(self) -> LifeTime:
        """Return the lifetime of cards of the product."""
        least = self.min_offset
        return LifeTime(
            unit=self.unit, value=self.value, min_unit=least.unit if least else None, min_value=least.value if least else None
        )


class LifeCycleView(msgspec.Struct):
    """The fields of a product's ``card_life_cycle`` that a card copies when it is issued."""

    activate_upon_issue: bool
    expiration_offset: OffsetView
    card_service_code: int
    update_expiration_upon_activation: bool


class FulfillmentView(msgspec.Struct):
    """The fields of a product's ``fulfillment`` that a card copies when it is issued."""

    payment_instrument: Instrument
    bin_prefix: str
    pan_length: int
    allow_card_creation: bool


class ConfigView(msgspec.Struct):
    """The parts of a product's ``config`` that the issuance of a card uses."""

    card_life_cycle: LifeCycleView
    fulfillment: FulfillmentView


class ProductView(msgspec.Struct):
    """A card product, with the fields that the issuance of a card uses."""

    token: str
    config: ConfigView


@dataclass(frozen=True, slots=True)
class Sources:
    """The source cards of a new card: the one it reissues, the one it replaces, and the one whose PIN it copies."""

    reissued: StoredCard | None
    replaced: StoredCard | None
    pin: StoredCard | None


@dataclass(frozen=True, slots=True)
class CardOrder:
    """The validated input of an issuance.

    ``is_presented`` is True if the response shows the number and the security code.
    """

    body: CardCreate
    user: Row
    product_id: int
    product: ProductView
    sources: Sources
    metadata: dict[str, str]
    is_presented: bool

    @property
    def reused(self) -> StoredCard | None:
        """Return the card whose number the new card keeps; None if it gets a new number."""
        return None if self.body.generate_new_pan is True else self.sources.reissued

    @property
    def life(self) -> LifeTime:
        """Return the lifetime that the request sets, else the lifetime of the product."""
        offset = self.body.expiration_offset
        if offset is None or offset.unit is None or offset.value is None:
            return self.product.config.card_life_cycle.expiration_offset.life
        return LifeTime(unit=offset.unit, value=offset.value)


def check_fulfillment(fulfillment: CardFulfillment) -> None:
    """Raise a problem that names the field unless the settings have a text to print on the card."""
    for path in ("card_personalization", "card_personalization.text", "card_personalization.text.name_line_1"):
        if leaf(fulfillment, path) is None:
            raise bad_field(f"fulfillment.{path}", "may not be null")


def check_body(body: CardCreate) -> None:
    """Raise a problem that names the field if a request is invalid regardless of the objects that its tokens name."""
    if body.fulfillment is not None:
        check_fulfillment(body.fulfillment)
    offset = body.expiration_offset or CardOffset()
    for name, other in (("unit", offset.value), ("value", offset.unit)):
        if getattr(offset, name) is None and other is not None:
            raise bad_field(f"expiration_offset.{name}", "may not be null")
    if offset.value is not None and offset.value < 1:
        raise bad_field("expiration_offset.value", "must be at least 1")
    for name in ("new_pan_from_card_token", "translate_pin_from_card_token"):
        if body.reissue_pan_from_card_token and getattr(body, name):
            raise bad_field(name, "may not be used together with reissue_pan_from_card_token")


def card_of(order: CardOrder, token: str, number: Number, barcode: str, expiry: Expiry, time: str) -> Card:
    """Return the new card in its first state, UNACTIVATED."""
    body, fulfillment = order.body, order.product.config.fulfillment
    return Card(
        created_time=time,
        last_modified_time=time,
        token=token,
        user_token=body.user_token,
        card_product_token=body.card_product_token,
        last_four=last_four(number.pan),
        pan=mask(number.pan),
        expiration=mmyy(expiry.named_ms),
        expiration_time=iso(expiry.named_ms),
        barcode=barcode,
        pin_is_set=order.sources.pin is not None and order.sources.pin.pin_sealed is not None,
        state=CardState.UNACTIVATED,
        state_reason=NEW_CARD.reason or "",
        fulfillment_status="DIGITALLY_PRESENTED" if order.is_presented else "ISSUED",
        reissue_pan_from_card_token=body.reissue_pan_from_card_token or UNSET,
        new_pan_from_card_token=body.new_pan_from_card_token or UNSET,
        translate_pin_from_card_token=body.translate_pin_from_card_token or UNSET,
        instrument_type=fulfillment.payment_instrument,
        expedite=body.expedite is True,
        metadata=order.metadata,
        bulk_issuance_token=body.bulk_issuance_token or UNSET,
        account_tokens=(body.account_token,) if body.account_token else UNSET,
        activation_actions=UNSET if body.activation_actions is None else with_defaults(body.activation_actions),
        fulfillment=body.fulfillment if body.fulfillment is not None else UNSET,
    )


def memory_of(order: CardOrder, card: Card, expiry: Expiry) -> CardMemory:
    """Return the first version of a card for the history."""
    life_cycle = order.product.config.card_life_cycle
    return CardMemory(
        token=card.token,
        user_token=card.user_token,
        card_product_token=card.card_product_token,
        state=card.state,
        last_four=card.last_four,
        expiration=card.expiration,
        expires_ms=expiry.expires_ms,
        reason_code=NEW_CARD.reason_code,
        metadata=card.metadata,
        service_code=str(life_cycle.card_service_code),
        life_from_activation=order.life if life_cycle.update_expiration_upon_activation else None,
    )


# --- Actions: what a caller can do with it -------------------------------------------


def issue_card(call: Call, body: CardCreate, *, is_presented: bool) -> StoredCard:
    """Issue a card, or return the card that an equal request issued."""
    check_body(body)
    metadata = text_metadata(body.metadata)
    ended = lock_ended(call, body)
    if (replay := find_issued(call, body)) is not None:
        return replay
    user = find_user(call, body.user_token)
    product_id, product = find_product(call, body.card_product_token)
    sources = find_sources(call, body, user, ended)
    stored = insert_card(call, CardOrder(body, user, product_id, product, sources, metadata, is_presented))
    record_transition(call, stored, "fulfillment.issued", NEW_CARD)
    if sources.replaced is not None:
        terminate_source(call, sources.replaced)
    if product.config.card_life_cycle.activate_upon_issue and HolderStatus(user.status).is_active:
        stored, _ = enter_state(call, stored, CardState.ACTIVE, ACTIVATED_AT_ISSUE)
    return stored


def find_issued(call: Call, body: CardCreate) -> StoredCard | None:
    """Return the card that an equal request issued under this token, or None. Raises TOKEN_TAKEN if the request differs."""
    row = crud.find_replay_row(call, cards, body)
    return None if row is None else stored_of(row)


def find_user(call: Call, token: str) -> Row:
    """Return the row of the future cardholder. Raises USER_UNKNOWN if the program has no such user."""
    row = records.find(call.db, users, call.program.id, token)
    if row is None:
        raise Problem(USER_UNKNOWN)
    return row


def find_product(call: Call, token: str) -> tuple[int, ProductView]:
    """Return the id and the fields of the card product. Raises PRODUCT_UNKNOWN, or CARD_CREATION_OFF if it allows no cards."""
    row = records.find(call.db, card_products, call.program.id, token)
    if row is None:
        raise Problem(PRODUCT_UNKNOWN)
    # The wire has pan_length as a text, so the decoder must convert it.
    product = msgspec.json.decode(row.doc, type=ProductView, strict=False)
    if not product.config.fulfillment.allow_card_creation:
        raise Problem(CARD_CREATION_OFF)
    return row.id, product


def lock_ended(call: Call, body: CardCreate) -> StoredCard | None:
    """Return the card that the new card reissues or replaces, locked; None if the request or the program has none.

    The lock precedes the replay check, so that of two concurrent equal requests the second waits and finds the first card.
    """
    token = body.reissue_pan_from_card_token or body.new_pan_from_card_token
    return lock_card(call, token) if token else None


def find_sources(call: Call, body: CardCreate, user: Row, ended: StoredCard | None) -> Sources:
    """Return the source cards that the request names.

    Raises CARD_UNKNOWN for an unknown card. Raises CARD_SOURCE_INVALID for a card of another user, and for a terminated card
    whose number would be used again.
    """
    reissued, replaced = (ended, None) if body.reissue_pan_from_card_token else (None, ended)
    if ended is None and (body.reissue_pan_from_card_token or body.new_pan_from_card_token):
        raise Problem(CARD_UNKNOWN)
    pin = find_source(call, body.translate_pin_from_card_token)
    swapped = find_source(call, leaf(body.activation_actions, "swap_digital_wallet_tokens_from_card_token"))
    if any(source is not None and source.user_id != user.id for source in (ended, pin, swapped)):
        raise Problem(CARD_SOURCE_INVALID, "the source card belongs to another user")
    if reissued is None:
        return Sources(reissued, replaced, pin)
    if reissued.card.state is CardState.TERMINATED and body.generate_new_pan is not True:
        raise Problem(
            CARD_SOURCE_INVALID, "the source card is terminated, so its number cannot be reused; set generate_new_pan to true"
        )
    return Sources(reissued, replaced, pin=None if body.copy_pin_from_source_card is False else reissued)


def find_source(call: Call, token: str | None) -> StoredCard | None:
    """Return the card with this token; None without a token. Raises CARD_UNKNOWN if the program has no such card."""
    return stored_of(crud.get_row(call, cards, CARD_UNKNOWN, token)) if token else None


def insert_card(call: Call, order: CardOrder) -> StoredCard:
    """Draw a number and a barcode, insert the card and its first version, and return the stored card."""
    try:
        expiry = expiry_of(call.now, order.life)
    except ValueError:
        raise bad_field("expiration_offset.value", "reaches beyond the year 9999") from None
    token = order.body.token or call.app.ids.token()
    number = number_for(call, order)
    card = card_of(order, token, number, draw_barcode(call), expiry, iso(call.now))
    card_id, _ = crud.insert(
        call, cards, order.body, card, holder_id=order.user.holder_id, user_id=order.user.id, product_id=order.product_id,
        state=card.state, last_four=card.last_four, expires_ms=expiry.expires_ms, barcode=card.barcode, pan_digest=number.digest,
        pan_sealed=call.app.vault.encrypt_pan(number.pan, str(call.program.id), token),
    )  # fmt: skip
    if order.sources.pin is not None:
        copy_pin(call, order.sources.pin, card_id)
    record_card_version(call, card_id, order.user.holder_id, memory_of(order, card, expiry))
    return stored_of(crud.get_row(call, cards, CARD_UNKNOWN, token))


def number_for(call: Call, order: CardOrder) -> Number:
    """Return the number of the reissued card if the new card keeps it, else a new number."""
    if order.reused is not None:
        return number_of(call, clear_pan(call, order.reused))
    making = order.product.config.fulfillment
    return draw_number(call, making.bin_prefix, making.pan_length)


def copy_pin(call: Call, source: StoredCard, card_id: int) -> None:
    """Copy the PIN of a card, if it has one, to another card. The PIN is sealed anew for that card."""
    if source.pin_sealed is None:
        return
    vault = call.app.vault
    pin = vault.open(source.pin_sealed, pin_context(source.id))
    records.change(call.db, cards, card_id, pin_sealed=vault.seal(pin, pin_context(card_id)))
