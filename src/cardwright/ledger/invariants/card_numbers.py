"""Search for card numbers in clear text: all text and binary columns of all tables, except sealed ones."""

import re
from collections.abc import Iterator, Sequence

import msgspec
from sqlalchemy import Connection, select

from cardwright.core.pan import DEFAULT_BIN, PAN_LENGTH
from cardwright.kit.masks import passes_luhn
from cardwright.ledger.invariants.scan import CHUNK, texts_of
from cardwright.storage.envelopes import DIGESTS, ENVELOPES
from cardwright.storage.history import Kind
from cardwright.storage.tables import config_history, data_keys, metadata

SEALED = frozenset({*(envelope.column.name for envelope in ENVELOPES), *DIGESTS, data_keys.c.wrapped.name})
"""Columns with envelopes of the vault, hashes, or wrapped keys: their bytes are not text."""


def card_numbers_in_clear(db: Connection) -> Iterator[tuple[str, str]]:
    """Yield place and number of each number that passes Luhn and has an issued prefix and length.

    Callers must mask the number.
    """
    patterns = [pattern_of(prefix, length) for prefix, length in sorted(_issued(db))]
    for table in metadata.sorted_tables:
        for place, text in texts_of(db, table, without=SEALED):
            yield from ((place, number) for number in numbers_in(text, patterns))


def pattern_of(prefix: str, length: int) -> re.Pattern[str]:
    """Return the pattern of every possible start of such a number.

    It also matches numbers with blanks or dashes inside, and numbers within a longer one.
    """
    return re.compile(rf"(?=({'[ -]?'.join(prefix)}(?:[ -]?[0-9]){{{length - len(prefix)}}}))")


def numbers_in(value: str | bytes, patterns: Sequence[re.Pattern[str]]) -> Iterator[str]:
    """Yield the card numbers in a text or in bytes."""
    text = value if isinstance(value, str) else value.decode("latin-1")
    for pattern in patterns:
        numbers = (match[1].replace(" ", "").replace("-", "") for match in pattern.finditer(text))
        yield from filter(passes_luhn, numbers)


def _issued(db: Connection) -> set[tuple[str, int]]:
    """Return prefix and length of the card numbers of all card products, present and past."""
    issued = {(DEFAULT_BIN, PAN_LENGTH)}
    docs = select(config_history.c.doc).where(config_history.c.kind == int(Kind.CARD_PRODUCT))
    for doc in db.scalars(docs, execution_options={"yield_per": CHUNK}):
        making = msgspec.json.decode(doc)["config"]["fulfillment"]
        issued.add((making["bin_prefix"], int(making["pan_length"])))
    return issued
