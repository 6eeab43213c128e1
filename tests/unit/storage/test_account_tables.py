"""Tables of account data are declared as such, so that a distribution key can be added to all of them in one place."""

from cardwright.storage.tables import ACCOUNT_COLUMNS, metadata

LEADS_TO_AN_ACCOUNT = {"holder_id", "user_id", "card_id", "account_id", "transaction_id"}
"""Columns whose values belong to an account; ``account_id`` is a deposit account's."""


def test_every_table_of_an_account_names_its_account() -> None:
    """A table with a column that leads to an account is declared with such a column, and no other table is."""
    leading = {table.name for table in metadata.sorted_tables if LEADS_TO_AN_ACCOUNT & set(table.c.keys())}
    assert set(ACCOUNT_COLUMNS) == leading | {"holders"}, "declare the table with account=, or rename its column"


def test_the_named_column_is_there_and_never_null() -> None:
    """A row without an account could be put nowhere; an account's own id is its key."""
    for name, column in ACCOUNT_COLUMNS.items():
        assert not metadata.tables[name].c[column].nullable, f"{name}.{column}"
        assert column in LEADS_TO_AN_ACCOUNT or (name, column) == ("holders", "id"), f"{name}.{column}"
