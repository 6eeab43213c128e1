"""Simulations 2.0: card events. The event type in the path selects the network message.

One table maps event types to messages. All code except the shapes of requests is shared with the older simulations.
"""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

from msgspec import structs

from cardwright.core.enums import TYPE_NUMBER
from cardwright.core.messages import (
    CATEGORY_OF,
    STAND_IN_MERCHANT,
    Advice,
    Authorization,
    Clearing,
    Details,
    Message,
    Refund,
    Reversal,
    VelocityCategory,
)
from cardwright.core.problems import CARD_NOT_FOUND, CARD_UNKNOWN, ORIGINAL_NOT_FOUND, Problem, bad_field
from cardwright.core.transaction_types import (
    ANNOUNCED_REFUND,
    CREDIT,
    FAMILIES,
    PIN_HOLD,
    PIN_REFUND,
    PIN_REVERSAL,
    TYPE_OF,
    RequestType,
)
from cardwright.engine.card_cache import CardEntry
from cardwright.resources.common.call import EngineCall
from cardwright.resources.common.fields import check_positive, text_or_none
from cardwright.resources.common.route import Route, Scope, post
from cardwright.resources.simulations.v1_authorizations import ask, submit
from cardwright.resources.simulations.v1_follow_ups import root_type
from cardwright.resources.simulations.v1_schemas import (
    AskRequest,
    CardAcceptor,
    CardOptions,
    fees_of,
    merchant_of,
    parse_message_amount,
)
from cardwright.resources.simulations.v2_schemas import (
    AskEvent,
    CardEvent,
    CashbackEvent,
    ClearingEvent,
    EventAnswer,
    FollowEvent,
    InquiryEvent,
    check_conversion,
    echoed_of,
    within_family,
)

# --- Rules: pure ---------------------------------------------------------------------

STAND_IN_MID = "11111"
"""The merchant number of an event without one (choice)."""

SUBNETWORKS = {"VISA": "VISANET"}
PIN_SUBNETWORKS = {"VISA": "VISANETDEBIT"}
"""The default subnetwork of PIN debit events, by network."""

SIGNATURE = frozenset({TYPE_NUMBER["authorization"], TYPE_NUMBER["authorization.cashback"]})
ATM, QUASI = frozenset({TYPE_OF[RequestType.ATM_HOLD]}), frozenset({TYPE_OF[RequestType.QUASI_HOLD]})
HELD = SIGNATURE | ATM | QUASI
FUNDING = frozenset({TYPE_OF[RequestType.FUNDING_HOLD]})
PIN_DEBIT = frozenset(type_id for type_id, family in FAMILIES.items() if family.reversal == PIN_REVERSAL)
ANNOUNCED_CREDIT = frozenset({TYPE_OF[RequestType.CREDIT_HOLD]})
REFUNDED = frozenset({ANNOUNCED_REFUND})
"""The types of transactions that can begin the chain of an event."""

FORCED_CATEGORIES = {
    FAMILIES[TYPE_OF[request_type]].clearing: velocity_category
    for request_type, velocity_category in CATEGORY_OF.items()
    if TYPE_OF[request_type] in FAMILIES
}
"""The category of velocity controls for a forced clearing that is not a purchase."""

MessageOf = Callable[[int, Details], Message]


class Event(NamedTuple):
    """A row of the table: event type, shape of the request, and action."""

    name: str
    shape: type[CardEvent]
    act: Callable[[EngineCall, Any], Awaitable[bytes]]


def network_of(event: CardEvent, defaults: dict[str, str]) -> dict[str, Any]:
    """Return the network, the subnetwork and the PAN entry mode of an event as fields of the message's details."""
    network = event.network or "VISA"
    fields = {"network": network, "subnetwork": event.sub_network or defaults.get(network)}
    return fields | {"pan_entry_mode": event.pos.pan_entry_mode if event.pos is not None else None}


