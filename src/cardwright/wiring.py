"""Wiring: the construction of a running platform from its parts. Only this module imports all of them."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import structlog
from sqlalchemy import Connection, delete, select

from cardwright.engine.config_cache import Cache, ShowPan
from cardwright.engine.loop import Engine
from cardwright.engine.retention import Retention
from cardwright.engine.scheduler import Timers
from cardwright.instance_secrets import (
    CREDENTIAL_NAMES,
    OTHER_KEY_ADVICE,
    SECRETS_FILE,
    Misconfigured,
    Secrets,
    address_of,
    data_dir_of,
    find_master_key,
    given_secrets,
    load_secrets,
)
from cardwright.kit.clock import ProgramClock, monotonic_ms, parse_instant, system_ms
from cardwright.kit.failpoints import async_failpoint
from cardwright.kit.guard import OutgoingPolicy
from cardwright.kit.ids import Ids
from cardwright.kit.limits import Limits
from cardwright.kit.masks import mask
from cardwright.kit.vault import (
    FIRST_KEY_ID,
    FIXED_PURPOSES,
    SEALING_PURPOSES,
    DataKeys,
    MasterKey,
    Vault,
    VaultError,
    counted_nonces,
    random_keys,
    random_nonce,
)
from cardwright.outbox.client import GuardedClient
from cardwright.outbox.deliver import Deliverer
from cardwright.outbox.delivery_queue import RetryRules
from cardwright.resources.analysis.backtest_runner import BacktestRunner
from cardwright.resources.common.call import App
from cardwright.resources.sandbox.webhook_inbox import seal_old_headers
from cardwright.resources.transactions.as_of import render_first_states
from cardwright.resources.webhooks.webhooks import seal_old_webhooks
from cardwright.settings import Settings
from cardwright.storage.credentials import OfOtherProgram, Revoked, ensure_given
from cardwright.storage.data_keys import (
    KEY_CHECK,
    KeyState,
    OtherMasterKey,
    find_key_check,
    has_data_keys,
    insert_data_keys,
    load_data_keys,
    lock_key_check,
)
from cardwright.storage.database import Database
from cardwright.storage.engine.sqlite import Checkpointer, SqliteStore
from cardwright.storage.engine.store import CardRow, EngineStore
from cardwright.storage.failures import Damaged, Unavailable
from cardwright.storage.key_watch import KeyWatch
from cardwright.storage.monitor import Monitor
from cardwright.storage.programs import (
    MODE,
    ROWS_IN_CLEAR,
    ProgramSettings,
    find_program_token,
    find_value,
    get_program,
    insert_program,
    kept_value,
)
from cardwright.storage.tables import meta

DEFAULT_PROGRAM = "default"


SEEDED_START = "2026-01-01T12:00:00+00:00"
"""The frozen time of the default program with a seed, until a request changes the clock. So a seeded run is reproducible."""


STOP_S = 1.2
"""Maximum wait in seconds for current deliveries and timers when the platform stops."""

LAST_S = 0.3
"""Maximum wait in seconds for the tasks that were aborted after ``STOP_S``."""


log = structlog.get_logger()


@contextmanager
def resolved_settings(settings: Settings) -> Iterator[Settings]:
    """Yield the settings, with ``:memory:`` replaced by a private directory, on a RAM disk if the machine has one.

    The directory with the database and its keys is deleted at the end.
    """
    if settings.db != ":memory:":
        yield settings
        return
    ram = Path("/dev/shm")  # the directory inside has mode 0700
    with tempfile.TemporaryDirectory(prefix="cardwright-", dir=ram if ram.is_dir() else None) as directory:
        yield settings.model_copy(update={"db": str(Path(directory) / "cardwright.db"), "data_dir": Path(directory)})


def make_vault(database: Database, settings: Settings) -> Vault:
    """Return the vault of the database, which loads its keys at its first use.

    With a seed its nonces are counted, not random, so that its output is reproducible.
    """

    def load() -> DataKeys:
        if (text := database.outage.text) is not None:
            # The event loop may wait for this call, so it must not wait for a database that is away.
            raise Unavailable(text)
        with database.read(database.limits.read_s) as db:
            key_check = find_key_check(db)
            if key_check is None:
                raise OtherMasterKey("the database has no data keys")
            master_key = find_master_key(settings, key_check)
            # Until the first start of this version, an older database has the keys that are derived from its master key.
            return load_data_keys(db, master_key) if has_data_keys(db) else master_key.derived_keys()

    return Vault(load, random_nonce if settings.seed is None else counted_nonces(settings.seed))


def open_vault(database: Database, settings: Settings) -> Vault:
    """Return the vault of the database with its keys. The first start of a server inserts the data keys.

    A database of a version without stored data keys gets the keys that it already uses: those that are derived from its master
    key. Raises Misconfigured if the database has another master key or a damaged data key.
    """
    with database.write() as db:
        key_check = lock_key_check(db)
        if key_check is None:
            wrapping = MasterKey.from_hex(load_secrets(settings).master_key)
            kept_value(db, KEY_CHECK, wrapping.check())
            # The keys of a seeded run depend on nothing but its master key, so that the run is reproducible.
            is_seeded = settings.seed is not None
            keys = wrapping.derived_keys().keys if is_seeded else random_keys(FIRST_KEY_ID, (*SEALING_PURPOSES, *FIXED_PURPOSES))
            insert_data_keys(db, wrapping, keys, KeyState.COMPLETE, system_ms())
        else:
            try:
                wrapping = find_master_key(settings, key_check)
            except OtherMasterKey as error:
                raise Misconfigured(str(error), OTHER_KEY_ADVICE) from None
            if not has_data_keys(db):
                insert_data_keys(db, wrapping, wrapping.derived_keys().keys, KeyState.COMPLETE, system_ms())
    vault = make_vault(database, settings)
    try:
        vault.reload()
    except VaultError as error:
        raise Misconfigured(str(error), "restore the database from a backup") from None
    return vault


def first_clock(settings: Settings) -> ProgramClock:
    """Return the clock of a new program."""
    return ProgramClock() if settings.seed is None else ProgramClock(0, parse_instant(SEEDED_START))


def vault_of(settings: Settings, database: Database) -> Vault:
    """Return the vault of a database that a server has opened, for commands. Raises Misconfigured and OSError."""
    path = data_dir_of(settings) / SECRETS_FILE
    if settings.master_key is None and not os.path.lexists(path):
        raise Misconfigured(f"CARDWRIGHT_MASTER_KEY is not set, and there is no {path}", OTHER_KEY_ADVICE)
    vault = make_vault(database, settings)
    with database.read() as db:
        is_opened = find_key_check(db) is not None
    try:
        if is_opened:
            vault.reload()
    except OtherMasterKey as error:
        raise Misconfigured(str(error), OTHER_KEY_ADVICE) from None
    except VaultError as error:
        raise Misconfigured(str(error), "restore the database from a backup") from None
    return vault


def find_mode(database: Database) -> str | None:
    """Return the mode in which a server first opened the database, or None before the first start."""
    with database.read() as db:
        return find_value(db, MODE)


def ensure_default_program(database: Database, vault: Vault, settings: Settings, keys: Secrets) -> Sequence[str]:
    """Insert the default program if it does not exist, and make the credentials its only given ones.

    Return the tokens of the earlier given credentials, which no longer open it. The first start also stores the mode. Raises
    Misconfigured for the database of another mode, and for credentials that were revoked or open another program.
    """
    digest = vault.credential_digest(keys.application_token, keys.access_token)
    with database.write() as db:
        if (mode := kept_value(db, MODE, settings.mode.value)) != settings.mode:
            raise Misconfigured(
                f"the database is one of {mode} mode, and CARDWRIGHT_MODE is {settings.mode}", "set CARDWRIGHT_MODE"
            )
        now = system_ms()
        program_id = find_program_token(db, DEFAULT_PROGRAM)
        if program_id is None:
            program_id = insert_program(
                db, token=DEFAULT_PROGRAM, name="Default program", short_code="dflt",
                settings=ProgramSettings(), clock=first_clock(settings), now=now,
            )  # fmt: skip
        try:
            return ensure_given(db, program_id, digest, now)
        except Revoked:
            raise Misconfigured(f"the credentials {_origin_of(settings)} were revoked", _new_pair_advice(settings)) from None
        except OfOtherProgram:
            text = f"the credentials {_origin_of(settings)} are those of another program than {DEFAULT_PROGRAM}"
            raise Misconfigured(text, _new_pair_advice(settings)) from None


def _origin_of(settings: Settings) -> str:
    """Return the source of the credentials, for an error."""
    if given_secrets(settings).keys() & CREDENTIAL_NAMES:
        return "in CARDWRIGHT_APPLICATION_TOKEN and CARDWRIGHT_ACCESS_TOKEN"
    return f"in {data_dir_of(settings) / SECRETS_FILE}"


def _new_pair_advice(settings: Settings) -> str:
    if given_secrets(settings).keys() & CREDENTIAL_NAMES:
        return "set both variables to other credentials, such as those that `cardwright credentials add` prints"
    return "`cardwright credentials add` makes new ones and writes them to the file"


def seal_rows_in_clear(database: Database, vault: Vault) -> None:
    """Seal the secrets that an earlier version stored in clear, if the migration left any. One transaction."""
    with database.write() as db:
        # Of two processes that start at once, the second waits for this lock, and then finds no mark.
        if db.scalar(select(meta.c.value).where(meta.c.key == ROWS_IN_CLEAR).with_for_update()) is None:
            return
        if database.is_sqlite:
            # Zeros replace the freed bytes of the pages.
            db.exec_driver_sql("PRAGMA secure_delete = ON")
        seal_old_webhooks(db, vault)
        seal_old_headers(db, vault)
        db.execute(delete(meta).where(meta.c.key == ROWS_IN_CLEAR))


def policy_of(settings: Settings) -> OutgoingPolicy:
    """Return the policy for the addresses of webhooks."""
    hosts = [host.strip() for host in settings.outgoing_hosts.split(",") if host.strip()]
    return OutgoingPolicy.sandbox() if settings.is_sandbox else OutgoingPolicy.production(allowed_hosts=hosts)


def pan_shower(vault: Vault, *, sandbox: bool) -> ShowPan:
    """Return the function that shows card numbers in simulations.

    The sandbox shows whole numbers, because its cards are fictitious. Production mode shows masked ones.
    """

    def show(row: CardRow) -> str:
        pan = vault.decrypt_pan(row.pan_sealed, str(row.program_id), row.token)
        return pan if sandbox else mask(pan)

    return show


class Platform:
    """A running platform in one process. It must be created in the event loop.

    ``is_damaged`` is True if the process ends because its SQLite file is damaged.
    """

    is_damaged = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        limits = Limits(settings.answer_limit_s)
        self.database = Database(address_of(settings), limits)
        self.monitor = Monitor(self.database, self._end)
        self._executors = [ThreadPoolExecutor(2, thread_name_prefix=name) for name in ("cache", "outbox")]
        self._executors.append(ThreadPoolExecutor(1, thread_name_prefix="timers"))
        store = _engine_store(self.database)
        vault, policy = make_vault(self.database, settings), policy_of(settings)
        cache = Cache(self.database, store, self._executors[0], pan_shower(vault, sandbox=settings.is_sandbox))
        engine = Engine(store, cache, system_ms, self._executors[0], self.database.outage, limits)
        self._client = GuardedClient(policy, monotonic_ms)
        self._key_watch = KeyWatch(self.database, vault)
        self._deliverer = Deliverer(
            self.database, vault, self._client, system_ms, RetryRules(), render_for_delivery, self._executors[1]
        )
        self._timers = Timers(self.database, engine, system_ms, self._executors[2], self._deliverer.wake)
        self._backtests = BacktestRunner(self.database, address_of(settings), system_ms, self._executors[1])
        self._retention = Retention(self.database, system_ms, self._executors[2], settings.retention_days)
        self.app = App(
            database=self.database,
            vault=vault,
            ids=Ids(settings.seed),
            real_clock=system_ms,
            engine=engine,
            client=self._client,
            policy=policy,
            sandbox=settings.is_sandbox,
            allow_simulate=settings.allow_simulate,
            bin_prefix=settings.bin_prefix,
            first_clock=first_clock(settings),
            wake_outbox=self._deliverer.wake,
            settle=self._timers.settle,
            wake_backtests=self._backtests.wake,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._timing: asyncio.Task[None] | None = None
        self._checkpointer: Checkpointer | None = None

    def _end(self, damage: Damaged) -> None:
        """End the process. A damaged file must be restored first, because every answer from it may be wrong."""
        log.critical("the database is damaged; restore it from a backup", database=self.database.place, reason=str(damage))
        Platform.is_damaged = True
        signal.raise_signal(signal.SIGTERM)

    async def start(self) -> None:
        """Load the data keys, and start the engine's workers and all background loops.

        Raises OtherMasterKey, Misconfigured and OSError if the data keys cannot be unwrapped.
        """
        try:
            await asyncio.to_thread(self.app.vault.reload)
        except Unavailable as error:
            # A process may start during an outage. The key watch, or the first use, loads the keys later.
            log.warning("the data keys are loaded later", error=str(error))
        await self.app.engine.start()
        if self.database.is_sqlite:
            self._checkpointer = Checkpointer(self.database)
        loops = (self._deliverer, self._backtests, self._retention, self.monitor, self._key_watch)
        self._tasks = [asyncio.create_task(loop.run()) for loop in loops]
        self._timing = asyncio.create_task(self._timers.run())

    async def stop(self) -> None:
        """Answer the messages in the inbox, end the loops and close all connections, within bounded time."""
        await async_failpoint("stop.before")
        if self.database.outage.text is not None:
            # Nothing can be written during an outage, so no task must wait for a write.
            self.database.close()
        self._timers.stop()
        self.monitor.stop()
        self._key_watch.stop()
        await self.app.engine.stop()
        self._deliverer.stop()
        self._backtests.stop()
        self._retention.stop()
        tasks = [*self._tasks, self._timing] if self._timing is not None else self._tasks
        _, late = await asyncio.wait(tasks, timeout=STOP_S)
        # Abort all waits for the database, so that the threads and the tasks end.
        self.database.close()
        if late:
            await asyncio.wait(late, timeout=LAST_S)
        await self._client.close()
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
        if self._checkpointer is not None:
            self._checkpointer.stop()


def _engine_store(database: Database) -> EngineStore:
    if database.is_sqlite:
        return SqliteStore(database)
    # Imported only with PostgreSQL, because the import of psycopg is slow (decision 10).
    from cardwright.storage.engine.postgres import PostgresStore

    return PostgresStore(database)


def render_for_delivery(db: Connection, program_id: int, row_ids: list[int]) -> list[str]:
    """Return the JSON of transactions for notifications, with their first states."""
    program = get_program(db, program_id)
    return render_first_states(db, program_id, row_ids, masked=program.settings.mask_funding_source_tokens)
