"""Real-time fee groups: queries for the fees that decisions charge, and for the fee transactions that a batch needs."""

from collections.abc import Collection

from sqlalchemy import Connection, Table, select

from cardwright.core.fee_groups import RealTimeFee, fees_by_holder_group
from cardwright.core.transaction_row import TransactionRow
from cardwright.storage.tables import account_holder_groups, fees, real_time_fee_groups, transactions

FeesByGroup = dict[str, tuple[RealTimeFee, ...]]
"""The fees by the token of the account holder group whose members pay them."""


def load_fees(db: Connection, program_id: int, currency: str) -> FeesByGroup | None:
    """Return the real-time fees by account holder group. Return None if the program never had a fee group."""
    groups = _docs(db, real_time_fee_groups, program_id)
    if not groups:
        return None
    holder_groups = _docs(db, account_holder_groups, program_id).values()
    return fees_by_holder_group(holder_groups, groups, _docs(db, fees, program_id), currency)


def _docs(db: Connection, table: Table, program_id: int) -> dict[str, str]:
    rows = db.execute(select(table.c.token, table.c.doc).where(table.c.program_id == program_id).order_by(table.c.id))
    return {row.token: row.doc for row in rows}


def load_rows(db: Connection, ids: Collection[int]) -> list[TransactionRow]:
    """Return the transactions with these ids."""
    columns = (transactions.c[name] for name in TransactionRow._fields)
    return [TransactionRow(*row) for row in db.execute(select(*columns).where(transactions.c.id.in_(ids)))]
