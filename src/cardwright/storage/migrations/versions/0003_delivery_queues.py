"""A delivery queue for each webhook and each endpoint of simulations: `outbox.queue_id`."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and fill it in rows that wait or are being sent. Other rows are never claimed and keep the default.

    The addresses of simulations are encrypted, so those of one program keep one queue until they are delivered.
    """
    op.add_column("outbox", sa.Column("queue_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.execute("UPDATE outbox SET queue_id = coalesce(webhook_id, -program_id) WHERE state IN (1, 4)")
    op.create_index(op.f("ix_outbox_state_queue_id_due_ms"), "outbox", ["state", "queue_id", "due_ms"])
    if op.get_context().dialect.name == "postgresql":
        op.drop_index(op.f("ix_outbox_state_due_ms"), "outbox")
        settled = sa.text("state <> 1")
        op.create_index(op.f("ix_outbox_state_due_ms"), "outbox", ["state", "due_ms"], postgresql_where=settled)
