"""Declaration of envelopes: every binary column is known as envelopes, as hashes, or as data without secrets."""

from sqlalchemy import LargeBinary

from cardwright.storage.envelopes import DIGESTS, ENVELOPES
from cardwright.storage.tables import metadata

PLAIN = {"data_keys.wrapped", "holders.recent", "holders.state", "inbox_messages.body", "transactions.details"}
"""Binary columns that the vault has neither sealed nor hashed. The master key wraps ``data_keys.wrapped``."""


def test_every_binary_column_is_declared() -> None:
    """A new binary column must be declared, because `rekey --data` would leave undeclared envelopes under their old key."""
    binary = [column for table in metadata.sorted_tables for column in table.c if isinstance(column.type, LargeBinary)]
    undeclared = {str(column) for column in binary if column.name not in DIGESTS} - PLAIN
    assert undeclared == {column.name for column in ENVELOPES}


def test_envelopes_are_resealed_by_id() -> None:
    """Each table with envelopes has the primary key ``id``, by which `rekey --data` proceeds."""
    assert {tuple(column.column.table.primary_key.columns.keys()) for column in ENVELOPES} == {("id",)}
