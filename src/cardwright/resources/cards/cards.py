"""Cards: creation, reads, updates and look-ups by number. A response has the clear number only on request."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, structs
from sqlalchemy import Table, func, select

from cardwright.core.enums import CardState
from cardwright.core.problems import (
    BARCODE_NOT_FOUND,
    CARD_NOT_FOUND,
    CARD_UNKNOWN,
    USER_NOT_FOUND,
    Problem,
    bad_field,
    bad_parameter,
)
from cardwright.resources.cards.card_model import (
    Card,
    CardFulfillment,
    StoredCard,
    change_card,
    lock_card,
    security_codes,
    shown,
    stored_of,
    sync_revisions,
)
from cardwright.resources.cards.card_transitions import Cause, record_transition
from cardwright.resources.cards.issuance import CardCreate, check_fulfillment, find_user, issue_card
from cardwright.resources.common import crud
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Metadata, Token, text_metadata
from cardwright.resources.common.route import Paging, Shape, get, post, put
from cardwright.resources.programs.card_products import merged
from cardwright.storage import records
from cardwright.storage.database import Row
from cardwright.storage.tables import card_products, cards, users

# --- Shapes: what travels on the wire ------------------------------------------------


class ShowBoth(Shape, frozen=True, kw_only=True):
    """The clear data in the response: the card number and the security code.

    Both together also set ``fulfillment_status`` to ``DIGITALLY_PRESENTED``.
    """

    show_pan: bool = False
    show_cvv_number: bool = False


class ShowCode(Shape, frozen=True, kw_only=True):
    """The options of the response: the security code, and the objects to embed."""

    show_cvv_number: bool = False
    expand: str | None = None


class Expand(Shape, frozen=True, kw_only=True):
    """The objects to embed: ``user``, ``cardproduct``, or both, separated by a comma."""

    expand: str | None = None


class ByLastFour(Expand, frozen=True, kw_only=True):
    """The query filters cards by their last four digits."""

    last_four: str


class CardUpdate(Shape, frozen=True, kw_only=True):
    """Changes of a card. Absent fields stay unchanged, and so do absent fields inside ``fulfillment``."""

    user_token: Token | None = None
    expedite: bool | None = None
    fulfillment: CardFulfillment | None = None
    metadata: Metadata | None = None
    token: Token | None = None


class ExpandedCard(Card, frozen=True, kw_only=True):
    """A card, with its user and its card product if ``expand`` names them."""

    user: dict[str, Any] | UnsetType = UNSET
    cardproduct: dict[str, Any] | UnsetType = UNSET


class PanLookup(Shape, frozen=True, kw_only=True):
    """A card number. The security code and the expiration are checked if they are present."""

    pan: str
    cvv_number: str | None = None
    expiration: str | None = None


class PanOwner(Shape, frozen=True, kw_only=True):
    """The card and the user that a card number belongs to."""

    created_time: str
    last_modified_time: str
    user_token: str
    card_token: str


# --- Rules: pure ---------------------------------------------------------------------


class References(msgspec.Struct):
    """The tokens of the objects that a card can embed."""

    user: str = msgspec.field(name="user_token")
    cardproduct: str = msgspec.field(name="card_product_token")


EMBEDDED: dict[str, Table] = {"user": users, "cardproduct": card_products}
"""The names that ``expand`` accepts, which are the keys in the response, with the tables of the objects."""


def expand_names(expand: str | None) -> list[str]:
    """Return the names to embed, each once. Raises a problem for an unknown name."""
    names = [name for name in EMBEDDED if name in (expand or "").split(",")]
    if unknown := set(filter(None, (expand or "").split(","))) - set(names):
        raise bad_parameter("expand", f"must be user or cardproduct, not {min(unknown)[:40]}")
    return names


def changed_fulfillment(card: Card, change: CardFulfillment) -> CardFulfillment:
    """Return the fulfillment settings of a card after an update. Raises a problem if they are incomplete."""
    after = change if card.fulfillment is UNSET else merged(card.fulfillment, change)
    check_fulfillment(after)
    return after


# --- Queries: this resource's SQL ----------------------------------------------------


def find_by_pan(call: Call, pan: str) -> Sequence[Row]:
    """Return the cards with this number, newest first."""
    digest = call.app.vault.pan_digest(pan, str(call.program.id))
    query = select(cards).where(cards.c.program_id == call.program.id, cards.c.pan_digest == digest)
    return call.db.execute(query.order_by(cards.c.id.desc())).all()


def shares_number(call: Call, stored: StoredCard) -> bool:
    """Return True if another card has the same number."""
    query = select(func.count()).where(cards.c.program_id == call.program.id, cards.c.pan_digest == stored.pan_digest)
    return call.db.execute(query).scalar_one() > 1


def load_docs(call: Call, table: Table, tokens: set[str]) -> dict[str, str]:
    """Return the JSON of objects by token."""
    query = select(table.c.token, table.c.doc).where(table.c.program_id == call.program.id, table.c.token.in_(tokens))
    return {row.token: row.doc for row in call.db.execute(query)}


# --- Actions: what a caller can do with it -------------------------------------------


def create_card(call: Call, body: CardCreate) -> str:
    """Create a card."""
    query: ShowBoth = call.query
    stored = issue_card(call, body, is_presented=query.show_pan and query.show_cvv_number)
    return records.text_of(shown(call, stored, pan=query.show_pan, cvv=query.show_cvv_number))


def get_card(call: Call) -> str:
    """Return a card."""
    return expanded(call, [crud.get_row(call, cards, CARD_NOT_FOUND).doc])[0]


def get_card_by_barcode(call: Call) -> str:
    """Return the card with a barcode."""
    query = select(cards.c.doc).where(cards.c.program_id == call.program.id, cards.c.barcode == call.path["barcode"])
    doc = call.db.scalar(query)
    if doc is None:
        raise Problem(BARCODE_NOT_FOUND)
    return expanded(call, [doc])[0]


def list_cards(call: Call) -> records.Listing:
    """List the cards with the given last four digits.

    A text that is not four digits matches no card.
    """
    listing = crud.list_resources(call, cards, cards.c.last_four == call.query.last_four)
    return records.Listing(expanded(call, listing.docs), listing.is_more)


def list_cards_of_user(call: Call) -> records.Listing:
    """List a user's cards."""
    user = crud.get_row(call, users, USER_NOT_FOUND)
    listing = crud.list_resources(call, cards, cards.c.user_id == user.id)
    return records.Listing(expanded(call, listing.docs), listing.is_more)


