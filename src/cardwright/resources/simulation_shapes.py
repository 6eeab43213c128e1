"""The shapes of Simulations 2.0: what an event says, whatever its type."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta

from cardwright.resources.route import Shape
from cardwright.resources.simulate_shapes import BillingAddress, NetworkFee, Number, SimulationWebhook

# --- Shapes: what travels on the wire ------------------------------------------------

Text255 = Annotated[str, Meta(max_length=255)]
Token = Annotated[str, Meta(min_length=1, max_length=36)]
Zip = Annotated[str, Meta(max_length=10)] | Number


class Terminal(Shape, frozen=True, kw_only=True):
    """The terminal, in the older form that stands inside the merchant."""

    partial_approval_capable: bool | None = None


class EventMerchant(Shape, frozen=True, kw_only=True):
    """The merchant; ``zip`` and ``country`` are what official clients send for ``postal_code`` and ``country_code``."""

    mid: Annotated[str, Meta(min_length=1, max_length=50)] | Number | None = None
    mcc: Annotated[str, Meta(max_length=5)] | Number | None = None
    name: Text255 | None = None
    address: Text255 | None = None
    city: Text255 | None = None
    state: Annotated[str, Meta(max_length=32)] | None = None
    postal_code: Zip | None = None
    zip: Zip | None = None
    country_code: Annotated[str, Meta(max_length=40)] | None = None
    country: Annotated[str, Meta(max_length=40)] | None = None
    poi: Terminal | None = None


class EventCardOptions(Shape, frozen=True, kw_only=True):
    """What was typed or shown at the till; the card is there unless this says otherwise."""

    cvv: Annotated[str, Meta(max_length=3)] | Number | None = None
    card_present: bool | None = None
    expiration: Annotated[str, Meta(min_length=4, max_length=4)] | Number | None = None
    pin: Annotated[str, Meta(max_length=15)] | Number | None = None
    billing_address: BillingAddress | None = None


class PointOfSale(Shape, frozen=True, kw_only=True):
    """The terminal."""

    partial_approval_capable: bool | None = None
    pan_entry_mode: (
        Literal[
            "MAG_STRIPE", "MANUAL", "MAG_STRIPE_CONTACTLESS", "CHIP", "CHIP_CONTACTLESS", "BAR_CODE", "OCR", "MICR",
            "CARD_ON_FILE", "CHIP_FALLBACK", "OTHER",
        ]
        | None
    ) = None  # fmt: skip


class CardEvent(Shape, frozen=True, kw_only=True):
    """What every event may say."""

    card_acceptor: EventMerchant | None = None
    card_options: EventCardOptions | None = None
    fees: tuple[NetworkFee, ...] | None = None
    pos: PointOfSale | None = None
    network: Literal["VISA", "MASTERCARD", "DISCOVER", "PULSE"] | None = None
    sub_network: (
        Literal["VISANET", "VISANETDEBIT", "VISAINTERLINK", "VISAPLUS", "MAESTRO", "CIRRUS", "MASTERCARDDEBIT"] | None
    ) = None
    currency_code: Annotated[str, Meta(min_length=3, max_length=3)] | None = None
    webhook: SimulationWebhook | None = None


class AskEvent(CardEvent, frozen=True, kw_only=True):
    """An event that begins something with a card."""

    card_token: Token
    amount: Decimal
    cash_back_amount: Decimal | None = None
    is_preauthorization: bool | None = None


class CashbackEvent(AskEvent, frozen=True, kw_only=True):
    """A purchase with cash at the till, which comes on top of the amount."""

    cash_back_amount: Decimal


class InquiryEvent(CardEvent, frozen=True, kw_only=True):
    """A question for the balances."""

    card_token: Token
    account_type: Literal["checking", "savings", "credit"]


class FollowEvent(CardEvent, frozen=True, kw_only=True):
    """An event that follows another; any member of the chain may be named."""

    preceding_related_transaction_token: Token
    amount: Decimal


class ClearingEvent(CardEvent, frozen=True, kw_only=True):
    """A clearing of what it names; with ``force_post`` of nothing, on a card or on the card of what it names."""

    amount: Decimal
    preceding_related_transaction_token: Token | None = None
    card_token: Token | None = None
    force_post: bool | None = None


class EventAnswer(Shape, frozen=True, kw_only=True):
    """The transaction that the event became, in transaction model v2."""

    transaction: dict[str, Any]
