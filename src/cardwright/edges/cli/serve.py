"""`cardwright serve`: prepares the database, starts the server, and says where it answers once it does."""

import fcntl
import json
import os
import shlex
import signal
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardwright import __version__
from cardwright.edges.cli.instance import Credentials, Instance, announced, environment_of
from cardwright.edges.cli.output import Failure, print_notice, show_fields

if TYPE_CHECKING:
    from cardwright.settings import Settings

POSTGRES_HINT = "cardwright serve --db postgresql://user:password@host/database --workers 2"
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean every interface, and where this machine finds itself under them."""

POLL_S = 0.01


def serve(settings: "Settings", *, as_json: bool, until_eof: bool) -> None:
    """Runs an instance until SIGTERM or SIGINT. Raises Failure when it cannot start."""
    check(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    if until_eof:
        threading.Thread(target=_leave_at_eof, daemon=True).start()
    from cardwright.edges.cli.database_commands import check_database_file, make_data_dir, make_database_file, opened
    from cardwright.edges.http.server import PortTaken, bind, run
    from cardwright.wiring import address_of, resolved_settings

    with ExitStack() as stack:
        settings = stack.enter_context(resolved_settings(settings))
        directory = make_data_dir(settings).absolute()
        if "://" not in (address := address_of(settings)):
            path = str(Path(address).expanduser())
            make_database_file(path)
            check_database_file(path)
            lock_database_file(path, directory)
        try:
            listener = bind(settings.host, settings.port)
        except PortTaken as taken:
            raise Failure(f"--port: {taken}", "cardwright serve   (without --port it takes the next free one)") from None
        except OSError as error:
            options = f"--host {settings.host}" + (f" --port {settings.port}" if settings.port is not None else "")
            raise Failure(f"{options}: {error.strerror}", "cardwright serve --host 127.0.0.1") from None
        with opened(settings) as (database, keys):
            place = str(Path(database.place).absolute()) if database.is_sqlite else database.place
        ca, certificate = certificate_for(settings, directory) if settings.tls else (None, None)
        pair = Credentials(keys.application_token, keys.access_token)
        instance = instance_of(settings, listener, ca)
        message = StartupMessage(settings, instance, pair, place, directory, as_json)
        stack.enter_context(announcing(message, directory))
        run(settings, listener, certificate)
        if not message.is_ready:
            raise Failure("the server did not start; the log above says why", "cardwright serve --log-level info")


def _leave(_number: int, _frame: object) -> None:
    """Ends the command. While the server runs it catches signals itself, and raises them again when it has answered all."""
    from cardwright.wiring import Platform

    raise SystemExit(1 if Platform.is_damaged else 0)


def _leave_at_eof() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


# --- What cannot work ---------------------------------------------------------------------


def check(settings: "Settings") -> None:
    """Refuses settings that cannot work together. Raises Failure, which names the option and the way out."""
    from cardwright.core.pan import is_bin
    from cardwright.wiring import address_of

    if settings.workers < 1:
        raise Failure("--workers must be at least 1", "cardwright serve --workers 1", 2)
    address = address_of(settings)
    folder = Path(address).expanduser().parent
    if settings.db is not None and "://" not in address and not folder.is_dir():
        raise Failure(f"--db {address}: there is no folder {folder}", f"mkdir -p {folder}", 2)
    if settings.workers > 1 and "://" not in address:
        raise Failure(f"--workers {settings.workers} needs PostgreSQL: SQLite has one writer, so one process", POSTGRES_HINT, 2)
    if settings.workers > 1 and settings.seed is not None:
        text = f"--seed goes with --workers 1: {settings.workers} processes would draw the same identifiers"
        raise Failure(text, f"cardwright serve --seed {settings.seed}", 2)
    if not settings.is_sandbox:
        _check_production(settings)
    if settings.tls:
        _check_host(settings.host)
    if not is_bin(settings.bin_prefix):
        raise Failure("CARDWRIGHT_BIN_PREFIX must have 6 to 14 digits", "unset CARDWRIGHT_BIN_PREFIX", 2)
    if settings.master_key is not None:
        _check_key(settings.master_key.get_secret_value())


def _check_production(settings: "Settings") -> None:
    from cardwright.wiring import policy_of

    if settings.seed is not None:
        raise Failure("--seed goes with --mode sandbox: whoever knows the seed knows every token", "cardwright serve", 2)
    try:
        policy_of(settings)
    except ValueError as error:
        raise Failure(f"CARDWRIGHT_OUTGOING_HOSTS: {error}", "export CARDWRIGHT_OUTGOING_HOSTS=host:port,…", 2) from None
    missing = [name for name in ("master_key", "application_token", "access_token") if getattr(settings, name) is None]
    if missing:
        names = [f"CARDWRIGHT_{name.upper()}" for name in missing]
        hint = " ".join(f"{name}=$(openssl rand -hex 32)" for name in names)
        raise Failure(f"--mode production needs {', '.join(names)}", f"export {hint}   (and keep them)", 2)


def _check_host(host: str) -> None:
    from cardwright.kit.tls import is_host

    if not is_host(host):
        text = f"--host {host}: with --tls it must be an IP address or a host name of ASCII letters, digits and hyphens"
        raise Failure(text, "cardwright serve --tls --host 127.0.0.1", 2)


def _check_key(master_key: str) -> None:
    from cardwright.kit.vault import Vault

    try:
        Vault.from_hex(master_key)
    except ValueError as error:
        raise Failure(f"CARDWRIGHT_MASTER_KEY: {error}", "export CARDWRIGHT_MASTER_KEY=$(openssl rand -hex 32)", 2) from None


def lock_database_file(path: str, directory: Path) -> None:
    """Hold a SQLite file against a second server, which would give its transactions the same ids. Raises Failure, OSError.

    The lock is on the file itself, so that every name of it leads to the same lock: a symbolic or hard link, another path in
    another container. It is a ``flock``, which Linux and macOS keep apart from the POSIX locks of SQLite on local disks, the
    only ones where SQLite's WAL works. The descriptor stays open until the process ends, which releases the lock: closing any
    descriptor of the file drops the POSIX locks that SQLite holds in this process.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = f"{status_command(directory)}   (shows it), or  cardwright serve --db another.db"
        raise Failure(f"--db {path}: another server works on this file", hint) from None
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o077:
        print_notice(f"warning: --db {path} is open to other users (mode {mode:o});  chmod 600 {path}*")


