"""Accounts as movements name them, by the token of a user who draws on one, and what fills them up by itself."""

from collections.abc import Collection
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, func, select

from cardwright.core.movement_types import LOADS
from cardwright.core.movements import AutoReload
from cardwright.storage.account_transactions import find_own
from cardwright.storage.tables import auto_reloads, holders, transactions, users


class Account(NamedTuple):
    """A user and the account that he draws on, with the facts about him and its owner; None for an owner who is the user."""

    holder_id: int
    revision: int
    user_fact: str
    owner_fact: str | None


def load_account(db: Connection, program_id: int, token: str) -> Account | None:
    """The account of the user with this token, seen at one instant; None when there is no such user."""
    owners, sharing = users.alias("owners"), users.alias("sharing")
    first = select(func.min(sharing.c.id)).where(sharing.c.holder_id == users.c.holder_id).scalar_subquery()
    query = (
        select(users.c.id, users.c.holder_id, holders.c.revision, users.c.fact, owners.c.id, owners.c.fact)
        .join(holders, holders.c.id == users.c.holder_id)
        .join(owners, owners.c.id == first)
        .where(users.c.program_id == program_id, users.c.token == token)
    )
    row = db.execute(query).one_or_none()
    if row is None:
        return None
    user_id, holder_id, revision, fact, owner_id, owner_fact = row
    return Account(holder_id, revision, fact, None if owner_id == user_id else owner_fact)


def loaded_accounts(db: Connection, holder_ids: Collection[int]) -> set[int]:
    """Those of these accounts that something was loaded on, whatever became of it."""
    row = transactions.c
    query = select(row.holder_id).where(find_own(db, holder_ids).condition, row.type_id.in_(LOADS), row.impacted > 0)
    return set(db.scalars(query.distinct()))


def load_reloads(db: Connection, program_id: int) -> list[AutoReload]:
    """The program's active auto reloads."""
    columns = auto_reloads.c
    query = select(columns.fact).where(columns.program_id == program_id, columns.active).order_by(columns.id)
    return [msgspec.json.decode(fact, type=AutoReload) for fact in db.scalars(query)]
