"""Data keys: the keys of the vault as rows, wrapped under the master key, and the states of sealing keys."""

from collections.abc import Mapping
from enum import IntEnum

from sqlalchemy import ColumnElement, Connection, and_, select, update

from cardwright.kit.clock import Instant
from cardwright.kit.vault import KEY_IDS_MAX, SEALING_PURPOSES, DataKeys, KeyName, MasterKey
from cardwright.storage.programs import find_value
from cardwright.storage.tables import data_keys, meta

KEY_CHECK = "master key"
"""The key in the table ``meta`` of the keyed hash that identifies the master key."""


class KeyState(IntEnum):
    """The state of a data key. The complete or used sealing key with the highest id seals new envelopes."""

    PREPARED = 0
    """No envelope is sealed under it yet. Running servers load it."""
    REFUSED = 1
    """A running server could not unwrap it while it was prepared. It is never used, and neither is its id."""
    USED = 2
    """It seals new envelopes. Envelopes under older keys may remain."""
    COMPLETE = 3
    """No envelope under an older key remained when it got this state."""


_SEALING = data_keys.c.purpose == SEALING_PURPOSES[0]

# Built once: SQLAlchemy takes longer to build a statement than SQLite takes to run it.
_STATES = select(data_keys.c.key_id, data_keys.c.state).where(_SEALING).order_by(data_keys.c.key_id)
_LOCK = select(meta.c.value).where(meta.c.key == KEY_CHECK).with_for_update()


class KeysExhausted(Exception):
    """The use of all key ids of a database."""


class OtherMasterKey(Exception):
    """A master key that does not wrap the data keys of the database."""


def find_key_check(db: Connection) -> str | None:
    """Return the key check of the master key that wraps the data keys, or None before the first start of a server."""
    return find_value(db, KEY_CHECK)


def lock_key_check(db: Connection) -> str | None:
    """Return the key check, and lock it until the commit: every change of the data keys takes this lock."""
    value: str | None = db.scalar(_LOCK)
    return value


def has_data_keys(db: Connection) -> bool:
    """Return whether the database has data keys."""
    return db.execute(select(data_keys.c.key_id).limit(1)).first() is not None


def find_key_states(db: Connection) -> dict[int, KeyState]:
    """Return the state of each sealing key by its id, in ascending order."""
    return {row.key_id: KeyState(row.state) for row in db.execute(_STATES)}


def sealing_id_of(states: Mapping[int, KeyState]) -> int:
    """Return the id of the keys that seal new envelopes."""
    return max(key_id for key_id, state in states.items() if state >= KeyState.USED)


def load_data_keys(db: Connection, master_key: MasterKey) -> DataKeys:
    """Return the data keys. Raises VaultError if one is damaged."""
    rows = db.execute(select(data_keys).where(data_keys.c.state != KeyState.REFUSED)).all()
    keys = dict[KeyName, bytes]()
    states = dict[int, KeyState]()
    for row in rows:
        name = KeyName(row.key_id, row.purpose)
        keys[name] = master_key.unwrap(name, bytes(row.wrapped))
        if row.purpose == SEALING_PURPOSES[0]:
            states[row.key_id] = KeyState(row.state)
    return DataKeys(keys, sealing_id_of(states))


def insert_data_keys(db: Connection, master_key: MasterKey, keys: Mapping[KeyName, bytes], state: KeyState, now: Instant) -> None:
    """Insert data keys, wrapped under the master key."""
    rows = [
        {"key_id": name.key_id, "purpose": name.purpose, "state": int(state), "created_ms": now,
         "wrapped": master_key.wrap(name, key)}
        for name, key in keys.items()
    ]  # fmt: skip
    db.execute(data_keys.insert(), rows)


def wrap_anew(db: Connection, old: MasterKey, new: MasterKey) -> int:
    """Wrap all data keys under a new master key, and store its key check. Return the number of data keys.

    The caller holds the lock of the key check. Raises VaultError if a data key is damaged.
    """
    rows = db.execute(select(data_keys.c.key_id, data_keys.c.purpose, data_keys.c.wrapped)).all()
    for row in rows:
        name = KeyName(row.key_id, row.purpose)
        wrapped = new.wrap(name, old.unwrap(name, bytes(row.wrapped)))
        db.execute(update(data_keys).where(_is(name)).values(wrapped=wrapped))
    db.execute(update(meta).where(meta.c.key == KEY_CHECK).values(value=new.check()))
    return len(rows)


def next_key_id(states: Mapping[int, KeyState]) -> int:
    """Return the id of the next sealing keys. Raises KeysExhausted if none is left. Ids are never used twice."""
    if (key_id := max(states) + 1) > KEY_IDS_MAX:
        raise KeysExhausted(f"all {KEY_IDS_MAX} key ids of the database have been used")
    return key_id


def set_key_state(db: Connection, key_id: int, before: KeyState, after: KeyState) -> bool:
    """Set the state of the sealing keys with this id. Return False, without a change, if it was not ``before``."""
    condition = and_(data_keys.c.key_id == key_id, data_keys.c.purpose.in_(SEALING_PURPOSES), data_keys.c.state == int(before))
    return db.execute(update(data_keys).where(condition).values(state=int(after))).rowcount > 0


def _is(name: KeyName) -> ColumnElement[bool]:
    return and_(data_keys.c.key_id == name.key_id, data_keys.c.purpose == name.purpose)
