"""What the engine asks of a database: one read and one write a batch. Two implementations, one for each database."""

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
)  # fmt: skip

MOVEMENT_COLUMNS = (
    "id", "program_id", "kind", "token", "request_hash", "created_ms", "modified_ms", "holder_id", "other_holder_id", "ref_id",
    "doc",
)  # fmt: skip

_outbox_row = itemgetter(*OUTBOX_COLUMNS)


class Insert(NamedTuple):
    """A statement that adds rows with these columns to a table."""

    table: str
    columns: Sequence[str]


class Update(NamedTuple):
    """A statement that sets columns of rows, which it finds by the first of ``columns`` and a further condition."""

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
    # The only movements that change are deposits: their transitions reword them, and one of these has the same id.
    "reword_movements": Update("movements", ("id", "modified_ms", "doc"), f" AND kind = {int(MovementKind.DEPOSIT)}"),
    # Those of an entry that no card made, and of a clearing that the program's overdraft account helped with.
    "insert_account_journal": Insert("journal", (*JOURNAL_COLUMNS, "fees", "transit", "overdraft", "deposits")),
    "insert_shadow_hits": Insert("shadow_hits", ("program_id", "control_id", "transaction_id")),
}
"""The statements of a commit and the columns of their rows; ``LIST_TRANSACTIONS`` is one more, with ids as its rows."""

LIST_TRANSACTIONS = (
    "INSERT INTO holder_transactions (program_id, holder_id, user_time_ms, id) "
    "SELECT program_id, holder_id, user_time_ms, id FROM transactions "
)
"""Transactions, which a condition behind it chooses, get their places in the lists of their accounts."""

# What both databases read; behind each of them comes the way in which a database takes keys.
SELECT_HOLDERS = "SELECT h.id, h.revision, h.state, h.recent FROM "

SELECT_PROGRAMS = "SELECT id, revision, clock_offset_ms, clock_frozen_ms FROM programs WHERE id "

SELECT_REPLAYS = "SELECT m.program_id, m.token, m.transaction_id, m.request_hash FROM message_tokens m "

SELECT_MOVEMENTS = "SELECT m.program_id, m.kind, m.token, m.request_hash, m.doc FROM movements m "

SELECT_COMMITTED = "SELECT 1 FROM transactions WHERE id "

SELECT_ORIGINALS = f"SELECT {ORIGINAL_COLUMNS} FROM transactions t JOIN cards c ON c.id = t.card_id WHERE t.id "

# What the engine must know of a card, its user and the owner of its account. Only a child may draw on an account that is not
# its own; the owner is the account's first user then.
# {cards} is the table of cards as ``c`` with the way that a database takes keys.
SELECT_CARDS = """
    SELECT c.program_id, c.token, c.id, c.holder_id, c.pan_sealed, c.pin_sealed, h.revision, c.fact, u.fact,
        CASE WHEN o.id = u.id THEN NULL ELSE o.fact END
    FROM {cards}
    JOIN users u ON u.id = c.user_id
    JOIN holders h ON h.id = c.holder_id
    LEFT JOIN users o ON u.parent_id IS NOT NULL AND o.id = (SELECT min(x.id) FROM users x WHERE x.holder_id = c.holder_id)
"""


POSTGRES_ID_BLOCK = 20_000
"""Ids of transactions that a process on PostgreSQL draws at a time, even and odd."""


class CardRow(NamedTuple):
    """A card as the engine loads it: keys, sealed secrets, and facts as JSON; the owner's is None when it is the user."""

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
    """An account, locked for the batch: revision of its configuration, packed state, its newest transactions."""

    revision: int
    state: bytes
    recent: bytes


class ProgramRow(NamedTuple):
    """A program as the batch finds it: revision of its configuration, clock."""

    revision: int
    offset_ms: int
    frozen_ms: int | None


class ChainRow(NamedTuple):
    """What changes of a chain's root when a later message arrives."""

    id: int
    state: int
    hold_left: int
    load_left: int
    cleared: int
    due_ms: int


