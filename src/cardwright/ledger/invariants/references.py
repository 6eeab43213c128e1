"""Invariants of references: every referenced object exists and belongs to the same program."""

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, ScalarSelect, Table, and_, case, func, or_, select, true

from cardwright.core.transaction_types import REQUEST_TYPES
from cardwright.ledger.invariants.scan import CHUNK, Discrepancy, stream
from cardwright.outbox.events import Category
from cardwright.outbox.render import TRANSITIONS
from cardwright.storage.database import Row
from cardwright.storage.history import INACTIVE, Kind
from cardwright.storage.tables import (
    auth_controls,
    card_products,
    cards,
    config_history,
    deposit_accounts,
    exempt_mids,
    funding_sources,
    holders,
    journal,
    mcc_groups,
    message_tokens,
    movements,
    outbox,
    programs,
    shadow_hits,
    transactions,
    users,
    velocity_controls,
    webhooks,
)

# --- Everything that is pointed at is there -----------------------------------------------


def transaction_ids_are_odd(db: Connection) -> Iterator[Discrepancy]:
    """Every transaction has an odd id; the even id after it belongs to its load side."""
    for row in stream(db, select(transactions.c.id).where(transactions.c.id % 2 == 0)):
        yield f"transaction {row.id}", "an odd id", row.id


def message_token_has_its_transaction(db: Connection) -> Iterator[Discrepancy]:
    """Every token that a client chose refers to a transaction of its program."""
    key = message_tokens.c
    join = and_(transactions.c.id == key.transaction_id, transactions.c.program_id == key.program_id)
    query = select(key.token, key.transaction_id).outerjoin_from(message_tokens, transactions, join)
    for row in stream(db, query.where(transactions.c.id.is_(None))):
        yield f"message token {row.token}", "a transaction of its program", f"transaction {row.transaction_id}"


def movement_has_its_transaction(db: Connection) -> Iterator[Discrepancy]:
    """Every movement has its first transaction, in its program and without a card."""
    key = movements.c
    join = and_(transactions.c.id == key.id, transactions.c.program_id == key.program_id, transactions.c.card_id.is_(None))
    query = select(key.id, key.token).outerjoin_from(movements, transactions, join)
    for row in stream(db, query.where(transactions.c.id.is_(None))):
        yield f"movement {row.token}", f"transaction {row.id} of its program", None


def shadow_hit_has_its_purchase(db: Connection) -> Iterator[Discrepancy]:
    """Every recorded hit of a shadow control refers to an approved purchase of its program."""
    hit = shadow_hits.c
    query = (
        select(hit.control_id, hit.transaction_id)
        .outerjoin_from(
            shadow_hits, transactions, and_(transactions.c.id == hit.transaction_id, transactions.c.program_id == hit.program_id)
        )
        .outerjoin(
            velocity_controls,
            and_(velocity_controls.c.id == hit.control_id, velocity_controls.c.program_id == hit.program_id),
        )
    )
    wrong = or_(
        transactions.c.impacted.is_(None), transactions.c.type_id.not_in(REQUEST_TYPES), velocity_controls.c.shadow.not_in((1, 2))
    )
    for row in stream(db, query.where(or_(wrong, velocity_controls.c.id.is_(None)))):
        yield f"shadow control {row.control_id}", "an approved purchase of its program", f"transaction {row.transaction_id}"


def notification_has_its_objects(db: Connection) -> Iterator[Discrepancy]:
    """Every notification in the outbox refers to existing objects and an existing webhook of its program."""
    query = select(outbox.c.id, outbox.c.program_id, outbox.c.category, outbox.c.refs, outbox.c.webhook_id)
    join = and_(webhooks.c.id == outbox.c.webhook_id, webhooks.c.program_id == outbox.c.program_id)
    orphans = query.outerjoin_from(outbox, webhooks, join).where(outbox.c.webhook_id.is_not(None), webhooks.c.id.is_(None))
    for row in stream(db, orphans):
        yield f"outbox {row.id}", "a webhook of its program", f"webhook {row.webhook_id}"
    for rows in db.execute(query, execution_options={"yield_per": CHUNK}).partitions():
        for category in Category:
            yield from _missing_objects(db, category, [row for row in rows if row.category == category])


def _missing_objects(db: Connection, category: Category, rows: list[Row]) -> Iterator[Discrepancy]:
    table, condition = TRANSITIONS.get(category, (transactions, true()))
    key = transactions.c.id if category is Category.TRANSACTION else table.c.token
    refs = {row.id: msgspec.json.decode(row.refs) for row in rows}
    wanted = sorted({ref for named in refs.values() for ref in named})
    present = set[tuple[int, Any]]()
    for start in range(0, len(wanted), CHUNK):
        query = select(table.c.program_id, key).where(condition, key.in_(wanted[start : start + CHUNK]))
        present |= {(row[0], row[1]) for row in db.execute(query)}
    for row in rows:
        for ref in refs[row.id]:
            if (row.program_id, ref) not in present:
                yield f"outbox {row.id}", f"{table.name} of its program", ref


