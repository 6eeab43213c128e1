"""PostgreSQL store of the engine: two round trips a batch, the first to lock and read, the second to write and commit.

Rows are sent as binary arrays (``postgres_arrays.Columns``), so a batch of 200 rows is one statement for each table. Every wait
has a limit, in the client and in the server's session.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from psycopg import pq
from sqlalchemy import Column, LargeBinary, String

from cardwright.core.transaction_row import TransactionRow
from cardwright.kit.failpoints import failpoint
from cardwright.storage.database import SILENT_CLIENT, Database
from cardwright.storage.engine.postgres_arrays import Columns, bytes_array, int_array, text_array
from cardwright.storage.engine.postgres_pipeline import PipelineConnection, Rows, rows_of
from cardwright.storage.engine.store import (
    CHANGES,
    LIST_TRANSACTIONS,
    SELECT_CARDS,
    SELECT_COMMITTED,
    SELECT_HOLDERS,
    SELECT_MOVEMENTS,
    SELECT_ORIGINALS,
    SELECT_PROGRAMS,
    SELECT_REPLAYS,
    TRANSACTION_COLUMNS,
    CardRow,
    HolderRow,
    Insert,
    LoadedRows,
    MovementReplay,
    ProgramRow,
    ReadSet,
    Replay,
    Update,
    WriteSet,
    changes_of,
    doubt_about,
)
from cardwright.storage.failures import Conflict, Contended, InDoubt, Unavailable, reason_of
from cardwright.storage.migrate import PROBE, SELECT_SCHEMA, check_schema
from cardwright.storage.original_transactions import ORIGINAL_COLUMNS, Original, TokenKey
from cardwright.storage.tables import POSTGRES_ID_BLOCK, metadata

Encode = Callable[[Collection[Sequence[Any]]], Sequence[bytes]]
"""A function from rows, at least one, to the parameters of a statement."""

_ENCODERS: dict[str, Callable[[Sequence[Any]], bytes]] = {"int8": int_array, "text": text_array, "bytea": bytes_array}


def _array_type(column: Column[Any]) -> str:
    """Return the array type for the values of a column."""
    return "text" if isinstance(column.type, String) else "bytea" if isinstance(column.type, LargeBinary) else "int8"


def _columns(change: Insert) -> Columns:
    """Return the codec for the inserted rows of a table."""
    columns = [metadata.tables[change.table].c[name] for name in change.columns]
    others = {column.name: kind for column in columns if (kind := _array_type(column)) != "int8"}
    return Columns(change.columns, others, [column.name for column in columns if column.nullable])


def _by_column(*types: str) -> Encode:
    """Return an encoder of rows with columns of these types: one array for each column."""
    encoders = [_ENCODERS[kind] for kind in types]
    return lambda rows: [encode(values) for encode, values in zip(encoders, zip(*rows, strict=True), strict=True)]


def _prepared(change: Insert | Update) -> tuple[str, Encode]:
    """Return the SQL of a change, and the encoder of its rows."""
    names = ", ".join(change.columns)
    if isinstance(change, Insert):
        columns = _columns(change)
        return f"INSERT INTO {change.table} ({names}) {columns.rows}", columns.encode
    key, *others = change.columns
    types = [_array_type(metadata.tables[change.table].c[name]) for name in change.columns]
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, 1))
    text = (
        f"UPDATE {change.table} t SET {', '.join(f'{name} = v.{name}' for name in others)} "
        f"FROM unnest({arrays}) AS v({names}) WHERE t.{key} = v.{key}{change.condition}"
    )
    return text, _by_column(*types)


TRANSACTIONS = _columns(Insert("transactions", TRANSACTION_COLUMNS))

_PREPARED = {name: _prepared(change) for name, change in CHANGES.items()}
ENCODE: dict[str, Encode] = {
    "list_transactions": _by_column("int8"),
    **{name: encode for name, (_, encode) in _PREPARED.items()},
}
"""The encoder for the rows of each statement of a commit."""

PROBES = {"probe": PROBE, "schema": SELECT_SCHEMA}

STATEMENTS = {
    # Statements that find rows take one array for each column: the planner expects ten rows of ``unnest`` in FROM, so it chooses
    # index lookups. Rows are locked in the order of their ids, so that processes cannot deadlock.
    "lock_holders": f"{SELECT_HOLDERS}holders h WHERE h.id = ANY($1::int8[]) ORDER BY h.id FOR NO KEY UPDATE",
    "programs": f"{SELECT_PROGRAMS}= ANY($1::int8[])",
    "replays": f"{SELECT_REPLAYS}"
    "JOIN unnest($1::int8[], $2::text[]) AS k(program_id, token) ON m.program_id = k.program_id AND m.token = k.token",
    "movements": f"{SELECT_MOVEMENTS}"
    "JOIN unnest($1::int8[], $2::int8[], $3::text[]) AS k(program_id, kind, token) "
    "ON m.program_id = k.program_id AND m.kind = k.kind AND m.token = k.token",
    "transactions": f"SELECT {TRANSACTIONS.selected} FROM transactions WHERE id = ANY($1::int8[])",
    "list_transactions": f"{LIST_TRANSACTIONS}WHERE id = ANY($1::int8[])",
    **{name: text for name, (text, _) in _PREPARED.items()},
    "is_committed": f"{SELECT_COMMITTED}= ANY($1::int8[])",
}

KEYED_CARDS = (
    "unnest($1::int8[], $2::text[]) AS k(program_id, token) JOIN cards c ON c.program_id = k.program_id AND c.token = k.token"
)
READ_STATEMENTS = {
    "cards": SELECT_CARDS.format(cards=KEYED_CARDS),
    "originals": f"{SELECT_ORIGINALS}= ANY($1::int8[])",
    "chosen_originals": f"SELECT m.program_id, m.token, {ORIGINAL_COLUMNS} "
    "FROM unnest($1::int8[], $2::text[]) AS k(program_id, token) "
    "JOIN message_tokens m ON m.program_id = k.program_id AND m.token = k.token "
    "JOIN transactions t ON t.id = m.transaction_id JOIN cards c ON c.id = t.card_id",
}

SESSION = " ".join(
    f"-c {setting}"
    for setting in (
        # Every statement finds rows by key, so one generic plan with index lookups fits every table size. Without these settings
        # the server plans again for every batch, or scans a whole table while it is small.
        "plan_cache_mode=force_generic_plan",
        "enable_seqscan=off",
        "enable_hashjoin=off",
        "enable_mergejoin=off",
        "jit=off",
        # Every second the server checks that the client of a running statement is still connected.
        "client_connection_check_interval=1000",
    )
)


def _integer(value: bytes | None) -> int:
    assert value is not None
    return int.from_bytes(value, "big", signed=True)


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _maybe(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big", signed=True)


class PostgresStore:
    """The store on a PostgreSQL server. Two workers let one batch commit while the next is decided."""

    workers_max = 2

    def __init__(self, database: Database) -> None:
        self._database = database
        limits = {"lock_timeout": database.limits.lock_s, "statement_timeout": database.limits.statement_s}
        timeouts = "".join(f" -c {name}={int(seconds * 1000)}" for name, seconds in limits.items())
        self._session = f"{SESSION} {SILENT_CLIENT}{timeouts}"
        self._reader: PipelineConnection | None = None
        self._reading = asyncio.Lock()
        self._threads = self._new_threads()

    def _new_threads(self) -> ThreadPoolExecutor:
        """Return a thread pool for connecting. All other threads may wait for an unavailable database."""
        return ThreadPoolExecutor(self.workers_max + 2, thread_name_prefix="connect")

    async def open_worker(self) -> "PostgresWorker":
        """Implement ``store.EngineStore``. A thread opens the connection."""
        # Check the schema first: the statements of this version cannot be prepared on another schema.
        pipeline = await self._open(PROBES)
        worker = PostgresWorker(pipeline)
        try:
            await worker.probe(asyncio.get_running_loop().time() + self._database.limits.statement_s)
            await self._prepare(pipeline, STATEMENTS)
        except BaseException:
            await worker.close()
            raise
        return worker

    async def _open(self, statements: Mapping[str, str]) -> PipelineConnection:
        """Return a new connection with prepared statements. Raises Unavailable if the database refuses it."""
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self._threads, self._connect)
        try:
            pipeline = PipelineConnection(await asyncio.shield(opening))
        except psycopg.OperationalError as error:
            raise Unavailable(reason_of(error)) from error
        except asyncio.CancelledError:
            opening.add_done_callback(_discard)
            raise
        try:
            await self._prepare(pipeline, statements)
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    async def _prepare(self, pipeline: PipelineConnection, statements: Mapping[str, str]) -> None:
        """Prepare statements on a connection. Raises Unavailable if the database refuses them or does not answer in time."""
        try:
            await pipeline.prepare(statements, asyncio.get_running_loop().time() + self._database.limits.statement_s)
        except Conflict as conflict:
            raise Unavailable(str(conflict)) from conflict

    def _connect(self) -> "psycopg.Connection[Any]":
        failpoint("connect.before")
        return self._database.connect_postgres(self._session, autocommit=True)

    async def load_cards(self, keys: Sequence[tuple[int, str]]) -> list[CardRow]:
        """Implement ``store.EngineStore``."""
        return [_card(row) for row in await self._read("cards", *_keys(keys))]

    async def load_originals(self, ids: Sequence[int]) -> list[Original]:
        """Implement ``store.EngineStore``."""
        return [_original(row) for row in await self._read("originals", int_array(ids))]

    async def load_chosen(self, keys: Sequence[TokenKey]) -> dict[TokenKey, Original]:
        """Implement ``store.EngineStore``."""
        rows = await self._read("chosen_originals", *_keys(keys))
        return {(_integer(program_id), _text(token)): _original(row) for program_id, token, *row in rows}

    async def _read(self, name: str, *arrays: bytes) -> Rows:
        """Return the rows of a statement. A separate connection for these reads stays open."""
        async with self._reading:
            try:
                return await self._ask(name, arrays)
            except Unavailable:
                # The connection may have ended while it was idle, such as in a restart of the server.
                self._close_reader()
                return await self._ask(name, arrays)

    async def _ask(self, name: str, arrays: Sequence[bytes]) -> Rows:
        if self._reader is None:
            self._reader = await self._open(READ_STATEMENTS)
        self._reader.send(name, *arrays)
        try:
            (result,) = await self._reader.end(asyncio.get_running_loop().time() + self._database.limits.read_s)
        except Conflict as conflict:
            raise Contended(str(conflict)) from conflict
        return rows_of(result)

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    async def close(self) -> None:
        """Close the connection for reads of cards and transactions."""
        self._close_reader()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads = self._new_threads()

    def next_ids(self) -> range:
        """Implement ``store.EngineStore``. A sequence gives each block to one process only."""
        failpoint("ids.before")
        with self._database.write(self._database.limits.read_s) as db:
            block = db.exec_driver_sql("SELECT nextval('transaction_blocks')").scalar_one()
        first = (block - 1) * POSTGRES_ID_BLOCK + 1
        return range(first, first + POSTGRES_ID_BLOCK, 2)


def _discard(opening: "asyncio.Future[psycopg.Connection[Any]]") -> None:
    """Close a connection whose opening was cancelled."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class PostgresWorker:
    """A worker on one connection, see ``store.Worker``."""

    def __init__(self, pipeline: PipelineConnection) -> None:
        self._pipeline = pipeline
        self._want = ReadSet((), (), (), ())
        self._deadline = 0.0

    async def probe(self, deadline: float) -> None:
        """Commit an update without a change.

        Raises Unavailable if the database accepts no writes, and SchemaChanged if its schema is of another version.
        """
        self._pipeline.send("probe")
        self._pipeline.send("schema")
        try:
            _, result = await self._pipeline.end(deadline)
        except Conflict as conflict:
            raise Contended(str(conflict)) from conflict
        check_schema([_text(row[0]) for row in rows_of(result)])

    async def is_committed(self, doubt: InDoubt, deadline: float) -> bool:
        """Implement ``store.Worker``. The transaction held the locks of its accounts, so it has ended once they can be taken."""
        self._pipeline.send("lock_holders", int_array(doubt.holder_ids))
        self._pipeline.send("is_committed", int_array(doubt.row_ids))
        try:
            _, result = await self._pipeline.end(deadline)
        except Conflict as conflict:
            raise Contended(str(conflict)) from conflict
        return bool(result.ntuples)

    async def begin(self, want: ReadSet, deadline: float) -> LoadedRows:
        """Lock and read in one round trip. A replay of a chosen token needs a second one.

        Each statement has its own snapshot (READ COMMITTED), so those after the lock see the commits that the lock waited for.
        """
        self._want, self._deadline = want, deadline
        self._pipeline.send("lock_holders", int_array(want.holder_ids))
        self._pipeline.send("programs", int_array(want.program_ids))
        if want.row_ids:
            self._pipeline.send("transactions", int_array(want.row_ids))
        if want.tokens:
            programs, tokens = zip(*want.tokens, strict=True)
            self._pipeline.send("replays", int_array(programs), text_array(tokens))
        if want.movements:
            programs, kinds, tokens = zip(*want.movements, strict=True)
            self._pipeline.send("movements", int_array(programs), int_array(kinds), text_array(tokens))
        results = await self._pipeline.ask(deadline)
        repeated = rows_of(results.pop()) if want.movements else ()
        loaded = LoadedRows(
            {_integer(row[0]): HolderRow(_integer(row[1]), row[2] or b"", row[3] or b"") for row in rows_of(results[0])},
            {_integer(row[0]): ProgramRow(_integer(row[1]), _integer(row[2]), _maybe(row[3])) for row in rows_of(results[1])},
            {},
            {},
        )
        if want.row_ids:
            self._take_rows(loaded, results[2])
        if want.tokens:
            for program_id, token, transaction_id, digest in rows_of(results[-1]):
                key = (_integer(program_id), (token or b"").decode())
                loaded.replays[key] = Replay(_integer(transaction_id), digest or b"")
        for program_id, kind, token, digest, doc in repeated:
            movement = _integer(program_id), _integer(kind), (token or b"").decode()
            loaded.movements[movement] = MovementReplay(digest or b"", (doc or b"").decode())
        if loaded.replays:
            self._pipeline.send("transactions", int_array([replay.transaction_id for replay in loaded.replays.values()]))
            self._take_rows(loaded, (await self._pipeline.ask(deadline))[0])
        return loaded

    def _take_rows(self, loaded: LoadedRows, result: pq.abc.PGresult) -> None:
        for selected in rows_of(result):
            row = TransactionRow(*TRANSACTIONS.decode(selected))
            loaded.rows[row.id] = row

    async def commit(self, write: WriteSet, meanwhile: Callable[[], None]) -> None:
        """Write and commit in one round trip."""
        for name, rows in changes_of(write):
            self._pipeline.send(name, *ENCODE[name](rows))
        try:
            await self._pipeline.end(self._deadline, meanwhile, commits=True)
        except InDoubt as doubt:
            raise doubt_about(self._want, write, str(doubt)) from doubt

    async def abort(self) -> None:
        """End the transaction, in which nothing was written."""
        await self._pipeline.end(self._deadline)

    async def close(self) -> None:
        """Close the connection."""
        self._pipeline.close()


def _keys(keys: Sequence[tuple[int, str]]) -> tuple[bytes, bytes]:
    programs, tokens = zip(*keys, strict=True)
    return int_array(programs), text_array(tokens)


def _original(columns: Sequence[bytes | None]) -> Original:
    row_id, program_id, type_id, code, created_ms, user_time_ms, root_id, seed, token = columns
    return Original(
        _integer(row_id), _integer(program_id), _integer(type_id), _integer(code), _integer(created_ms), _integer(user_time_ms),
        _maybe(root_id), _integer(seed), _text(token),
    )  # fmt: skip


def _card(row: Sequence[bytes | None]) -> CardRow:
    program_id, token, card_id, holder_id, pan, pin, revision, card, user, owner = row
    return CardRow(
        _integer(program_id), _text(token), _integer(card_id), _integer(holder_id), pan or b"", pin, _integer(revision),
        _text(card), _text(user), None if owner is None else _text(owner),
    )  # fmt: skip
