"""The heart's PostgreSQL: two round trips a batch, in libpq's pipeline mode, driven from the event loop.

Statements are prepared once for each connection. Rows travel as one binary array for each column and are unfolded by
``unnest``: a batch of 200 rows is one statement for each table. There is no thread to hand over to; the loop calls back
when the socket has an answer.

All statements between two synchronisation points are one transaction, so nobody says BEGIN or COMMIT: the first round
trip asks for its answers with a flush, which leaves the transaction and its locks open, the second ends with the
synchronisation that commits, or rolls back after an error.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

import psycopg
from psycopg import pq

from cardwright.core.record import Recorded
from cardwright.storage.database import Database
from cardwright.storage.hot import (
    CARD_COLUMNS,
    JOURNAL_COLUMNS,
    OUTBOX_COLUMNS,
    SHADOW_HIT_COLUMNS,
    TRANSACTION_COLUMNS,
    CardRow,
    ChainRow,
    Conflict,
    HolderRow,
    ProgramRow,
    Replay,
    Seen,
    Unavailable,
    Want,
    Write,
)

ID_BLOCK = 20_000
BINARY = 1
RETRIABLE = frozenset({"23505", "40001", "40P01", "55P03"})
"""Unique violation, serialization failure, deadlock, lock not available: run the batch again."""

OIDS = {"int2": 21, "int4": 23, "int8": 20, "text": 25, "varchar": 1043, "bytea": 17}

TRANSACTION_TYPES = {
    "kind": "int2", "state": "int2", "first_state": "int2", "code": "int2", "duration_ms": "int4", "currency": "text",
    "details": "bytea",
}  # fmt: skip
OUTBOX_TYPES = {"target": "bytea", "category": "int2", "refs": "text", "state": "int2", "tries": "int2", "attempts": "text"}


def _unfold(table: str, columns: Sequence[str], types: dict[str, str]) -> str:
    arrays = ", ".join(f"${number}::{types.get(column, 'int8')}[]" for number, column in enumerate(columns, 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({arrays})"


STATEMENTS = {
    # Rows are locked after sorting, so every process locks in the same order and none waits in a circle.
    "lock_holders": "SELECT id, revision, state FROM holders WHERE id = ANY($1::int8[]) ORDER BY id FOR NO KEY UPDATE",
    "programs": "SELECT id, revision, clock_offset_ms, clock_frozen_ms FROM programs WHERE id = ANY($1::int8[])",
    "replays": "SELECT m.program_id, m.token, m.transaction_id, m.request_hash FROM message_tokens m "
    "JOIN unnest($1::int8[], $2::text[]) AS k(program_id, token) ON m.program_id = k.program_id AND m.token = k.token",
    "transactions": f"SELECT {', '.join(TRANSACTION_COLUMNS)} FROM transactions WHERE id = ANY($1::int8[])",
    "holders": "UPDATE holders h SET state = v.state FROM unnest($1::int8[], $2::bytea[]) AS v(id, state) WHERE h.id = v.id",
    "update_chains": "UPDATE transactions t SET state = v.state, hold_left = v.hold_left, load_left = v.load_left, "
    "cleared = v.cleared FROM unnest($1::int8[], $2::int2[], $3::int8[], $4::int8[], $5::int8[]) "
    "AS v(id, state, hold_left, load_left, cleared) WHERE t.id = v.id",
    "insert_transactions": _unfold("transactions", TRANSACTION_COLUMNS, TRANSACTION_TYPES),
    "insert_journal": _unfold("journal", JOURNAL_COLUMNS, {"currency": "text"}),
    "insert_outbox": _unfold("outbox", OUTBOX_COLUMNS, OUTBOX_TYPES),
    "insert_shadow_hits": _unfold("shadow_hits", SHADOW_HIT_COLUMNS, {}),
    "insert_tokens": _unfold(
        "message_tokens", ("program_id", "token", "transaction_id", "request_hash"), {"token": "text", "request_hash": "bytea"}
    ),
}

SESSION = " ".join(
    f"-c {setting}"
    for setting in (
        # Every statement finds rows by key. A plan made once and by index is right for ten rows and for ten million;
        # without this the server plans again for every batch, or reads a whole table while it is small.
        "plan_cache_mode=force_generic_plan",
        "enable_seqscan=off",
        "enable_hashjoin=off",
        "enable_mergejoin=off",
        "jit=off",
    )
)

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


def _integer(value: bytes | None) -> int:
    assert value is not None
    return int.from_bytes(value, "big", signed=True)


def _maybe(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big", signed=True)


class PostgresStore:
    """Lanes on a PostgreSQL server: two of them, so that one batch commits while the next is decided."""

    lanes_max = 2

    def __init__(self, database: Database) -> None:
        self._dsn = database.dsn
        self._database = database

    async def open_lane(self) -> "PostgresLane":
        """A new lane; the connection is made in a thread."""
        return PostgresLane(await asyncio.to_thread(self._connect))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._dsn, autocommit=True, options=SESSION)

    def load_cards(self, keys: Sequence[tuple[int, str]]) -> list[CardRow]:
        """The cards with these (program id, token)."""
        query = (
            f"SELECT {CARD_COLUMNS} FROM unnest(%s::int8[], %s::text[]) AS k(program_id, token) "
            "JOIN cards c ON c.program_id = k.program_id AND c.token = k.token"
        )
        programs, tokens = zip(*keys, strict=True)
        with self._database.read() as db:
            return [CardRow(*row) for row in db.exec_driver_sql(query, (list(programs), list(tokens)))]

    def next_ids(self) -> range:
        """A block of ids that no other process gets."""
        with self._database.write() as db:
            block = db.exec_driver_sql("SELECT nextval('transaction_blocks')").scalar_one()
        first = (block - 1) * ID_BLOCK + 1
        return range(first, first + ID_BLOCK, 2)


class PostgresLane:
    """See ``hot.Lane``."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._wire = connection.pgconn
        for name, statement in STATEMENTS.items():
            result = self._wire.prepare(name.encode(), statement.encode())
            assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message
        self._wire.nonblocking = 1
        self._wire.enter_pipeline_mode()
        self._results: list[pq.abc.PGresult] = []
        self._error: Exception | None = None
        self._unanswered = 0
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._wire.socket, self._on_readable)

    async def begin(self, want: Want) -> Seen:
        """Locks and reads in one round trip; a second one only when a chosen token was seen before.

        Each statement sees what was committed when it begins: those after the lock see what the lock waited for.
        """
        self._send("lock_holders", int_array(want.holder_ids))
        self._send("programs", int_array(want.program_ids))
        if want.row_ids:
            self._send("transactions", int_array(want.row_ids))
        if want.tokens:
            programs, texts = zip(*want.tokens, strict=True)
            self._send("replays", int_array(programs), text_array(texts))
        results = await self._ask()
        seen = Seen(
            {_integer(row[0]): HolderRow(_integer(row[1]), row[2] or b"") for row in _rows(results[0])},
            {_integer(row[0]): ProgramRow(_integer(row[1]), _integer(row[2]), _maybe(row[3])) for row in _rows(results[1])},
            {},
            {},
        )
        if want.row_ids:
            self._take_rows(seen, results[2])
        if want.tokens:
            for program_id, token, transaction_id, digest in _rows(results[-1]):
                key = (_integer(program_id), (token or b"").decode())
                seen.replays[key] = Replay(_integer(transaction_id), digest or b"")
        if seen.replays:
            self._send("transactions", int_array([replay.transaction_id for replay in seen.replays.values()]))
            self._take_rows(seen, (await self._ask())[0])
        return seen

    def _take_rows(self, seen: Seen, result: pq.abc.PGresult) -> None:
        for row in map(_recorded, _rows(result)):
            seen.rows[row.id] = row

    async def commit(self, write: Write) -> None:
        """Writes and commits in one round trip."""
        if write.holders:
            ids, states = zip(*write.holders, strict=True)
            self._send("holders", int_array(ids), bytes_array(states))
        if write.transactions:
            self._send("insert_transactions", *encode_rows(write.transactions, TRANSACTION_COLUMNS, TRANSACTION_TYPES))
        if write.chains:
            self._send("update_chains", *encode_rows(list(write.chains.values()), ChainRow._fields, {"state": "int2"}))
        if write.journal:
            self._send("insert_journal", *encode_rows(write.journal, JOURNAL_COLUMNS, {"currency": "text"}))
        if write.outbox:
            rows = [tuple(row[column] for column in OUTBOX_COLUMNS) for row in write.outbox]
            self._send("insert_outbox", *encode_rows(rows, OUTBOX_COLUMNS, OUTBOX_TYPES))
        if write.tokens:
            programs, tokens, transactions, digests = zip(*write.tokens, strict=True)
            self._send("insert_tokens", int_array(programs), text_array(tokens), int_array(transactions), bytes_array(digests))
        if write.shadow_hits:
            self._send("insert_shadow_hits", *encode_rows(write.shadow_hits, SHADOW_HIT_COLUMNS, {}))
        await self._end()

    async def abort(self) -> None:
        """Ends the transaction; nothing was written in it."""
        await self._end()

    async def close(self) -> None:
        """Ends the connection."""
        self._loop.remove_reader(self._wire.socket)
        self._connection.close()

    def _send(self, name: str, *arrays: bytes) -> None:
        try:
            self._wire.send_query_prepared(name.encode(), arrays, [BINARY] * len(arrays), result_format=BINARY)
        except psycopg.OperationalError as error:
            raise Unavailable(str(error)) from error
        self._unanswered += 1

    async def _ask(self) -> list[pq.abc.PGresult]:
        """Sends what was queued and waits for its answers; the transaction stays open unless one is an error."""
        try:
            await self._trip(self._wire.send_flush_request)
        except (Conflict, Unavailable):
            await self._end()
            raise
        return self._results

    async def _end(self) -> None:
        """Sends what was queued and ends the transaction: with a commit, or after an error without a trace."""
        self._unanswered += 1
        await self._trip(self._wire.pipeline_sync)

    async def _trip(self, ask: Callable[[], None]) -> None:
        """One round trip. Raises Conflict or Unavailable."""
        self._results, self._error = [], None
        self._waiter = self._loop.create_future()
        try:
            ask()
            self._flush()
        except psycopg.OperationalError as error:
            raise Unavailable(str(error)) from error
        await self._waiter
        if self._error is not None:
            raise self._error

    def _flush(self) -> None:
        if self._wire.flush() == 0:
            self._loop.remove_writer(self._wire.socket)
        else:
            # The server takes no more for now; go on when it does.
            self._loop.add_writer(self._wire.socket, self._flush)

    def _on_readable(self) -> None:
        try:
            self._wire.consume_input()
            while self._unanswered and not self._wire.is_busy():
                # None only separates the answers of two statements.
                if (result := self._wire.get_result()) is not None:
                    self._take(result)
        except psycopg.OperationalError as error:
            self._loop.remove_reader(self._wire.socket)
            self._error = Unavailable(str(error))
            self._unanswered = 0
        if not self._unanswered:
            self._finish()

    def _take(self, result: pq.abc.PGresult) -> None:
        self._unanswered -= 1
        match result.status:
            case pq.ExecStatus.FATAL_ERROR:
                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                text = f"{state} {(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b'').decode()}"
                self._error = Conflict(text) if state in RETRIABLE else Unavailable(text)
            case pq.ExecStatus.PIPELINE_ABORTED | pq.ExecStatus.PIPELINE_SYNC:
                pass
            case _:
                self._results.append(result)

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _rows(result: pq.abc.PGresult) -> list[list[bytes | None]]:
    get: Callable[[int, int], bytes | None] = result.get_value
    columns = range(result.nfields)
    return [[get(row, column) for column in columns] for row in range(result.ntuples)]


_READERS: dict[str, Callable[[bytes | None], object]] = {
    "text": lambda value: (value or b"").decode(),
    "bytea": lambda value: value or b"",
}


def _recorded(row: Sequence[bytes | None]) -> Recorded:
    readers = (_READERS.get(TRANSACTION_TYPES.get(column, "int8"), _maybe) for column in TRANSACTION_COLUMNS)
    values = [read(value) for read, value in zip(readers, row, strict=True)]
    return Recorded(*values)  # type: ignore[arg-type]  # the columns' order is Recorded's
