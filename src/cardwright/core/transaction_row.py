"""Transaction rows: a transaction as stored, and the identifiers derived from it."""

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple, Protocol

from cardwright.core.messages import Details
from cardwright.core.responses import Reason

CARD_SIDE = 0
LOAD_SIDE = 1
ORDER = 2
RELOAD = 3

# A direct deposit's first row has no order and triggers no auto reload. Its tokens of these kinds belong to the transitions
# that the platform makes.
ARRIVAL = 2
SETTLEMENT = 3

PARTIALLY_APPROVED = Reason.PARTIALLY_APPROVED.number

_HALVES = Struct(">QQ")


class TransactionRow(NamedTuple):
    """Row of ``transactions``, in the order of its columns: a message, its outcome, and its load.

    Amounts are minor units of ``currency``, instants milliseconds. ``moved`` is the amount of the funding order in this
    message: loaded or captured (positive), or returned to the source (negative). ``ledger`` and ``available`` are the balances
    after the message. ``impacted`` is None for a declined message, ``card_id`` for one without a card. ``seed`` has 63 random
    bits, from which token, approval code and trace numbers follow. The messages of a card's chain share the seed of its root.

    Later messages change only the chain's root: ``state``, ``hold_left``, ``load_left``, ``cleared``, ``due_ms``, and the
    increments and parts in its details. All other columns, and all other rows, are final. ``load_left`` is the JIT money that a
    release would return, ``cleared`` the total of settlements. ``due_ms`` is the expiry of the open hold, 0 without one.
    """

    id: int
    program_id: int
    holder_id: int
    card_id: int | None
    source_id: int | None
    type_id: int
    state: int
    first_state: int
    code: int
    created_ms: int
    user_time_ms: int
    duration_ms: int
    currency: str
    request_amount: int
    amount: int
    impacted: int | None
    moved: int
    hold_left: int
    load_left: int
    cleared: int
    due_ms: int
    ledger: int
    available: int
    root_id: int | None
    seed: int
    program_revision: int
    holder_revision: int
    details: bytes

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "TransactionRow":
        """Return a selected row as a value. The columns of ``transactions`` come first in the row."""
        return cls(*row[: len(cls._fields)])


class Identified(Protocol):
    """Columns that tokens follow from, of a whole row or of a stored excerpt."""

    @property
    def id(self) -> int: ...

    @property
    def created_ms(self) -> int: ...

    @property
    def user_time_ms(self) -> int: ...

    @property
    def root_id(self) -> int | None: ...

    @property
    def seed(self) -> int: ...


def token_of(row: Identified, token_kind: int = 0) -> str:
    """Return the UUID (RFC 9562, version 7) of a transaction, its load side or its order.

    The UUID contains the row's id, so a lookup by token needs no separate index. Its bits are 48 of time, 12 random, 40 of id,
    20 random, 2 for the token kind. The other 6 are the UUID's version and variant.
    """
    return _token(row.id, row.created_ms, row.seed, token_kind)


def _token(row_id: int, created_ms: int, seed: int, token_kind: int) -> str:
    high = created_ms << 16 | 0x7000 | (seed >> 20) & 0xFFF
    low = 1 << 63 | row_id << 22 | (seed & 0xFFFFF) << 2 | token_kind
    # Formatting the five groups as numbers takes 1.5 times as long, and every message needs several tokens.
    text = _HALVES.pack(high, low).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def with_kind(token: str, token_kind: int) -> str:
    """Return the token of another kind of the same row. Only the last hexadecimal digit differs."""
    return token[:-1] + "0123456789abcdef"[int(token[-1], 16) | token_kind]


def root_token(row: Identified) -> str:
    """Return the token of the chain's root. It follows from any later row, because both share time and seed."""
    assert row.root_id is not None, "a root follows nothing"
    return _token(row.root_id, row.user_time_ms, row.seed, 0)


def id_and_kind_of(token: str) -> tuple[int, int] | None:
    """Return the row id and token kind in a token; None if it has another format. The caller must compare the row's token."""
    bits = token.replace("-", "")
    if len(token) != 36 or len(bits) != 32:
        return None
    try:
        low = int(bits[16:], 16)
    except ValueError:
        return None
    return (low >> 22) & 0xFF_FFFF_FFFF, low & 0b11


def cash_back_of(code: int, details: Details) -> int:
    """Return the part of a transaction's ``amount`` that is cash back, by its response code: a partial approval has none."""
    return 0 if code == PARTIALLY_APPROVED else details.cash_back


def approval_code(row: TransactionRow) -> str:
    """Return the approval code (ISO 8583 DE38): six digits from the seed, the same in the whole chain."""
    return f"{(row.seed >> 3) % 1_000_000:06d}"


def trace_number(row: TransactionRow) -> str:
    """Return the acquirer's system trace audit number (ISO 8583 DE11): six digits from seed and id of the row."""
    return _trace(row.seed, row.id)


def root_trace_number(row: TransactionRow) -> str:
    """Return the trace number of the chain's root."""
    assert row.root_id is not None, "a root follows nothing"
    return _trace(row.seed, row.root_id)


def _trace(seed: int, row_id: int) -> str:
    return f"{((seed >> 23) + row_id) % 1_000_000:06d}"


def network_reference(row: TransactionRow) -> str:
    """Return the network's twelve-digit id of the chain."""
    return f"{(row.seed >> 11) % 1_000_000_000_000:012d}"
