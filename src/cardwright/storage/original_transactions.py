"""The transaction that a later message names, as far as it must be known before its account is locked."""

from typing import NamedTuple, Self

from cardwright.core.transaction_row import CARD_SIDE, TransactionRow, id_and_kind_of, root_token, token_of

TokenKey = tuple[int, str]
"""Program id and transaction token."""


class Original(NamedTuple):
    """A transaction that others can follow: what never changes of its row, and the card's token."""

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
        """What is kept of a row."""
        return cls(
            row.id, row.program_id, row.type_id, row.code, row.created_ms, row.user_time_ms, row.root_id, row.seed, card_token
        )

    @property
    def first_id(self) -> int:
        """The row of the chain's root, which is its own when it follows nothing."""
        return self.id if self.root_id is None else self.root_id

    @property
    def root_key(self) -> TokenKey:
        """By which the chain's root is found, whatever token its sender chose: its row's own token always names it, too."""
        return self.program_id, root_token(self)


ORIGINAL_COLUMNS = ", ".join([*(f"t.{name}" for name in Original._fields[:-1]), "c.token"])
"""An original's columns, of transactions as ``t`` and cards as ``c``."""


def claimed_id(token: str) -> int | None:
    """The row that a token says it names, as the card's side of it."""
    claim = id_and_kind_of(token)
    return claim[0] if claim is not None and claim[1] == CARD_SIDE else None


def is_named(original: Original, key: TokenKey) -> bool:
    """A token carries its row's id; what it claims counts only when the whole of it is right."""
    return original.program_id == key[0] and token_of(original) == key[1]