def acceptor_of(event: CardEvent) -> CardAcceptor:
    """Return the merchant and its terminal in the older shape."""
    acceptor, pos = event.card_acceptor, event.pos
    capable = pos is not None and pos.partial_approval_capable is True
    if acceptor is None:
        return CardAcceptor(partial_approval_capable=capable)
    if acceptor.poi is not None and acceptor.poi.partial_approval_capable:
        capable = True
    return CardAcceptor(
        mcc=acceptor.mcc, name=acceptor.name, address=acceptor.address, city=acceptor.city, state=acceptor.state,
        zip=acceptor.postal_code if acceptor.postal_code is not None else acceptor.zip,
        country=acceptor.country_code or acceptor.country, partial_approval_capable=capable,
    )  # fmt: skip


def mid_of(event: CardEvent) -> str:
    """Return the merchant number of an event, empty without one."""
    return "" if event.card_acceptor is None or event.card_acceptor.mid is None else str(event.card_acceptor.mid)


# --- Actions: what a caller can do with it -------------------------------------------


async def simulate_ask(call: EngineCall, event: AskEvent, request_type: RequestType) -> bytes:
    """Simulate an event that is a request to the issuer. A decline gets 201 too."""
    await _check(call, event)
    if request_type is not RequestType.PURCHASE and request_type is not RequestType.PIN_PURCHASE:
        _check_no_cash(event)
    if request_type in CATEGORY_OF:
        check_positive(event.amount)
    is_pre_auth = event.is_preauthorization is True or request_type is RequestType.PIN_HOLD
    return await _ask(call, event, event.card_token, request_type, event.amount, event.cash_back_amount, is_pre_auth=is_pre_auth)


async def simulate_inquiry(call: EngineCall, event: InquiryEvent) -> bytes:
    """Simulate a balance inquiry. It moves no money."""
    await _check(call, event)
    return await _ask(call, event, event.card_token, RequestType.BALANCE_INQUIRY, Decimal(0), from_account=event.account_type)


async def simulate_follow(call: EngineCall, event: FollowEvent, roots: frozenset[int], message_of: MessageOf) -> bytes:
    """Simulate an event that changes or ends a chain whose root has a type of ``roots``."""
    await _check(call, event)
    message = message_of(*await _amount_and_details(call, event, event.amount))
    if not isinstance(message, Advice):
        check_positive(event.amount)
    original = await call.app.engine.original((call.program_id, event.preceding_related_transaction_token))
    if await root_type(call, original) not in roots:
        raise Problem(ORIGINAL_NOT_FOUND)
    card = await call.app.engine.card((call.program_id, original.card_token))
    return await submit(call.app, card, message, event, None, original.first_id, echo=False)


async def simulate_clearing(call: EngineCall, event: ClearingEvent, roots: frozenset[int], forced_as: int) -> bytes:
    """Simulate a clearing. A forced one belongs to no authorization; only the card and the merchant of the original are used."""
    named = event.preceding_related_transaction_token
    if event.card_token is not None:
        # Official clients also send card_token. The named transaction decides the card, but the token must exist.
        await _card(call, event.card_token)
    if not event.force_post:
        if named is None:
            raise bad_field("preceding_related_transaction_token", "may not be null unless force_post is true")
        follow = FollowEvent(
            **{name: getattr(event, name) for name in CardEvent.__struct_fields__}, amount=event.amount,
            preceding_related_transaction_token=named,
        )  # fmt: skip
        return await simulate_follow(call, follow, roots, _clearing)
    if named is None and event.card_token is None:
        raise bad_field("card_token", "may not be null if force_post is true and preceding_related_transaction_token is absent")
    return await _standalone(call, event, event.amount, event.card_token, named, partial(_clearing, forced_as=forced_as))


async def simulate_refund(call: EngineCall, event: AskEvent, type_id: int) -> bytes:
    """Simulate a refund. It is matched to no purchase."""
    _check_no_cash(event)
    return await _standalone(call, event, event.amount, event.card_token, None, partial(_refund, type_id=type_id))


