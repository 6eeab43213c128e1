"""Tables of both databases, as SQLAlchemy Core metadata. The migrations create exactly these tables."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite generates ids only for a column that is declared INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")


def _key() -> Column[int]:
    return Column("id", Id, Identity(), primary_key=True)


def _program() -> Column[int]:
    return Column("program_id", Id, ForeignKey("programs.id"), nullable=False)


def _program_of_batch() -> Column[int]:
    # Batches write these rows. With a foreign key PostgreSQL would look up and lock the program for each row.
    return Column("program_id", Id, nullable=False)


ACCOUNT_COLUMNS: dict[str, str] = {}
"""Column that leads to a row's account, by the name of its table.

The column has the account's id (``id`` or ``holder_id``), or the id of a user, card, deposit account or transaction of it.
"""


def _account_table(name: str, account: str, *columns: SchemaItem, **options: Any) -> Table:
    """Return a table whose rows each belong to one account, which the column ``account`` leads to.

    This is the place for a distribution key.
    """
    ACCOUNT_COLUMNS[name] = account
    return Table(name, metadata, *columns, **options)


def _fact() -> Column[Any]:
    # A copy of the newest document in the configuration history, for decisions. NULL only within the transaction that creates it.
    return Column("fact", Text)


def _resource(name: str, *columns: SchemaItem, account: str | None = None) -> Table:
    """Return a table of API resources: ``doc`` is the JSON that a GET returns, the other columns are for SQL."""
    items: tuple[SchemaItem, ...] = (
        _key(),
        _program(),
        Column("token", String(36), nullable=False),
        Column("request_hash", LargeBinary, nullable=False),
        Column("created_ms", BigInteger, nullable=False),
        Column("modified_ms", BigInteger, nullable=False),
        Column("doc", Text, nullable=False),
        *columns,
        UniqueConstraint("program_id", "token"),
    )
    return Table(name, metadata, *items) if account is None else _account_table(name, account, *items)


meta = Table(
    "meta",
    metadata,
    Column("key", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

programs = Table(
    "programs",
    metadata,
    _key(),
    Column("token", String(36), nullable=False, unique=True),
    Column("name", String(50), nullable=False),
    Column("short_code", String(10), nullable=False),
    Column("settings", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("clock_offset_ms", BigInteger, nullable=False),
    Column("clock_frozen_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    _program(),
    Column("token", String(36), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    # A revoked pair keeps its row, so that a start with the same pair does not make it valid again.
    Column("revoked_ms", BigInteger),
    # True for the pair of the environment or of secrets.json at the last start.
    Column("is_given", Boolean, nullable=False),
    UniqueConstraint("program_id", "token"),
)

# The keys of the vault, wrapped under the master key. ``state`` is a ``KeyState`` of ``data_keys.py``.
data_keys = Table(
    "data_keys",
    metadata,
    Column("key_id", SmallInteger, primary_key=True, autoincrement=False),
    Column("purpose", String(20), primary_key=True),
    Column("state", SmallInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
)

# One row for each account: balances and velocity usage together, locked and written once a batch.
holders = _account_table(
    "holders",
    "id",
    _key(),
    _program(),
    Column("revision", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
    # The ids of the account's recent transactions, which are not in ``holder_transactions`` yet: see ``account_transactions``.
    Column("recent", LargeBinary, nullable=False),
    Index(None, "program_id"),
    # Free space on each page keeps a new version of a row on its page, so that PostgreSQL updates no index (HOT).
    postgresql_with={"fillfactor": 60},
)

funding_sources = _resource("funding_sources", Column("kind", String(20), nullable=False))

card_products = _resource("card_products")

users = _resource(
    "users",
    Column("holder_id", Id, ForeignKey("holders.id"), nullable=False),
    Column("parent_id", Id, ForeignKey("users.id")),
    Column("status", String(12), nullable=False),
    Column("email", String(255)),
    Column("phone", String(255)),
    Column("sealed", LargeBinary),
    _fact(),
    UniqueConstraint("program_id", "email"),
    Index(None, "parent_id"),
    Index(None, "holder_id"),
    account="holder_id",
)

# Users' account numbers for direct deposits. They are not card numbers.
deposit_accounts = _resource(
    "deposit_accounts",
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Column("account_number", String(17), nullable=False),
    Column("immediate", Boolean, nullable=False),
    UniqueConstraint("program_id", "account_number"),
    Index(None, "user_id"),
    account="user_id",
)

deposit_account_transitions = _resource(
    "deposit_account_transitions",
    Column("account_id", Id, ForeignKey("deposit_accounts.id"), nullable=False),
    Index(None, "account_id"),
    account="account_id",
)

user_transitions = _resource(
    "user_transitions",
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Index(None, "user_id"),
    account="user_id",
)

cards = _resource(
    "cards",
    Column("holder_id", Id, ForeignKey("holders.id"), nullable=False),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Column("product_id", Id, ForeignKey("card_products.id"), nullable=False),
    Column("state", String(12), nullable=False),
    Column("last_four", String(4), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("barcode", String(20), nullable=False),
    Column("pan_digest", LargeBinary, nullable=False),
    Column("pan_sealed", LargeBinary, nullable=False),
    Column("pin_sealed", LargeBinary),
    _fact(),
    UniqueConstraint("program_id", "barcode"),
    Index(None, "user_id"),
    Index(None, "holder_id"),
    Index(None, "program_id", "last_four"),
    Index(None, "program_id", "pan_digest"),
    account="holder_id",
)

# Every card number ever issued, so that none is issued twice. A reissued card shares the row of its source.
pans = Table(
    "pans",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    _program(),
)

card_transitions = _resource(
    "card_transitions",
    Column("card_id", Id, ForeignKey("cards.id"), nullable=False),
    Index(None, "card_id"),
    account="card_id",
)


def _control(name: str, *columns: Column[object]) -> Table:
    """Return a table of controls. ``fact`` is the JSON that decisions need."""
    return _resource(
        name,
        Column("active", Boolean, nullable=False),
        Column("user_token", String(36)),
        Column("card_product_token", String(36)),
        Column("fact", Text, nullable=False),
        *columns,
        Index(None, "program_id", "user_token"),
        Index(None, "program_id", "card_product_token"),
    )


velocity_controls = _control(
    "velocity_controls",
    # 0: never a shadow control; 1: a shadow control, which declines nothing; 2: promoted from a shadow control.
    Column("shadow", SmallInteger, nullable=False, server_default="0"),
)

auth_controls = _control("auth_controls")

exempt_mids = _control("exempt_mids")

# ``members`` has every code or merchant id between line feeds, so that SQL can test for a member.
mcc_groups = _resource(
    "mcc_groups",
    Column("active", Boolean, nullable=False),
    Column("fact", Text, nullable=False),
    Column("members", Text, nullable=False),
)

merchant_groups = _resource(
    "merchant_groups",
    Column("active", Boolean, nullable=False),
    Column("members", Text, nullable=False),
)

accepted_countries = _resource(
    "accepted_countries",
    Column("name", Text, nullable=False),
    Column("is_whitelist", Boolean, nullable=False),
)

account_holder_groups = _resource("account_holder_groups")

webhooks = _resource(
    "webhooks",
    Column("active", Boolean, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

# Versions of configuration objects, each from a revision on. Responses are rendered, and decisions explained, with the version of
# their time.
config_history = Table(
    "config_history",
    metadata,
    Column("program_id", Id, ForeignKey("programs.id"), primary_key=True),
    Column("kind", SmallInteger, primary_key=True),
    Column("object_id", Id, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("doc", Text, nullable=False),
)

POSTGRES_ID_BLOCK = 20_000
"""Size of an id block on PostgreSQL, counting even and odd ids. The sequence ``transaction_blocks`` numbers the blocks."""

# One row for each message and its outcome. A load or unload that a card's message caused is in the same row (`moved`); its token
# has the kind LOAD_SIDE.
transactions = _account_table(
    "transactions",
    "holder_id",
    Column("id", Id, primary_key=True, autoincrement=False),
    _program_of_batch(),
    Column("holder_id", Id, nullable=False),
    Column("card_id", Id),
    Column("source_id", Id),
    Column("type_id", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("first_state", SmallInteger, nullable=False),
    Column("code", SmallInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("user_time_ms", BigInteger, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("request_amount", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("impacted", BigInteger),
    Column("moved", BigInteger, nullable=False),
    Column("hold_left", BigInteger, nullable=False),
    Column("load_left", BigInteger, nullable=False),
    Column("cleared", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("ledger", BigInteger, nullable=False),
    Column("available", BigInteger, nullable=False),
    Column("root_id", Id),
    Column("seed", BigInteger, nullable=False),
    Column("program_revision", BigInteger, nullable=False),
    Column("holder_revision", BigInteger, nullable=False),
    Column("details", LargeBinary, nullable=False),
    Index(None, "program_id", "user_time_ms", "id"),
    Index(None, "root_id", postgresql_where=text("root_id IS NOT NULL"), sqlite_where=text("root_id IS NOT NULL")),
    # Only rows that follow another: for a root both times are equal, and the index above serves it. So a purchase adds no entry
    # here.
    Index(
        None,
        "program_id",
        "created_ms",
        "id",
        postgresql_where=text("root_id IS NOT NULL"),
        sqlite_where=text("root_id IS NOT NULL"),
    ),
    # Open holds and pending deposits by their due time. A row leaves the index when `due_ms` becomes 0.
    Index(None, "program_id", "due_ms", postgresql_where=text("due_ms > 0"), sqlite_where=text("due_ms > 0")),
)

# The list of each account's transactions in list order, without the recent transactions, which the account's row lists.
holder_transactions = _account_table(
    "holder_transactions",
    "holder_id",
    _program_of_batch(),
    Column("holder_id", Id, primary_key=True, autoincrement=False),
    Column("user_time_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Id, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# Movements: orders, unloads, fees, transfers and direct deposits with their transitions. The id is the id of the first
# transaction. A deposit shares it with the transition of its arrival.
movements = _account_table(
    "movements",
    "holder_id",
    Column("id", Id, primary_key=True, autoincrement=False),
    _program_of_batch(),
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("token", String(36), nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("holder_id", Id, nullable=False),
    Column("other_holder_id", Id),
    # The object that the movement refers to: the order of an unload, the fee transaction of a refund, the type of a program
    # transfer. For a deposit it is the account, and for a transition the deposit.
    Column("ref_id", Id),
    Column("doc", Text, nullable=False),
    UniqueConstraint("program_id", "kind", "token"),
    Index(None, "holder_id"),
    Index(None, "other_holder_id"),
    Index(None, "ref_id"),
)

fees = _resource("fees")

real_time_fee_groups = _resource("real_time_fee_groups")

auto_reloads = _resource(
    "auto_reloads",
    Column("active", Boolean, nullable=False),
    Column("user_token", String(36)),
    Column("card_product_token", String(36)),
    Column("fact", Text, nullable=False),
)

program_transfer_types = _resource(
    "program_transfer_types",
    Column("source_id", Id, ForeignKey("funding_sources.id"), nullable=False),
)

# Tokens that senders chose for their messages. A replay finds the first outcome here.
message_tokens = _account_table(
    "message_tokens",
    "transaction_id",
    Column("program_id", Id, primary_key=True),
    Column("token", String(36), primary_key=True),
    Column("transaction_id", Id, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
)

# Approved purchases that a shadow control would have declined.
shadow_hits = _account_table(
    "shadow_hits",
    "transaction_id",
    Column("program_id", Id, primary_key=True),
    Column("control_id", Id, primary_key=True),
    Column("transaction_id", Id, primary_key=True),
)

JOURNAL_ACCOUNTS = ("program_funding", "available", "held", "settlement", "fees", "transit", "overdraft", "deposits")

# One row for each entry, one column for each account of the chart. A CHECK constraint refuses an entry that does not sum to zero.
journal = _account_table(
    "journal",
    "holder_id",
    Column("id", Id, primary_key=True, autoincrement=False),
    _program_of_batch(),
    Column("holder_id", Id, nullable=False),
    Column("source_id", Id),
    Column("currency", String(3), nullable=False),
    Column("booked_ms", BigInteger, nullable=False),
    *(Column(account, BigInteger, nullable=False, server_default="0") for account in JOURNAL_ACCOUNTS),
    CheckConstraint(" + ".join(JOURNAL_ACCOUNTS) + " = 0", name="balances"),
)

# Notifications: one row for up to ten events to one address, written in the commit that caused the events.
outbox = Table(
    "outbox",
    metadata,
    _key(),
    _program_of_batch(),
    Column("webhook_id", Id),
    Column("target", LargeBinary),
    Column("category", SmallInteger, nullable=False),
    Column("refs", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("tries", SmallInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("attempts", Text, nullable=False),
    # The webhook's id, or the negative id of the endpoint that a simulation named. 0 in final rows of before this column.
    Column("queue_id", BigInteger, nullable=False, server_default=text("0")),
    # For due rows (state 1) only the second index must be used: the deliverer steps from queue to queue, so that the backlog of
    # one does not delay others. PostgreSQL can choose the first one by old statistics, so there it has no due rows.
    Index(None, "state", "due_ms", postgresql_where=text("state <> 1")),
    Index(None, "state", "queue_id", "due_ms"),
    Index(None, "program_id", "id"),
)

# Requests to the addresses under /sandbox/inbox. `received_ms` is the program's time, `stored_ms` is real time. `number` counts
# the program's messages; `begin_bytes` and `end_bytes` are the size of all messages before this one, and with it. So the limits
# need no count of rows. The index has all three, because SQLite reads a large body to find the columns after it.
inbox_messages = Table(
    "inbox_messages",
    metadata,
    _key(),
    _program(),
    Column("box", String(64), nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("stored_ms", BigInteger, nullable=False),
    Column("headers_sealed", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("number", BigInteger, nullable=False, server_default="0"),
    Column("begin_bytes", BigInteger, nullable=False, server_default="0"),
    Column("end_bytes", BigInteger, nullable=False, server_default="0"),
    Index(None, "program_id", "box", "id"),
    Index(None, "program_id", "number", "begin_bytes", "end_bytes"),
)

# Backtests: task, progress and sums. `lease_ms` is the real time at which the claim of a process ends, or, for a finished
# backtest, the real time of its end.
backtests = _resource(
    "backtests",
    Column("state", String(12), nullable=False),
    Column("job", Text, nullable=False),
    Column("cursor", Id, nullable=False),
    Column("sums", Text, nullable=False),
    Column("lease_ms", BigInteger, nullable=False),
)

# The purchases whose decision a backtest changed, in the order of the replay.
backtest_flips = Table(
    "backtest_flips",
    metadata,
    _program(),
    Column("backtest_id", Id, primary_key=True),
    Column("number", Id, primary_key=True, autoincrement=False),
    Column("doc", Text, nullable=False),
)
