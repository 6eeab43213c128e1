"""Account tables: each table of account data declares its account column, so that one place can add a distribution key."""

from cardwright.storage.tables import ACCOUNT_COLUMNS, metadata

LEADS_TO_AN_ACCOUNT = {"holder_id", "user_id", "card_id", "account_id", "transaction_id"}
"""Columns whose values belong to an account; ``account_id`` is the id of a deposit account."""


def test_every_table_of_an_account_names_its_account() -> None:
    """A table with a column that leads to an account declares one such column, and no other table declares any."""
    leading = {table.name for table in metadata.sorted_tables if LEADS_TO_AN_ACCOUNT & set(table.c.keys())}
    assert set(ACCOUNT_COLUMNS) == leading | {"holders"}, "declare the table with account=, or rename its column"


def test_the_named_column_is_there_and_never_null() -> None:
    """The declared column exists and is not nullable. The table of accounts declares its id."""
    for name, column in ACCOUNT_COLUMNS.items():
        assert not metadata.tables[name].c[column].nullable, f"{name}.{column}"
        assert column in LEADS_TO_AN_ACCOUNT or (name, column) == ("holders", "id"), f"{name}.{column}"
