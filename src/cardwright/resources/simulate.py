"""Simulations: messages as a card network would send them, from a JSON body."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from cardwright.core.iso_echo import iso_echo
from cardwright.core.messages import STAND_IN_MERCHANT, Authorization, Details, Fee, Merchant, Message
from cardwright.core.money import BadAmount, minor_units
from cardwright.core.problems import bad_field
from cardwright.core.render import details_decoder, render
from cardwright.engine.cache import CardEntry
from cardwright.engine.heart import Asked, Outcome
from cardwright.kit.guard import check_url
from cardwright.outbox.endpoint import TARGET_CONTEXT
from cardwright.resources.app import App, EngineCall
from cardwright.resources.route import Scope, Shape, post
from cardwright.storage.records import request_hash

# --- Shapes: what travels on the wire ------------------------------------------------

Mid = Annotated[str, Meta(min_length=1, max_length=50)]
Number = Annotated[int, Meta(ge=0, lt=10**18)]
"""A text of digits that a client sends as a number; the size of the text is checked where it is used."""

Text255 = Annotated[str, Meta(max_length=255)]

FEE_TYPES = (
    "ISSUER_FEE", "SWITCH_FEE", "PINDEBIT_ASSOC_FEE", "ACQUIRER_FEE", "INTERCHANGE_FEE",
    "CUR_CONV_CARDHOLDER_FEE", "CUR_CONV_ISSUER_FEE", "CROSS_BORDER_ISSUER_FEE",
)  # fmt: skip


class SimulationWebhook(Shape, frozen=True, kw_only=True):
    """Where the notification of this one simulation goes. Without user name and password no Authorization header is sent."""

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
    """The merchant and its terminal; what is absent is the stand-in merchant's."""

    mcc: Annotated[str, Meta(max_length=5)] | Number | None = None
    partial_approval_capable: bool | None = None
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
    """What was typed or shown at the till."""

    cvv: Annotated[str, Meta(max_length=3)] | Number | None = None
    card_present: bool | None = None
    expiration: Annotated[str, Meta(min_length=4, max_length=4)] | Number | None = None
    billing_address: BillingAddress | None = None


class TransactionOptions(Shape, frozen=True, kw_only=True):
    """Diagnostic knobs. ``transaction_token`` names the new transaction: a repeat with it gives the first one's answer."""

    additional_data: Text255 | None = None
    database_transaction_timeout: int | None = None
    transaction_timeout_threshold_seconds: int | None = None
    pre_auth_time_limit: str | None = None
    send_expiration_date: bool | None = None
    send_track_data: bool | None = None
    card_expiration_date_yymm: Annotated[str, Meta(min_length=4, max_length=4)] | None = None
    encryption_key_id: str | None = None
    transaction_token: Annotated[str, Meta(min_length=1, max_length=36)] | None = None
    is_async: bool | None = None


class NetworkMetadata(Shape, frozen=True, kw_only=True):
    """What the network says about the card's program; echoed in the transaction."""

    product_id: str | None = None
    program_id: str | None = None
    spend_qualifier: str | None = None
    surcharge_free_atm_network: str | None = None
    account_identification_1: str | None = None
    incoming_response_code: str | None = None
    installment_payment: dict[str, Any] | None = None


class AuthorizationRequest(Shape, frozen=True, kw_only=True):
    """A purchase to be simulated."""

    amount: Decimal
    card_token: Annotated[str, Meta(min_length=1, max_length=36)]
    mid: Mid | Number
    cash_back_amount: Decimal | None = None
    is_pre_auth: bool | None = None
    pin: Annotated[str, Meta(min_length=1, max_length=50)] | Number | None = None
    card_options: CardOptions | None = None
    card_acceptor: CardAcceptor | None = None
    transaction_options: TransactionOptions | None = None
    network_metadata: NetworkMetadata | None = None
    network_fees: tuple[NetworkFee, ...] | None = None
    webhook: SimulationWebhook | None = None


