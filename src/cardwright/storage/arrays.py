"""Columns of values as PostgreSQL's one-dimensional binary arrays, which travel faster than rows of parameters."""

import struct
from collections.abc import Sequence
from functools import lru_cache

OIDS = {"int2": 21, "int4": 23, "int8": 20, "text": 25, "varchar": 1043, "bytea": 17}

Encoded = list[bytes]


@lru_cache(maxsize=2048)
def _packer(count: int, code: str) -> struct.Struct:
    return struct.Struct("!" + f"i{code}" * count)


@lru_cache(maxsize=8192)
def _header(oid: int, count: int, has_null: bool) -> bytes:
    """The head of a one-dimensional array in PostgreSQL's binary form."""
    return struct.pack("!iiiii", 1, int(has_null), oid, count, 1)


_CODES = {"int2": ("h", 2), "int4": ("i", 4), "int8": ("q", 8)}
_NULL = struct.pack("!i", -1)


def int_array(values: Sequence[int | None], kind: str = "int8") -> bytes:
    """Whole numbers as a binary array; one ``struct`` call for the usual case without NULLs."""
    code, size = _CODES[kind]
    if None not in values:
        flat = [size] * (2 * len(values))
        flat[1::2] = values  # type: ignore[assignment]  # there is no None
        return _header(OIDS[kind], len(values), False) + _packer(len(values), code).pack(*flat)
    one = _packer(1, code)
    return _header(OIDS[kind], len(values), True) + b"".join(_NULL if v is None else one.pack(size, v) for v in values)


def bytes_array(values: Sequence[bytes | None], kind: str = "bytea") -> bytes:
    """Byte strings, or encoded text, as a binary array."""
    length = struct.Struct("!i").pack
    parts = [_NULL if value is None else length(len(value)) + value for value in values]
    return _header(OIDS[kind], len(values), None in values) + b"".join(parts)


def text_array(values: Sequence[str]) -> bytes:
    """Text as a binary array."""
    return bytes_array([value.encode() for value in values], "text")


def _column_array(kind: str, values: Sequence[object]) -> bytes:
    match kind:
        case "text":
            return text_array(values)  # type: ignore[arg-type]  # the column's type says so
        case "bytea":
            return bytes_array(values)  # type: ignore[arg-type]
        case _:
            return int_array(values, kind)  # type: ignore[arg-type]


def encode_rows(rows: Sequence[Sequence[object]], columns: Sequence[str], types: dict[str, str]) -> Encoded:
    """Rows as one array for each column."""
    by_column = zip(*rows, strict=True)
    return [_column_array(types.get(column, "int8"), values) for column, values in zip(columns, by_column, strict=True)]