async def _ask(
    call: EngineCall,
    event: CardEvent,
    card_token: str,
    request_type: RequestType,
    amount: Decimal,
    cash_back: Decimal | None = None,
    **extra_details: Any,
) -> bytes:
    card_options = event.card_options
    typed = None if card_options is None else CardOptions(
        cvv=card_options.cvv, card_present=card_options.card_present is not False, expiration=card_options.expiration,
        billing_address=card_options.billing_address,
    )  # fmt: skip
    body = AskRequest(
        card_token=card_token, mid=mid_of(event) or STAND_IN_MID, card_acceptor=acceptor_of(event), network_fees=event.fees,
        card_options=typed, pin=None if card_options is None else text_or_none(card_options.pin), webhook=event.webhook,
    )  # fmt: skip
    defaults = PIN_SUBNETWORKS if request_type.startswith("pindebit") else SUBNETWORKS
    details = network_of(event, defaults) | ({"card_present": True} if typed is None else {})
    details["echoed"] = echoed_of(event)
    try:
        return await ask(call, body, request_type, amount, cash_back, echo=False, **details, **extra_details)
    except Problem as problem:
        raise _as_here(problem) from None


async def _standalone(
    call: EngineCall, event: CardEvent, amount: Decimal, card_token: str | None, named: str | None, message_of: MessageOf
) -> bytes:
    """Submit a message that belongs to no chain, for a card or for the card of an earlier transaction."""
    await _check(call, event)
    check_positive(amount)
    minor, details = await _amount_and_details(call, event, amount)
    app, original = call.app, None
    if named is not None:
        original = await app.engine.original((call.program_id, named))
        card_token = original.card_token
    elif not details.mid:
        details = structs.replace(details, mid=STAND_IN_MID)
    card = await _card(call, card_token or "")
    row_id = None if original is None else original.id
    return await submit(app, card, message_of(minor, details), event, None, row_id, echo=False)


async def _card(call: EngineCall, token: str) -> CardEntry:
    try:
        return await call.app.engine.card((call.program_id, token))
    except Problem as problem:
        raise _as_here(problem) from None


def _as_here(problem: Problem) -> Problem:
    """Return the problem with 404 for an unknown card, as Simulations 2.0 requires. The older simulations return 400."""
    return Problem(CARD_NOT_FOUND) if problem.kind is CARD_UNKNOWN else problem


async def _check(call: EngineCall, event: CardEvent) -> None:
    """Raise a problem that names the field for a wrong currency, an invalid fee or an invalid currency conversion."""
    program = await call.app.engine.cache.program(call.program_id, 0)
    if event.currency_code is not None and event.currency_code.upper() != program.currency:
        raise bad_field("currency_code", f"must be the program's currency, {program.currency}")
    fees_of(event.fees, program.currency, "fees")
    if event.currency_conversion is not None:
        check_conversion(event.currency_conversion, program.currency)


def _check_no_cash(event: AskEvent) -> None:
    if event.cash_back_amount:
        raise bad_field("cash_back_amount", "must be absent: only a purchase can include cash back")


async def _amount_and_details(call: EngineCall, event: CardEvent, amount: Decimal) -> tuple[int, Details]:
    """Return amount and details of a message that is not a request.

    If a follow-up names no network, the one of the chain applies.
    """
    program = await call.app.engine.cache.program(call.program_id, 0)
    details = Details(
        mid=mid_of(event),
        merchant=merchant_of(acceptor_of(event)) if event.card_acceptor is not None else STAND_IN_MERCHANT,
        fees=fees_of(event.fees, program.currency, "fees"),
        echoed=echoed_of(event),
        **(network_of(event, SUBNETWORKS) if event.network is not None or not isinstance(event, FollowEvent) else {}),
    )
    return parse_message_amount("amount", amount, program.currency), details


def _advice(amount: int, details: Details) -> Message:
    return Advice(amount=amount, details=details)


def _increment(amount: int, details: Details) -> Message:
    return Authorization(amount=amount, details=details, request_type=RequestType.INCREMENT)


def _clearing(amount: int, details: Details, *, forced_as: int | None = None) -> Message:
    if forced_as is None:
        return Clearing(amount=amount, details=details)
    details = structs.replace(details, velocity_category=FORCED_CATEGORIES.get(forced_as, VelocityCategory.PURCHASE))
    return Clearing(amount=amount, details=details, is_forced=True, forced_as=forced_as)


def _reversal(amount: int, details: Details) -> Message:
    return Reversal(amount=amount, details=details)


def _refund(amount: int, details: Details, *, type_id: int) -> Message:
    return Refund(amount=amount, details=details, type_id=type_id)


def _refunds(event_type: str) -> Event:
    return Event(event_type, AskEvent, partial(simulate_refund, type_id=TYPE_NUMBER[event_type]))


