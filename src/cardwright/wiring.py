"""Joins the parts into a running platform; the only file that knows them all."""

import asyncio
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from cardwright.engine.cache import Cache, ShowPan
from cardwright.engine.loop import Engine
from cardwright.engine.retention import Retention
from cardwright.engine.timers import Timers
from cardwright.kit.clock import ProgramClock, monotonic_ms, parse_instant, system_ms
from cardwright.kit.failpoints import async_failpoint
from cardwright.kit.guard import OutgoingPolicy
from cardwright.kit.ids import Ids
from cardwright.kit.limits import Limits
from cardwright.kit.masks import mask
from cardwright.kit.vault import Vault, counted_nonces, random_nonce
from cardwright.outbox.client import GuardedClient
from cardwright.outbox.deliver import Deliverer
from cardwright.outbox.queue import RetryRules
from cardwright.resources.app import App
from cardwright.resources.backtest_runner import BacktestRunner
from cardwright.resources.transactions import render_first_states
from cardwright.settings import Settings
from cardwright.storage.database import Database
from cardwright.storage.hot import CardRow, HotStore
from cardwright.storage.hot_sqlite import Checkpointer, SqliteStore
from cardwright.storage.monitor import Monitor
from cardwright.storage.programs import (
    ProgramSettings,
    find_program_of,
    find_program_token,
    get_program,
    insert_credential,
    insert_program,
    kept_value,
)

DEFAULT_PROGRAM = "default"

SECRETS_FILE = "secrets.json"
"""The file in the data directory in which the first start leaves what was not given."""

KEY_CHECK = "master key"
"""Where the database keeps a keyed hash by which the master key is recognised."""

SEEDED_START = "2026-01-01T12:00:00+00:00"
"""With a seed the default program's clock stands still here until somebody moves it: time is an input like any other."""


STOP_S = 1.5
"""The longest wait for deliveries and timers under way when the platform stops."""


class Misconfigured(Exception):
    """Settings that cannot work together; the text names the option and the way out."""


@contextmanager
def settled(settings: Settings) -> Iterator[Settings]:
    """The settings with ``:memory:`` replaced by a private directory, on a RAM disk where the machine has one.

    Everything in it, the database and its keys, is gone at the end.
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


def data_dir_of(settings: Settings) -> Path:
    """Where keys and the embedded database live: beside an explicit SQLite file, else ``.cardwright``."""
    if settings.data_dir is not None:
        return settings.data_dir
    if settings.db is not None and "://" not in settings.db:
        return Path(settings.db).expanduser().resolve().parent / ".cardwright"
    return Path(".cardwright")


def address_of(settings: Settings) -> str:
    """The database's address: the one asked for, or a file in the data directory."""
    return settings.db if settings.db is not None else str(data_dir_of(settings) / "cardwright.db")


def load_secrets(settings: Settings) -> Secrets:
    """Keys and credentials: from the settings, else from the data directory, where the first start leaves them.

    Raises Misconfigured when production mode has none.
    """
    given = _given_secrets(settings)
    if len(given) == len(Secrets.__slots__):
        return Secrets(**given)
    if not settings.is_sandbox:
        missing = sorted({"master_key", "application_token", "access_token"} - given.keys())
        raise Misconfigured(f"production mode needs {', '.join(f'CARDWRIGHT_{name.upper()}' for name in missing)}")
    source = Ids(settings.seed) if settings.seed is not None else None
    made = {
        "master_key": f"{source.bits(256):064x}" if source else secrets.token_hex(32),
        "application_token": source.token() if source else secrets.token_urlsafe(24),
        "access_token": source.token() if source else secrets.token_urlsafe(24),
    }
    return Secrets(**(_kept(data_dir_of(settings) / SECRETS_FILE, made) | given))


def find_secrets(settings: Settings) -> dict[str, str]:
    """The credentials that exist already, for those who only use them. Raises FileNotFoundError when some were never made."""
    given = _given_secrets(settings)
    if {"application_token", "access_token"} <= given.keys():
        return given
    kept: dict[str, str] = json.loads((data_dir_of(settings) / SECRETS_FILE).read_text())
    return kept | given


def _given_secrets(settings: Settings) -> dict[str, str]:
    return {
        name: value.get_secret_value()
        for name in ("master_key", "application_token", "access_token")
        if (value := getattr(settings, name)) is not None
    }