class SimulationAnswer(Shape, frozen=True, kw_only=True):
    """The transaction that the message became, and the network's response message."""

    transaction: dict[str, Any]
    raw_iso8583: dict[str, Any] = field(default_factory=dict)


# --- Rules: pure ---------------------------------------------------------------------


def parse_amount(name: str, amount: Decimal, currency: str) -> int:
    """Minor units. Raises a problem that names the field."""
    try:
        return minor_units(amount, currency)
    except BadAmount as error:
        raise bad_field(name, str(error)) from None


def text_or_none(value: str | int | None, field: str = "", size_max: int = 18) -> str | None:
    """Text that a client may have sent as a number; an empty text says nothing. Raises a problem when the number is too long."""
    if value is None or value == "":
        return None
    if len(str(value)) > size_max and isinstance(value, int):
        raise bad_field(field, f"may have at most {size_max} digits")
    return str(value)


def merchant_of(sent: CardAcceptor | None) -> Merchant:
    """The merchant as sent, completed from the stand-in. A terminal that is described at all is capable of partial approval
    only when it says so."""
    if sent is None:
        return STAND_IN_MERCHANT
    mcc = text_or_none(sent.mcc)
    if mcc is not None and not (mcc.isascii() and mcc.isdigit() and len(mcc) <= 4):
        raise bad_field("card_acceptor.mcc", "must be four digits")
    given: Mapping[str, Any] = {
        "mcc": mcc and mcc.zfill(4), "name": sent.name, "address": sent.address, "city": sent.city, "state": sent.state,
        "postal_code": text_or_none(sent.zip, "card_acceptor.zip", 10), "country": sent.country,
        "security_level": sent.ecommerce_security_level_indicator,
        "phone": sent.phone, "url": sent.url, "customer_service_phone": sent.customer_service_phone,
    }
    known = {name: value for name, value in given.items() if value}
    return Merchant(**known, partial_approval_capable=sent.partial_approval_capable is True)


def fees_of(sent: tuple[NetworkFee, ...] | None, currency: str) -> tuple[Fee, ...]:
    """Network fees in minor units. Raises a problem that names the field."""
    fees = []
    for index, fee in enumerate(sent or ()):
        if fee.type not in FEE_TYPES:
            raise bad_field(f"network_fees[{index}].type", f"must be one of {', '.join(FEE_TYPES)}")
        if fee.credit_debit not in ("C", "D"):
            raise bad_field(f"network_fees[{index}].credit_debit", "must be C or D")
        fees.append(Fee(fee.type, parse_amount(f"network_fees[{index}].amount", fee.amount, currency), fee.credit_debit))
    return tuple(fees)


# --- Actions: what one can do with it ------------------------------------------------


async def simulate_authorization(call: EngineCall, body: AuthorizationRequest) -> bytes:
    """Simulates an authorization: a purchase is decided, funded and held. A decline is a 201 too."""
    card, message = await message_of(call, body)
    return await submit(call.app, card, message, body, body.transaction_options)


async def message_of(call: EngineCall, body: AuthorizationRequest) -> tuple[CardEntry, Authorization]:
    """The card and the message that a request asks for; what was typed at the till is compared here and goes no further."""
    app, key = call.app, (call.program_id, body.card_token)
    if body.card_options is not None or body.pin is not None:
        # What was typed is compared here, before any account is locked: with the card as it is now, not as it was cached.
        await app.engine.cache.reload_cards([key])
    card = await app.engine.card(key)
    program = await app.engine.cache.program(call.program_id, 0)
    return card, Authorization(
        amount=parse_amount("amount", body.amount, program.currency),
        details=await _details(app, card, body, program.currency),
    )


async def submit(
    app: App,
    card: CardEntry,
    message: Message,
    body: Shape,
    options: TransactionOptions | None,
    root_id: int | None = None,
) -> bytes:
    """Has a message decided and answers as the wire does; ``root_id`` is the row of the chain that it names."""
    token = options.transaction_token if options is not None else None
    webhook: SimulationWebhook | None = getattr(body, "webhook", None)
    asked = Asked(
        card=card,
        message=message,
        seed=app.ids.bits(63),
        received_ms=app.real_clock(),
        root_id=root_id,
        inline_target=_sealed_target(app, webhook) if webhook is not None else None,
        chosen_token=token,
        request_hash=request_hash(body) if token is not None else b"",
    )
    outcome = await app.engine.submit(asked)
    if webhook is not None or outcome.program.subscriptions:
        app.wake_outbox()
    return answer_of(outcome)


