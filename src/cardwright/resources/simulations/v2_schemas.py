"""Simulations 2.0 schemas: the fields of events, and the objects that a transaction repeats as sent."""

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, structs

from cardwright.core.money import code_of
from cardwright.resources.common.fields import Number, Text255, Token, check_number, text_or_none
from cardwright.resources.common.route import Blank, Shape
from cardwright.resources.simulations.v1_schemas import BillingAddress, NetworkFee, SimulationWebhook, parse_message_amount

# --- Shapes: what travels on the wire ------------------------------------------------

Zip = Annotated[str, Meta(max_length=10)] | Number


class Terminal(Shape, frozen=True, kw_only=True):
    """The terminal, in the older form as a part of the merchant."""

    blank: ClassVar[Blank | None] = Blank.ANYTHING

    partial_approval_capable: bool | None = None


class EventMerchant(Shape, frozen=True, kw_only=True):
    """The merchant.

    ``zip`` and ``country`` are the names that official clients use for ``postal_code`` and ``country_code``.
    """

    blank: ClassVar[Blank | None] = Blank.ANYTHING

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
    """The card data typed or presented at the terminal. By default, the card is present."""

    cvv: Annotated[str, Meta(max_length=3)] | Number | None = None
    card_present: bool | None = None
    expiration: Annotated[str, Meta(min_length=4, max_length=4)] | Number | None = None
    pin: Annotated[str, Meta(max_length=15)] | Number | None = None
    billing_address: BillingAddress | None = None


class PointOfSale(Shape, frozen=True, kw_only=True):
    """The terminal of the merchant."""

    blank: ClassVar[Blank | None] = Blank.ANYTHING

    partial_approval_capable: bool | None = None
    pan_entry_mode: (
        Literal[
            "MAG_STRIPE", "MANUAL", "MAG_STRIPE_CONTACTLESS", "CHIP", "CHIP_CONTACTLESS", "BAR_CODE", "OCR", "MICR",
            "CARD_ON_FILE", "CHIP_FALLBACK", "OTHER",
        ]
        | None
    ) = None  # fmt: skip


class Conversion(Shape, frozen=True, kw_only=True):
    """The amount in the merchant's currency. It is only repeated, not converted."""

    original_amount: Decimal | None = None
    conversion_rate: Decimal | None = None
    original_currency_code: Annotated[str, Meta(min_length=3, max_length=3)] | Number | None = None


Funds = Literal[
    "CREDIT", "DEBIT", "PREPAID", "DEPOSIT_ACCOUNT", "CASH", "MOBILE_MONEY_ACCOUNT", "NON_VISA_CREDIT", "CHECK", "ACH"
]
AccountType = Literal[
    "OTHER", "RTN_BANK_ACCOUNT", "IBAN", "CARD_ACCOUNT", "EMAIL", "PHONE_NUMBER",
    "BANK_ACCOUNT_NUMBER_AND_BANK_IDENTIFICATION_CODE", "WALLET_ID", "SOCIAL_NETWORK_ID",
]  # fmt: skip
Sort = Literal[
    "ACCOUNT_TO_ACCOUNT", "PERSON_TO_PERSON", "WALLET_TRANSFER", "MONEY_TRANSFER_BY_BANK", "BUSINESS_TO_BUSINESS",
    "DISBURSEMENT", "GOVERNMENT_DISBURSEMENT", "GAMBLING_PAYOUT", "LOYALTY", "MERCHANT_DISBURSEMENT",
    "ONLINE_GAMBLING_PAYOUT", "PENSION_DISBURSEMENT", "PREPAID_LOADS", "CARD_BILL_PAYMENT", "BILL_PAYMENT", "CASH_CLAIM",
    "CASH_IN", "CASH_OUT", "MOBILE_AIR_TIME_PAYMENT", "MONEY_TRANSFER_BY_MERCHANT", "FACE_TO_FACE_MERCHANT_PAYMENT",
    "GOVERNMENT_PAYMENT", "PAYMENTS_GOODS_SERVICES", "FUNDS_TRANSFER", "GENERAL_BUSINESS_TO_BUSINESS_TRANSFER",
    "BUSINESS_TO_BUSINESS_TRANSFER", "CASH_DEPOSIT", "PURCHASE_REPAYMENT", "AFT_OR_OCT_ELIGIBILITY",
    "CONSUMER_BILL_PAYMENT", "REQUEST_TO_PAY", "LIQUID_ASSET", "FAST_REFUND", "GAMING_PAYMENT",
]  # fmt: skip
"""The kinds of transfers. Account funding and original credits share one list; on the wire, their lists differ (choice)."""