class Replay(NamedTuple):
    """A message with this token was decided before."""

    transaction_id: int
    request_hash: bytes


MovementKey = tuple[int, int, str]
"""Program id, kind and token of a movement: each kind has a space of tokens of its own."""


class MovementReplay(NamedTuple):
    """A movement with this token was carried out before."""

    request_hash: bytes
    doc: str


@dataclass(slots=True)
class LoadedRows:
    """What one read brings; ``rows`` are the transactions that the batch's messages follow, or repeat."""

    holders: dict[int, HolderRow]
    programs: dict[int, ProgramRow]
    replays: dict[tuple[int, str], Replay]
    rows: dict[int, TransactionRow]
    movements: dict[MovementKey, MovementReplay] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadSet:
    """What a batch must see. Holder ids are in ascending order: the order of locks."""

    holder_ids: Sequence[int]
    program_ids: Sequence[int]
    row_ids: Sequence[int]
    tokens: Sequence[tuple[int, str]]
    movements: Sequence[MovementKey] = ()


@dataclass(slots=True)
class WriteSet:
    """What one commit leaves: rows in the order of the columns of ``CHANGES``. ``grown`` are the details of chains' roots
    that know of a further increment, ``reworded`` times and documents of direct deposits that changed, ``listed`` the ids of
    transactions that no account's own row names any more (see ``account_lists``)."""

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
"""The name of a statement, and the rows of parameters that it is run with."""


def changes_of(write: WriteSet) -> list[StatementRows]:
    """Return the statements of a commit in the order in which both databases run them, each with its rows, at least one."""
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
    """The doubt whether a batch was committed."""
    return InDoubt(reason, [row.id for row in write.transactions], want.holder_ids)


def noop() -> None:
    """What there is to do while the database works, where nobody has anything."""


class Worker(Protocol):
    """One batch at a time: ``begin``, then ``commit`` or ``abort``. After Unavailable the worker can only be closed."""

    async def begin(self, want: ReadSet, deadline: float) -> LoadedRows:
        """Opens a transaction, locks the accounts in the order of their ids and reads everything the batch needs.

        ``deadline`` is the time of the event loop until which the whole batch may take. Raises Conflict and Unavailable.
        """
        ...

    async def commit(self, write: WriteSet, meanwhile: Callable[[], None]) -> None:
        """Writes and commits; ``meanwhile`` is called once, when the commit is on its way and there is nothing but to wait.

        Raises Conflict when it must be run again, Unavailable when it failed, InDoubt when it may have been committed, and
        what ``meanwhile`` raises never.
        """
        ...

    async def is_committed(self, doubt: InDoubt, deadline: float) -> bool:
        """Whether the transaction in doubt, of a connection that is lost, was committed; it is over then, and cannot be later.

        Raises Unavailable when that cannot be found out.
        """
        ...

    async def abort(self) -> None:
        """Ends the transaction without a trace."""
        ...

    async def close(self) -> None:
        """Ends the connection."""
        ...


class EngineStore(Protocol):
    """The engine's access to a database."""

    workers_max: int

    async def open_worker(self) -> Worker:
        """A new worker with its own connection, on which a commit has just succeeded.

        Raises Unavailable, SchemaChanged.
        """
        ...

    async def load_cards(self, keys: Sequence[tuple[int, str]]) -> list[CardRow]:
        """The cards with these (program id, token); unknown ones are left out. Raises Unavailable."""
        ...

    async def load_originals(self, ids: Sequence[int]) -> list[Original]:
        """The transactions of cards with these ids; unknown ones are left out. Raises Unavailable."""
        ...

    async def load_chosen(self, keys: Sequence[TokenKey]) -> dict[TokenKey, Original]:
        """Those whose senders chose these tokens; unknown ones are left out. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Ends what the store itself has open; workers are closed by those who opened them."""
        ...

    def next_ids(self) -> range:
        """A block of transaction ids for this process alone, in steps of two: the second is the load side's.

        Raises Unavailable.
        """
        ...