def expanded(call: Call, docs: Sequence[str]) -> list[str]:
    """Return the cards' JSON with the objects embedded that ``expand`` names."""
    for name in expand_names(call.query.expand):
        tokens = [getattr(msgspec.json.decode(doc, type=References), name) for doc in docs]
        objects = load_docs(call, EMBEDDED[name], set(tokens))
        docs = [f'{doc[:-1]},"{name}":{objects[token]}}}' for doc, token in zip(docs, tokens, strict=True)]
    return list(docs)


def update_card(call: Call, body: CardUpdate) -> str:
    """Change a card's metadata, its fulfillment settings or its user.

    The user can change only while the card is ``UNACTIVATED``.
    """
    stored = lock_card(call, call.token)
    if stored is None:
        raise Problem(CARD_NOT_FOUND)
    crud.check_same_token(call, body)
    after = structs.replace(stored.card, **crud.changes_of(body))
    if body.metadata is not None:
        after = structs.replace(after, metadata=text_metadata(body.metadata))
    if body.fulfillment is not None:
        after = structs.replace(after, fulfillment=changed_fulfillment(stored.card, body.fulfillment))
    if after.user_token != stored.card.user_token:
        stored = move_card(call, stored, after.user_token)
    if after != stored.card:
        stored = change_card(call, stored, after)
    return records.text_of(stored.card)


def move_card(call: Call, stored: StoredCard, user_token: str) -> StoredCard:
    """Return the card with another user, whose account it draws on. The caller stores it.

    Raises a problem if the card is not UNACTIVATED or shares its number with another card.
    """
    if stored.card.state is not CardState.UNACTIVATED:
        raise bad_field("user_token", "can be changed only while the card is UNACTIVATED")
    if shares_number(call, stored):
        raise bad_field("user_token", "cannot be changed while another card has the same number")
    user = find_user(call, user_token)
    if user.holder_id != stored.holder_id:
        sync_revisions(call, {stored.holder_id, user.holder_id})
    return replace(stored, user_id=user.id, holder_id=user.holder_id)


def show_pan(call: Call) -> str:
    """Return a card with its clear number.

    The card's ``fulfillment_status`` becomes ``DIGITALLY_PRESENTED``.
    """
    query: ShowCode = call.query
    stored = lock_card(call, call.token)
    if stored is None:
        raise Problem(CARD_NOT_FOUND)
    if stored.card.fulfillment_status != "DIGITALLY_PRESENTED":
        stored = change_card(call, stored, structs.replace(stored.card, fulfillment_status="DIGITALLY_PRESENTED"))
        record_transition(call, stored, "fulfillment.digitally_presented", Cause(channel="SYSTEM"))
    return expanded(call, [records.text_of(shown(call, stored, pan=True, cvv=query.show_cvv_number))])[0]


def get_by_pan(call: Call, body: PanLookup) -> PanOwner:
    """Find a card by its number.

    If several cards have the number, such as a card and its reissue, the newest one that matches the other fields is returned.
    """
    matches = [stored_of(row) for row in find_by_pan(call, body.pan)]
    if not matches:
        raise Problem(CARD_UNKNOWN)
    if body.expiration is not None:
        matches = [stored for stored in matches if stored.card.expiration == body.expiration]
        if not matches:
            raise bad_field("expiration", "does not match the card")
    if body.cvv_number is not None:
        matches = [stored for stored in matches if security_codes(call, stored, body.pan)["cvv_number"] == body.cvv_number]
        if not matches:
            raise bad_field("cvv_number", "does not match the card")
    card = matches[0].card
    return PanOwner(
        created_time=card.created_time, last_modified_time=card.last_modified_time, user_token=card.user_token,
        card_token=card.token,
    )  # fmt: skip


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Cards"

routes = [
    post("/cards", CardCreate, create_card, Card, query=ShowBoth),
    get("/cards", list_cards, ExpandedCard, query=ByLastFour, paging=Paging()),
    get("/cards/{token}", get_card, ExpandedCard, query=Expand),
    put("/cards/{token}", CardUpdate, update_card, Card),
    get("/cards/user/{token}", list_cards_of_user, ExpandedCard, query=Expand, paging=Paging()),
    get("/cards/barcode/{barcode}", get_card_by_barcode, ExpandedCard, query=Expand),
    get("/cards/{token}/showpan", show_pan, ExpandedCard, query=ShowCode, writes=True),
    post("/cards/getbypan", PanLookup, get_by_pan, PanOwner, status=200, writes=False),
]
