"""Accounts as movements name them: by the token of a user who draws on one."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from cardwright.storage.history import Kind, doc_as_of
from cardwright.storage.tables import holders, users


class Account(NamedTuple):
    """A user and the account that he draws on, with the facts about him and its owner at the account's revision."""

    user_id: int
    holder_id: int
    revision: int
    user_doc: str
    owner_doc: str


def load_accounts(db: Connection, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Account]:
    """The accounts of the users with these (program id, token); unknown users are left out."""
    found = {key: _find(db, *key) for key in keys}
    return {key: account for key, account in found.items() if account is not None}


def _find(db: Connection, program_id: int, token: str) -> Account | None:
    query = select(users.c.id, users.c.holder_id, holders.c.revision).join(holders, holders.c.id == users.c.holder_id)
    row = db.execute(query.where(users.c.program_id == program_id, users.c.token == token)).one_or_none()
    if row is None:
        return None
    owner_id = db.execute(select(func.min(users.c.id)).where(users.c.holder_id == row.holder_id)).scalar_one()
    # As of the revision that was read, whatever is committed meanwhile.
    user, owner = (doc_as_of(db, program_id, Kind.USER, one, row.revision) for one in (row.id, owner_id))
    return Account(row.id, row.holder_id, row.revision, user, owner)
