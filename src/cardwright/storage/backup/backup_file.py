"""Backup file: a header, the rows of all tables and checksums, compressed; docs/reference/backup-format.md describes it."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, BinaryIO, Literal

import msgspec

FORMAT, VERSION = "cardwright backup", 1

LEVEL = 1
"""Level of compression. Level 6 takes three times as long and saves a tenth of the size."""

BLOCK_ROWS, BLOCK_BYTES = 250, 1 << 20
"""A block of rows ends at this number of rows or bytes, whichever is reached first. It is one line of the content."""

LINE_BYTES_MAX = 256 << 20
"""Maximum size of a line. The largest row is a message of the webhook inbox or a backtest, with a few megabytes."""

DIGEST_BYTES = 32
READ_BYTES = 1 << 20

ColumnType = Literal["int", "bool", "text", "bytes"]
TYPES: dict[ColumnType, type] = {"int": int, "bool": bool, "text": str, "bytes": bytes}
"""Types of values. JSON has no bytes; they are text in base64."""


class Unreadable(Exception):
    """A file that is not a complete and unchanged backup, or a backup in another format. The text does not name the file."""


class ColumnSpec(msgspec.Struct, frozen=True):
    """A column of a table."""

    name: str
    type: ColumnType
    nullable: bool = False


class TableSpec(msgspec.Struct, frozen=True):
    """A table and its columns, in the order of the values of a row."""

    name: str
    columns: tuple[ColumnSpec, ...]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. ``tables`` is the order of the rows: a table comes after the tables that its foreign keys refer to.

    ``key_check`` is a keyed hash that identifies the master key, and ``keys`` are keys and credentials, sealed under a
    passphrase.
    """

    format: str = FORMAT
    version: int = VERSION
    cardwright: str
    revision: str
    database: Literal["SQLite", "PostgreSQL"]
    created_time: str
    key_check: str | None = None
    keys: bytes | None = None
    tables: tuple[TableSpec, ...]


class TableEnd(msgspec.Struct, frozen=True):
    """The line after the rows of a table. ``sha256`` is the hash of the lines of its blocks."""

    table: str
    rows: int
    sha256: str


_Format = msgspec.defstruct("_Format", [("format", str), ("version", int)])
"""The fields of a header that every format has."""


class BackupWriter:
    """A backup in progress: the header, then each table in its order, then ``close``."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._encode = msgspec.json.Encoder().encode
        # Without a name and a time in it, equal rows give equal bytes.
        self._content = gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=self, mtime=0)
        self._content.write(self._encode(header) + b"\n")

    def write_table(self, name: str, rows: Iterable[Sequence[Any]], progress: Callable[[int], None]) -> int:
        """Write the rows of the next table and return their number. ``progress`` gets the number after each block."""
        digest, count = hashlib.sha256(), 0
        for block, size in self._blocks(rows):
            line = b"[" + b",".join(block) + b"]\n"
            digest.update(line)
            self._content.write(line)
            count += size
            progress(count)
        self._content.write(self._encode(TableEnd(name, count, digest.hexdigest())) + b"\n")
        return count

    def _blocks(self, rows: Iterable[Sequence[Any]]) -> Iterator[tuple[list[bytes], int]]:
        block, size = list[bytes](), 0
        for row in rows:
            text = self._encode(tuple(row))
            block.append(text)
            size += len(text)
            if len(block) == BLOCK_ROWS or size >= BLOCK_BYTES:
                yield block, len(block)
                block, size = [], 0
        if block:
            yield block, len(block)

    def close(self) -> None:
        """Write the rest of the content and the checksum of the file."""
        self._content.close()
        self._file.write(self._digest.digest())

    # --- The file of the compressor -------------------------------------------------------

    def write(self, data: bytes) -> int:
        """Write compressed bytes."""
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is complete."""


class BackupReader:
    """An open backup whose checksum is correct: its header, then the rows of each table in the order of the header."""

    def __init__(self, file: BinaryIO, progress: Callable[[float], None] = lambda _: None) -> None:
        """Read the whole file and its header. Raises Unreadable, and OSError.

        ``progress`` gets the fraction of the file that was read, from 0 to 1, here and again with the rows.
        """
        size = file.seek(0, io.SEEK_END) - DIGEST_BYTES
        if size < 0:
            raise Unreadable("it is not a backup: it has fewer bytes than a checksum")
        _check_digest(file, size, progress)
        file.seek(0)
        self._part = _Part(file, size)
        self._progress = progress
        self._content = gzip.GzipFile(fileobj=self._part, mode="rb")
        self.header = self._read_header()

    def blocks(self, table: TableSpec) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of the next table, block by block. Raises Unreadable if they differ from their count or checksum."""
        kinds = [TYPES[column.type] | None if column.nullable else TYPES[column.type] for column in table.columns]
        row: Any = tuple.__class_getitem__(tuple(kinds))
        decoder = msgspec.json.Decoder[list[tuple[Any, ...]]](Annotated[list[row], msgspec.Meta(min_length=1)])
        digest, count = hashlib.sha256(), 0
        while (line := self._line()).startswith(b"["):
            digest.update(line)
            with _decoding(f"the rows of {table.name}"):
                rows = decoder.decode(line)
            count += len(rows)
            yield rows
            self._progress(self._part.fraction)
        with _decoding(f"the end of {table.name}"):
            end = msgspec.json.decode(line, type=TableEnd)
        if end != TableEnd(table.name, count, digest.hexdigest()):
            raise Unreadable(f"the rows of {table.name} differ from their count or checksum")

    def finish(self) -> None:
        """Check that the content has ended. Raises Unreadable."""
        if self._line():
            raise Unreadable("it has content after the last table")

    def _read_header(self) -> Header:
        line = self._line()
        with _decoding("the header"):
            kind: Any = msgspec.json.decode(line, type=_Format)
        if kind.format != FORMAT:
            raise Unreadable("it is not a backup of Cardwright")
        if kind.version != VERSION:
            raise Unreadable(f"it has format {kind.version}, and this version of Cardwright reads format {VERSION}")
        with _decoding("the header"):
            return msgspec.json.decode(line, type=Header)

    def _line(self) -> bytes:
        with _decoding("the content"):
            line = self._content.readline(LINE_BYTES_MAX)
        if len(line) == LINE_BYTES_MAX:
            raise Unreadable(f"a line has more than {LINE_BYTES_MAX} bytes")
        return line


class _Part(io.RawIOBase):
    """The first bytes of a file, without its checksum."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file, self._size, self._left = file, size, size

    @property
    def fraction(self) -> float:
        """The fraction that was read."""
        return 1 - self._left / self._size if self._size else 1.0

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes."""
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _check_digest(file: BinaryIO, size: int, progress: Callable[[float], None]) -> None:
    file.seek(0)
    digest, left = hashlib.sha256(), size
    while left and (data := file.read(min(READ_BYTES, left))):
        digest.update(data)
        left -= len(data)
        progress(1 - left / size)
    if file.read(DIGEST_BYTES) != digest.digest():
        raise Unreadable("it is incomplete or was changed, or is not a backup: its checksum is wrong")


@contextmanager
def _decoding(part: str) -> Iterator[None]:
    """Raise Unreadable for errors of the decoders."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError, msgspec.DecodeError, UnicodeError) as error:
        raise Unreadable(f"{part} cannot be decoded: {error}") from None
