"""Real-time fees: the additional rows for the fee of a decision."""

from typing import NamedTuple

import msgspec

from cardwright.core.decision import FeeStep
from cardwright.core.messages import Assessed, Details, Message
from cardwright.core.money import exponent_of
from cardwright.core.movement_json import fee_fragment
from cardwright.core.render import SourceFragments, details_decoder
from cardwright.core.responses import Reason
from cardwright.core.snapshot import Account
from cardwright.core.transaction_row import TransactionRow, token_of
from cardwright.core.transaction_types import SETTLED_AT_ONCE
from cardwright.engine.config_cache import Cache, ProgramEntry
from cardwright.engine.transaction_rows import after_chain, journal_entry
from cardwright.storage.engine.store import ChainRow, LoadedRows, WriteSet
from cardwright.storage.fee_groups import load_rows

_pack = msgspec.msgpack.encode


def assessed_of(step: FeeStep, row_id: int) -> Assessed:
    """Return the record of a fee that its purchase stores. ``row_id`` is the fee's first transaction."""
    return Assessed(row_id, step.amount, step.load_left, step.fee, step.group)


class FeeTaken(NamedTuple):
    """A change of a fee by a message: the step and its row id, the fee as its purchase stores it, and the message's row.

    ``user_token`` is the user of the card, ``source`` the chain's funding source.
    """

    step: FeeStep
    assessed: Assessed
    row_id: int
    beside: TransactionRow
    user_token: str
    source: SourceFragments | None


def _row_of(taken: FeeTaken, first: TransactionRow | None, account: Account) -> TransactionRow:
    """Return the row of a fee. ``first`` is the root of the fee's chain, None for the root itself.

    ``account`` is the account after the fee. The row has the account, funding source, currency, time, seed and revisions of the
    message's row, but no card.
    """
    step, beside = taken.step, taken.beside
    ledger, held = account.money(beside.currency)
    row = beside._replace(
        id=taken.row_id,
        card_id=None,
        type_id=step.type_id,
        state=step.state.value,
        first_state=step.state.value,
        code=Reason.APPROVED.number,
        duration_ms=0,
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
        details=b"",
    )
    preceding = token_of(first) if first is not None else details_decoder.decode(beside.details).chosen_token or token_of(beside)
    details = Details(
        mid="",
        user_token=taken.user_token,
        movement=fee_fragment(step, row, first or row, taken.source, exponent_of(row.currency) or 0),
        root_token=preceding,
    )
    return row._replace(details=_pack(details))


def add_fee(taken: FeeTaken, write: WriteSet, accounts: dict[int, Account], roots: dict[int, TransactionRow]) -> None:
    """Add a fee's transaction to a batch, directly after that of its message. The next message sees its changes."""
    step, beside, legs = taken.step, taken.beside, taken.step.legs
    account = accounts[beside.holder_id].moved(beside.currency, legs.available + legs.held, legs.held)
    # Any row of the purchase's chain has the time and seed that the token of the fee's root is derived from.
    first = None if step.root is None else beside._replace(id=taken.assessed.row_id, created_ms=beside.user_time_ms)
    row = _row_of(taken, first, account)
    accounts[row.holder_id] = account
    write.transactions.append(row)
    write.account_journal.append(journal_entry(row, legs))
    if first is None or step.root is None:
        return
    chain = step.root
    write.chains[first.id] = ChainRow(first.id, chain.state.value, chain.hold_left, chain.load_left, chain.cleared, chain.due_ms)
    if first.id in roots:
        roots[first.id] = after_chain(roots[first.id], chain)


async def load_charged(cache: Cache, programs: dict[int, ProgramEntry], loaded: LoadedRows) -> dict[int, TransactionRow]:
    """Load the fee rows of purchases that were settled at once, because a refunded fee must not be returned again.

    Only programs with fee groups have such fees. The accounts are locked, so the rows cannot change.
    """
    ids = set[int]()
    for row in loaded.rows.values():
        if row.type_id in SETTLED_AT_ONCE and programs[row.program_id].fees is not None:
            assessed = details_decoder.decode(row.details).assessed
            ids |= {assessed.row_id} - loaded.rows.keys() if assessed is not None else set()
    return {row.id: row for row in await cache.look(load_rows, ids)} if ids else {}


def unless_refunded(message: Message, root: TransactionRow, roots: dict[int, TransactionRow]) -> Message:
    """Return the message, without its chain's fee if that fee was charged at once and has been refunded since.

    So the fee is not returned twice.
    """
    assessed = message.details.assessed
    if assessed is None or root.type_id not in SETTLED_AT_ONCE or not roots[assessed.row_id].cleared:
        return message
    return msgspec.structs.replace(message, details=msgspec.structs.replace(message.details, assessed=None))
