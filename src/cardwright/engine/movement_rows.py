"""Movement rows: requests for movements, and the rows of a decided movement."""

from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

import msgspec

from cardwright.core.enums import HolderStatus
from cardwright.core.messages import Details
from cardwright.core.movement_json import arrival_transitions, deposit_after, deposit_event, document, fragment
from cardwright.core.movement_steps import MovementSnapshot, Party, Step
from cardwright.core.movement_types import LOADS
from cardwright.core.movements import AnyMovement, Deposit, DepositTransition, MovementKind
from cardwright.core.responses import Reason
from cardwright.core.snapshot import Account
from cardwright.core.transaction_row import TransactionRow, token_of
from cardwright.engine.config_cache import AccountEntry, Cache, ProgramEntry, SourceEntry
from cardwright.engine.transaction_rows import chain_of, journal_entry
from cardwright.kit.clock import Instant
from cardwright.outbox.events import Category, Event
from cardwright.storage.accounts import loaded_accounts
from cardwright.storage.engine.store import MovementKey

_pack = msgspec.msgpack.encode

CHARGES_MAX = 20
"""Maximum number of fees in one movement. Each fee is a separate transaction."""


class MovementRequest(NamedTuple):
    """A movement of one account or two, the payer's first, and all that a batch needs to decide it.

    ``accounts`` are the cached accounts. ``root_id`` is the row of the order to unload from, the fee to refund or the deposit to
    change. ``ref_id`` is the object that the resource refers to. The other fields are as in ``batch.CardRequest``.
    """

    accounts: tuple[AccountEntry, ...]
    kind: MovementKind
    movement: AnyMovement
    seed: int
    received_ms: Instant
    request_hash: bytes
    source_id: int | None = None
    root_id: int | None = None
    ref_id: int | None = None

    @property
    def program_id(self) -> int:
        """The program that the accounts belong to."""
        return self.accounts[0].key[0]

    @property
    def rows_max(self) -> int:
        """The maximum number of its transactions: one for each account and each fee, and one for an immediate deposit."""
        return len(self.accounts) + len(self.movement.charges) + isinstance(self.movement, Deposit)

    @property
    def key(self) -> MovementKey:
        """The key by which a replay is recognised."""
        return self.program_id, int(self.kind), self.movement.token


class Change(NamedTuple):
    """A change of a direct deposit's state: its transaction, and the token and JSON of its transition."""

    row: TransactionRow
    token: str
    doc: str

    @property
    def event(self) -> Event:
        """The event of the transition."""
        name = f"{Category.DEPOSIT.base}.{deposit_event(self.row.type_id)}"
        return Event(self.row.program_id, self.row.created_ms, Category.DEPOSIT, name, self.token)

    def movement_row(self, deposit_id: int) -> tuple[object, ...]:
        """Return the row of a transition that the arrival of a deposit causes. It has no request, and thus no request hash."""
        row, kind = self.row, int(MovementKind.DEPOSIT_TRANSITION)
        return (
            row.id, row.program_id, kind, self.token, b"", row.created_ms, row.created_ms, row.holder_id, None, deposit_id,
            self.doc,
        )  # fmt: skip


class MovementResult(NamedTuple):
    """The result of a movement: the document that its GET returns, and the program entry."""

    doc: str
    program: ProgramEntry


def view_of(
    program: ProgramEntry, entries: Sequence[AccountEntry], accounts: Sequence[Account], source: SourceEntry | None,
    root: TransactionRow | None, now: Instant, loaded: Set[int],
) -> MovementSnapshot:  # fmt: skip
    """Return the snapshot for the decision. ``loaded`` contains the accounts that had a load before KYC."""
    parties = tuple(
        Party(entry.user, entry.owner, account, program.spend.pre_kyc_of(entry.user), entry.holder_id in loaded)
        for entry, account in zip(entries, accounts, strict=True)
    )
    chain = chain_of(root) if root is not None else None
    return MovementSnapshot(program.currency, parties, source.fact if source is not None else None, chain, now)


