"""Accounts for movements: the account that a user's token refers to, and a program's auto reloads."""

from collections.abc import Collection
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, func, select

from cardwright.core.movement_types import LOADS
from cardwright.core.movements import AutoReload
from cardwright.storage.account_transactions import find_own
from cardwright.storage.tables import auto_reloads, holders, transactions, users


class Account(NamedTuple):
    """A user's account, with the facts of the user and of the account's owner.

    ``owner_fact`` is None if the user is the owner.
    """

    holder_id: int
    revision: int
    user_fact: str
    owner_fact: str | None


def load_account(db: Connection, program_id: int, token: str) -> Account | None:
    """Return the account of the user with this token, read in one statement. Return None if there is no such user."""
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
    """Return the accounts among these that ever received a load, whatever their balance is now."""
    row = transactions.c
    query = select(row.holder_id).where(find_own(db, holder_ids).condition, row.type_id.in_(LOADS), row.impacted > 0)
    return set(db.scalars(query.distinct()))


def load_reloads(db: Connection, program_id: int) -> list[AutoReload]:
    """Return the program's active auto reloads, oldest first."""
    columns = auto_reloads.c
    query = select(columns.fact).where(columns.program_id == program_id, columns.active).order_by(columns.id)
    return [msgspec.json.decode(fact, type=AutoReload) for fact in db.scalars(query)]
