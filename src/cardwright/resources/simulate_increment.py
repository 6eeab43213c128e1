"""The simulation of an increment: an authorization that grows, as a hotel's does. Only Simulations 2.0 have it."""

from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta

from cardwright.core.kinds import FAMILIES, Form
from cardwright.core.messages import STAND_IN_MERCHANT, Authorization, Details
from cardwright.core.problems import ORIGINAL_NOT_FOUND, Problem, bad_field
from cardwright.resources.app import EngineCall
from cardwright.resources.route import Scope, Shape, post
from cardwright.resources.simulate import submit
from cardwright.resources.simulate_followups import root_kind
from cardwright.resources.simulate_shapes import NetworkFee, SimulationWebhook, fees_of, parse_amount

# --- Shapes: what travels on the wire ------------------------------------------------


class IncrementRequest(Shape, frozen=True, kw_only=True):
    """So much more than was authorized so far; any member of the chain may be named."""

    preceding_related_transaction_token: Annotated[str, Meta(min_length=1, max_length=36)]
    amount: Decimal
    fees: tuple[NetworkFee, ...] | None = None
    webhook: SimulationWebhook | None = None


class TransactionAnswer(Shape, frozen=True, kw_only=True):
    """The transaction that the message became."""

    transaction: dict[str, Any]


# --- Actions: what one can do with it ------------------------------------------------


async def simulate_increment(call: EngineCall, body: IncrementRequest) -> bytes:
    """Simulates an increment: decided like a purchase, and added to the hold of the authorization that it names."""
    app, program_id = call.app, call.program_id
    program = await app.engine.cache.program(program_id, 0)
    amount = parse_amount("amount", body.amount, program.currency)
    if amount == 0:
        raise bad_field("amount", "must be greater than 0")
    original = await app.engine.original((program_id, body.preceding_related_transaction_token))
    kind = await root_kind(call, original)
    # What can be lowered can be raised: signature purchases, and no PIN debit.
    if kind is None or FAMILIES[kind].advice is None:
        raise Problem(ORIGINAL_NOT_FOUND)
    details = Details(mid="", merchant=STAND_IN_MERCHANT, fees=fees_of(body.fees, program.currency, "fees"))
    message = Authorization(amount=amount, details=details, form=Form.INCREMENT)
    card = await app.engine.card((program_id, original.card_token))
    return await submit(app, card, message, body, None, original.root_id, echo=False)


# --- Routes: parse, act, view --------------------------------------------------------

routes = [
    post(
        "/simulations/cardtransactions/authorization.incremental", IncrementRequest, simulate_increment, TransactionAnswer,
        scope=Scope.SIMULATION,
    ),
]  # fmt: skip
