"""User facts: reads from a server's SQLite file the facts of users for decisions, with their revisions."""

import sqlite3
from pathlib import Path

import msgspec

from cardwright.core.snapshot import UserFact


def facts_of(database: Path, user_token: str) -> list[tuple[int, UserFact]]:
    """Return the facts of a user in the history with their revisions, the oldest first."""
    with sqlite3.connect(database) as db:
        rows = db.execute(
            "SELECT h.revision, h.doc FROM config_history h JOIN users u ON u.id = h.object_id"
            " WHERE h.kind = 3 AND u.token = ? ORDER BY h.revision",
            [user_token],
        ).fetchall()
    return [(revision, msgspec.json.decode(doc, type=UserFact)) for revision, doc in rows]


def revision_of(database: Path, user_token: str) -> int:
    """Return the revision of a user's account."""
    with sqlite3.connect(database) as db:
        query = "SELECT h.revision FROM holders h JOIN users u ON u.holder_id = h.id WHERE u.token = ?"
        return int(db.execute(query, [user_token]).fetchone()[0])
