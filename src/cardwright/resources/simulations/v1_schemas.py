"""Simulation schemas: the common shapes of requests, and the rules that convert them to values."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from msgspec import Meta, field

from cardwright.core.messages import STAND_IN_MERCHANT, Fee, Merchant
from cardwright.core.money import STORED_LIMIT
from cardwright.core.problems import bad_field
from cardwright.kit.canonical import reading
from cardwright.kit.clock import DAY_MS
from cardwright.resources.common.fields import Number, Text255, parse_amount, parse_duration, text_or_none
from cardwright.resources.common.route import Blank, Shape

# --- Shapes: what travels on the wire ------------------------------------------------

Mid = Annotated[str, Meta(min_length=1, max_length=50)]


def digits(count: int) -> Meta:
    """Return the constraint of a text of digits. Leading zeros are optional, and an empty text counts as absent."""
    return reading(lambda text: text.zfill(count) if text else None)


Mcc = Annotated[str, Meta(max_length=5), digits(4)] | Number
SecurityCode = Annotated[str, Meta(max_length=3), digits(3)] | Number
Expiration = Annotated[str, Meta(min_length=4, max_length=4), digits(4)] | Number
CashBack = Annotated[Decimal, reading(lambda amount: amount or None)]


HOLD_DAYS_MAX = 100
"""Maximum hold of a pre-authorization in days: the wire's limit for the holds of a merchant category."""

HOLD_MAX_MS = HOLD_DAYS_MAX * DAY_MS

FEE_TYPES = (
    "ISSUER_FEE", "SWITCH_FEE", "PINDEBIT_ASSOC_FEE", "ACQUIRER_FEE", "INTERCHANGE_FEE",
    "CUR_CONV_CARDHOLDER_FEE", "CUR_CONV_ISSUER_FEE", "CROSS_BORDER_ISSUER_FEE",
)  # fmt: skip


class SimulationWebhook(Shape, frozen=True, kw_only=True):
    """The endpoint for the notification of this simulation.

    Without a user name, no Authorization header is sent.
    """

    endpoint: Annotated[str, Meta(min_length=1, max_length=512)]
    username: str | None = None
    password: str | None = None
    secret: str | None = None


class NetworkFee(Shape, frozen=True, kw_only=True):
    """A fee that the network reports with the purchase."""

    type: str
    amount: Decimal
    credit_debit: str


class CardAcceptor(Shape, frozen=True, kw_only=True):
    """The merchant and its terminal. Absent fields have the values of the stand-in merchant."""

    blank: ClassVar[Blank | None] = Blank.ANYTHING

    mcc: Mcc | None = None
    partial_approval_capable: bool | None = False
    name: Annotated[str, Meta(max_length=50)] | None = None
    address: Text255 | None = None
    city: Annotated[str, Meta(max_length=40)] | None = None
    state: Annotated[str, Meta(max_length=32)] | None = None
    zip: Annotated[str, Meta(max_length=10)] | Number | None = None
    country: Annotated[str, Meta(max_length=40)] | None = None
    ecommerce_security_level_indicator: Text255 | None = None
    phone: Text255 | None = None
    url: Text255 | None = None
    customer_service_phone: Text255 | None = None


class BillingAddress(Shape, frozen=True, kw_only=True):
    """The address typed at checkout."""

    first_name: Text255 | None = None
    last_name: Text255 | None = None
    address: Text255 | None = None
    zip: Annotated[str, Meta(max_length=20)] | Number | None = None
    compressed_zip: Annotated[str, Meta(max_length=20)] | Number | None = None


class CardOptions(Shape, frozen=True, kw_only=True):
    """The card data typed or presented at the terminal."""

    cvv: SecurityCode | None = None
    card_present: bool | None = None
    expiration: Expiration | None = None
    billing_address: BillingAddress | None = None


class TransactionOptions(Shape, frozen=True, kw_only=True):
    """Diagnostic options.

    ``transaction_token`` becomes the token of the new transaction. A repeated request with it gets the first response.
    """

    additional_data: Text255 | None = None
    database_transaction_timeout: int | None = None
    transaction_timeout_threshold_seconds: int | None = None
    pre_auth_time_limit: Annotated[str, Meta(max_length=20)] | Number | None = None
    send_expiration_date: bool | None = False
    send_track_data: bool | None = False
    card_expiration_date_yymm: Expiration | None = None
    encryption_key_id: str | None = None
    transaction_token: Annotated[str, Meta(min_length=1, max_length=36)] | None = None
    is_async: bool | None = False


