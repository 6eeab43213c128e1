"""What a server's SQLite file keeps of its users for the decisions: their facts, and the revisions under which they hold."""

import sqlite3
from pathlib import Path

import msgspec

from cardwright.core.snapshot import UserFact


def facts_of(database: Path, user_token: str) -> list[tuple[int, UserFact]]:
    """What the history says of a user, with the revision of each word, the oldest first."""
    with sqlite3.connect(database) as db:
        rows = db.execute(
            "SELECT h.revision, h.doc FROM config_history h JOIN users u ON u.id = h.object_id"
            " WHERE h.kind = 3 AND u.token = ? ORDER BY h.revision",
            [user_token],
        ).fetchall()
    return [(revision, msgspec.json.decode(doc, type=UserFact)) for revision, doc in rows]


def revision_of(database: Path, user_token: str) -> int:
    """The revision of the account that a user draws on."""
    with sqlite3.connect(database) as db:
        query = "SELECT h.revision FROM holders h JOIN users u ON u.holder_id = h.id WHERE u.token = ?"
        return int(db.execute(query, [user_token]).fetchone()[0])
