"""Movements: messages that move money without a card, and the pure function that decides them.

A movement is executed completely or not at all. A movement that fails is a problem and leaves no row, unlike a declined card
message.

See "GPA orders and unloads", "Fees", "Peer transfers" and "Program transfers" in the wire reference.
"""

from enum import IntEnum
from typing import Literal, assert_never

import msgspec

from cardwright.core.banking_days import REFUSED_CREDIT
from cardwright.core.decision import Legs
from cardwright.core.enums import State
from cardwright.core.movement_steps import Charge, MovementSnapshot, Step, Steps
from cardwright.core.movement_types import (
    CREDITED,
    DEBITED,
    FEE_CHARGE,
    FEE_REFUND,
    GPA_CREDIT,
    GPA_DEBIT,
    PEER,
    PROGRAM,
    DepositTypes,
)
from cardwright.core.problems import (
    BAD_DEPOSIT_TRANSITION,
    FEE_REFUNDED,
    FUNDING_SOURCE_UNKNOWN,
    GPA_TOO_SMALL,
    HOLDER_NOT_ACTIVE,
    INSUFFICIENT_FUNDS,
    LOAD_NOT_ALLOWED,
    UNLOAD_TOO_LARGE,
    Problem,
)


class MovementKind(IntEnum):
    """Resource of a movement. Each kind has a separate token namespace."""

    ORDER = 1
    UNLOAD = 2
    FEE_CHARGE = 3
    FEE_REFUND = 4
    PEER_TRANSFER = 5
    PROGRAM_TRANSFER = 6
    DEPOSIT = 7
    DEPOSIT_TRANSITION = 8


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of every movement: ``amount`` in minor units without fees, ``echoed`` the request fields in its document."""

    token: str
    amount: int
    echoed: dict[str, str] = {}
    charges: tuple[Charge, ...] = ()

    @property
    def total(self) -> int:
        """Return the amount and all fees, in minor units."""
        return self.amount + sum(charge.amount for charge in self.charges)


class GpaLoad(Movement, frozen=True, kw_only=True):
    """Load of an account from a funding source, which pays the fees too. ``reload`` is the JSON of the auto reload behind it."""

    reload: str | None = None


class Unload(Movement, frozen=True, kw_only=True):
    """Return of money of an earlier order to its funding source."""


class FeeCharge(Movement, frozen=True, kw_only=True):
    """Charge of fees to an account, all or none. ``amount`` is 0."""


class FeeRefund(Movement, frozen=True, kw_only=True):
    """Refund of a charged fee, once and in full."""


class PeerTransfer(Movement, frozen=True, kw_only=True):
    """Transfer of money from the first account to the second."""


class ProgramTransfer(Movement, frozen=True, kw_only=True):
    """Transfer of money from an account to a program funding source. The account pays the fees."""


DEPOSIT_STATES = {
    State.PENDING: "PENDING", State.COMPLETION: "APPLIED", State.CLEARED: "REVERSED", State.DECLINED: "REJECTED",
}  # fmt: skip
"""The name of a direct deposit's state, by the state of its first transaction."""

ARRIVAL_REASON = "Newly created"
"""The reason of the transition to PENDING, as in the public sample of such a transition."""

APPLY_REASON = "Settlement date"
"""The reason of the transition that settles a deposit on its day (choice)."""


class Deposit(Movement, frozen=True, kw_only=True):
    """Direct deposit: money that a bank sends to an account or takes from it, at ``settles_ms``, or earlier if ``at_once``."""

    is_credit: bool
    settles_ms: int
    at_once: bool = False


class DepositTransition(Movement, frozen=True, kw_only=True):
    """Transition of a direct deposit: it takes effect, is reversed or is rejected.

    The platform's own transitions have the channel SYSTEM.

    ``ends_ms`` is the first instant at which a settled deposit can no longer be returned for this reason.
    """

    to: Literal[State.COMPLETION, State.CLEARED, State.DECLINED]
    channel: str
    reason: str
    reason_code: str | None = None
    ends_ms: int | None = None


class AutoReload(msgspec.Struct, frozen=True, kw_only=True):
    """Auto reload as the engine sees it: an available balance below ``trigger`` is increased to ``goal``, both in minor units."""

    token: str
    source_id: int
    trigger: int
    goal: int
    user_token: str | None
    card_product_token: str | None
    doc: str

    def order(self, token: str, user_token: str, available: int) -> GpaLoad:
        """Return the order that increases the available balance to ``goal``."""
        return GpaLoad(token=token, amount=self.goal - available, echoed={"user_token": user_token}, reload=self.doc)