def _asks(event_type: str, request_type: RequestType, shape: type[AskEvent] = AskEvent) -> Event:
    return Event(event_type, shape, partial(simulate_ask, request_type=request_type))


def _follows(event_type: str, roots: frozenset[int], message_of: MessageOf) -> Event:
    return Event(event_type, FollowEvent, partial(simulate_follow, roots=roots, message_of=message_of))


def _clears(event_type: str, roots: frozenset[int]) -> Event:
    return Event(event_type, ClearingEvent, partial(simulate_clearing, roots=roots, forced_as=TYPE_NUMBER[event_type]))


EVENTS: tuple[Event, ...] = (
    _asks("authorization", RequestType.PURCHASE),
    _asks("authorization.cashback", RequestType.PURCHASE, CashbackEvent),
    _follows("authorization.incremental", SIGNATURE, _increment),
    _follows("authorization.advice", HELD, _advice),
    _clears("authorization.clearing", SIGNATURE),
    _follows("authorization.reversal", HELD, _reversal),
    _asks("authorization.atm.withdrawal", RequestType.ATM_HOLD),
    _clears("authorization.clearing.atm.withdrawal", ATM),
    _asks("authorization.quasi.cash", RequestType.QUASI_HOLD),
    _clears("authorization.clearing.quasi.cash", QUASI),
    _asks("account.funding.authorization", RequestType.FUNDING_HOLD),
    _clears("account.funding.authorization.clearing", FUNDING),
    _follows("account.funding.authorization.reversal", FUNDING, _reversal),
    _asks("account.funding.auth_plus_capture", RequestType.FUNDING),
    _follows("account.funding.auth_plus_capture.reversal", frozenset({TYPE_OF[RequestType.FUNDING]}), _reversal),
    _refunds("refund"),
    _refunds("refund.authorization"),
    _follows("refund.authorization.advice", REFUNDED, _advice),
    _clears("refund.authorization.clearing", REFUNDED),
    _follows("refund.authorization.reversal", REFUNDED, _reversal),
    _asks("pindebit", RequestType.PIN_PURCHASE),
    _asks("pindebit.cashback", RequestType.PIN_PURCHASE, CashbackEvent),
    _asks("pindebit.atm.withdrawal", RequestType.WITHDRAWAL),
    Event("pindebit.balanceinquiry", InquiryEvent, simulate_inquiry),
    _asks("pindebit.quasi.cash", RequestType.PIN_QUASI),
    _follows("pindebit.reversal", PIN_DEBIT, _reversal),
    _refunds("pindebit.refund"),
    _follows("pindebit.refund.reversal", frozenset({PIN_REFUND}), _reversal),
    _asks("pindebit.authorization", RequestType.PIN_HOLD),
    _clears("pindebit.authorization.clearing", frozenset({PIN_HOLD})),
    _follows("pindebit.authorization.reversal", frozenset({PIN_HOLD}), _reversal),
    _asks("original.credit.auth_plus_capture", RequestType.ORIGINAL_CREDIT),
    _follows("original.credit.auth_plus_capture.reversal", frozenset({CREDIT}), _reversal),
    _asks("original.credit.authorization", RequestType.CREDIT_HOLD),
    _clears("original.credit.authorization.clearing", ANNOUNCED_CREDIT),
    _follows("original.credit.authorization.reversal", ANNOUNCED_CREDIT, _reversal),
)
"""All event types of a card.

The wire has types but no paths for advice and reversal of pending credits and of PIN refunds. Cardwright adds these paths
(choice).
"""

# --- Routes: parse, act, render ------------------------------------------------------


def _route(event: Event) -> Route:
    async def simulate(call: EngineCall, body: CardEvent) -> bytes:
        return await event.act(call, within_family(event.name, body))

    simulate.__name__ = f"simulate_event_{event.name.replace('.', '_')}"
    simulate.__doc__ = f"Simulate the event `{event.name}`. A decline gets 201 too."
    path = f"/simulations/cardtransactions/{event.name}"
    return post(path, event.shape, simulate, EventAnswer, scope=Scope.SIMULATION)


TAG = "Simulations"

routes = [_route(event) for event in EVENTS]
