"""Original transactions: the constant part of a transaction that later messages refer to, readable without a lock."""

from typing import NamedTuple, Self

from cardwright.core.transaction_row import CARD_SIDE, TransactionRow, id_and_kind_of, root_token, token_of

TokenKey = tuple[int, str]
"""Program id and transaction token."""


class Original(NamedTuple):
    """A transaction that later messages can refer to: the columns of its row that never change, and the token of its card."""

    id: int
    program_id: int
    type_id: int
    code: int
    created_ms: int
    user_time_ms: int
    root_id: int | None
    seed: int
    card_token: str

    @classmethod
    def of(cls, row: TransactionRow, card_token: str) -> Self:
        """Return the original of a transaction row."""
        return cls(
            row.id, row.program_id, row.type_id, row.code, row.created_ms, row.user_time_ms, row.root_id, row.seed, card_token
        )

    @property
    def first_id(self) -> int:
        """The row id of the chain's root: the row's own id if it is a root."""
        return self.id if self.root_id is None else self.root_id

    @property
    def root_key(self) -> TokenKey:
        """The key that finds the chain's root. A row's generated token is valid even if its sender chose another token."""
        return self.program_id, root_token(self)


ORIGINAL_COLUMNS = ", ".join([*(f"t.{name}" for name in Original._fields[:-1]), "c.token"])
"""The columns of an original in SQL, with ``t`` for transactions and ``c`` for cards."""


def claimed_id(token: str) -> int | None:
    """Return the row id that a token contains if it has the kind CARD_SIDE, else None. The token is not verified."""
    claim = id_and_kind_of(token)
    return claim[0] if claim is not None and claim[1] == CARD_SIDE else None


def is_named(original: Original, key: TokenKey) -> bool:
    """Return True if a key refers to this transaction: program and complete token must match, not only the row id."""
    return original.program_id == key[0] and token_of(original) == key[1]
