"""The foundation: programs, resources, accounts, transactions, journal, outbox, inbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import CreateSequence, Sequence

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite generates ids only for a column that is declared INTEGER.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

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
    """Create every table, and the triggers that keep the journal append-only."""
    create_tables()
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(SQLITE_APPEND_ONLY.format(verb=verb))
    else:
        op.execute(CreateSequence(Sequence("transaction_blocks")))
        op.execute(POSTGRES_APPEND_ONLY)


def create_tables() -> None:
    """Create the tables of this revision. Later migrations contain all later changes."""
    op.create_table(
        "journal",
        sa.Column("id", ID, autoincrement=False, nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("holder_id", ID, nullable=False),
        sa.Column("source_id", ID, nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("booked_ms", sa.BigInteger(), nullable=False),
        sa.Column("program_funding", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("available", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("settlement", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("fees", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("transit", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("overdraft", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("deposits", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "program_funding + available + held + settlement + fees + transit + overdraft + deposits = 0",
            name=op.f("ck_journal_balances"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
    )
    op.create_table(
        "message_tokens",
        sa.Column("program_id", ID, nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("transaction_id", ID, nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("program_id", "token", name=op.f("pk_message_tokens")),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("webhook_id", ID, nullable=True),
        sa.Column("target", sa.LargeBinary(), nullable=True),
        sa.Column("category", sa.SmallInteger(), nullable=False),
        sa.Column("refs", sa.Text(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.SmallInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(op.f("ix_outbox_program_id_id"), "outbox", ["program_id", "id"])
    op.create_index(op.f("ix_outbox_state_due_ms"), "outbox", ["state", "due_ms"])
    op.create_table(
        "programs",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("short_code", sa.String(length=10), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("clock_offset_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock_frozen_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_programs")),
        sa.UniqueConstraint("token", name=op.f("uq_programs_token")),
    )
    op.create_table(
        "transactions",
        sa.Column("id", ID, autoincrement=False, nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("holder_id", ID, nullable=False),
        sa.Column("card_id", ID, nullable=True),
        sa.Column("source_id", ID, nullable=True),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("first_state", sa.SmallInteger(), nullable=False),
        sa.Column("code", sa.SmallInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("user_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("request_amount", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("impacted", sa.BigInteger(), nullable=True),
        sa.Column("moved", sa.BigInteger(), nullable=False),
        sa.Column("hold_left", sa.BigInteger(), nullable=False),
        sa.Column("load_left", sa.BigInteger(), nullable=False),
        sa.Column("cleared", sa.BigInteger(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("ledger", sa.BigInteger(), nullable=False),
        sa.Column("available", sa.BigInteger(), nullable=False),
        sa.Column("root_id", ID, nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("program_revision", sa.BigInteger(), nullable=False),
        sa.Column("holder_revision", sa.BigInteger(), nullable=False),
        sa.Column("details", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transactions")),
    )
    op.create_index(op.f("ix_transactions_program_id_user_time_ms_id"), "transactions", ["program_id", "user_time_ms", "id"])
    follows = sa.text("root_id IS NOT NULL")
    for columns, some in (
        (["root_id"], follows),
        (["program_id", "created_ms", "id"], follows),
        (["program_id", "due_ms"], sa.text("due_ms > 0")),
    ):
        name = op.f(f"ix_transactions_{'_'.join(columns)}")
        op.create_index(name, "transactions", columns, postgresql_where=some, sqlite_where=some)
    op.create_table(
        "holder_transactions",
        sa.Column("program_id", ID, nullable=False),
        sa.Column("holder_id", ID, autoincrement=False, nullable=False),
        sa.Column("user_time_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", ID, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("holder_id", "user_time_ms", "id", name=op.f("pk_holder_transactions")),
        sqlite_with_rowid=False,
    )
    create_resource("card_products")
    op.create_table(
        "config_history",
        sa.Column("program_id", ID, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("object_id", ID, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_config_history_program_id")),
        sa.PrimaryKeyConstraint("program_id", "kind", "object_id", "revision", name=op.f("pk_config_history")),
    )
    op.create_table(
        "credentials",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_credentials_program_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_credentials")),
    )
    create_resource(
        "funding_sources",
        sa.Column("kind", sa.String(length=20), nullable=False),
    )
    op.create_table(
        "holders",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("recent", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_holders_program_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holders")),
        postgresql_with={"fillfactor": 60},
    )
    op.create_index(op.f("ix_holders_program_id"), "holders", ["program_id"])
    op.create_table(
        "inbox_messages",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("box", sa.String(length=64), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("stored_ms", sa.BigInteger(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_inbox_messages_program_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox_messages")),
    )
    op.create_index(op.f("ix_inbox_messages_program_id_box_id"), "inbox_messages", ["program_id", "box", "id"])
    op.create_table(
        "pans",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_pans_program_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_pans")),
    )
    create_resource(
        "webhooks",
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.Column("holder_id", ID, nullable=False),
        sa.Column("parent_id", ID, nullable=True),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=True),
        sa.Column("phone", sa.String(length=255), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("fact", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["holder_id"], ["holders.id"], name=op.f("fk_users_holder_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["users.id"], name=op.f("fk_users_parent_id")),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_users_program_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("program_id", "email", name=op.f("uq_users_program_id_email")),
        sa.UniqueConstraint("program_id", "token", name=op.f("uq_users_program_id_token")),
    )
    op.create_index(op.f("ix_users_holder_id"), "users", ["holder_id"])
    op.create_index(op.f("ix_users_parent_id"), "users", ["parent_id"])
    op.create_table(
        "cards",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.Column("holder_id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("product_id", ID, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("last_four", sa.String(length=4), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("barcode", sa.String(length=20), nullable=False),
        sa.Column("pan_digest", sa.LargeBinary(), nullable=False),
        sa.Column("pan_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("pin_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("fact", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["holder_id"], ["holders.id"], name=op.f("fk_cards_holder_id")),
        sa.ForeignKeyConstraint(["product_id"], ["card_products.id"], name=op.f("fk_cards_product_id")),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_cards_program_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_cards_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cards")),
        sa.UniqueConstraint("program_id", "barcode", name=op.f("uq_cards_program_id_barcode")),
        sa.UniqueConstraint("program_id", "token", name=op.f("uq_cards_program_id_token")),
    )
    op.create_index(op.f("ix_cards_holder_id"), "cards", ["holder_id"])
    op.create_index(op.f("ix_cards_program_id_last_four"), "cards", ["program_id", "last_four"])
    op.create_index(op.f("ix_cards_program_id_pan_digest"), "cards", ["program_id", "pan_digest"])
    op.create_index(op.f("ix_cards_user_id"), "cards", ["user_id"])
    op.create_table(
        "user_transitions",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_user_transitions_program_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_user_transitions_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_transitions")),
        sa.UniqueConstraint("program_id", "token", name=op.f("uq_user_transitions_program_id_token")),
    )
    op.create_index(op.f("ix_user_transitions_user_id"), "user_transitions", ["user_id"])
    create_resource(
        "card_transitions",
        sa.Column("card_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["card_id"], ["cards.id"], name=op.f("fk_card_transitions_card_id")),
    )
    op.create_index(op.f("ix_card_transitions_card_id"), "card_transitions", ["card_id"])
    create_resource(
        "auth_controls",
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("user_token", sa.String(length=36), nullable=True),
        sa.Column("card_product_token", sa.String(length=36), nullable=True),
        sa.Column("fact", sa.Text(), nullable=False),
    )
    op.create_index(op.f("ix_auth_controls_program_id_card_product_token"), "auth_controls", ["program_id", "card_product_token"])
    op.create_index(op.f("ix_auth_controls_program_id_user_token"), "auth_controls", ["program_id", "user_token"])
    create_resource(
        "exempt_mids",
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("user_token", sa.String(length=36), nullable=True),
        sa.Column("card_product_token", sa.String(length=36), nullable=True),
        sa.Column("fact", sa.Text(), nullable=False),
    )
    op.create_index(op.f("ix_exempt_mids_program_id_card_product_token"), "exempt_mids", ["program_id", "card_product_token"])
    op.create_index(op.f("ix_exempt_mids_program_id_user_token"), "exempt_mids", ["program_id", "user_token"])
    create_resource(
        "mcc_groups",
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("fact", sa.Text(), nullable=False),
        sa.Column("members", sa.Text(), nullable=False),
    )
    create_resource(
        "merchant_groups",
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("members", sa.Text(), nullable=False),
    )
    create_resource(
        "accepted_countries",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_whitelist", sa.Boolean(), nullable=False),
    )
    create_resource("account_holder_groups")
    create_resource(
        "velocity_controls",
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("user_token", sa.String(length=36), nullable=True),
        sa.Column("card_product_token", sa.String(length=36), nullable=True),
        sa.Column("fact", sa.Text(), nullable=False),
        sa.Column("shadow", sa.SmallInteger(), server_default="0", nullable=False),
    )
    op.create_index(
        op.f("ix_velocity_controls_program_id_card_product_token"), "velocity_controls", ["program_id", "card_product_token"]
    )
    op.create_index(op.f("ix_velocity_controls_program_id_user_token"), "velocity_controls", ["program_id", "user_token"])
    op.create_table(
        "movements",
        sa.Column("id", ID, autoincrement=False, nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.Column("holder_id", ID, nullable=False),
        sa.Column("other_holder_id", ID, nullable=True),
        sa.Column("ref_id", ID, nullable=True),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", "kind", name=op.f("pk_movements")),
        sa.UniqueConstraint("program_id", "kind", "token", name=op.f("uq_movements_program_id_kind_token")),
    )
    for column in ("holder_id", "other_holder_id", "ref_id"):
        op.create_index(op.f(f"ix_movements_{column}"), "movements", [column])
    source = sa.ForeignKeyConstraint(["source_id"], ["funding_sources.id"], name=op.f("fk_program_transfer_types_source_id"))
    create_resource("fees")
    create_resource("real_time_fee_groups")
    create_resource(
        "deposit_accounts",
        sa.Column("user_id", ID, nullable=False),
        sa.Column("account_number", sa.String(length=17), nullable=False),
        sa.Column("immediate", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_deposit_accounts_user_id")),
        sa.UniqueConstraint("program_id", "account_number", name=op.f("uq_deposit_accounts_program_id_account_number")),
    )
    op.create_index(op.f("ix_deposit_accounts_user_id"), "deposit_accounts", ["user_id"])
    create_resource(
        "deposit_account_transitions",
        sa.Column("account_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["deposit_accounts.id"], name=op.f("fk_deposit_account_transitions_account_id")),
    )
    op.create_index(op.f("ix_deposit_account_transitions_account_id"), "deposit_account_transitions", ["account_id"])
    create_resource("program_transfer_types", sa.Column("source_id", ID, nullable=False), source)
    create_resource(
        "auto_reloads",
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("user_token", sa.String(length=36), nullable=True),
        sa.Column("card_product_token", sa.String(length=36), nullable=True),
        sa.Column("fact", sa.Text(), nullable=False),
    )
    op.create_table(
        "shadow_hits",
        sa.Column("program_id", ID, nullable=False),
        sa.Column("control_id", ID, nullable=False),
        sa.Column("transaction_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("program_id", "control_id", "transaction_id", name=op.f("pk_shadow_hits")),
    )
    create_resource(
        "backtests",
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("cursor", ID, nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
        sa.Column("lease_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "backtest_flips",
        sa.Column("program_id", ID, nullable=False),
        sa.Column("backtest_id", ID, nullable=False),
        sa.Column("number", ID, autoincrement=False, nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f("fk_backtest_flips_program_id")),
        sa.PrimaryKeyConstraint("backtest_id", "number", name=op.f("pk_backtest_flips")),
    )


def create_resource(name: str, *items: sa.schema.SchemaItem) -> None:
    """Create a table of API resources with the common columns and further ones."""
    op.create_table(
        name,
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("program_id", ID, nullable=False),
        sa.Column("token", sa.String(length=36), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        *items,
        sa.ForeignKeyConstraint(["program_id"], ["programs.id"], name=op.f(f"fk_{name}_program_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        sa.UniqueConstraint("program_id", "token", name=op.f(f"uq_{name}_program_id_token")),
    )
