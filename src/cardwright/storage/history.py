"""Configuration revisions: caches compare a revision number to detect changes, and past versions can be read.

A change of a card or of its user increases the revision of the account that the card draws on. That revision is in the row that a
decision locks anyway. A change of a product, a funding source or the program's settings increases the program's revision.
"""

from enum import IntEnum

from sqlalchemy import Connection, and_, bindparam, func, select

from cardwright.kit.clock import Instant
from cardwright.storage.tables import cards, config_history, holders, programs, users


class Kind(IntEnum):
    """The kind of object that a row of the configuration history describes."""

    FUNDING_SOURCE = 1
    CARD_PRODUCT = 2
    USER = 3
    CARD = 4
    VELOCITY_CONTROL = 5
    AUTH_CONTROL = 10
    EXEMPTION = 11
    MCC_GROUP = 12
    MERCHANT_GROUP = 13
    ACCEPTED_COUNTRIES = 14
    ACCOUNT_HOLDER_GROUP = 15
    FEE = 16
    REAL_TIME_FEE_GROUP = 17


INACTIVE = "null"
"""The document of an inactive object in the history."""


_AT_HAND = {Kind.USER: users, Kind.CARD: cards}


def raise_program_revision(db: Connection, program_id: int) -> int:
    """Increase the program's revision after a change of shared configuration, and return the new revision."""
    statement = programs.update().where(programs.c.id == program_id).values(revision=programs.c.revision + 1)
    return int(db.execute(statement.returning(programs.c.revision)).scalar_one())


def raise_holder_revision(db: Connection, holder_id: int) -> int:
    """Increase the account's revision after a change of one of its users or cards, and return the new revision.

    The update waits for a batch that has the account locked.
    """
    statement = holders.update().where(holders.c.id == holder_id).values(revision=holders.c.revision + 1)
    return int(db.execute(statement.returning(holders.c.revision)).scalar_one())


def save_version(db: Connection, program_id: int, kind: Kind, object_id: int, revision: int, now: Instant, doc: str) -> None:
    """Store the document of an object from a revision on. A second call for the same revision replaces the document.

    The row of a user or card also stores its newest document, because decisions read it for each purchase.
    """
    key = {"program_id": program_id, "kind": kind, "object_id": object_id, "revision": revision}
    changed = config_history.update().values(at_ms=now, doc=doc)
    for column, value in key.items():
        changed = changed.where(config_history.c[column] == value)
    if db.execute(changed).rowcount == 0:
        db.execute(config_history.insert().values(at_ms=now, doc=doc, **key))
    if (table := _AT_HAND.get(kind)) is not None:
        db.execute(table.update().where(table.c.id == object_id).values(fact=doc))


_columns = config_history.c

# Built once: a list of transactions runs it up to three times for each entry.
_DOC_AS_OF = (
    select(_columns.doc)
    .where(_columns.program_id == bindparam("program_id"), _columns.kind == bindparam("kind"))
    .where(_columns.object_id == bindparam("object_id"), _columns.revision <= bindparam("revision"))
    .order_by(_columns.revision.desc())
    .limit(1)
)


def doc_as_of(db: Connection, program_id: int, kind: Kind, object_id: int, revision: int) -> str:
    """Return the document of an object at a revision. The object must have existed."""
    parameters = {"program_id": program_id, "kind": kind, "object_id": object_id, "revision": revision}
    return str(db.execute(_DOC_AS_OF, parameters).scalar_one())


def docs_as_of(db: Connection, program_id: int, kind: Kind, revision: int) -> list[tuple[int, str]]:
    """Return id and document of every object of a kind that was active at a revision, oldest first."""
    columns = config_history.c
    newest = (
        select(columns.object_id, func.max(columns.revision).label("revision"))
        .where(columns.program_id == program_id, columns.kind == kind, columns.revision <= revision)
        .group_by(columns.object_id)
        .subquery()
    )
    query = select(columns.object_id, columns.doc).join(
        newest, and_(newest.c.object_id == columns.object_id, newest.c.revision == columns.revision)
    )
    rows = db.execute(query.where(columns.program_id == program_id, columns.kind == kind).order_by(columns.object_id))
    return [(row.object_id, row.doc) for row in rows if row.doc != INACTIVE]
