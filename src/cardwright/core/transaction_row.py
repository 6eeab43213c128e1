"""A transaction as it is stored, and the identifiers that follow from it."""

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple, Protocol

from cardwright.core.messages import Details
from cardwright.core.responses import Reason

CARD_SIDE = 0
LOAD_SIDE = 1
ORDER = 2
RELOAD = 3

# A direct deposit's first row has no order and sets off no auto reload: its tokens of these kinds belong to transitions that the
# platform makes.
ARRIVAL = 2
SETTLEMENT = 3

PARTIALLY_APPROVED = Reason.PARTIALLY_APPROVED.number

_HALVES = Struct(">QQ")


class TransactionRow(NamedTuple):
    """A row of ``transactions``, in the order of its columns: one message, its outcome, and the load it caused.

    Amounts in minor units of ``currency``, instants in milliseconds. ``moved`` is the amount of the funding order in this
    message: what JIT Funding loaded or a clearing captured (positive), or what went back to the source (negative);
    ``ledger`` and ``available`` are the balances after the message; ``impacted`` is None when it was refused, ``card_id``
    when no card was used. ``seed`` are 63 random bits from which token, approval code and trace numbers follow; a chain of
    a card's messages shares those of its root.

    Of a chain's root ``state``, ``hold_left``, ``load_left`` (what JIT Funding brought and would get back), ``cleared``
    (what was settled in all) and ``due_ms`` (when what is left of the hold expires, 0 without one) change as later messages
    arrive, and the increments in its details; everything else of every row is final.
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
        """Return a selected row as a value: the columns of ``transactions`` come first."""
        return cls(*row[: len(cls._fields)])


class Identified(Protocol):
    """What tokens follow from, of a whole row or of what is kept of it."""

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
    """The UUID (RFC 9562, version 7) of a transaction, of its load side or of its order.

    It carries the row's id, so that finding a transaction by token needs no index of its own: 48 bits of time, 12
    random, 40 bits of id, 20 random, 2 bits for the kind of token.
    """
    return _token(row.id, row.created_ms, row.seed, token_kind)


def _token(row_id: int, created_ms: int, seed: int, token_kind: int) -> str:
    high = created_ms << 16 | 0x7000 | (seed >> 20) & 0xFFF
    low = 1 << 63 | row_id << 22 | (seed & 0xFFFFF) << 2 | token_kind
    # Formatting the five groups as numbers takes half as long again, and every message makes some.
    text = _HALVES.pack(high, low).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def with_kind(token: str, token_kind: int) -> str:
    """The token of the same row's other kind: only its last hexadecimal digit differs."""
    return token[:-1] + "0123456789abcdef"[int(token[-1], 16) | token_kind]


def root_token(row: Identified) -> str:
    """The token of the chain's root, which a later message follows from the row itself: they share time and seed."""
    assert row.root_id is not None, "a root follows nothing"
    return _token(row.root_id, row.user_time_ms, row.seed, 0)


def id_and_kind_of(token: str) -> tuple[int, int] | None:
    """The row id and kind that a token claims to carry; None when it cannot be one of ours. The claim must be checked."""
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
    """Six digits, the same through the chain because its rows share their seed's source (ISO 8583 DE38)."""
    return f"{(row.seed >> 3) % 1_000_000:06d}"


def trace_number(row: TransactionRow) -> str:
    """The acquirer's system trace audit number, six digits, one for each message (ISO 8583 DE11)."""
    return _trace(row.seed, row.id)


def root_trace_number(row: TransactionRow) -> str:
    """The trace number of the chain's root."""
    assert row.root_id is not None, "a root follows nothing"
    return _trace(row.seed, row.root_id)


def _trace(seed: int, row_id: int) -> str:
    return f"{((seed >> 23) + row_id) % 1_000_000:06d}"


def network_reference(row: TransactionRow) -> str:
    """The network's twelve-digit id of the chain."""
    return f"{(row.seed >> 11) % 1_000_000_000_000:012d}"
