"""Engine store interface: one read and one write a batch, with an implementation for each database."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from cardwright.core.movements import MovementKind
from cardwright.core.transaction_row import TransactionRow
from cardwright.storage.failures import InDoubt
from cardwright.storage.original_transactions import ORIGINAL_COLUMNS, Original, TokenKey

TRANSACTION_COLUMNS = TransactionRow._fields

JOURNAL_COLUMNS = (
    "id", "program_id", "holder_id", "source_id", "currency", "booked_ms", "program_funding", "available", "held", "settlement",
)  # fmt: skip

OUTBOX_COLUMNS = (
    "program_id", "webhook_id", "target", "category", "refs", "state", "due_ms", "tries", "created_ms", "attempts",
    "queue_id",
)  # fmt: skip

MOVEMENT_COLUMNS = (
    "id", "program_id", "kind", "token", "request_hash", "created_ms", "modified_ms", "holder_id", "other_holder_id", "ref_id",
    "doc",
)  # fmt: skip

_outbox_row = itemgetter(*OUTBOX_COLUMNS)


class Insert(NamedTuple):
    """A statement that inserts rows with these columns into a table."""

    table: str
    columns: Sequence[str]


class Update(NamedTuple):
    """A statement that sets columns of rows. It finds a row by the first of ``columns`` and a further condition."""

    table: str
    columns: Sequence[str]
    condition: str = ""


CHANGES: dict[str, Insert | Update] = {
    "update_holders": Update("holders", ("id", "state", "recent")),
    "insert_transactions": Insert("transactions", TRANSACTION_COLUMNS),
    "update_chains": Update("transactions", ("id", "state", "hold_left", "load_left", "cleared", "due_ms")),
    "grow_chains": Update("transactions", ("id", "details")),
    "insert_journal": Insert("journal", JOURNAL_COLUMNS),
    "insert_outbox": Insert("outbox", OUTBOX_COLUMNS),
    "insert_tokens": Insert("message_tokens", ("program_id", "token", "transaction_id", "request_hash")),
    "insert_movements": Insert("movements", MOVEMENT_COLUMNS),
    # Only deposits change after their insertion. The condition on the kind is necessary, because a deposit's first transition
    # has the same id.
    "reword_movements": Update("movements", ("id", "modified_ms", "doc"), f" AND kind = {int(MovementKind.DEPOSIT)}"),
    # Entries of movements, and of clearings that use the program's overdraft account.
    "insert_account_journal": Insert("journal", (*JOURNAL_COLUMNS, "fees", "transit", "overdraft", "deposits")),
    "insert_shadow_hits": Insert("shadow_hits", ("program_id", "control_id", "transaction_id")),
}
"""The statements of a commit and the columns of their rows. ``LIST_TRANSACTIONS`` is one more, with ids as its rows."""

LIST_TRANSACTIONS = (
    "INSERT INTO holder_transactions (program_id, holder_id, user_time_ms, id) "
    "SELECT program_id, holder_id, user_time_ms, id FROM transactions "
)
"""The insertion of transactions into the lists of their accounts. A condition that chooses the transactions follows."""

# The reads of both databases. Each store appends its condition for the keys.
SELECT_HOLDERS = "SELECT h.id, h.revision, h.state, h.recent FROM "

SELECT_PROGRAMS = "SELECT id, revision, clock_offset_ms, clock_frozen_ms FROM programs WHERE id "

SELECT_REPLAYS = "SELECT m.program_id, m.token, m.transaction_id, m.request_hash FROM message_tokens m "

SELECT_MOVEMENTS = "SELECT m.program_id, m.kind, m.token, m.request_hash, m.doc FROM movements m "

SELECT_COMMITTED = "SELECT 1 FROM transactions WHERE id "

SELECT_ORIGINALS = f"SELECT {ORIGINAL_COLUMNS} FROM transactions t JOIN cards c ON c.id = t.card_id WHERE t.id "

# A card, its user and the owner of its account. Only a child may use the account of another user; then the owner is the account's
# first user. Each store replaces {cards} with the table of cards as ``c`` and its condition for the keys.
SELECT_CARDS = """
    SELECT c.program_id, c.token, c.id, c.holder_id, c.pan_sealed, c.pin_sealed, h.revision, c.fact, u.fact,
        CASE WHEN o.id = u.id THEN NULL ELSE o.fact END
    FROM {cards}
    JOIN users u ON u.id = c.user_id
    JOIN holders h ON h.id = c.holder_id
    LEFT JOIN users o ON u.parent_id IS NOT NULL AND o.id = (SELECT min(x.id) FROM users x WHERE x.holder_id = c.holder_id)
"""


class CardRow(NamedTuple):
    """A card as the engine loads it: keys, sealed secrets, and facts as JSON. ``owner_fact`` is None if the user is the owner."""

    program_id: int
    token: str
    card_id: int
    holder_id: int
    pan_sealed: bytes
    pin_sealed: bytes | None
    revision: int
    card_fact: str
    user_fact: str
    owner_fact: str | None

    @property
    def key(self) -> tuple[int, str]:
        """Program id and token."""
        return self.program_id, self.token


class HolderRow(NamedTuple):
    """A locked account: revision of its configuration, packed state, and recent transactions."""

    revision: int
    state: bytes
    recent: bytes


class ProgramRow(NamedTuple):
    """A program as the batch reads it: revision of its configuration, and clock."""

    revision: int
    offset_ms: int
    frozen_ms: int | None


class ChainRow(NamedTuple):
    """The columns of a chain's root that a later message changes."""

    id: int
    state: int
    hold_left: int
    load_left: int
    cleared: int
    due_ms: int