async def load_holders_with_loads(cache: Cache, entries: Iterable[AccountEntry]) -> set[int]:
    """Return the accounts of users before KYC that ever had a load. No decision needs this for other users."""
    ids = {entry.holder_id for entry in entries if entry.user.status is HolderStatus.LIMITED}
    return await cache.look(loaded_accounts, ids) if ids else set()


def holders_loaded_by(rows: Sequence[TransactionRow]) -> set[int]:
    """Return the accounts that these rows of a movement loaded."""
    return {row.holder_id for row in rows if row.type_id in LOADS and (row.impacted or 0) > 0}


def first_row(
    step: Step, entry: AccountEntry, program: ProgramEntry, request: MovementRequest, account: Account, row_id: int, now: Instant
) -> TransactionRow:
    """Return a step's row without details, which need the tokens of all rows. ``account`` is the account after the step."""
    ledger, held = account.money(program.currency)
    return TransactionRow(
        id=row_id,
        program_id=program.id,
        holder_id=entry.holder_id,
        card_id=None,
        # Only rows that move money from or to the source refer to it. Fees belong to the program.
        source_id=request.source_id if step.moved else None,
        type_id=step.type_id,
        state=step.state.value,
        first_state=step.first_state.value,
        code=Reason.APPROVED.number,
        created_ms=now,
        user_time_ms=now,
        duration_ms=0,
        currency=program.currency,
        request_amount=step.requested,
        amount=step.amount,
        impacted=step.impacted,
        moved=step.moved,
        hold_left=0,
        load_left=step.load_left,
        cleared=0,
        due_ms=step.due_ms,
        ledger=ledger,
        available=ledger - held,
        root_id=request.root_id,
        seed=request.seed,
        program_revision=program.revision,
        holder_revision=entry.revision,
        details=b"",
    )


def complete(
    rows: Sequence[TransactionRow], steps: Sequence[Step], entries: Sequence[AccountEntry], request: MovementRequest,
    source: SourceEntry | None, root: TransactionRow | None,
) -> tuple[list[TransactionRow], str]:  # fmt: skip
    """Return the rows with their details, and the document of the movement.

    The rows show this document; the rows of a deposit's transition show the deposit instead.
    """
    doc = document(request.movement, rows, source.fragments if source is not None else None, steps, root)
    shown = doc
    if isinstance(request.movement, DepositTransition) and root is not None:
        shown = deposit_after(request.movement, steps[0], root, rows[0].created_ms)
    done = []
    for row, step in zip(rows, steps, strict=True):
        preceding = root if root is not None else rows[0]
        details = Details(
            mid="",
            user_token=entries[step.party].user.token,
            movement=fragment(request.movement, step, shown),
            root_token=token_of(preceding) if preceding.id != row.id else None,
        )
        done.append(row._replace(details=_pack(details), root_id=root_id_of(row, rows[0], step)))
    return done, doc


def changes_of(movement: AnyMovement, rows: Sequence[TransactionRow], steps: Sequence[Step], doc: str) -> list[Change]:
    """Return the changes of a direct deposit's state that a movement causes. ``doc`` is the document of the movement."""
    match movement:
        case DepositTransition():
            return [Change(rows[0], movement.token, doc)]
        case Deposit():
            transitions = arrival_transitions(movement, rows, steps)
            return [Change(row, token, text) for row, (token, text) in zip(rows, transitions, strict=True)]
        case _:
            return []


def root_id_of(row: TransactionRow, first: TransactionRow, step: Step) -> int | None:
    """Return the root id of a row's chain. The recipient's row of a transfer belongs to the sender's chain."""
    return first.id if (step.party or step.follows) and row.id != first.id else row.root_id


def entry_of(row: TransactionRow, step: Step) -> tuple[object, ...]:
    """Return the journal row of a step."""
    return journal_entry(row, step.legs)


def movement_row(
    request: MovementRequest, entries: Sequence[AccountEntry], first: TransactionRow, doc: str
) -> tuple[object, ...]:
    """Return the row of a movement. It has the id of the movement's first transaction."""
    other = entries[1].holder_id if len(entries) > 1 else None
    return (
        first.id, first.program_id, int(request.kind), request.movement.token, request.request_hash, first.created_ms,
        first.created_ms, entries[0].holder_id, other, request.ref_id, doc,
    )  # fmt: skip
