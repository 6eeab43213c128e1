"""Credentials of programs: pairs of tokens, of which only a keyed hash is stored, and the access revision.

The access revision is a number in ``meta``. Every change that makes a pair invalid increases it, in the same transaction. Each
process reads it with the heartbeat of its monitor, and then forgets which pairs were valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, Text, bindparam, cast, select
from sqlalchemy.sql.elements import ColumnElement

from cardwright.kit.clock import Instant
from cardwright.storage.tables import credentials, meta, programs

ACCESS_REVISION = "access revision"
"""The key of the access revision in ``meta``. The migrations insert it."""

TOKEN_DIGITS = 16
"""Hexadecimal digits of the token of a pair: the first digits of its keyed hash."""

access_revision = select(meta.c.value).where(meta.c.key == ACCESS_REVISION).scalar_subquery()
"""The access revision, as a column of another statement."""

# Built once: SQLAlchemy takes longer to build a statement than SQLite takes to run it.
_ACCESS = select(credentials.c.program_id, access_revision.label("revision")).where(
    credentials.c.digest == bindparam("digest"), credentials.c.revoked_ms.is_(None)
)


@dataclass(frozen=True, slots=True)
class Credential:
    """A valid pair of tokens. ``is_given`` is True for the pair of the environment or of ``secrets.json`` at the last start."""

    token: str
    created_ms: Instant
    is_given: bool


@dataclass(frozen=True, slots=True)
class Access:
    """The program that a pair opens, and the access revision at which the pair was valid."""

    program_id: int
    revision: str


class Revoked(Exception):
    """A pair that was revoked, and therefore never becomes valid again."""


class OfOtherProgram(Exception):
    """A pair that opens another program."""


def find_access(db: Connection, digest: bytes) -> Access | None:
    """Return the access that a pair gives, or None. ``digest`` is the keyed hash of the pair."""
    row = db.execute(_ACCESS, {"digest": digest}).one_or_none()
    return None if row is None else Access(row.program_id, row.revision)


def has_credential(db: Connection, digest: bytes) -> bool:
    """Return True if a pair exists, valid or revoked, in any program."""
    return db.scalar(select(credentials.c.token).where(credentials.c.digest == digest)) is not None


def token_of(digest: bytes) -> str:
    """Return the token of the pair with this keyed hash."""
    return digest.hex()[:TOKEN_DIGITS]


def list_credentials(db: Connection, program_id: int) -> list[Credential]:
    """Return the valid pairs of a program, oldest first."""
    query = select(credentials).where(*_of(program_id)).order_by(credentials.c.created_ms, credentials.c.token)
    return [Credential(row.token, row.created_ms, row.is_given) for row in db.execute(query)]


def lock_credentials(db: Connection, program_id: int) -> list[Credential]:
    """Return the valid pairs of a program, and block all other changes of them until the commit."""
    db.execute(select(programs.c.id).where(programs.c.id == program_id).with_for_update(key_share=True))
    return list_credentials(db, program_id)


def insert_credential(db: Connection, program_id: int, digest: bytes, now: Instant, *, is_given: bool = False) -> Credential:
    """Insert a pair of a program and return it. Only its keyed hash is stored."""
    token = token_of(digest)
    values = {"digest": digest, "program_id": program_id, "token": token, "created_ms": now, "is_given": is_given}
    db.execute(credentials.insert().values(values))
    return Credential(token, now, is_given)


def revoke_credential(db: Connection, program_id: int, token: str, now: Instant) -> None:
    """Make a valid pair invalid for ever, in all processes at the next heartbeat of their monitors."""
    db.execute(credentials.update().where(*_of(program_id), credentials.c.token == token).values(revoked_ms=now, is_given=False))
    raise_access_revision(db)


def ensure_given(db: Connection, program_id: int, digest: bytes, now: Instant) -> Sequence[str]:
    """Make a pair the only given one of a program, and remove the earlier given pairs. Return their tokens.

    Pairs that were added stay valid. Raises Revoked, and OfOtherProgram.
    """
    lock_credentials(db, program_id)
    row = db.execute(select(credentials).where(credentials.c.digest == digest)).one_or_none()
    if row is not None and row.revoked_ms is not None:
        raise Revoked
    if row is not None and row.program_id != program_id:
        raise OfOtherProgram
    is_replaced = (*_of(program_id), credentials.c.is_given, credentials.c.digest != digest)
    tokens = db.scalars(select(credentials.c.token).where(*is_replaced)).all()
    if tokens:
        # Without a row, so that a start with an earlier configuration is possible.
        db.execute(credentials.delete().where(*is_replaced))
        raise_access_revision(db)
    if row is None:
        insert_credential(db, program_id, digest, now, is_given=True)
    elif not row.is_given:
        db.execute(credentials.update().where(credentials.c.digest == digest).values(is_given=True))
    return tokens


def move_given(db: Connection, program_id: int, token: str) -> None:
    """Make a valid pair the given one. The earlier given pair stays valid, as one that was added."""
    db.execute(credentials.update().where(*_of(program_id)).values(is_given=credentials.c.token == token))


def raise_access_revision(db: Connection) -> None:
    """Increase the access revision, so that every process looks up each pair again."""
    value = cast(cast(meta.c.value, BigInteger) + 1, Text)
    db.execute(meta.update().where(meta.c.key == ACCESS_REVISION).values(value=value))


def _of(program_id: int) -> tuple[ColumnElement[bool], ...]:
    return credentials.c.program_id == program_id, credentials.c.revoked_ms.is_(None)
