"""Stored transactions: rows written by SQL, in any number, in an order unlike that of the indexes."""

import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from cardwright.core.enums import TYPE_NUMBER, State
from cardwright.storage.tables import transactions

AUTHORIZATION, CLEARING = TYPE_NUMBER["authorization"], TYPE_NUMBER["authorization.clearing"]
REVERSAL, REFUND = TYPE_NUMBER["authorization.reversal"], TYPE_NUMBER["refund"]

DAY_MS = 86_400_000


def row(row_id: int, at_ms: int, **changed: Any) -> dict[str, Any]:
    """Return the row of a purchase of 10.00 with a JIT load. ``changed`` has other values of columns."""
    plain = {
        "id": row_id, "program_id": 1, "holder_id": 1, "card_id": 1, "source_id": 1, "type_id": AUTHORIZATION,
        "state": int(State.PENDING), "first_state": int(State.PENDING), "code": 0, "created_ms": at_ms,
        "user_time_ms": at_ms, "duration_ms": 0, "currency": "USD", "request_amount": 1000, "amount": 1000,
        "impacted": -1000, "moved": 1000, "hold_left": 1000, "load_left": 1000, "cleared": 0, "due_ms": 0, "ledger": 0,
        "available": 0, "root_id": None, "seed": row_id * 7919, "program_revision": 1, "holder_revision": 1, "details": b"",
    }  # fmt: skip
    return plain | changed


def write(db: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows."""
    db.execute(transactions.insert(), rows)


def some_rows(drawn: random.Random, count: int, *, first_id: int, begin_ms: int, days: int = 30) -> list[dict[str, Any]]:
    """Return rows of purchases and follow-ups of two programs and two sources. Many have the same time, as on a frozen clock."""
    rows: list[dict[str, Any]] = []
    at_ms = begin_ms
    for row_id in range(first_id, first_id + 2 * count, 2):
        at_ms += drawn.choice((0, 0, 0, 1, days * DAY_MS * 2 // count))
        program_id = 1 if drawn.random() < 0.9 else 2
        roots = [earlier for earlier in rows[-200:] if earlier["root_id"] is None and earlier["program_id"] == program_id]
        if roots and drawn.random() < 0.4:
            rows.append(follower(drawn, drawn.choice(roots), row_id, at_ms))
            continue
        moved = drawn.choice((0, 1000, 1000))
        state = State.DECLINED if drawn.random() < 0.1 else State.PENDING
        kind = drawn.choice((AUTHORIZATION, AUTHORIZATION, REFUND))
        rows.append(row(row_id, at_ms, program_id=program_id, type_id=kind, moved=-moved if kind == REFUND else moved,
                        state=int(state), source_id=drawn.choice((1, 2)), holder_id=drawn.randrange(1, 50)))  # fmt: skip
    return rows


def follower(drawn: random.Random, root: dict[str, Any], row_id: int, at_ms: int) -> dict[str, Any]:
    """Return the row of a follow-up of a root. It may clear the root."""
    if drawn.random() < 0.7:
        root["state"] = int(State.CLEARED)
    kind = drawn.choice((CLEARING, REVERSAL))
    return row(row_id, at_ms, type_id=kind, state=int(drawn.choice((State.COMPLETION, State.PENDING, State.CLEARED))),
               user_time_ms=root["user_time_ms"], root_id=root["id"], program_id=root["program_id"],
               source_id=root["source_id"], holder_id=root["holder_id"],
               moved=1000 if kind == CLEARING else -1000)  # fmt: skip
