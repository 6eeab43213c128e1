"""Simulated follow-ups of a transaction: advice, completion, reversal, clearing, refund and forced clearing."""

from collections.abc import Callable, Container
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from cardwright.core.messages import Advice, Clearing, Details, Message, Refund, Reversal
from cardwright.core.problems import ORIGINAL_NOT_FOUND, Problem, bad_field
from cardwright.core.responses import APPROVALS, REASON_OF
from cardwright.core.transaction_types import FAMILIES, PIN_HOLD, Family
from cardwright.resources.common.call import EngineCall
from cardwright.resources.common.fields import Number, check_positive
from cardwright.resources.common.route import Scope, Shape, post
from cardwright.resources.simulations.v1_authorizations import submit
from cardwright.resources.simulations.v1_schemas import (
    CardAcceptor,
    Mid,
    NetworkFee,
    SimulationAnswer,
    SimulationWebhook,
    TransactionOptions,
    fees_of,
    merchant_of,
    parse_message_amount,
)
from cardwright.storage.original_transactions import Original

# --- Shapes: what travels on the wire ------------------------------------------------

OriginalToken = Annotated[str, Meta(min_length=1, max_length=36)]


class FollowUp(Shape, frozen=True, kw_only=True):
    """The common fields of all messages that name an earlier transaction."""

    original_transaction_token: OriginalToken
    amount: Decimal
    network_fees: tuple[NetworkFee, ...] | None = None
    transaction_options: TransactionOptions | None = None
    webhook: SimulationWebhook | None = None


class AdviceRequest(FollowUp, frozen=True, kw_only=True):
    """An advice with the new, lower total of an authorization."""


class ReversalRequest(FollowUp, frozen=True, kw_only=True):
    """A release of the whole hold or of a part of it."""

    find_original_window_days: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    is_advice: bool | None = False


class ClearingRequest(FollowUp, frozen=True, kw_only=True):
    """A clearing. With ``is_refund`` or ``force_post``, it uses only the card and the merchant of the original."""

    is_refund: bool | None = False
    force_post: bool | None = False
    mid: Mid | Number | None = None
    card_acceptor: CardAcceptor | None = None


# --- Rules: pure ---------------------------------------------------------------------


def can_be_followed(original: Original) -> bool:
    """Return True if a later message may name it: it is approved, and begins a chain or is a later member of one."""
    return REASON_OF[original.code] in APPROVALS and (original.root_id is not None or original.type_id in FAMILIES)


def can_be_named(family: Family, message: Message) -> bool:
    """Return True if messages of this kind can follow in a chain of this family.

    A PIN debit has no advice. A transaction that was settled at once has no clearing.
    """
    match message:
        case Advice():
            return family.advice is not None
        case Clearing():
            return family.clearing is not None
        case _:
            return True


def clearing_of(body: ClearingRequest, amount: int, details: Details) -> Message:
    """Return the message that a clearing request stands for."""
    if body.is_refund:
        return Refund(amount=amount, details=details)
    return Clearing(amount=amount, details=details, is_forced=body.force_post is True)


# --- Actions: what a caller can do with it -------------------------------------------


async def simulate_advice(call: EngineCall, body: AdviceRequest) -> bytes:
    """Simulate an advice, which lowers the total of an authorization."""
    return await _follow(call, "authorization/advice", body, lambda amount, details: Advice(amount=amount, details=details))


async def simulate_reversal(call: EngineCall, body: ReversalRequest) -> bytes:
    """Simulate a reversal.

    The merchant releases the whole hold or a part of it, or undoes a transaction that was settled at once.
    """
    check_positive(body.amount)
    is_advice, days = body.is_advice is True, body.find_original_window_days
    return await _follow(
        call, "reversal", body,
        lambda amount, details: Reversal(amount=amount, details=details, is_advice=is_advice, window_days=days),
    )  # fmt: skip


async def simulate_clearing(call: EngineCall, body: ClearingRequest) -> bytes:
    """Simulate a clearing, a refund or a forced clearing."""
    check_positive(body.amount)
    if body.is_refund and body.force_post:
        raise bad_field("is_refund, force_post", "must not both be true")
    return await _follow(call, "clearing", body, lambda amount, details: clearing_of(body, amount, details))


async def simulate_financial_advice(call: EngineCall, body: AdviceRequest) -> bytes:
    """Simulate the completion of an authorized PIN debit: the final amount is cleared and the hold ends."""
    check_positive(body.amount)
    roots = frozenset({PIN_HOLD})
    return await _follow(call, "financial/advice", body, lambda amount, details: Clearing(amount=amount, details=details), roots)


async def _follow(
    call: EngineCall, request: str, body: FollowUp, message_of: Callable[[int, Details], Message],
    roots: Container[int] = FAMILIES,
) -> bytes:  # fmt: skip
    """Submit a message that names an earlier transaction. ``roots`` are the types that may begin its chain."""
    app, program_id = call.app, call.program_id
    program = await app.engine.cache.program(program_id, 0)
    amount = parse_message_amount("amount", body.amount, program.currency)
    mid, acceptor = (body.mid, body.card_acceptor) if isinstance(body, ClearingRequest) else (None, None)
    options = body.transaction_options
    details = Details(
        mid="" if mid is None else str(mid),
        merchant=merchant_of(acceptor),
        fees=fees_of(body.network_fees, program.currency),
        additional_data=options.additional_data if options is not None else None,
    )
    message: Message = message_of(amount, details)
    original = await app.engine.original((program_id, body.original_transaction_token))
    card = await app.engine.card((program_id, original.card_token))
    if not message.follows:
        refund_of = original.first_id if isinstance(message, Refund) else None
        return await submit(app, card, message, body, options, original.id, refund_of=refund_of, request=request)
    root = await root_type(call, original)
    if root is None or root not in roots or not can_be_named(FAMILIES[root], message):
        raise Problem(ORIGINAL_NOT_FOUND)
    return await submit(app, card, message, body, options, original.first_id, request=request)


async def root_type(call: EngineCall, original: Original) -> int | None:
    """Return the type of the root of a transaction's chain, None if no message can follow the transaction."""
    if not can_be_followed(original):
        return None
    if original.root_id is None:
        return original.type_id
    return (await call.app.engine.original(original.root_key)).type_id


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Simulate followups"

routes = [
    post("/simulate/authorization/advice", AdviceRequest, simulate_advice, SimulationAnswer, scope=Scope.SIMULATION),
    post("/simulate/financial/advice", AdviceRequest, simulate_financial_advice, SimulationAnswer, scope=Scope.SIMULATION),
    post("/simulate/reversal", ReversalRequest, simulate_reversal, SimulationAnswer, scope=Scope.SIMULATION),
    post("/simulate/clearing", ClearingRequest, simulate_clearing, SimulationAnswer, scope=Scope.SIMULATION),
]