# --- Where it answers ---------------------------------------------------------------------


def certificate_for(settings: "Settings", directory: Path) -> tuple[Path, Path]:
    """Return the file that clients trust and the server's certificate, for the names under which this machine is called."""
    from cardwright.kit.tls import is_host, self_made_certificate

    host = ANYWHERE.get(settings.host, settings.host)
    # An operating system also accepts host names that a certificate cannot hold, such as build_1.
    names = [name for name in (host, "localhost", "127.0.0.1", "::1", socket.gethostname()) if is_host(name)]
    try:
        return self_made_certificate(directory, names, datetime.now(UTC))
    except ValueError as error:
        path = directory / "ca-key.pem"
        raise Failure(f"--tls: {path} is damaged: {error}", f"rm {path}") from None


def status_command(directory: Path) -> str:
    """Return the command that finds the instance of a data directory; it names any but the default of this folder."""
    from cardwright.settings import Settings
    from cardwright.wiring import data_dir_of

    is_default = directory == data_dir_of(Settings.model_construct()).absolute()
    return "cardwright status" if is_default else f"cardwright status --data-dir {shlex.quote(str(directory))}"


def instance_of(settings: "Settings", listener: socket.socket, ca: Path | None) -> Instance:
    """Return the instance's description of itself."""
    host = ANYWHERE.get(settings.host, settings.host)
    name = f"[{host}]" if ":" in host else host
    base_url = f"{'https' if ca else 'http'}://{name}:{listener.getsockname()[1]}/v3"
    return Instance(base_url=base_url, pid=os.getpid(), mode=settings.mode.value, ca=str(ca) if ca else None)


@dataclass(slots=True)
class StartupMessage:
    """What is said when the instance is ready, and whether it was."""

    settings: "Settings"
    instance: Instance
    credentials: Credentials
    place: str
    directory: Path
    as_json: bool
    is_ready: bool = False

    def announce(self) -> None:
        """Says it, once."""
        self.is_ready = True
        print(json.dumps(self._data()) if self.as_json else f"Cardwright {__version__} is ready.\n", flush=True)
        if not self.as_json:
            show_fields(self._fields())
            print(f'\nIn another terminal:  eval "$({status_command(self.directory)} -o env)"', flush=True)

    def _data(self) -> dict[str, Any]:
        instance = self.instance
        data = {"base_url": instance.base_url, "mode": instance.mode, "pid": instance.pid, "data": self.place}
        tokens = asdict(self.credentials) if self.settings.is_sandbox else {}
        return data | tokens | ({"ca": instance.ca} if instance.ca else {})

    def _fields(self) -> list[tuple[str, str]]:
        root, settings, pair = self.instance.root_url, self.settings, self.credentials
        # Who runs this in production keeps what it prints; the tokens are known there anyway.
        kept = "as in CARDWRIGHT_{}" if not settings.is_sandbox else ""
        return [
            ("base URL", self.instance.base_url),
            ("application token", kept.format("APPLICATION_TOKEN") or pair.application_token),
            ("admin access token", kept.format("ACCESS_TOKEN") or pair.access_token),
            ("explorer", f"{root}/docs"),
            ("inbox for webhooks", f"{root}/sandbox/inbox/default/{{any name}}" if settings.is_sandbox else ""),
            ("mode", f"{settings.mode.value}{f', {settings.workers} processes' if settings.workers > 1 else ''}"),
            ("data", self.place),
            ("certificate", self._trust()),
        ]

    def _trust(self) -> str:
        if self.instance.ca is None:
            return ""
        variables = environment_of(self.instance.base_url, self.credentials, self.instance.ca)
        return "self-made; trust it with  export " + " ".join(
            f"{name}={variables[name]}" for name in ("CARDWRIGHT_CA", "REQUESTS_CA_BUNDLE")
        )


@contextmanager
def announcing(message: StartupMessage, directory: Path) -> Iterator[None]:
    """Asks the server whether it is ready, from a thread, and then says so and leaves word in the data directory."""
    ended = threading.Event()
    with ExitStack() as word:

        def announce_when_ready() -> None:
            while not ended.is_set() and not _answers(message.instance):
                time.sleep(POLL_S)
            if not ended.is_set():
                word.enter_context(announced(directory, message.instance))
                message.announce()

        thread = threading.Thread(target=announce_when_ready, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _answers(instance: Instance) -> bool:
    scheme, _, place = instance.root_url.partition("://")
    if scheme == "https":
        connection: HTTPConnection = HTTPSConnection(place, timeout=5, context=ssl.create_default_context(cafile=instance.ca))
    else:
        connection = HTTPConnection(place, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
