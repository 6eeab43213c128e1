"""Card model: the stored card, the data that decisions use, and the updates of both."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, structs
from sqlalchemy import select

from cardwright.core.enums import CardState
from cardwright.core.expiry import ExpirationUnit, expiration_instant, mmyy
from cardwright.core.snapshot import CardFact, Fact
from cardwright.kit.clock import Instant, iso
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import Shape
from cardwright.resources.programs.card_product_config import Branch, Personalization, Shipping
from cardwright.storage import history, records
from cardwright.storage.database import Row
from cardwright.storage.tables import cards, holders

# --- Shapes: what travels on the wire ------------------------------------------------

FulfillmentStatus = Literal["ISSUED", "ORDERED", "REORDERED", "REJECTED", "SHIPPED", "DELIVERED", "DIGITALLY_PRESENTED"]
Instrument = Literal["PHYSICAL_MSR", "PHYSICAL_ICC", "PHYSICAL_CONTACTLESS", "PHYSICAL_COMBO", "VIRTUAL_PAN"]


class CardFulfillment(Branch, frozen=True, kw_only=True):
    """The fulfillment settings of a card. They take precedence over those of its product."""

    card_fulfillment_reason: Literal["NEW", "LOST_STOLEN", "EXPIRED"] | None = None
    card_personalization: Personalization | None = None
    shipping: Shipping | None = None


class ActivationActions(Branch, frozen=True, kw_only=True):
    """Changes of other cards at the first activation of a card."""

    terminate_reissued_source_card: bool | None = None
    swap_digital_wallet_tokens_from_card_token: Annotated[str, Meta(min_length=1, max_length=36)] | None = None


class Card(Shape, frozen=True, kw_only=True):
    """A card. ``pan`` is masked. The clear number and the security codes are returned only on request."""

    created_time: str
    last_modified_time: str
    token: str
    user_token: str
    card_product_token: str
    last_four: str
    pan: str
    expiration: str
    expiration_time: str
    cvv_number: str | UnsetType = UNSET
    chip_cvv_number: str | UnsetType = UNSET
    barcode: str
    pin_is_set: bool
    state: CardState
    state_reason: str
    fulfillment_status: FulfillmentStatus
    reissue_pan_from_card_token: str | UnsetType = UNSET
    new_pan_from_card_token: str | UnsetType = UNSET
    translate_pin_from_card_token: str | UnsetType = UNSET
    instrument_type: Instrument
    expedite: bool
    metadata: dict[str, str]
    bulk_issuance_token: str | UnsetType = UNSET
    account_tokens: tuple[str, ...] | UnsetType = UNSET
    activation_actions: ActivationActions | UnsetType = UNSET
    fulfillment: CardFulfillment | UnsetType = UNSET


class LifeTime(Fact, frozen=True, kw_only=True):
    """The lifetime of a card. With a minimum, the later of the two ends applies."""

    unit: ExpirationUnit
    value: int
    min_unit: ExpirationUnit | None = None
    min_value: int | None = None


class CardMemory(CardFact, frozen=True, kw_only=True):
    """The state of a card in the history: the data that decisions use, and settings fixed at issue that the wire does not show.

    A change of a product's life-cycle settings affects only cards issued afterwards, so a card keeps the settings of its issue.
    ``life_from_activation`` is the lifetime that begins again at the first activation, if the product requires that.
    """

    life_from_activation: LifeTime | None = None
    is_activated: bool = False


@dataclass(frozen=True, slots=True)
class StoredCard:
    """A card with its columns. The vault encrypts the card number and the PIN.

    The number is sealed for the program's id and the card's token, the PIN for ``pin_context``.
    """

    id: int
    holder_id: int
    user_id: int
    card: Card
    memory: CardMemory
    pan_sealed: bytes
    pan_digest: bytes
    pin_sealed: bytes | None


# --- Rules: pure ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expiry:
    """The expiration of a card. ``named_ms`` is the time on the wire, ``expires_ms`` the first instant after the lifetime."""

    named_ms: Instant
    expires_ms: Instant

    @property
    def fields(self) -> dict[str, str]:
        """Return the fields of a card that show its expiration."""
        return {"expiration": mmyy(self.named_ms), "expiration_time": iso(self.named_ms)}


def expiry_of(start: Instant, life: LifeTime) -> Expiry:
    """Return the expiration of a card whose lifetime begins at ``start``.

    Raises ValueError after the year 9999 and for negative values.
    """
    end = _end_of(start, life.unit, life.value)
    if life.min_unit is None or life.min_value is None:
        return end
    return max(end, _end_of(start, life.min_unit, life.min_value), key=lambda expiry: expiry.expires_ms)


def _end_of(start: Instant, unit: ExpirationUnit, value: int) -> Expiry:
    # The wire has whole seconds. The lifetime starts at a whole second, so that it ends exactly at the time on the wire.
    named = expiration_instant(start // 1000 * 1000, unit, value)
    match unit:
        case ExpirationUnit.YEARS | ExpirationUnit.MONTHS | ExpirationUnit.DAYS:
            # The wire names the last second of the day, and the card is valid until the end of that second.
            return Expiry(named, named + 1000)
        case ExpirationUnit.HOURS | ExpirationUnit.MINUTES | ExpirationUnit.SECONDS:
            return Expiry(named, named)


# --- Queries: this resource's SQL ----------------------------------------------------


def stored_of(row: Row) -> StoredCard:
    """Return the card of a row of ``cards``."""
    return StoredCard(
        id=row.id,
        holder_id=row.holder_id,
        user_id=row.user_id,
        card=msgspec.json.decode(row.doc, type=Card),
        memory=msgspec.json.decode(row.fact, type=CardMemory),
        pan_sealed=bytes(row.pan_sealed),
        pan_digest=bytes(row.pan_digest),
        pin_sealed=None if row.pin_sealed is None else bytes(row.pin_sealed),
    )


def lock_card(call: Call, token: str) -> StoredCard | None:
    """Return the card with this token, locked until the commit; None if the program has none.

    The global order of locks: cards before accounts, a reissue before its source card.
    """
    row = records.lock(call.db, cards, call.program.id, token)
    return None if row is None else stored_of(row)


def record_card_version(call: Call, card_id: int, holder_id: int, memory: CardMemory) -> None:
    """Increase the revision of the account and save the card's state in the history.

    The new revision invalidates the caches of all processes. The history contains the state of the card at each revision.
    """
    revision = history.raise_holder_revision(call.db, holder_id)
    history.save_version(call.db, call.program.id, history.Kind.CARD, card_id, revision, call.now, records.text_of(memory))


def change_card(call: Call, stored: StoredCard, after: Card, **resolved: Any) -> StoredCard:
    """Store a changed card and its version. ``resolved`` has the changed fields of its memory that are not on the wire."""
    after = structs.replace(after, last_modified_time=iso(call.now))
    memory = structs.replace(
        stored.memory, user_token=after.user_token, state=after.state, expiration=after.expiration, metadata=after.metadata,
        **resolved,
    )  # fmt: skip
    records.change(
        call.db, cards, stored.id, doc=records.text_of(after), modified_ms=call.now, state=after.state,
        expires_ms=memory.expires_ms, user_id=stored.user_id, holder_id=stored.holder_id,
    )  # fmt: skip
    record_card_version(call, stored.id, stored.holder_id, memory)
    return replace(stored, card=after, memory=memory)


def sync_revisions(call: Call, holder_ids: set[int]) -> None:
    """Set accounts to one new revision, above all of theirs.

    A card that moves to another account must have higher revisions there than before, so that its history stays in order.
    """
    query = select(holders.c.id, holders.c.revision).where(holders.c.id.in_(holder_ids)).order_by(holders.c.id)
    rows = call.db.execute(query.with_for_update(key_share=True)).all()
    level = max(row.revision for row in rows) + 1
    call.db.execute(holders.update().where(holders.c.id.in_(holder_ids)).values(revision=level))


# --- Actions: what a caller can do with it -------------------------------------------


def clear_pan(call: Call, stored: StoredCard) -> str:
    """Return the clear card number."""
    return call.app.vault.decrypt_pan(stored.pan_sealed, str(call.program.id), stored.card.token)


def shown(call: Call, stored: StoredCard, *, pan: bool, cvv: bool) -> Card:
    """Return the card with the clear number and the security codes as requested. The result must not be stored."""
    card = stored.card
    if not pan and not cvv:
        return card
    number = clear_pan(call, stored)
    if pan:
        card = structs.replace(card, pan=number)
    return structs.replace(card, **security_codes(call, stored, number)) if cvv else card


def security_codes(call: Call, stored: StoredCard, pan: str) -> dict[str, str]:
    """Return the security codes of a card by wire name. Only chip and contactless cards have a chip code."""
    cvv, expiration, service_code = call.app.vault.cvv, stored.card.expiration, stored.memory.service_code
    codes = {"cvv_number": cvv(pan, expiration, service_code)}
    if stored.card.instrument_type in ("PHYSICAL_ICC", "PHYSICAL_CONTACTLESS", "PHYSICAL_COMBO"):
        codes["chip_cvv_number"] = cvv(pan, expiration, service_code, "ICVV")
    return codes
