"""Credentials that can be revoked: token, creation, revocation and origin of each pair, and the access revision."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DIGITS = {"sqlite": "lower(hex(digest))", "postgresql": "encode(digest, 'hex')"}


def upgrade() -> None:
    """Rebuild the table, because SQLite cannot add a required column without a default.

    All pairs of the default program count as given, so the next start keeps only its own one.
    """
    op.execute("CREATE TABLE credentials_kept AS SELECT digest, program_id FROM credentials")
    op.drop_table("credentials")
    op.create_table(
        "credentials",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
        sa.Column("is_given", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_credentials_program_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_credentials")),
        sa.UniqueConstraint("program_id", "token", name=op.f("uq_credentials_program_id_token")),
    )
    digits = DIGITS[op.get_context().dialect.name]
    op.execute(
        "INSERT INTO credentials (digest, program_id, token, created_ms, is_given) "  # noqa: S608
        f"SELECT digest, program_id, substr({digits}, 1, 16), programs.created_ms, programs.token = 'default' "
        "FROM credentials_kept JOIN programs ON programs.id = program_id"
    )
    op.drop_table("credentials_kept")
    op.execute("INSERT INTO meta (key, value) VALUES ('access revision', '1')")