class AccountFunding(Shape, frozen=True, kw_only=True):
    """The purpose and the receiver of a payment from a card to another account."""

    first_name: Text255
    funding_source: Funds
    receiver_account_type: AccountType
    transaction_type: Sort
    last_name: Text255 | None = None
    receiver_name: Text255 | None = None
    transaction_purpose: Text255 | None = None


class OriginalCreditData(Shape, frozen=True, kw_only=True):
    """The purpose and the sender of a payment to a card."""

    funding_source: Funds | None = None
    screening_score: Annotated[str, Meta(max_length=3)] | Number | None = None
    sender_account_type: AccountType | None = None
    sender_name: Text255 | None = None
    transaction_type: Sort | None = None


class Person(Shape, frozen=True, kw_only=True):
    """The parts of a person's name."""

    first_name: Text255 | None = None
    middle_name: Text255 | None = None
    last_name: Text255 | None = None


class NameVerificationResponse(Shape, frozen=True, kw_only=True):
    """The result of a name verification."""

    blank: ClassVar[Blank | None] = Blank.ANYTHING

    code: Text255 | None = None
    memo: Text255 | None = None


class NameVerification(Shape, frozen=True, kw_only=True):
    """A name verification of the network: its request and its response."""

    request: Person | None = None
    on_file: Person | None = None
    response: NameVerificationResponse | None = None
    request_type: Literal["SENDER", "RECEIVER"] | None = None


class CardEvent(Shape, frozen=True, kw_only=True):
    """The common fields of all events."""

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
    currency_conversion: Conversion | None = None
    account_funding: AccountFunding | None = None
    original_credit: OriginalCreditData | None = None
    account_name_verification: NameVerification | None = None


class AskEvent(CardEvent, frozen=True, kw_only=True):
    """An event that is a request to the issuer."""

    card_token: Token
    amount: Decimal
    cash_back_amount: Decimal | None = None
    is_preauthorization: bool | None = None


class CashbackEvent(AskEvent, frozen=True, kw_only=True):
    """A purchase with cash back, which is added to the amount."""

    cash_back_amount: Decimal


class InquiryEvent(CardEvent, frozen=True, kw_only=True):
    """A balance inquiry."""

    card_token: Token
    account_type: Literal["checking", "savings", "credit"]


class FollowEvent(CardEvent, frozen=True, kw_only=True):
    """An event that follows another one. It can name any member of the chain."""

    preceding_related_transaction_token: Token
    amount: Decimal


class ClearingEvent(CardEvent, frozen=True, kw_only=True):
    """A clearing of the named transaction.

    With ``force_post``, it clears no transaction: it needs a card, or a transaction whose card it uses.
    """

    amount: Decimal
    preceding_related_transaction_token: Token | None = None
    card_token: Token | None = None
    force_post: bool | None = None


class EventAnswer(Shape, frozen=True, kw_only=True):
    """The transaction of the event, in transaction model v2."""

    transaction: dict[str, Any]


# --- Rules: pure ---------------------------------------------------------------------

ECHOED = {
    "currency_conversion": ("",),
    "account_funding": ("account.funding.",),
    "original_credit": ("original.credit.",),
    "account_name_verification": ("authorization", "pindebit"),
}
"""The objects of a request that the transaction repeats, each with the prefixes of the event types that support it."""

_encoder = msgspec.json.Encoder(decimal_format="number")


def within_family(name: str, event: CardEvent) -> CardEvent:
    """Return the event without the objects that its type does not support. They are ignored like unknown fields."""
    strange = [field for field, families in ECHOED.items() if not name.startswith(families)]
    replacements = {field: None for field in strange if getattr(event, field) is not None}
    return structs.replace(event, **replacements) if replacements else event


def check_conversion(conversion: Conversion, currency: str) -> None:
    """Raise a problem that names the field for an invalid amount or rate. An unknown currency is treated like the program's."""
    where = "currency_conversion"
    code = text_or_none(conversion.original_currency_code, f"{where}.original_currency_code", 3)
    if conversion.original_amount is not None:
        parse_message_amount(f"{where}.original_amount", conversion.original_amount, (code and code_of(code)) or currency)
    if conversion.conversion_rate is not None:
        check_number(f"{where}.conversion_rate", conversion.conversion_rate)


def echoed_of(event: CardEvent) -> str | None:
    """Return the repeated objects as a JSON object, None if there are none."""
    fields = {name: _without_nulls(value) for name in ECHOED if (value := getattr(event, name)) is not None}
    if not fields:
        return None
    if "currency_conversion" in fields:
        fields["currency_conversion"] = {"network": fields["currency_conversion"]}
    return _encoder.encode(fields).decode()


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, msgspec.Struct):
        # Codes and scores are text, even if they were sent as numbers.
        return str(value) if isinstance(value, int) else value
    return {name: _without_nulls(item) for name, item in structs.asdict(value).items() if item is not None}
