"""PostgreSQL arrays: rows encoded as one-dimensional binary arrays, which are faster than one parameter for each value.

One array contains the whole numbers of all rows, row after row. Each column of text or byte strings has a separate array.
An array for each column would cost more: a transaction has 28 columns, and PostgreSQL would store each array before it joins the
rows.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

OIDS = {"int8": 20, "text": 25, "bytea": 17}

NULL = -(1 << 63)
"""The value for NULL among whole numbers: -2**63, lower than any id, amount or time."""


@lru_cache(maxsize=8192)
def _packer(count: int) -> struct.Struct:
    return struct.Struct("!" + "iq" * count)


@lru_cache(maxsize=8192)
def _header(oid: int, count: int, has_null: bool) -> bytes:
    """Return the header of a one-dimensional array in PostgreSQL's binary format."""
    return struct.pack("!iiiii", 1, int(has_null), oid, count, 1)


_length = struct.Struct("!i").pack
_MISSING = _length(-1)


def int_array(values: Sequence[int]) -> bytes:
    """Return whole numbers as a binary array, encoded with one ``struct`` call."""
    flat = [8] * (2 * len(values))
    flat[1::2] = values
    return _header(OIDS["int8"], len(values), False) + _packer(len(values)).pack(*flat)


def bytes_array(values: Sequence[bytes | None], kind: str = "bytea") -> bytes:
    """Return byte strings, or encoded text, as a binary array."""
    parts = [_MISSING if value is None else _length(len(value)) + value for value in values]
    return _header(OIDS[kind], len(values), None in values) + b"".join(parts)


def text_array(values: Sequence[str]) -> bytes:
    """Return text as a binary array."""
    return bytes_array([value.encode() for value in values], "text")


_NULL = f"'{NULL}'::int8"


class Columns:
    """A codec for rows with these columns. ``types`` has the type, ``text`` or ``bytea``, of each column that is no whole number.

    ``rows`` is a query that returns new rows; ``encode`` makes its parameters. ``selected`` is the SELECT list for ``decode``,
    with all numbers of a row in one array. Whole numbers may be NULL in the columns of ``nullable``.
    """

    def __init__(self, names: Sequence[str], types: Mapping[str, str], nullable: Collection[str] = ()) -> None:
        self.names = names
        self._others = [(index, types[name]) for index, name in enumerate(names) if name in types]
        self._numbers = _stretches(len(names), [index for index, _ in self._others])
        count = len(names) - len(types)
        self._flat = [8] * (2 * count)
        # One packer for a row: packers for whole batches would need one object for each batch size, of tens of kilobytes each.
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
        # Set-returning functions in the SELECT list advance in step with each other and need no temporary storage.
        together = [f"generate_series(1, cardinality($1::int8[]), {len(numbers)}) AS base"]
        for number, (index, kind) in enumerate(self._others, 2):
            name = self.names[index]
            values[name] = name
            together.append(f"unnest(${number}::{kind}[]) AS {name}")
        return f"SELECT {', '.join(values.values())} FROM (SELECT {', '.join(together)}) AS unfolded"

    def encode(self, rows: Collection[Sequence[Any]]) -> list[bytes]:
        """Return the parameters for the rows, of which there is at least one."""
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
        """Return the values of a stored row, in the order of the columns."""
        values: list[Any] = list(self._unpack(selected[0] or b""))
        for index in self._nullable:
            if values[index] == NULL:
                values[index] = None
        for (index, kind), value in zip(self._others, selected[1:], strict=True):
            values.insert(index, value.decode() if kind == "text" and value is not None else value)
        return values


def _stretches(count: int, gaps: Sequence[int]) -> list[slice]:
    """Return the ranges of ``count`` columns between the gaps, in order."""
    ends = zip([-1, *gaps], [*gaps, count], strict=True)
    return [slice(before + 1, after) for before, after in ends if before + 1 < after]
