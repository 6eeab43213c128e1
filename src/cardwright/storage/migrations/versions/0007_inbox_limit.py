"""The limit of the webhook inbox: each message gets its number in its program, and the bytes of the messages up to it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COUNT = """
UPDATE inbox_messages
SET number = counted.number, begin_bytes = counted.end_bytes - counted.size, end_bytes = counted.end_bytes
FROM (
    SELECT id, length(headers_sealed) + length(body) AS size, row_number() OVER earlier AS number,
        sum(length(headers_sealed) + length(body)) OVER earlier AS end_bytes
    FROM inbox_messages WINDOW earlier AS (PARTITION BY program_id ORDER BY id)
) AS counted
WHERE counted.id = inbox_messages.id
"""

REMOVE_OLDEST = """
DELETE FROM inbox_messages WHERE id IN (
    SELECT message.id
    FROM inbox_messages AS message
    JOIN (
        SELECT program_id, max(number) AS number, max(end_bytes) AS end_bytes FROM inbox_messages GROUP BY program_id
    ) AS newest ON newest.program_id = message.program_id AND newest.number > message.number
    WHERE message.number <= newest.number - 10000 OR message.begin_bytes < newest.end_bytes - 64000000
)
"""


def upgrade() -> None:
    """Count the stored messages, and remove the oldest beyond the limit. The index has all that a new message reads."""
    for name in ("number", "begin_bytes", "end_bytes"):
        op.add_column("inbox_messages", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.execute(COUNT)
    op.execute(REMOVE_OLDEST)
    columns = ["program_id", "number", "begin_bytes", "end_bytes"]
    op.create_index(op.f("ix_inbox_messages_program_id_number_begin_bytes_end_bytes"), "inbox_messages", columns)
