"""Wiring: the construction of a running platform from its parts. Only this module imports all of them."""

import asyncio
import hmac
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
from sqlalchemy import Connection, delete, select

from cardwright.engine.config_cache import Cache, ShowPan
from cardwright.engine.loop import Engine
from cardwright.engine.retention import Retention
from cardwright.engine.scheduler import Timers
from cardwright.kit.clock import ProgramClock, monotonic_ms, parse_instant, system_ms
from cardwright.kit.failpoints import async_failpoint
from cardwright.kit.files import create_file, read_file, replace_file
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

SECRETS_FILE = "secrets.json"
"""The file in the data directory with the secrets that the first start generated."""

SEEDED_START = "2026-01-01T12:00:00+00:00"
"""The frozen time of the default program with a seed, until a request changes the clock. So a seeded run is reproducible."""


STOP_S = 1.2
"""Maximum wait in seconds for current deliveries and timers when the platform stops."""

LAST_S = 0.3
"""Maximum wait in seconds for the tasks that were aborted after ``STOP_S``."""


OTHER_KEY_ADVICE = f"set CARDWRIGHT_MASTER_KEY to the key of this database, or --data-dir to the folder with its {SECRETS_FILE}"

log = structlog.get_logger()


class Misconfigured(Exception):
    """Settings that cannot work together, or a damaged file. The text names the setting or file, ``advice`` the next step."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


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


@dataclass(frozen=True, slots=True)
class Secrets:
    """The master key, and the credentials of the default program."""

    master_key: str
    application_token: str
    access_token: str


CREDENTIAL_NAMES = frozenset({"application_token", "access_token"})
SECRET_NAMES = frozenset(Secrets.__slots__)


def data_dir_of(settings: Settings) -> Path:
    """Return the directory of keys and embedded database.

    It is the configured one, else ``.cardwright`` beside an explicit SQLite file, else ``.cardwright``.
    """
    if settings.data_dir is not None:
        return settings.data_dir
    if settings.db is not None and "://" not in settings.db:
        return Path(settings.db).expanduser().resolve().parent / ".cardwright"
    return Path(".cardwright")


def address_of(settings: Settings) -> str:
    """Return the address of the database: the configured one, or a file in the data directory."""
    return settings.db if settings.db is not None else str(data_dir_of(settings) / "cardwright.db")


def load_secrets(settings: Settings) -> Secrets:
    """Return keys and credentials from the settings, else from the data directory. Raises Misconfigured and OSError."""
    given = _given_secrets(settings)
    if given.keys() == SECRET_NAMES:
        return Secrets(**given)
    path = data_dir_of(settings) / SECRETS_FILE
    known = _kept_secrets(path) | given
    if missing := sorted(SECRET_NAMES - known.keys()):
        names = ", ".join(f"CARDWRIGHT_{name.upper()}" for name in missing)
        raise Misconfigured(f"{path} has no {', '.join(missing)}", f"restore the file from a backup, or set {names}")
    return Secrets(**known)


def ensure_secrets(settings: Settings, key_check: str | None) -> Secrets:
    """Return keys and credentials like ``load_secrets``. The first start in sandbox mode generates missing ones.

    ``key_check`` is the stored key check of the database. If it belongs to another master key, nothing is written. Raises
    Misconfigured and OSError.
    """
    given = _given_secrets(settings)
    path = data_dir_of(settings) / SECRETS_FILE
    if given.keys() == SECRET_NAMES or os.path.lexists(path):
        return load_secrets(settings)
    if not settings.is_sandbox:
        missing = ", ".join(f"CARDWRIGHT_{name.upper()}" for name in sorted(SECRET_NAMES - given.keys()))
        raise Misconfigured(f"production mode needs {missing}", "set these variables")
    made = _made_secrets(settings)
    candidates = [(made | given)["master_key"], *_new_master_key(settings)]
    if key_check is not None and _fitting(candidates, key_check) is None:
        raise Misconfigured(f"the database was filled under another master key, and there is no {path}", OTHER_KEY_ADVICE)
    if keep_secrets(settings, made):
        return Secrets(**made | given)
    # Another process created the file first.
    return load_secrets(settings)


def find_secrets(settings: Settings) -> dict[str, str]:
    """Return the existing credentials without generating any, for commands that only use them.

    Raises FileNotFoundError if no server has generated them, Misconfigured if the file is damaged, and OSError.
    """
    given = _given_secrets(settings)
    if given.keys() >= CREDENTIAL_NAMES:
        return given
    path = data_dir_of(settings) / SECRETS_FILE
    known = _kept_secrets(path) | given
    if missing := sorted(CREDENTIAL_NAMES - known.keys()):
        names = ", ".join(f"CARDWRIGHT_{name.upper()}" for name in missing)
        raise Misconfigured(f"{path} has no {', '.join(missing)}", f"restore the file from a backup, or set {names}")
    return known


def available_secrets(settings: Settings) -> dict[str, str]:
    """Return those keys and credentials that the settings or the data directory have. Raises Misconfigured and OSError."""
    path = data_dir_of(settings) / SECRETS_FILE
    return (_kept_secrets(path) if os.path.lexists(path) else {}) | _given_secrets(settings)


def keep_secrets(settings: Settings, restored: dict[str, str]) -> bool:
    """Write the secrets that the settings do not have into a new secrets file. Return False if there is one or none is needed.

    Raises OSError.
    """
    given = _given_secrets(settings)
    kept = {name: value for name, value in restored.items() if name not in given}
    path = data_dir_of(settings) / SECRETS_FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return bool(kept) and create_file(path, msgspec.json.encode(kept))


def _given_secrets(settings: Settings) -> dict[str, str]:
    return {name: value.get_secret_value() for name in SECRET_NAMES if (value := getattr(settings, name)) is not None}


def _made_secrets(settings: Settings) -> dict[str, str]:
    source = Ids(settings.seed) if settings.seed is not None else None
    return {
        "master_key": f"{source.bits(256):064x}" if source else secrets.token_hex(32),
        "application_token": source.token() if source else secrets.token_urlsafe(24),
        "access_token": source.token() if source else secrets.token_urlsafe(24),
    }


HexKey = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]


class SecretsFile(msgspec.Struct, omit_defaults=True):
    """The content of ``secrets.json``, without secrets that the environment set at the first start.

    ``new_master_key`` is set while ``cardwright rekey`` replaces the master key: the database fits one of both.
    """

    master_key: HexKey | None = None
    new_master_key: HexKey | None = None
    application_token: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    access_token: Annotated[str, msgspec.Meta(min_length=1)] | None = None


def read_secrets_file(path: Path) -> SecretsFile:
    """Return the content of ``secrets.json``. Raises Misconfigured if it is damaged, and OSError if it cannot be read."""
    try:
        return msgspec.json.decode(read_file(path), type=SecretsFile)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Misconfigured(
            f"{path} is damaged: {error}; without its master key the database cannot be decrypted",
            f"restore {path} from a backup; remove it only if the database is new",
        ) from None


def _kept_secrets(path: Path) -> dict[str, str]:
    """Return the secrets in the file. Raises Misconfigured if it is damaged, and OSError if it cannot be read."""
    kept = read_secrets_file(path)
    return {name: value for name in SECRET_NAMES if (value := getattr(kept, name)) is not None}


def _new_master_key(settings: Settings) -> list[str]:
    return [] if settings.new_master_key is None else [settings.new_master_key.get_secret_value()]


def find_master_key(settings: Settings, key_check: str) -> MasterKey:
    """Return the master key that wraps the data keys of the database with this key check.

    The candidates are the configured master key, else that of the data directory, and the new master keys of an unfinished
    ``cardwright rekey``. Raises OtherMasterKey, Misconfigured, OSError.
    """
    if settings.master_key is not None:
        candidates = [settings.master_key.get_secret_value()]
    else:
        kept = read_secrets_file(data_dir_of(settings) / SECRETS_FILE)
        candidates = [text for text in (kept.master_key, kept.new_master_key) if text is not None]
    master_key = _fitting(candidates + _new_master_key(settings), key_check)
    if master_key is None:
        raise OtherMasterKey("the database was filled under another master key")
    return master_key


def _fitting(candidates: Sequence[str], key_check: str) -> MasterKey | None:
    keys = map(_master_key, candidates)
    return next((key for key in keys if hmac.compare_digest(key.check(), key_check)), None)


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


def key_check_of(master_key: str) -> str:
    """Return the key check of a master key. Raises Misconfigured if it is not 64 hexadecimal digits."""
    return _master_key(master_key).check()


def _master_key(text: str) -> MasterKey:
    try:
        return MasterKey.from_hex(text)
    except ValueError as error:
        raise Misconfigured(f"CARDWRIGHT_MASTER_KEY: {error}", OTHER_KEY_ADVICE) from None


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


def find_kept_pair(settings: Settings) -> tuple[str, str] | None:
    """Return the application and access token in the data directory, None without them. Raises Misconfigured and OSError."""
    path = data_dir_of(settings) / SECRETS_FILE
    kept = _kept_secrets(path) if os.path.lexists(path) else {}
    return (kept["application_token"], kept["access_token"]) if kept.keys() >= CREDENTIAL_NAMES else None


def keep_pair(settings: Settings, application_token: str, access_token: str) -> Path:
    """Replace the credentials in the data directory. Return the path of the file. Raises Misconfigured and OSError."""
    path = data_dir_of(settings) / SECRETS_FILE
    kept = msgspec.structs.replace(read_secrets_file(path), application_token=application_token, access_token=access_token)
    replace_file(path, msgspec.json.encode(kept))
    return path


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
    if _given_secrets(settings).keys() & CREDENTIAL_NAMES:
        return "in CARDWRIGHT_APPLICATION_TOKEN and CARDWRIGHT_ACCESS_TOKEN"
    return f"in {data_dir_of(settings) / SECRETS_FILE}"


def _new_pair_advice(settings: Settings) -> str:
    if _given_secrets(settings).keys() & CREDENTIAL_NAMES:
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
