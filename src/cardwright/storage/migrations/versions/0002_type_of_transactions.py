"""The type of a transaction: `transactions.kind` becomes `type_id`."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rename the column in place. Both databases change only their catalog, so the size of the table does not matter."""
    op.execute("ALTER TABLE transactions RENAME COLUMN kind TO type_id")
