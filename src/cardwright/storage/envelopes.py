"""Envelopes: all columns with secrets that the vault has sealed, and the owner that each envelope is bound to.

A new column with envelopes is declared here, or ``cardwright rekey --data`` leaves it under its old key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, select

from cardwright.kit.vault import Vault
from cardwright.storage.database import Row
from cardwright.storage.tables import cards, inbox_messages, outbox, programs, users, webhooks

# --- Owners -------------------------------------------------------------------------------

TARGET_CONTEXT = "inline-webhook"
"""The vault's context of ``outbox.target``: JSON with ``endpoint``, and optionally ``username``, ``password`` and ``secret``."""


def headers_context(program_id: int) -> str:
    """Return the context that the headers of messages in the webhook inbox are sealed for."""
    return f"inbox-headers:{program_id}"


def pin_context(card_id: int) -> str:
    """Return the context that the PIN of a card is sealed for."""
    return f"pin:{card_id}"


def user_context(program_token: str, token: str) -> str:
    """Return the context that the secrets of a user are sealed for."""
    return f"user:{program_token}:{token}"


def webhook_context(program_id: int, token: str) -> str:
    """Return the context that the secrets of a registered webhook are sealed for."""
    return f"webhook:{program_id}:{token}"


# --- Columns ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EnvelopeColumn:
    """A column with envelopes. ``owner`` has the columns that ``open`` and ``seal`` read from a row."""

    column: Column[Any]
    owner: tuple[ColumnElement[Any], ...]
    open: Callable[[Vault, Row, bytes], str]
    seal: Callable[[Vault, Row, str], bytes]

    @property
    def name(self) -> str:
        """Return the name of table and column."""
        return f"{self.column.table.name}.{self.column.name}"


def _secret(column: Column[Any], owner: tuple[ColumnElement[Any], ...], context: Callable[[Row], str]) -> EnvelopeColumn:
    """Return a column of ``Vault.seal``."""
    return EnvelopeColumn(
        column,
        owner,
        open=lambda vault, row, envelope: vault.open(envelope, context(row)),
        seal=lambda vault, row, text: vault.seal(text, context(row)),
    )


_PROGRAM_OF_USER = select(programs.c.token).where(programs.c.id == users.c.program_id).scalar_subquery().label("program_token")

ENVELOPES = (
    EnvelopeColumn(
        cards.c.pan_sealed,
        (cards.c.program_id, cards.c.token),
        open=lambda vault, row, envelope: vault.decrypt_pan(envelope, str(row.program_id), row.token),
        seal=lambda vault, row, pan: vault.encrypt_pan(pan, str(row.program_id), row.token),
    ),
    _secret(cards.c.pin_sealed, (), lambda row: pin_context(row.id)),
    _secret(users.c.sealed, (_PROGRAM_OF_USER, users.c.token), lambda row: user_context(row.program_token, row.token)),
    _secret(webhooks.c.sealed, (webhooks.c.program_id, webhooks.c.token), lambda row: webhook_context(row.program_id, row.token)),
    _secret(outbox.c.target, (), lambda _: TARGET_CONTEXT),
    _secret(inbox_messages.c.headers_sealed, (inbox_messages.c.program_id,), lambda row: headers_context(row.program_id)),
)
"""All columns with envelopes. Each table has the primary key ``id``."""

DIGESTS = frozenset({"digest", "pan_digest", "request_hash"})
"""Names of columns with keyed hashes of the vault."""