class NetworkMetadata(Shape, frozen=True, kw_only=True):
    """The network's data about the program of the card. The transaction repeats it."""

    blank: ClassVar[Blank | None] = Blank.ANYTHING

    product_id: str | None = None
    program_id: str | None = None
    spend_qualifier: str | None = None
    surcharge_free_atm_network: str | None = None
    account_identification_1: str | None = None
    incoming_response_code: str | None = None
    installment_payment: dict[str, Any] | None = None


class AskRequest(Shape, frozen=True, kw_only=True):
    """The common fields of all requests to the issuer."""

    card_token: Annotated[str, Meta(min_length=1, max_length=36)]
    mid: Mid | Number
    pin: Annotated[str, Meta(min_length=1, max_length=50)] | Number | None = None
    card_options: CardOptions | None = None
    card_acceptor: CardAcceptor | None = None
    transaction_options: TransactionOptions | None = None
    network_metadata: NetworkMetadata | None = None
    network_fees: tuple[NetworkFee, ...] | None = None
    webhook: SimulationWebhook | None = None


class AuthorizationRequest(AskRequest, frozen=True, kw_only=True):
    """A purchase to simulate."""

    amount: Decimal
    cash_back_amount: CashBack | None = None
    is_pre_auth: bool | None = False


class SimulationAnswer(Shape, frozen=True, kw_only=True):
    """The transaction of the message, and the network's response message."""

    transaction: dict[str, Any]
    raw_iso8583: dict[str, Any] = field(default_factory=dict)


# --- Rules: pure ---------------------------------------------------------------------


def parse_message_amount(name: str, amount: Decimal, currency: str) -> int:
    """Return the amount of a network message in minor units.

    Its limit is larger than that of an account, because an amount that no account can hold is declined.
    """
    return parse_amount(name, amount, currency, STORED_LIMIT)


def merchant_of(sent: CardAcceptor | None) -> Merchant:
    """Return the merchant with absent fields taken from the stand-in merchant.

    A described terminal is capable of partial approval only if ``partial_approval_capable`` is true.
    """
    if sent is None:
        return STAND_IN_MERCHANT
    mcc = text_or_none(sent.mcc)
    if mcc is not None and not (mcc.isascii() and mcc.isdigit() and len(mcc) <= 4):
        raise bad_field("card_acceptor.mcc", "must be four digits")
    given: Mapping[str, Any] = {
        "mcc": mcc and mcc.zfill(4),
        "name": sent.name,
        "address": sent.address,
        "city": sent.city,
        "state": sent.state,
        "postal_code": text_or_none(sent.zip, "card_acceptor.zip", 10),
        "country": sent.country,
        "security_level": sent.ecommerce_security_level_indicator,
        "phone": sent.phone,
        "url": sent.url,
        "customer_service_phone": sent.customer_service_phone,
    }
    known = {name: value for name, value in given.items() if value}
    return Merchant(**known, partial_approval_capable=sent.partial_approval_capable is True)


def fees_of(sent: tuple[NetworkFee, ...] | None, currency: str, field: str = "network_fees") -> tuple[Fee, ...]:
    """Return the network fees with amounts in minor units. Raises a problem that names the field."""
    fees = []
    for index, fee in enumerate(sent or ()):
        if fee.type not in FEE_TYPES:
            raise bad_field(f"{field}[{index}].type", f"must be one of {', '.join(FEE_TYPES)}")
        if fee.credit_debit not in ("C", "D"):
            raise bad_field(f"{field}[{index}].credit_debit", "must be C or D")
        amount = parse_message_amount(f"{field}[{index}].amount", fee.amount, currency)
        fees.append(Fee(fee.type, amount, fee.credit_debit))
    return tuple(fees)


def hold_ms_of(options: TransactionOptions | None) -> int | None:
    """Return the requested hold of a pre-authorization in ms, None without one.

    ``pre_auth_time_limit`` is a duration such as ``90m``, or a number of days. Raises a problem if it is 0 or exceeds
    HOLD_DAYS_MAX.
    """
    text = text_or_none(options.pre_auth_time_limit) if options is not None else None
    if text is None:
        return None
    days = text.isascii() and text.isdigit()
    limit = parse_duration("transaction_options.pre_auth_time_limit", f"{text}d" if days else text)
    if not 0 < limit <= HOLD_MAX_MS:
        raise bad_field("transaction_options.pre_auth_time_limit", f"must be more than 0 and at most {HOLD_DAYS_MAX} days")
    return limit
