"""Simulated authorizations: the request, and the path to the engine that all card simulations share."""

from decimal import Decimal
from typing import Any

import msgspec

from cardwright.core.iso8583_response import iso_echo
from cardwright.core.messages import CATEGORY_OF, Authorization, Details, Message
from cardwright.core.money import STORED_LIMIT
from cardwright.core.problems import bad_field
from cardwright.core.render import details_decoder, render
from cardwright.core.transaction_model import as_v2
from cardwright.core.transaction_types import RequestType
from cardwright.engine.batch import CardRequest, CardResult
from cardwright.engine.card_cache import CardEntry
from cardwright.engine.config_cache import Needs
from cardwright.kit.guard import check_url
from cardwright.outbox.endpoint import endpoint_id_of
from cardwright.outbox.events import Target
from cardwright.resources.common.call import App, EngineCall
from cardwright.resources.common.crud import fingerprint
from cardwright.resources.common.fields import text_or_none
from cardwright.resources.common.route import Scope, Shape, post
from cardwright.resources.simulations.v1_schemas import (
    AskRequest,
    AuthorizationRequest,
    BillingAddress,
    CardOptions,
    NetworkMetadata,
    SimulationAnswer,
    SimulationWebhook,
    TransactionOptions,
    fees_of,
    hold_ms_of,
    merchant_of,
    parse_message_amount,
)
from cardwright.storage.engine.store import CardRow
from cardwright.storage.envelopes import TARGET_CONTEXT, pin_context

# --- Actions: what a caller can do with it -------------------------------------------


async def simulate_authorization(call: EngineCall, body: AuthorizationRequest) -> bytes:
    """Simulate an authorization: the purchase is decided, funded and held. A decline gets 201 too."""
    return await ask(call, body, RequestType.PURCHASE, body.amount, body.cash_back_amount, is_pre_auth=body.is_pre_auth is True)


async def ask(
    call: EngineCall, body: AskRequest, request_type: RequestType, amount: Decimal, cash_back: Decimal | None = None, *,
    is_pre_auth: bool = False, echo: bool = True, **extra_details: Any,
) -> bytes:  # fmt: skip
    """Submit a request to the issuer. ``extra_details`` become fields of the message's details. For ``echo``, see ``submit``."""
    card, message = await message_of(call, body, request_type, amount, cash_back, is_pre_auth=is_pre_auth, **extra_details)
    return await submit(call.app, card, message, body, body.transaction_options, request=request_type, echo=echo)


async def message_of(
    call: EngineCall, body: AskRequest, request_type: RequestType, amount: Decimal, cash_back: Decimal | None = None, *,
    is_pre_auth: bool = False, **extra_details: Any,
) -> tuple[CardEntry, Authorization]:  # fmt: skip
    """Return the card and the message of a request.

    The typed PIN, security code and expiration date are compared here. The message has only the results.
    """
    app, key, options = call.app, (call.program_id, body.card_token), body.transaction_options
    typed_expiry = options is not None and options.card_expiration_date_yymm is not None
    sealed: CardRow | None = None
    if body.card_options is not None or body.pin is not None or typed_expiry:
        # The comparison precedes all locks of accounts. It uses the stored card, not a cached one.
        card, sealed = await app.engine.card_with_secrets(key)
    else:
        card = await app.engine.card(key)
    program = await app.engine.cache.program(call.program_id, 0)
    if cash_back is not None:
        extra_details["cash_back"] = parse_message_amount("cash_back_amount", cash_back, program.currency)
    if request_type in CATEGORY_OF:
        extra_details["velocity_category"] = CATEGORY_OF[request_type]
    if is_pre_auth:
        extra_details |= {"is_pre_auth": True, "hold_ms": hold_ms_of(options)}
    details = await _details(app, card, sealed, body, program.currency, extra_details)
    message = Authorization(
        amount=parse_message_amount("amount", amount, program.currency), details=details, request_type=request_type
    )
    if message.requested >= STORED_LIMIT:
        raise bad_field("amount", f"must be less than {STORED_LIMIT} minor units together with cash back and fees")
    return card, message


async def submit(
    app: App,
    card: CardEntry,
    message: Message,
    body: Shape,
    options: TransactionOptions | None,
    root_id: int | None = None,
    *,
    refund_of: int | None = None,
    request: str = "",
    echo: bool = True,
) -> bytes:
    """Submit a message to the engine and return the wire's response.

    ``root_id`` is the row that the message names. ``refund_of`` is the root of the chain that a refund refers to.

    All simulations share one space of transaction tokens. ``request`` distinguishes equal bodies of different simulations.

    With ``echo``, the response includes the network's response message. Without it, the response has only the transaction, in
    model v2.
    """
    token = options.transaction_token if options is not None else None
    webhook: SimulationWebhook | None = getattr(body, "webhook", None)
    card_request = CardRequest(
        card=card,
        message=message,
        seed=app.ids.bits(63),
        received_ms=app.real_clock(),
        root_id=root_id,
        refund_of=refund_of,
        inline_target=_sealed_target(app, card.key[0], webhook) if webhook is not None else None,
        chosen_token=token,
        request_hash=fingerprint(app, body, request) if token is not None else b"",
        view=answer_of if echo else answer_v2_of,
    )
    outcome = await app.engine.submit(card_request)
    if webhook is not None or outcome.program.subscriptions:
        app.wake_outbox()
    return outcome.answer