# The tables with versions in the history, and the object that counts their changes: the account, or the program.
_REMEMBERED = (
    (Kind.FUNDING_SOURCE, funding_sources, programs, funding_sources.c.program_id),
    (Kind.CARD_PRODUCT, card_products, programs, card_products.c.program_id),
    (Kind.USER, users, holders, users.c.holder_id),
    (Kind.CARD, cards, holders, cards.c.holder_id),
)


def configuration_has_history(db: Connection) -> Iterator[Discrepancy]:
    """The history has every funding source, card product, user and card, up to a current revision."""
    for kind, table, owner, owner_id in _REMEMBERED:
        newest = select(func.max(config_history.c.revision)).where(
            config_history.c.program_id == table.c.program_id,
            config_history.c.kind == int(kind),
            config_history.c.object_id == table.c.id,
        )
        known = newest.scalar_subquery()
        query = select(table.c.id, known.label("known"), owner.c.revision).join_from(table, owner, owner.c.id == owner_id)
        for row in stream(db, query.where(or_(known.is_(None), known > owner.c.revision))):
            yield f"{table.name} {row.id}", f"a version in the history up to revision {row.revision}", row.known


def _newest_version(kind: Kind, table: Table) -> ScalarSelect[str]:
    """Return the query of the newest version in the history of each object of a table."""
    return (
        select(config_history.c.doc)
        .where(config_history.c.program_id == table.c.program_id, config_history.c.kind == int(kind))
        .where(config_history.c.object_id == table.c.id)
        .order_by(config_history.c.revision.desc())
        .limit(1)
        .scalar_subquery()
    )


def facts_match_history(db: Connection) -> Iterator[Discrepancy]:
    """The facts of users and cards that decisions read are the newest versions in the history."""
    for kind, table in ((Kind.USER, users), (Kind.CARD, cards)):
        newest = _newest_version(kind, table)
        query = select(table.c.id, newest.label("newest"), table.c.fact).where(table.c.fact.is_distinct_from(newest))
        for row in stream(db, query):
            yield f"{table.name} {row.id}", f"{row.newest}", f"{row.fact}"


_CONTROLS = (
    (Kind.VELOCITY_CONTROL, velocity_controls), (Kind.AUTH_CONTROL, auth_controls), (Kind.EXEMPTION, exempt_mids),
    (Kind.MCC_GROUP, mcc_groups),
)  # fmt: skip


def controls_match_history(db: Connection) -> Iterator[Discrepancy]:
    """The controls and MCC groups that decisions read are the newest versions in the history, inactive ones included."""
    for kind, table in _CONTROLS:
        newest = _newest_version(kind, table)
        read = case((table.c.active, table.c.fact), else_=INACTIVE)
        query = select(table.c.id, newest.label("newest"), read.label("read")).where(read.is_distinct_from(newest))
        for row in stream(db, query):
            yield f"{table.name} {row.id}", f"{row.newest}", f"{row.read}"


# --- Programs stay apart ------------------------------------------------------------------

_POINTERS = (
    (users, users.c.holder_id, holders), (users, users.c.parent_id, users), (cards, cards.c.holder_id, holders),
    (cards, cards.c.user_id, users), (cards, cards.c.product_id, card_products),
    (transactions, transactions.c.holder_id, holders), (transactions, transactions.c.card_id, cards),
    (transactions, transactions.c.source_id, funding_sources), (transactions, transactions.c.root_id, transactions),
    (journal, journal.c.holder_id, holders), (movements, movements.c.holder_id, holders),
    (movements, movements.c.other_holder_id, holders), (deposit_accounts, deposit_accounts.c.user_id, users),
)  # fmt: skip


def programs_stay_apart(db: Connection) -> Iterator[Discrepancy]:
    """Every user, card, transaction, entry and movement refers only to objects of the same program."""
    for table, pointer, pointed in _POINTERS:
        target = pointed.alias("target")
        query = select(table.c.id, pointer.label("target_id"), table.c.program_id, target.c.program_id.label("other"))
        query = query.outerjoin_from(table, target, target.c.id == pointer).where(pointer.is_not(None))
        for row in stream(db, query.where(target.c.program_id.is_distinct_from(table.c.program_id))):
            yield f"{table.name} {row.id}, {pointed.name} {row.target_id}", f"program {row.program_id}", f"program {row.other}"


def card_draws_on_its_users_account(db: Connection) -> Iterator[Discrepancy]:
    """Every card uses the account of its user."""
    query = select(cards.c.id, cards.c.holder_id, users.c.holder_id.label("users")).join(users, users.c.id == cards.c.user_id)
    for row in stream(db, query.where(cards.c.holder_id != users.c.holder_id)):
        yield f"card {row.id}", f"holder {row.users}", f"holder {row.holder_id}"
