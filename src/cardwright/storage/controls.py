"""Velocity controls and auto reloads as the heart sees them, and the history that controls look back at."""

import msgspec
from sqlalchemy import Connection, select

from cardwright.core.counting import Past, event_of
from cardwright.core.movements import AutoReload
from cardwright.core.record import Recorded
from cardwright.core.render import details_decoder
from cardwright.core.velocity import Control, settled
from cardwright.storage.tables import auto_reloads, cards, transactions, users, velocity_controls


def load_controls(db: Connection, program_id: int) -> list[Control]:
    """The program's active velocity controls, oldest first."""
    columns = velocity_controls.c
    query = select(columns.id, columns.fact).where(columns.program_id == program_id, columns.active).order_by(columns.id)
    return [control_from(row.id, row.fact) for row in db.execute(query)]


def control_from(control_id: int, fact: str) -> Control:
    """A control from the JSON that is kept of it for decisions."""
    return settled(msgspec.convert({**msgspec.json.decode(fact), "id": control_id}, Control))


def load_reloads(db: Connection, program_id: int) -> list[AutoReload]:
    """The program's active auto reloads."""
    columns = auto_reloads.c
    query = select(columns.fact).where(columns.program_id == program_id, columns.active).order_by(columns.id)
    return [msgspec.json.decode(fact, type=AutoReload) for fact in db.scalars(query)]


INACTIVE = "null"
"""What the history says of a control that is off."""


def load_events(db: Connection, holder_id: int, user_token: str) -> list[Past]:
    """What a user did on an account, as controls count it, in the order of time."""
    query = (
        select(transactions, cards.c.doc.label("card_doc"))
        .join(cards, cards.c.id == transactions.c.card_id)
        .join(users, users.c.id == cards.c.user_id)
        .where(transactions.c.holder_id == holder_id, users.c.token == user_token)
        .order_by(transactions.c.created_ms, transactions.c.id)
    )
    past = []
    for found in db.execute(query):
        row = Recorded(*found[: len(Recorded._fields)])
        if (event := event_of(row, details_decoder.decode(row.details))) is not None:
            past.append(Past(row.created_ms, row.id, product_token_of(found.card_doc), event))
    return past


class _Card(msgspec.Struct):
    card_product_token: str


def product_token_of(card_doc: str) -> str:
    """The card product that a card belongs to."""
    return msgspec.json.decode(card_doc, type=_Card).card_product_token