class Replay(NamedTuple):
    """An earlier message with the same token: its transaction and the hash of its request."""

    transaction_id: int
    request_hash: bytes


MovementKey = tuple[int, int, str]
"""Program id, kind and token of a movement. Tokens are unique for each kind."""


class MovementReplay(NamedTuple):
    """An earlier movement with the same token: the hash of its request, and its document."""

    request_hash: bytes
    doc: str


@dataclass(slots=True)
class LoadedRows:
    """The rows of one read. ``rows`` are the transactions that the batch's messages follow or replay."""

    holders: dict[int, HolderRow]
    programs: dict[int, ProgramRow]
    replays: dict[tuple[int, str], Replay]
    rows: dict[int, TransactionRow]
    movements: dict[MovementKey, MovementReplay] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadSet:
    """The keys that a batch must read. Holder ids are in ascending order, the order of the locks."""

    holder_ids: Sequence[int]
    program_ids: Sequence[int]
    row_ids: Sequence[int]
    tokens: Sequence[tuple[int, str]]
    movements: Sequence[MovementKey] = ()


@dataclass(slots=True)
class WriteSet:
    """The rows that one commit writes, in the order of the columns of ``CHANGES``.

    ``grown`` has changed details of chains' roots, such as a further increment. ``reworded`` has times and documents of changed
    direct deposits. ``listed`` has the ids that move from account rows to account lists (see ``account_transactions``).
    """

    holders: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    transactions: list[TransactionRow] = field(default_factory=list)
    listed: list[int] = field(default_factory=list)
    chains: dict[int, ChainRow] = field(default_factory=dict)
    grown: dict[int, bytes] = field(default_factory=dict)
    journal: list[tuple[Any, ...]] = field(default_factory=list)
    outbox: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[tuple[int, str, int, bytes]] = field(default_factory=list)
    account_journal: list[tuple[Any, ...]] = field(default_factory=list)
    movements: list[tuple[Any, ...]] = field(default_factory=list)
    reworded: dict[int, tuple[int, str]] = field(default_factory=dict)
    shadow_hits: list[tuple[int, int, int]] = field(default_factory=list)


StatementRows = tuple[str, Collection[Sequence[Any]]]
"""The name of a statement, and its rows of parameters."""


def changes_of(write: WriteSet) -> list[StatementRows]:
    """Return the statements of a commit in execution order. Each has at least one row."""
    changes: tuple[StatementRows, ...] = (
        ("update_holders", write.holders),
        ("insert_transactions", write.transactions),
        ("list_transactions", [(row_id,) for row_id in write.listed]),
        ("update_chains", write.chains.values()),
        ("grow_chains", write.grown.items()),
        ("insert_journal", write.journal),
        ("insert_outbox", list(map(_outbox_row, write.outbox))),
        ("insert_tokens", write.tokens),
        ("insert_movements", write.movements),
        ("reword_movements", [(row_id, *changed) for row_id, changed in write.reworded.items()]),
        ("insert_account_journal", write.account_journal),
        ("insert_shadow_hits", write.shadow_hits),
    )
    return [change for change in changes if change[1]]


def doubt_about(want: ReadSet, write: WriteSet, reason: str) -> InDoubt:
    """Return the exception for a batch that may have been committed."""
    return InDoubt(reason, [row.id for row in write.transactions], want.holder_ids)


def noop() -> None:
    """Do nothing: the default for ``meanwhile``."""


class Worker(Protocol):
    """A connection that processes one batch at a time: ``begin``, then ``commit`` or ``abort``.

    After Unavailable the worker can only be closed.
    """

    async def begin(self, want: ReadSet, deadline: float) -> LoadedRows:
        """Open a transaction, lock the accounts in the order of their ids and read all rows that the batch needs.

        ``deadline`` is a time of the event loop, the limit for the whole batch. Raises Conflict if the batch must run again, and
        Unavailable if the database failed.
        """
        ...

    async def commit(self, write: WriteSet, meanwhile: Callable[[], None]) -> None:
        """Write and commit. Calls ``meanwhile`` once, after sending and before waiting. ``meanwhile`` must not raise.

        Raises Conflict if the batch must run again, Unavailable if it failed, and InDoubt if it may have been committed.
        """
        ...

    async def is_committed(self, doubt: InDoubt, deadline: float) -> bool:
        """Return True if the transaction in doubt, of a lost connection, was committed. The answer is final.

        Raises Unavailable if the database cannot be asked.
        """
        ...

    async def abort(self) -> None:
        """End the transaction without a change."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class EngineStore(Protocol):
    """The engine's access to a database."""

    workers_max: int

    async def open_worker(self) -> Worker:
        """Return a new worker with a separate connection, after a test commit.

        Raises Unavailable if the database cannot commit, and SchemaChanged if its schema is of another version.
        """
        ...

    async def load_cards(self, keys: Sequence[tuple[int, str]]) -> list[CardRow]:
        """Return the cards with these program ids and tokens, without unknown cards.

        Raises Unavailable if they cannot be read in time.
        """
        ...

    async def load_originals(self, ids: Sequence[int]) -> list[Original]:
        """Return the card transactions with these ids, without unknown ids. Raises Unavailable if they cannot be read in time."""
        ...

    async def load_chosen(self, keys: Sequence[TokenKey]) -> dict[TokenKey, Original]:
        """Return the card transactions whose senders chose these tokens, without unknown tokens.

        Raises Unavailable if they cannot be read in time.
        """
        ...

    async def close(self) -> None:
        """Close the store's own connections and processes. The caller of ``open_worker`` closes the workers."""
        ...

    def next_ids(self) -> range:
        """Return a block of odd transaction ids that no other process gets. Each even id in between belongs to a load side.

        Raises Unavailable if the database cannot reserve the block.
        """
        ...
