"""Sealed secrets: headers of inbox messages become envelopes, and the first start of a server seals what is in clear."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Convert the column, and note in ``meta`` that old rows wait for a start with the master key, which seals them."""
    if op.get_bind().dialect.name == "sqlite":
        # Zeros replace the freed bytes, or the headers would stay in clear in unused parts of pages.
        op.execute("PRAGMA secure_delete = ON")
        op.execute("ALTER TABLE inbox_messages ADD COLUMN headers_sealed BLOB NOT NULL DEFAULT x''")
        op.execute("UPDATE inbox_messages SET headers_sealed = CAST(headers AS BLOB)")
        op.execute("ALTER TABLE inbox_messages DROP COLUMN headers")
    else:
        op.execute("ALTER TABLE inbox_messages ALTER COLUMN headers TYPE bytea USING convert_to(headers, 'UTF8')")
        op.execute("ALTER TABLE inbox_messages RENAME COLUMN headers TO headers_sealed")
    op.execute(
        "INSERT INTO meta (key, value) SELECT 'rows in clear', 'webhooks, inbox_messages' "
        "WHERE EXISTS (SELECT 1 FROM webhooks) OR EXISTS (SELECT 1 FROM inbox_messages)"
    )