def answer_of(outcome: Outcome) -> bytes:
    """The wire's answer to a simulation."""
    row, card, program, source = outcome
    details = details_decoder.decode(row.details)
    echo = iso_echo(row, details, card.shown_pan, card.card.expiration, program.short_code)
    transaction = render(row, card.face, source.face if source is not None else None, row.first_state)
    return f'{{"transaction":{transaction},"raw_iso8583":{echo}}}'.encode()


async def _details(app: App, card: CardEntry, body: AuthorizationRequest, currency: str) -> Details:
    options, metadata = body.card_options, body.network_metadata
    cash_back = parse_amount("cash_back_amount", body.cash_back_amount, currency) if body.cash_back_amount is not None else 0
    plain = Details(
        mid=str(body.mid),
        merchant=merchant_of(body.card_acceptor),
        cash_back=cash_back,
        fees=fees_of(body.network_fees, currency),
        is_pre_auth=body.is_pre_auth is True,
        network_metadata=_present(metadata) if metadata is not None else None,
        additional_data=body.transaction_options.additional_data if body.transaction_options is not None else None,
    )
    if options is None and body.pin is None:
        return plain
    return await _with_verdicts(app, card, body, options or CardOptions(), plain)


async def _with_verdicts(
    app: App, card: CardEntry, body: AuthorizationRequest, options: CardOptions, plain: Details
) -> Details:
    """Compares what was typed with the card, so that neither code nor PIN goes any further."""
    cvv, pin = text_or_none(options.cvv, "card_options.cvv", 3), text_or_none(body.pin)
    expiration = text_or_none(options.expiration, "card_options.expiration", 4)
    address = options.billing_address
    postal_code = text_or_none(address.zip) or text_or_none(address.compressed_zip) if address is not None else None
    return msgspec.structs.replace(
        plain,
        card_present=options.card_present,
        expiration_matches=None if expiration is None else expiration.zfill(4) == card.card.expiration,
        security_code_matches=None if cvv is None else await _is_right_code(app, card, cvv.zfill(3)),
        pin_matches=None if pin is None else _is_right_pin(app, card, pin),
        typed_street=(address.address or None) if address is not None else None,
        typed_postal_code=postal_code,
    )


async def _is_right_code(app: App, card: CardEntry, cvv: str) -> bool:
    program = await app.engine.cache.program(card.key[0], 0)
    await app.engine.cache.products(program, [card.card.card_product_token])
    product = program.products[card.card.card_product_token]
    pan = app.vault.decrypt_pan(card.pan_sealed, str(program.id), card.card.token)
    if product.config.fulfillment.all_zero_card_security_code and cvv == "000":
        return True
    return app.vault.cvv(pan, card.card.expiration, card.card.service_code) == cvv


def _is_right_pin(app: App, card: CardEntry, pin: str) -> bool:
    """A card without a PIN has no right one."""
    return card.pin_sealed is not None and app.vault.open(card.pin_sealed, f"pin:{card.card_id}") == pin


def _sealed_target(app: App, webhook: SimulationWebhook) -> bytes:
    """The request's own webhook, sealed: its password is a secret at rest like any other."""
    if (reason := check_url(webhook.endpoint, app.policy)) is not None:
        raise bad_field("webhook.endpoint", reason)
    return app.vault.seal(msgspec.json.encode(webhook).decode(), TARGET_CONTEXT)


def _present(metadata: NetworkMetadata) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(metadata).items() if value is not None}


# --- Routes: parse, act, view --------------------------------------------------------

routes = [
    post(
        "/simulate/authorization", AuthorizationRequest, simulate_authorization, SimulationAnswer, scope=Scope.SIMULATION
    ),
]
