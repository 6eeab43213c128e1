"""Rows as PostgreSQL's one-dimensional binary arrays, which travel faster than rows of parameters.

All whole numbers of all rows go in one array, row after row, and each column of text or byte strings in one of its own. With
an array for each of a transaction's 28 columns a single row took four times as long to encode, and the database twice as
long to take apart: it kept every column aside before it put the rows together.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

OIDS = {"int8": 20, "text": 25, "bytea": 17}

NULL = -(1 << 63)
"""What stands for a NULL among whole numbers; no id, amount or time is ever this low."""


@lru_cache(maxsize=8192)
def _packer(count: int) -> struct.Struct:
    return struct.Struct("!" + "iq" * count)


@lru_cache(maxsize=8192)
def _header(oid: int, count: int, has_null: bool) -> bytes:
    """The head of a one-dimensional array in PostgreSQL's binary form."""
    return struct.pack("!iiiii", 1, int(has_null), oid, count, 1)


_length = struct.Struct("!i").pack
_MISSING = _length(-1)


def int_array(values: Sequence[int]) -> bytes:
    """Whole numbers as a binary array; one ``struct`` call for all."""
    flat = [8] * (2 * len(values))
    flat[1::2] = values
    return _header(OIDS["int8"], len(values), False) + _packer(len(values)).pack(*flat)


def bytes_array(values: Sequence[bytes | None], kind: str = "bytea") -> bytes:
    """Byte strings, or encoded text, as a binary array."""
    parts = [_MISSING if value is None else _length(len(value)) + value for value in values]
    return _header(OIDS[kind], len(values), None in values) + b"".join(parts)


def text_array(values: Sequence[str]) -> bytes:
    """Text as a binary array."""
    return bytes_array([value.encode() for value in values], "text")


_NULL = f"'{NULL}'::int8"


class Columns:
    """How rows with these columns travel. ``types`` are those of columns that are no whole numbers, ``text`` or ``bytea``.

    ``rows`` is a query that gives new rows; its parameters are what ``encode`` makes of them. ``selected`` is what to select of
    stored ones for ``decode``: few values to fetch of a row, and one call to read its numbers. Whole numbers may be NULL where
    the column is among ``nullable``.
    """

    def __init__(self, names: Sequence[str], types: Mapping[str, str], nullable: Collection[str] = ()) -> None:
        self.names = names
        self._others = [(index, types[name]) for index, name in enumerate(names) if name in types]
        self._numbers = _stretches(len(names), [index for index, _ in self._others])
        count = len(names) - len(types)
        self._flat = [8] * (2 * count)
        # One for each row: packers for whole batches would be as many as there are sizes, and tens of kilobytes each.
        self._pack = _packer(count).pack
        self._unpack = struct.Struct("!20x" + "4xq" * count).unpack
        numbers = [name for name in names if name not in types]
        self._nullable = [index for index, name in enumerate(numbers) if name in nullable]
        self.rows = self._sql(numbers, set(nullable))
        packed = (f"coalesce({name}, {_NULL})" if name in nullable else name for name in numbers)
        self.selected = ", ".join([f"ARRAY[{', '.join(packed)}]::int8[]", *types])

    def _sql(self, numbers: Sequence[str], nullable: Collection[str]) -> str:
        values = dict.fromkeys(self.names, "")
        for index, name in enumerate(numbers):
            value = f"($1::int8[])[base + {index}]"
            values[name] = f"NULLIF({value}, {_NULL}) AS {name}" if name in nullable else f"{value} AS {name}"
        # Functions that give rows, in the list of what is selected, go on in step with each other and keep nothing aside.
        together = [f"generate_series(1, cardinality($1::int8[]), {len(numbers)}) AS base"]
        for number, (index, kind) in enumerate(self._others, 2):
            name = self.names[index]
            values[name] = name
            together.append(f"unnest(${number}::{kind}[]) AS {name}")
        return f"SELECT {', '.join(values.values())} FROM (SELECT {', '.join(together)}) AS unfolded"

    def encode(self, rows: Collection[Sequence[Any]]) -> list[bytes]:
        """The rows, at least one, as parameters."""
        flat, pack, stretches = self._flat, self._pack, self._numbers
        packed = []
        for row in rows:
            numbers: list[Any] = []
            for stretch in stretches:
                numbers += row[stretch]
            if None in numbers:
                numbers = [NULL if number is None else number for number in numbers]
            flat[1::2] = numbers
            packed.append(pack(*flat))
        encoded = [_header(OIDS["int8"], len(rows) * (len(flat) // 2), False) + b"".join(packed)]
        for index, kind in self._others:
            values = [row[index] for row in rows]
            encoded.append(text_array(values) if kind == "text" else bytes_array(values))
        return encoded

    def decode(self, selected: Sequence[bytes | None]) -> list[Any]:
        """The values of a stored row, in the order of the columns."""
        values: list[Any] = list(self._unpack(selected[0] or b""))
        for index in self._nullable:
            if values[index] == NULL:
                values[index] = None
        for (index, kind), value in zip(self._others, selected[1:], strict=True):
            values.insert(index, value.decode() if kind == "text" and value is not None else value)
        return values


def _stretches(count: int, gaps: Sequence[int]) -> list[slice]:
    """The parts of ``count`` columns between the gaps, in order."""
    ends = zip([-1, *gaps], [*gaps, count], strict=True)
    return [slice(before + 1, after) for before, after in ends if before + 1 < after]
