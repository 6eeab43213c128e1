"""Backup file: values come back exactly, and a truncated or changed file is refused."""

import gzip
import hashlib
import io
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright.storage.backup.backup_file import (
    BLOCK_ROWS,
    DIGEST_BYTES,
    TYPES,
    BackupReader,
    BackupWriter,
    ColumnSpec,
    Header,
    TableSpec,
    Unreadable,
)
from cardwright.storage.backup.save import table_spec
from cardwright.storage.tables import metadata

EXAMPLE = TableSpec(
    "example",
    (
        ColumnSpec("id", "int"),
        ColumnSpec("number", "int", nullable=True),
        ColumnSpec("flag", "bool", nullable=True),
        ColumnSpec("text", "text", nullable=True),
        ColumnSpec("bytes", "bytes", nullable=True),
    ),
)
OTHER = TableSpec("other", (ColumnSpec("id", "int"),))
INT64 = st.integers(-(2**63), 2**63 - 1)
ROW = st.tuples(INT64, st.none() | INT64, st.none() | st.booleans(), st.none() | st.text(), st.none() | st.binary())


def written(rows: Sequence[Sequence[Any]], others: Sequence[Sequence[Any]] = (), **fields: Any) -> bytes:
    """Return a backup of the two tables."""
    header = Header(
        cardwright="1", revision="0001", database="SQLite", created_time="2026-01-01T00:00:00Z", tables=(EXAMPLE, OTHER), **fields
    )
    file = io.BytesIO()
    writer = BackupWriter(file, header)
    for name, table_rows in (("example", rows), ("other", others)):
        writer.write_table(name, table_rows, lambda _: None)
    writer.close()
    return file.getvalue()


def read(content: bytes) -> tuple[Header, list[list[tuple[Any, ...]]]]:
    """Return the header and the rows of each table of a backup."""
    reader = BackupReader(io.BytesIO(content))
    tables = [[row for block in reader.blocks(table) for row in block] for table in reader.header.tables]
    reader.finish()
    return reader.header, tables


def packed(lines: Sequence[bytes]) -> bytes:
    """Return a file with these lines and a correct checksum."""
    content = gzip.compress(b"".join(lines))
    return content + hashlib.sha256(content).digest()


def lines_of(content: bytes) -> list[bytes]:
    """Return the lines in a backup."""
    return gzip.decompress(content[:-DIGEST_BYTES]).splitlines(keepends=True)


@given(st.lists(ROW, max_size=20), st.binary())
def test_values_come_back_exactly(rows: list[tuple[Any, ...]], keys: bytes) -> None:
    """Integers of 64 bits, truth values, texts, bytes and NULL come back with the same type."""
    header, tables = read(written(rows, keys=keys))
    assert (header.keys, tables) == (keys, [rows, []])
    assert [[type(value) for value in row] for row in tables[0]] == [[type(value) for value in row] for row in rows]


def test_blocks_have_a_limit() -> None:
    """A block has at most ``BLOCK_ROWS`` rows, and ends earlier if its rows are large."""
    small, large = (
        [(number,) for number in range(2 * BLOCK_ROWS + 1)],
        [(number, 0, None, "x" * 400_000, None) for number in range(7)],
    )
    reader = BackupReader(io.BytesIO(written(large, small)))
    sizes = [[len(block) for block in reader.blocks(table)] for table in reader.header.tables]
    assert sizes == [[3, 3, 1], [BLOCK_ROWS, BLOCK_ROWS, 1]]


def test_equal_rows_give_equal_bytes() -> None:
    """A file does not depend on the time of its compression."""
    assert written([(1, 2, True, "a", b"b")]) == written([(1, 2, True, "a", b"b")])


def test_truncated_file_is_refused() -> None:
    """A file that ends after any number of bytes is refused, and so is one with further bytes."""
    content = written([(number, None, True, "text", b"bytes") for number in range(50)])
    for size in range(len(content)):
        with pytest.raises(Unreadable):
            BackupReader(io.BytesIO(content[:size]))
    with pytest.raises(Unreadable):
        BackupReader(io.BytesIO(content + b"\0"))


def test_changed_byte_is_refused() -> None:
    """A file with a changed bit is refused before a row is read: in its first and last bytes, and at 2,000 random places."""
    content = written([(number, None, True, "text", b"bytes") for number in range(5_000)])
    source = random.Random(1)
    places = [*range(40), *range(len(content) - 80, len(content)), *(source.randrange(len(content)) for _ in range(2_000))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << source.randrange(8)
        with pytest.raises(Unreadable, match="incomplete or was changed"):
            BackupReader(io.BytesIO(bytes(changed)))


def test_content_is_checked_beside_the_checksum() -> None:
    """A file with a correct checksum is refused if rows, counts, types, tables or the format are not those of a backup."""
    header, block, end, *rest = lines_of(written([(1, None, True, "a", b"b"), (2, None, None, None, None)], [(1,)]))
    version = json.dumps(json.loads(header) | {"version": 2}).encode() + b"\n"
    other = json.dumps(json.loads(header) | {"format": "a photograph"}).encode() + b"\n"
    wrong = {
        "format 2, and this version": [version, block, end, *rest],
        "not a backup of Cardwright": [other, block, end, *rest],
        "the header cannot be decoded": [b"{}\n"],
        "differ from their count": [header, end, *rest],
        "rows of example differ": [header, block, block, end, *rest],
        "rows of example cannot be decoded": [header, block.replace(b"true", b"1"), end, *rest],
        "the end of example cannot be decoded": [header, block],
        "rows of other cannot be decoded": [header, block, end, block, *rest],
        "content after the last table": [header, block, end, *rest, end],
        "cannot be decoded": [b"\xff\n"],
    }
    assert read(packed([header, block, end, *rest]))[1][1] == [(1,)]
    for reason, lines in wrong.items():
        with pytest.raises(Unreadable, match=reason):
            read(packed(lines))
    garbage = b"no gzip at all"
    with pytest.raises(Unreadable, match="content cannot be decoded"):
        BackupReader(io.BytesIO(garbage + hashlib.sha256(garbage).digest()))


def test_every_column_has_a_type() -> None:
    """A backup has a type for each column of each table, so a table with a column of a new type fails here."""
    specs = [table_spec(table) for table in metadata.sorted_tables]
    assert {column.type for spec in specs for column in spec.columns} == TYPES.keys()
    assert [spec.name for spec in specs] == [table.name for table in metadata.sorted_tables]
