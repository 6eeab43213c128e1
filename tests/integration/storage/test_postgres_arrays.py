"""Array parameters for PostgreSQL: a real server returns the rows unchanged."""

from typing import Any

import psycopg
import pytest

from cardwright.storage.engine.postgres_arrays import Columns
from tests.support.postgres import TestPostgres

COLUMNS = Columns(
    ("id", "program_id", "name", "amount", "source_id", "sealed", "kind"),
    {"name": "text", "sealed": "bytea"},
    ("amount", "source_id"),
)

ROWS: dict[str, list[tuple[Any, ...]]] = {
    "one row": [(1, 2, "a", 3, 4, b"b", 5)],
    "no number is there": [(1, 2, "a", None, None, b"b", 5)],
    "a number is missing in one row and there in the next": [(1, 2, "a", None, 4, b"b", 5), (2, 2, "a", 3, None, b"b", 5)],
    "the largest and the smallest numbers": [(2**63 - 1, -(2**63) + 1, "", 0, -1, b"", 0)],
    "a byte string is missing": [(1, 2, "a", 3, 4, None, 5), (2, 2, "a", 3, 4, b"\x00\xff", 5)],
    "text of several bytes a character": [(1, 2, "Zürich, 東京 \"'\\{},", 3, 4, b"{}\\", 5)],
    "as many as a batch may have": [
        (number, -number, str(number), number or None, None, bytes([number % 256]) * number, 1) for number in range(900)
    ],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
def test_rows_arrive_as_they_were_sent(postgres: TestPostgres, rows: list[tuple[Any, ...]]) -> None:
    """Numbers, NULLs, text and byte strings keep their values, columns and order, for any number of rows."""
    dsn = postgres.new_database()
    try:
        with psycopg.connect(dsn) as connection:
            result = connection.pgconn.exec_params(COLUMNS.rows.encode(), COLUMNS.encode(rows), None, [1] * 3, 1)
            assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
            assert [result.fname(column) for column in range(result.nfields)] == [name.encode() for name in COLUMNS.names]
            stored = connection.pgconn.exec_params(
                f"SELECT {COLUMNS.selected} FROM ({COLUMNS.rows}) AS stored".encode(), COLUMNS.encode(rows), None, [1] * 3, 1
            )
            assert stored.status == psycopg.pq.ExecStatus.TUPLES_OK, stored.error_message
            read = [[stored.get_value(row, index) for index in range(stored.nfields)] for row in range(stored.ntuples)]
            arrived = [[result.get_value(row, index) for index in range(result.nfields)] for row in range(result.ntuples)]
    finally:
        postgres.drop_database(dsn)
    assert [tuple(map(_read, COLUMNS.names, row)) for row in arrived] == rows
    assert [tuple(COLUMNS.decode(row)) for row in read] == rows


def _read(name: str, value: bytes | None) -> Any:
    match name:
        case "name":
            return (value or b"").decode()
        case "sealed":
            return value
        case _:
            return None if value is None else int.from_bytes(value, "big", signed=True)
