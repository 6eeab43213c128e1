"""Resealing: seals all envelopes under new data keys, in short transactions, while servers read and write them.

Each step stores its rows by comparison with the old envelope, so a concurrent change of a secret is never undone. A step can be
killed at any point: envelopes name their key, and the key states name the next step. Old sealing keys stay in the database and
only open envelopes, because a process that was paused may still write an envelope under one of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, LargeBinary, Select, bindparam, func, select, update

from cardwright.kit.clock import RealClock
from cardwright.kit.failpoints import failpoint
from cardwright.kit.vault import SEALING_PURPOSES, MasterKey, Vault, VaultError, random_keys
from cardwright.storage.data_keys import (
    KeyState,
    OtherMasterKey,
    find_key_states,
    insert_data_keys,
    lock_key_check,
    next_key_id,
    set_key_state,
)
from cardwright.storage.database import Database
from cardwright.storage.envelopes import ENVELOPES, EnvelopeColumn
from cardwright.storage.failures import Damaged, Unavailable

ROWS_MAX: Final = 200
"""Rows of one step, which is one transaction: on SQLite purchases wait for it, about 2 ms."""

PAUSE_SHARE: Final = 3
"""Ratio of a pause to the transaction before it, so that three quarters of the time remain for other writers."""

SETTLE_S: Final = 2.0
"""Seconds after a change of a key state until running servers have noticed it. They look twice a second."""

PASS_PAUSE_S: Final = 0.2
"""Seconds between two passes over all columns."""

TRIES_MAX: Final = 10
"""Maximum number of attempts of one step while the database is busy or away."""

TRY_PAUSE_S: Final = 1.0
"""Seconds between two attempts."""

DAMAGED_MAX: Final = 20
"""Maximum number of places of damaged envelopes in a result."""


T = TypeVar("T")


class KeyRefused(Exception):
    """A new data key that a running server could not unwrap, because it has another master key."""


@dataclass(slots=True)
class Progress:
    """The number of envelopes under older keys at the start, the number sealed since by column, and the damaged ones.

    ``damaged`` has the first DAMAGED_MAX places, ``damaged_count`` their number.
    """

    total: int
    resealed: dict[str, int] = field(default_factory=lambda: {column.name: 0 for column in ENVELOPES})
    damaged: list[str] = field(default_factory=list)
    damaged_count: int = 0

    @property
    def done(self) -> int:
        """Return the number of envelopes that have been sealed anew."""
        return sum(self.resealed.values())


class _Step(NamedTuple):
    """The result of one step: the last row, the rows with older keys, and those that were sealed anew or are damaged."""

    last_id: int
    rows: int
    resealed: int
    damaged: list[int]


# --- Keys ---------------------------------------------------------------------------------


def prepare_key(database: Database, master_key: MasterKey, now: RealClock) -> tuple[int, KeyState]:
    """Return id and state of the sealing keys to seal under: those of an interrupted run, else new ones, which are prepared.

    Raises OtherMasterKey, and KeysExhausted if no key id is left.
    """
    with database.write() as db:
        if lock_key_check(db) != master_key.check():
            # Another process has wrapped the data keys anew.
            raise OtherMasterKey("another process has changed the master key")
        states = find_key_states(db)
        newest = max(states)
        if states[newest] in (KeyState.PREPARED, KeyState.USED):
            return newest, states[newest]
        key_id = next_key_id(states)
        insert_data_keys(db, master_key, random_keys(key_id, SEALING_PURPOSES), KeyState.PREPARED, now())
        return key_id, KeyState.PREPARED


def use_key(database: Database, key_id: int) -> None:
    """Let new envelopes be sealed under prepared keys. Raises KeyRefused if a running server could not unwrap them."""
    with database.write() as db:
        lock_key_check(db)
        is_used = set_key_state(db, key_id, KeyState.PREPARED, KeyState.USED)
        is_refused = not is_used and find_key_states(db)[key_id] is KeyState.REFUSED
    if is_refused:
        raise KeyRefused


def refuse_prepared_keys(database: Database) -> list[int]:
    """Refuse the prepared sealing keys, which this process cannot unwrap. Return their ids."""
    with database.write() as db:
        lock_key_check(db)
        prepared = [key_id for key_id, state in find_key_states(db).items() if state is KeyState.PREPARED]
        return [key_id for key_id in prepared if set_key_state(db, key_id, KeyState.PREPARED, KeyState.REFUSED)]


# --- Envelopes ----------------------------------------------------------------------------


def reseal_all(database: Database, vault: Vault, key_id: int, show: Callable[[Progress], None]) -> Progress:
    """Seal every envelope under the used keys with this id, and mark the keys as complete.

    The passes end when one that began SETTLE_S after the start finds no envelope under an older key. ``show`` is called after
    each step. Raises Unavailable if the database is away; another call continues.
    """
    begin_s = time.monotonic()
    progress = Progress(_with_patience(partial(count_old, database, key_id)))
    show(progress)
    while True:
        pass_s = time.monotonic()
        remaining, damaged = 0, list[str]()
        for column in ENVELOPES:
            last_id = 0
            while step := _with_patience(partial(reseal_some, database, vault, column, key_id, last_id)):
                last_id = step.last_id
                progress.resealed[column.name] += step.resealed
                damaged += [f"{column.name} {row_id}" for row_id in step.damaged]
                remaining += step.rows - len(step.damaged)
                show(progress)
        if remaining == 0 and pass_s - begin_s >= SETTLE_S:
            break
        time.sleep(PASS_PAUSE_S)
    progress.damaged, progress.damaged_count = damaged[:DAMAGED_MAX], len(damaged)
    failpoint("reseal.complete")
    with database.write() as db:
        lock_key_check(db)
        set_key_state(db, key_id, KeyState.USED, KeyState.COMPLETE)
    return progress


def count_old(database: Database, key_id: int) -> int:
    """Return the number of envelopes under other keys than those with this id."""
    with database.read() as db:
        return sum(db.scalar(select(func.count()).where(_is_old(column, key_id))) or 0 for column in ENVELOPES)


def reseal_some(database: Database, vault: Vault, column: EnvelopeColumn, key_id: int, after_id: int) -> _Step | None:
    """Seal the next envelopes of a column in one transaction. Return None if no row after ``after_id`` has an older key.

    Rows that another transaction has locked are left for the next pass, so no purchase waits for this one in a cycle.
    """
    with database.read() as db:
        rows = db.execute(_old_rows(column, key_id, after_id)).all()
    if not rows:
        return None
    changes, damaged = dict[int, tuple[bytes, bytes]](), list[int]()
    for row in rows:
        try:
            changes[row.id] = (bytes(row.envelope), column.seal(vault, row, column.open(vault, row, bytes(row.envelope))))
        except VaultError:
            damaged.append(row.id)
    failpoint("reseal.read")
    start_s = time.monotonic()
    resealed = _store(database, column, changes) if changes else 0
    time.sleep(PAUSE_SHARE * (time.monotonic() - start_s))
    return _Step(rows[-1].id, len(rows), resealed, damaged)


def _store(database: Database, column: EnvelopeColumn, changes: dict[int, tuple[bytes, bytes]]) -> int:
    """Store new envelopes in the rows that still have the old ones and that no other transaction has locked."""
    table, name = column.column.table, column.column.name
    free = select(table.c.id).where(table.c.id.in_(changes)).order_by(table.c.id)
    change = update(table).where(table.c.id == bindparam("row_id"), column.column == bindparam("before"))
    change = change.values({name: bindparam("after")})
    with database.write() as db:
        failpoint("reseal.step")
        resealed = 0
        for row_id in db.scalars(free.with_for_update(key_share=True, skip_locked=True)).all():
            before, after = changes[row_id]
            resealed += db.execute(change, {"row_id": row_id, "before": before, "after": after}).rowcount
    failpoint("reseal.stored")
    return resealed


def _old_rows(column: EnvelopeColumn, key_id: int, after_id: int) -> Select[Any]:
    table = column.column.table
    query = select(table.c.id, *column.owner, column.column.label("envelope"))
    return query.where(table.c.id > after_id, _is_old(column, key_id)).order_by(table.c.id).limit(ROWS_MAX)


def _is_old(column: EnvelopeColumn, key_id: int) -> ColumnElement[bool]:
    # The comparison is unknown, so not true, for a row without an envelope.
    return func.substr(column.column, 1, 1, type_=LargeBinary) < bytes([key_id])


def _with_patience(step: Callable[[], T]) -> T:
    """Return the result of a step, after at most TRIES_MAX attempts. Raises Unavailable."""
    for _ in range(TRIES_MAX - 1):
        try:
            return step()
        except Damaged:
            raise
        except Unavailable:
            time.sleep(TRY_PAUSE_S)
    return step()
