"""Data keys: the table ``data_keys``. The first start of a server fills it, because only the server has the master key."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "data_keys",
        sa.Column("key_id", sa.SmallInteger(), nullable=False, autoincrement=False),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "purpose", name=op.f("pk_data_keys")),
    )