SPENDING = frozenset({FEE_CHARGE, PEER, PROGRAM})
"""Transaction types that may trigger an auto reload; an unload does not (wire reference, "Auto reloads")."""

AnyMovement = GpaLoad | Unload | FeeCharge | FeeRefund | PeerTransfer | ProgramTransfer | Deposit | DepositTransition


def decide_movement(snapshot: MovementSnapshot, movement: AnyMovement) -> Steps | Problem:
    """Return the transactions of a movement, or the problem that prevents it. The function has no side effects."""
    match movement:
        case GpaLoad():
            return _load(snapshot, movement)
        case Unload():
            return _unload(snapshot, movement)
        case FeeCharge():
            return _charge(snapshot, movement)
        case FeeRefund():
            return _refund(snapshot, movement)
        case PeerTransfer():
            return _peer_transfer(snapshot, movement)
        case ProgramTransfer():
            return _program_transfer(snapshot, movement)
        case Deposit():
            return _announce(snapshot, movement)
        case DepositTransition():
            return _change(snapshot, movement)
        case _:
            assert_never(movement)


def _load(snapshot: MovementSnapshot, movement: GpaLoad) -> Steps | Problem:
    assert snapshot.source is not None, "an order names its funding source"
    if not snapshot.parties[0].is_active:
        return Problem(HOLDER_NOT_ACTIVE)
    if not snapshot.source.active:
        return Problem(FUNDING_SOURCE_UNKNOWN, f"{snapshot.source.token} is not active")
    # An auto reload never counts as the first load.
    if (why := snapshot.load_refusal(movement.amount, from_program=True, is_reload=movement.reload is not None)) is not None:
        return Problem(LOAD_NOT_ALLOWED, why)
    total = movement.total
    load = Step(
        type_id=GPA_CREDIT, requested=movement.amount, amount=total, moved=total, load_left=movement.amount,
        legs=Legs(program_funding=-total, available=total),
    )  # fmt: skip
    return (load, *_fees(movement))


def _unload(snapshot: MovementSnapshot, movement: Unload) -> Steps | Problem:
    """Decide an unload. An inactive holder may unload: the money leaves the account."""
    chain, amount = snapshot.chain, movement.amount
    assert chain is not None, "an unload names its order"
    if amount > chain.load_left:
        return Problem(UNLOAD_TOO_LARGE)
    if amount > snapshot.available():
        return Problem(INSUFFICIENT_FUNDS)
    after = msgspec.structs.replace(chain, load_left=chain.load_left - amount)
    legs = Legs(program_funding=amount, available=-amount)
    return (Step(type_id=GPA_DEBIT, requested=amount, amount=amount, moved=-amount, legs=legs, chain=after),)


def _charge(snapshot: MovementSnapshot, movement: FeeCharge) -> Steps | Problem:
    if not snapshot.parties[0].is_active:
        return Problem(HOLDER_NOT_ACTIVE)
    return Problem(INSUFFICIENT_FUNDS) if movement.total > snapshot.available() else _fees(movement)


def _fees(movement: Movement) -> Steps:
    return tuple(
        Step(
            type_id=FEE_CHARGE, requested=charge.amount, amount=charge.amount, charge=charge,
            legs=Legs(available=-charge.amount, fees=charge.amount),
        )
        for charge in movement.charges
    )  # fmt: skip


def _refund(snapshot: MovementSnapshot, movement: FeeRefund) -> Steps | Problem:
    chain, amount = snapshot.chain, movement.amount
    assert chain is not None, "a refund names its fee"
    if chain.cleared or not amount:
        return Problem(FEE_REFUNDED)
    legs = Legs(available=amount, fees=-amount)
    after = msgspec.structs.replace(chain, cleared=amount)
    return (Step(type_id=FEE_REFUND, requested=amount, amount=amount, legs=legs, chain=after, charge=movement.charges[0]),)


def _peer_transfer(snapshot: MovementSnapshot, movement: PeerTransfer) -> Steps | Problem:
    amount = movement.amount
    if not all(party.is_active for party in snapshot.parties):
        return Problem(HOLDER_NOT_ACTIVE)
    if amount > snapshot.available():
        return Problem(INSUFFICIENT_FUNDS)
    if (why := snapshot.load_refusal(amount, 1)) is not None:
        return Problem(LOAD_NOT_ALLOWED, why)
    legs = (Legs(available=-amount, transit=amount), Legs(available=amount, transit=-amount))
    return tuple(Step(type_id=PEER, requested=amount, amount=amount, party=party, legs=legs[party]) for party in (0, 1))