def _kept(path: Path, made: dict[str, str]) -> dict[str, str]:
    """The secrets in the file; the first caller's are the ones that are kept."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
    except FileExistsError:
        return {**made, **json.loads(path.read_text())}
    return made


def make_vault(settings: Settings, keys: Secrets) -> Vault:
    """The vault under the master key; with a seed its nonces are counted rather than drawn, so that bytes repeat."""
    return Vault.from_hex(keys.master_key, random_nonce if settings.seed is None else counted_nonces(settings.seed))


def first_clock(settings: Settings) -> ProgramClock:
    """The clock that a program begins with."""
    return ProgramClock() if settings.seed is None else ProgramClock(0, parse_instant(SEEDED_START))


def ensure_default_program(database: Database, vault: Vault, settings: Settings, keys: Secrets) -> None:
    """Sees to it that the default program is there and that the credentials open it.

    Raises Misconfigured when the database was filled under another master key: nothing in it could be decrypted.
    """
    digest = vault.credential_digest(keys.application_token, keys.access_token)
    with database.write() as db:
        fingerprint = vault.pan_digest(KEY_CHECK, KEY_CHECK).hex()
        if kept_value(db, KEY_CHECK, fingerprint) != fingerprint:
            raise Misconfigured(
                "the database was filled under another master key; set CARDWRIGHT_MASTER_KEY, or --data-dir to the folder "
                "with its secrets.json"
            )
        if find_program_of(db, digest) is not None:
            return
        program_id = find_program_token(db, DEFAULT_PROGRAM)
        if program_id is None:
            program_id = insert_program(
                db, token=DEFAULT_PROGRAM, name="Default program", short_code="dflt",
                settings=ProgramSettings(), clock=first_clock(settings), now=system_ms(),
            )  # fmt: skip
        insert_credential(db, program_id, digest)


def policy_of(settings: Settings) -> OutgoingPolicy:
    """Which addresses webhooks may go to."""
    hosts = [host.strip() for host in settings.outgoing_hosts.split(",") if host.strip()]
    return OutgoingPolicy.sandbox() if settings.is_sandbox else OutgoingPolicy.production(allowed_hosts=hosts)


def pan_shower(vault: Vault, *, sandbox: bool) -> ShowPan:
    """How simulations show card numbers: in clear in the sandbox, where all are made up, else masked."""

    def show(row: CardRow) -> str:
        pan = vault.decrypt_pan(row.pan_sealed, str(row.program_id), row.token)
        return pan if sandbox else mask(pan)

    return show


class Platform:
    """A running platform inside one process; made inside its event loop."""

    def __init__(self, settings: Settings) -> None:
        keys = load_secrets(settings)
        self.settings = settings
        limits = Limits(settings.answer_limit_s)
        self.database = Database(address_of(settings), limits)
        self.monitor = Monitor(self.database)
        self._executors = [ThreadPoolExecutor(2, thread_name_prefix=name) for name in ("cache", "outbox")]
        self._executors.append(ThreadPoolExecutor(1, thread_name_prefix="timers"))
        store = _hot_store(self.database)
        vault, policy = make_vault(settings, keys), policy_of(settings)
        cache = Cache(self.database, store, self._executors[0], pan_shower(vault, sandbox=settings.is_sandbox))
        engine = Engine(store, cache, system_ms, self._executors[0], self.database.outage, limits)
        self._client = GuardedClient(policy, monotonic_ms)
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

    async def start(self) -> None:
        """Opens the heart's lanes, begins delivering, and lets time pass."""
        await self.app.engine.start()
        if self.database.is_sqlite:
            self._checkpointer = Checkpointer(self.database)
        loops = (self._deliverer, self._backtests, self._retention, self.monitor)
        self._tasks = [asyncio.create_task(loop.run()) for loop in loops]
        self._timing = asyncio.create_task(self._timers.run())

    async def stop(self) -> None:
        """Answers what is in the inbox, ends deliveries, closes every connection. Nothing that hangs holds it up."""
        await async_failpoint("stop.before")
        self._timers.stop()
        self.monitor.stop()
        await self.app.engine.stop()
        self._deliverer.stop()
        self._backtests.stop()
        self._retention.stop()
        tasks = [*self._tasks, self._timing] if self._timing is not None else self._tasks
        await asyncio.wait(tasks, timeout=STOP_S)
        # What still waits for the database is aborted, so that the threads end.
        self.database.close()
        await self._client.close()
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
        if self._checkpointer is not None:
            self._checkpointer.stop()


def _hot_store(database: Database) -> HotStore:
    if database.is_sqlite:
        return SqliteStore(database)
    # psycopg takes a sixth of a second to import, which an instance on SQLite should not wait for.
    from cardwright.storage.hot_postgres import PostgresStore

    return PostgresStore(database)


def render_for_delivery(db: Connection, program_id: int, row_ids: list[int]) -> list[str]:
    """Transactions as notifications tell them."""
    program = get_program(db, program_id)
    return render_first_states(db, program_id, row_ids, masked=program.settings.mask_funding_source_tokens)
