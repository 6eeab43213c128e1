"""The foundation: programs, resources, accounts, transactions, journal, outbox, inbox."""

from alembic import op
from sqlalchemy.schema import CreateSequence, Sequence

from cardwright.storage.tables import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQLITE_APPEND_ONLY = """
CREATE TRIGGER journal_is_append_only_{verb} BEFORE {verb} ON journal
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'resetting')
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END
"""

POSTGRES_APPEND_ONLY = """
CREATE FUNCTION refuse_journal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM meta WHERE key = 'resetting') THEN RETURN OLD; END IF;
    RAISE EXCEPTION 'the journal is append-only';
END $$;
CREATE TRIGGER journal_is_append_only BEFORE UPDATE OR DELETE ON journal FOR EACH ROW EXECUTE FUNCTION refuse_journal_change();
CREATE FUNCTION refuse_journal_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$;
CREATE TRIGGER journal_is_not_truncated BEFORE TRUNCATE ON journal FOR EACH STATEMENT EXECUTE FUNCTION refuse_journal_truncate();
"""


def upgrade() -> None:
    """Creates every table, and what the databases need to keep the journal append-only."""
    metadata.create_all(op.get_bind())
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(SQLITE_APPEND_ONLY.format(verb=verb))
    else:
        op.execute(CreateSequence(Sequence("transaction_blocks")))
        op.execute(POSTGRES_APPEND_ONLY)