def _program_transfer(snapshot: MovementSnapshot, movement: ProgramTransfer) -> Steps | Problem:
    amount = movement.amount
    if not snapshot.parties[0].is_active:
        return Problem(HOLDER_NOT_ACTIVE)
    if movement.total > snapshot.available():
        return Problem(GPA_TOO_SMALL)
    legs = Legs(program_funding=amount, available=-amount)
    return (Step(type_id=PROGRAM, requested=amount, amount=amount, moved=-amount, legs=legs), *_fees(movement))


# --- Direct deposits ------------------------------------------------------------------------


def _announce(snapshot: MovementSnapshot, movement: Deposit) -> Steps:
    """Record a deposit as pending. If it is due, or its holder is inactive, a second step applies or rejects it at once."""
    types, due = CREDITED if movement.is_credit else DEBITED, movement.settles_ms
    applies = movement.at_once or due <= snapshot.now
    further = _applied(snapshot, types, movement.amount) if applies or not snapshot.parties[0].is_active else None
    pending = Step(
        type_id=types.pending, requested=movement.amount, amount=movement.amount, legs=Legs(), first_state=State.PENDING,
        state=State.PENDING if further is None else _state_after(further), due_ms=due if further is None else 0,
    )  # fmt: skip
    return (pending,) if further is None else (pending, msgspec.structs.replace(further, follows=True))


def _applied(snapshot: MovementSnapshot, types: DepositTypes, amount: int) -> Step:
    """Apply a deposit, or reject it. It is rejected if the holder is inactive, or the account cannot pay a debit.

    It is also rejected if the holder may not receive the credit before KYC.
    """
    code = None
    if not snapshot.parties[0].is_active:
        code = "R16"
    elif types is DEBITED and amount > snapshot.available():
        code = "R01"
    elif types is CREDITED and snapshot.load_refusal(amount) is not None:
        code = REFUSED_CREDIT
    if code is not None:
        return Step(type_id=types.rejected, requested=amount, amount=amount, legs=Legs(), reason_code=code)
    gained = amount if types is CREDITED else -amount
    return Step(type_id=types.applied, requested=amount, amount=amount, legs=Legs(available=gained, deposits=-gained))


def _state_after(step: Step) -> State:
    """Return the deposit's state after this step."""
    return State.DECLINED if step.type_id in (CREDITED.rejected, DEBITED.rejected) else State.COMPLETION


def _change(snapshot: MovementSnapshot, movement: DepositTransition) -> Steps | Problem:
    chain = snapshot.chain
    assert chain is not None, "a transition names its deposit"
    types, amount = CREDITED if chain.type_id == CREDITED.pending else DEBITED, chain.requested
    before, is_pending = chain.state, chain.state is State.PENDING
    if not (is_pending or (before is State.COMPLETION and movement.to is State.CLEARED)):
        return Problem(BAD_DEPOSIT_TRANSITION, f"{DEPOSIT_STATES[before]} to {DEPOSIT_STATES[movement.to]}")
    if not is_pending and movement.ends_ms is not None and snapshot.now >= movement.ends_ms:
        return Problem(BAD_DEPOSIT_TRANSITION, f"the return window of reason code {movement.reason_code} is over")
    match movement.to:
        case State.COMPLETION:
            step = _applied(snapshot, types, amount)
            after = _state_after(step)
        case State.DECLINED:
            step = Step(type_id=types.rejected, requested=amount, amount=amount, legs=Legs(), reason_code=movement.reason_code)
            after = State.DECLINED
        case State.CLEARED:
            step, after = _undone(types, amount, is_pending=is_pending, code=movement.reason_code), State.CLEARED
        case _:
            assert_never(movement.to)
    return (msgspec.structs.replace(step, chain=msgspec.structs.replace(chain, state=after, due_ms=0)),)


def _undone(types: DepositTypes, amount: int, *, is_pending: bool, code: str | None) -> Step:
    """Return the opposite of the applied step, even if the account has less by now.

    The bank has already taken the money back.
    """
    type_id, given_back = (types.pending_reversal, 0) if is_pending else (types.reversal, amount)
    gained = -given_back if types is CREDITED else given_back
    return Step(type_id=type_id, requested=amount, amount=amount, legs=Legs(available=gained, deposits=-gained), reason_code=code)