def answer_of(outcome: CardResult) -> bytes:
    """Return the response of a simulation: the transaction, and the response message to the network."""
    row, card = outcome.row, outcome.card
    details = details_decoder.decode(row.details)
    raw = iso_echo(row, details, card.shown_pan, card.card.expiration, outcome.program.short_code)
    return f'{{"transaction":{_transaction_of(outcome)},"raw_iso8583":{raw}}}'.encode()


def answer_v2_of(outcome: CardResult) -> bytes:
    """Return the response of Simulations 2.0: the transaction in model v2."""
    return f'{{"transaction":{as_v2(_transaction_of(outcome), details_decoder.decode(outcome.row.details))}}}'.encode()


def _transaction_of(outcome: CardResult) -> str:
    row, source = outcome.row, outcome.source
    return render(row, outcome.card.fragments, source.fragments if source is not None else None, row.first_state)


async def _details(
    app: App, card: CardEntry, sealed: CardRow | None, body: AskRequest, currency: str, extra_details: dict[str, Any]
) -> Details:
    card_options, metadata, options = body.card_options, body.network_metadata, body.transaction_options
    plain = Details(
        mid=str(body.mid),
        merchant=merchant_of(body.card_acceptor),
        fees=fees_of(body.network_fees, currency),
        network_metadata=_present(metadata) if metadata is not None else None,
        additional_data=options.additional_data if options is not None else None,
        **extra_details,
    )
    if sealed is not None and (card_options is not None or body.pin is not None):
        plain = await _with_verdicts(app, card, sealed, body, card_options or CardOptions(), plain)
    sent = text_or_none(options.card_expiration_date_yymm, "card_expiration_date_yymm", 4) if options is not None else None
    if sent is None:
        return plain
    expiration = card.card.expiration
    matches = sent.zfill(4) == expiration[2:] + expiration[:2] and plain.expiration_matches is not False
    return msgspec.structs.replace(plain, expiration_matches=matches)


async def _with_verdicts(
    app: App, card: CardEntry, sealed: CardRow, body: AskRequest, options: CardOptions, plain: Details
) -> Details:
    """Return the details with the results of comparing typed data with the card.

    The details contain neither the security code nor the PIN.
    """
    cvv, pin = text_or_none(options.cvv, "card_options.cvv", 3), text_or_none(body.pin)
    expiration = text_or_none(options.expiration, "card_options.expiration", 4)
    address = options.billing_address or BillingAddress()
    return msgspec.structs.replace(
        plain,
        card_present=options.card_present,
        expiration_matches=None if expiration is None else expiration.zfill(4) == card.card.expiration,
        security_code_matches=None if cvv is None else await _is_right_code(app, card, sealed, cvv.zfill(3)),
        pin_matches=None if pin is None else _is_right_pin(app, sealed, pin),
        typed_street=_unless_blank(address.address),
        typed_postal_code=_unless_blank(address.zip) or _unless_blank(address.compressed_zip),
    )


def _unless_blank(value: str | int | None) -> str | None:
    """Return the text of a part of an address, None if it is blank."""
    text = text_or_none(value)
    return text if text is not None and text.strip() else None


async def _is_right_code(app: App, card: CardEntry, sealed: CardRow, cvv: str) -> bool:
    program = await app.engine.cache.program(card.key[0], 0, Needs([card.card]))
    product = program.products[card.card.card_product_token]
    pan = app.vault.decrypt_pan(sealed.pan_sealed, str(program.id), card.card.token)
    if product.config.fulfillment.all_zero_card_security_code and cvv == "000":
        return True
    return app.vault.cvv(pan, card.card.expiration, card.card.service_code) == cvv


def _is_right_pin(app: App, sealed: CardRow, pin: str) -> bool:
    """Return True if the PIN is correct. Without a stored PIN, no PIN is."""
    return sealed.pin_sealed is not None and app.vault.open(sealed.pin_sealed, pin_context(sealed.card_id)) == pin


def _sealed_target(app: App, program_id: int, webhook: SimulationWebhook) -> Target:
    """Return the webhook of the request, encrypted, because its password is a secret. Raises a problem for a forbidden URL."""
    if (reason := check_url(webhook.endpoint, app.policy)) is not None:
        raise bad_field("webhook.endpoint", reason)
    sealed = app.vault.seal(msgspec.json.encode(webhook).decode(), TARGET_CONTEXT)
    return Target(endpoint_id_of(program_id, webhook.endpoint), sealed)


def _present(metadata: NetworkMetadata) -> dict[str, Any]:
    """Return the fields that are present. Raises a problem for JSON that cannot be stored."""
    fields = {name: value for name, value in msgspec.structs.asdict(metadata).items() if value is not None}
    try:
        msgspec.msgpack.encode(fields)
    except OverflowError:
        raise bad_field("network_metadata.installment_payment", "must not have integers beyond 64 bits") from None
    return fields


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Simulate"

routes = [
    post("/simulate/authorization", AuthorizationRequest, simulate_authorization, SimulationAnswer, scope=Scope.SIMULATION),
]
