"""The search for card numbers where none may be: every column of every table, but for those that are sealed."""

import re
from collections.abc import Iterator, Sequence

import msgspec
from sqlalchemy import Column, Connection, LargeBinary, String, Table, select

from cardwright.core.pan import DEFAULT_BIN, PAN_LENGTH
from cardwright.kit.masks import passes_luhn
from cardwright.ledger.invariants.scan import CHUNK, stream
from cardwright.storage.history import Kind
from cardwright.storage.tables import config_history, metadata

SEALED = frozenset({"pan_sealed", "pin_sealed", "sealed", "target", "digest", "pan_digest", "request_hash"})
"""Columns that hold envelopes of the vault, or hashes: bytes in which no digit means anything."""


def card_numbers_in_clear(db: Connection) -> Iterator[tuple[str, str]]:
    """Where a number stands that passes Luhn and has a prefix and a length of ours, and the number, which nobody may show."""
    patterns = [pattern_of(prefix, length) for prefix, length in sorted(_issued(db))]
    for table in metadata.sorted_tables:
        columns = [column for column in table.c if isinstance(column.type, String | LargeBinary) and column.name not in SEALED]
        yield from _scan(db, table, columns, patterns)


def pattern_of(prefix: str, length: int) -> re.Pattern[str]:
    """Finds every place where such a number may begin, also one with blanks or dashes inside and inside a longer one."""
    return re.compile(rf"(?=({'[ -]?'.join(prefix)}(?:[ -]?[0-9]){{{length - len(prefix)}}}))")


def numbers_in(value: object, patterns: Sequence[re.Pattern[str]]) -> Iterator[str]:
    """The card numbers in a text or in bytes."""
    text = value if isinstance(value, str) else bytes(value).decode("latin-1")  # type: ignore[call-overload]
    for pattern in patterns:
        numbers = (match[1].replace(" ", "").replace("-", "") for match in pattern.finditer(text))
        yield from filter(passes_luhn, numbers)


def _issued(db: Connection) -> set[tuple[str, int]]:
    """What our card numbers begin with and how long they are, by every card product that there is or was."""
    issued = {(DEFAULT_BIN, PAN_LENGTH)}
    docs = select(config_history.c.doc).where(config_history.c.kind == int(Kind.CARD_PRODUCT))
    for doc in db.scalars(docs, execution_options={"yield_per": CHUNK}):
        making = msgspec.json.decode(doc)["config"]["fulfillment"]
        issued.add((making["bin_prefix"], int(making["pan_length"])))
    return issued


def _scan(
    db: Connection, table: Table, columns: Sequence[Column[object]], patterns: Sequence[re.Pattern[str]]
) -> Iterator[tuple[str, str]]:
    keys = list(table.primary_key.columns)
    for row in stream(db, select(*keys, *columns)):
        key = ", ".join(str(part) for part in row[: len(keys)] if not isinstance(part, bytes | memoryview))
        for column, value in zip(columns, row[len(keys) :], strict=True):
            for number in numbers_in(value, patterns) if value is not None else ():
                yield f"{table.name}.{column.name} {key}", number
