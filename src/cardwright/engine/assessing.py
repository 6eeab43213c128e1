"""Real-time fees on their way through the heart: the rows that a decision's fee becomes, beside the message's own."""

import msgspec

from cardwright.core.messages import Assessed, Details
from cardwright.core.money import exponent_of
from cardwright.core.movement_docs import fee_fragment
from cardwright.core.outcome import FeeStep
from cardwright.core.record import Recorded, token_of
from cardwright.core.render import SourceFace, details_decoder
from cardwright.core.responses import Reason
from cardwright.core.snapshot import Account
from cardwright.storage.hot import ChainRow

_pack = msgspec.msgpack.encode


def assessed_of(step: FeeStep, row_id: int) -> Assessed:
    """What a purchase remembers of its fee, whose first transaction has this id."""
    return Assessed(row_id, step.amount, step.load_left, step.fee, step.group)


def fee_row(
    step: FeeStep, beside: Recorded, first: Recorded | None, row_id: int, account: Account, user_token: str,
    source: SourceFace | None,
) -> Recorded:  # fmt: skip
    """A fee's row. ``beside`` is the message's own, ``first`` the first of the fee's chain, None when this is; ``account`` is
    as the fee leaves it.

    It has no card, and no funding source where its chain has none; time and seed are those of the purchase's chain.
    """
    ledger, held = account.money(beside.currency)
    row = Recorded(
        id=row_id,
        program_id=beside.program_id,
        holder_id=beside.holder_id,
        card_id=None,
        source_id=beside.source_id,
        kind=step.kind,
        state=step.state.value,
        first_state=step.state.value,
        code=Reason.APPROVED.number,
        created_ms=beside.created_ms,
        user_time_ms=beside.user_time_ms,
        duration_ms=0,
        currency=beside.currency,
        request_amount=step.amount,
        amount=step.amount,
        impacted=step.impacted,
        moved=step.moved,
        hold_left=step.hold_left,
        load_left=step.load_left,
        cleared=0,
        due_ms=0,
        ledger=ledger,
        available=ledger - held,
        root_id=None if first is None else first.id,
        seed=beside.seed,
        program_revision=beside.program_revision,
        holder_revision=beside.holder_revision,
        details=b"",
    )
    preceding = token_of(first) if first is not None else details_decoder.decode(beside.details).chosen_token or token_of(beside)
    details = Details(
        mid="",
        user_token=user_token,
        movement=fee_fragment(step, row, first or row, source, exponent_of(row.currency) or 0),
        root_token=preceding,
    )
    return row._replace(details=_pack(details))


def first_of(assessed: Assessed, beside: Recorded) -> Recorded:
    """As much of a fee's first row as follows from any of the purchase's chain: id, time and seed, which make its token."""
    return beside._replace(id=assessed.row_id, created_ms=beside.user_time_ms)


def fee_root_row(assessed: Assessed, step: FeeStep) -> ChainRow:
    """What is written of the fee's first row after one that follows it."""
    assert step.root is not None, "what follows says how it leaves the fee's first transaction"
    chain = step.root
    return ChainRow(assessed.row_id, chain.state.value, chain.hold_left, chain.load_left, chain.cleared, chain.due_ms)
