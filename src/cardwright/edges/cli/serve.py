"""`cardwright serve`: checks the settings, opens the database, runs the server and prints its URL when it is ready."""

import errno
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
from cardwright.edges.cli.instance import FILE, Credentials, Instance, announced, environment_of
from cardwright.edges.cli.output import Failure, Hint, print_notice, show_fields
from cardwright.edges.cli.surroundings import check_folder, inherited_settings, serve_command, variable_hint

if TYPE_CHECKING:
    from cardwright.settings import Settings

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean every interface, and the local address that a client on this machine uses instead."""

POLL_S = 0.01


def serve(settings: "Settings", *, as_json: bool, until_eof: bool) -> None:
    """Run an instance until SIGTERM or SIGINT. Raises Failure if it cannot start."""
    check(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    if until_eof:
        threading.Thread(target=_leave_at_eof, daemon=True).start()
    from cardwright.edges.cli.database_commands import check_database_file, make_data_dir, make_database_file, opened
    from cardwright.edges.http.server import PortTaken, bind, run
    from cardwright.instance_secrets import address_of
    from cardwright.wiring import resolved_settings

    command_settings = settings
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
            raise Failure(f"--port: {taken}", serve_command(command_settings, "--port 0 takes any free port", port=0)) from None
        except OSError as error:
            options = f"--host {settings.host}" + (f" --port {settings.port}" if settings.port is not None else "")
            # Ports below 1024 need privileges.
            change = {"port": 0} if error.errno == errno.EACCES else {"host": "127.0.0.1"}
            raise Failure(f"{options}: {error.strerror}", serve_command(command_settings, **change)) from None
        with opened(settings) as (database, keys):
            place = str(Path(database.place).absolute()) if database.is_sqlite else database.place
        ca, certificate = certificate_for(settings, directory) if settings.tls else (None, None)
        pair = Credentials(keys.application_token, keys.access_token)
        instance = instance_of(settings, listener, ca, place)
        message = StartupMessage(settings, instance, pair, place, directory, as_json)
        stack.enter_context(announcing(message, directory))
        run(settings, listener, certificate)
        if not message.is_ready:
            advice = "the log above names the cause"
            raise Failure("the server did not start", serve_command(command_settings, advice, log_level="info"))


def _leave(_number: int, _frame: object) -> None:
    """End the command. A running server handles signals itself and raises them again after its last response."""
    from cardwright.wiring import Platform

    raise SystemExit(1 if Platform.is_damaged else 0)


def _leave_at_eof() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


# --- Checks -------------------------------------------------------------------------------


def check(settings: "Settings") -> None:
    """Check that the settings work together. Raises Failure with the option and a hint, and OSError."""
    from cardwright.core.pan import is_bin
    from cardwright.instance_secrets import address_of

    if settings.workers < 1:
        raise Failure("--workers must be at least 1", serve_command(settings, workers=1), 2)
    address = address_of(settings)
    if settings.db is not None and "://" not in address:
        check_folder(str(Path(address).expanduser()))
    if settings.workers > 1 and "://" not in address:
        hint = serve_command(settings, "or name a database: --db postgresql://USER:PASSWORD@HOST:5432/DATABASE", workers=1)
        raise Failure(f"--workers {settings.workers} needs PostgreSQL: a SQLite file has one writer, so one process", hint, 2)
    if settings.workers > 1 and settings.seed is not None:
        text = f"--seed needs --workers 1: {settings.workers} processes would generate the same identifiers"
        raise Failure(text, serve_command(settings, workers=1), 2)
    check_master_keys(settings)
    if not settings.is_sandbox:
        _check_production(settings)
    if settings.tls:
        _check_host(settings)
    if not is_bin(settings.bin_prefix):
        raise Failure("CARDWRIGHT_BIN_PREFIX must have 6 to 14 digits", variable_hint(["CARDWRIGHT_BIN_PREFIX"]), 2)


def _check_production(settings: "Settings") -> None:
    from cardwright.wiring import policy_of

    if settings.seed is not None:
        is_variable = settings.seed == inherited_settings().seed
        hint = variable_hint(["CARDWRIGHT_SEED"]) if is_variable else serve_command(settings, seed=None)
        raise Failure("--seed needs --mode sandbox: anyone who knows the seed can compute every token", hint, 2)
    try:
        policy_of(settings)
    except ValueError as error:
        hint = variable_hint(["CARDWRIGHT_OUTGOING_HOSTS"], "format: HOST or HOST:PORT, separated by commas")
        raise Failure(f"CARDWRIGHT_OUTGOING_HOSTS: {error}", hint, 2) from None
    _check_secrets(settings)


def _check_secrets(settings: "Settings") -> None:
    """Check that production mode has all its secrets, and that nobody can guess them. Raises Failure."""
    from cardwright.kit.secret_rules import key_fault, token_faults

    missing = [name for name in ("master_key", "application_token", "access_token") if getattr(settings, name) is None]
    if missing:
        names = list(map(_variable, missing))
        text = f"--mode production needs {', '.join(names)}"
        if empty := [name for name in names if name in os.environ]:
            text += f"; {', '.join(empty)} {'is' if len(empty) == 1 else 'are'} set, but empty"
        advice = "for a new database, generate the values and keep them; for an existing one, set its values"
        raise Failure(text, Hint(f"export {' '.join(map(_made, names))}", advice), 2)
    application_token, access_token, master_key = (
        getattr(settings, name).get_secret_value() for name in ("application_token", "access_token", "master_key")
    )
    for name, reason in token_faults(application_token, access_token):
        advice = "generate a value and keep it; clients need it too"
        raise Failure(f"{_variable(name)}: {reason}", Hint(f"export {_made(_variable(name))}", advice), 2)
    if (fault := key_fault(master_key)) is not None:
        advice = "for a new database, generate a key and keep it; a database that was filled under this key is not safe"
        raise Failure(f"{_variable('master_key')}: {fault}", Hint(f"export {_made(_variable('master_key'))}", advice), 2)


def _variable(name: str) -> str:
    return f"CARDWRIGHT_{name.upper()}"


def _made(variable: str) -> str:
    """Return the assignment of a random value, for a shell."""
    return f"{variable}=$(openssl rand -hex 32)"


def _check_host(settings: "Settings") -> None:
    from cardwright.kit.tls import is_host

    if not is_host(settings.host):
        text = f"--host {settings.host}: with --tls it must be an IP address or a host name of ASCII letters, digits and hyphens"
        raise Failure(text, serve_command(settings, host="127.0.0.1"), 2)


def check_master_keys(settings: "Settings") -> None:
    """Check the form of the configured master keys. Raises Failure."""
    from cardwright.kit.vault import MasterKey

    for name, value in (("MASTER_KEY", settings.master_key), ("NEW_MASTER_KEY", settings.new_master_key)):
        try:
            if value is not None:
                MasterKey.from_hex(value.get_secret_value())
        except ValueError as error:
            command = f"export CARDWRIGHT_{name}=$(openssl rand -hex 32)"
            hint = Hint(command, "for a new database, generate a key and keep it; an existing one needs its own key")
            raise Failure(f"CARDWRIGHT_{name}: {error}", hint, 2) from None


def lock_database_file(path: str, directory: Path) -> int:
    """Lock a SQLite file against a second server, which would generate the same transaction ids. Raises Failure, OSError.

    Return the descriptor that holds the lock.

    The lock is on the file itself, so it is the same under every name: a symbolic or hard link, or a path in another container.
    It is a ``flock``. Linux and macOS keep it apart from the POSIX locks of SQLite on local disks, the only disks where SQLite's
    WAL works. The descriptor stays open until the process ends, which releases the lock: closing any descriptor of the file
    would drop the POSIX locks that SQLite holds in this process.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        advice = "stop that server, or name another file with --db"
        command = status_command(directory) if (directory / FILE).is_file() else ""
        raise Failure(f"--db {path}: another Cardwright server is using this database", Hint(command, advice)) from None
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o077:
        print_notice(f"warning: --db {path} is open to other users (mode {mode:o});  chmod 600 {path}*")
    return descriptor


# --- Address and startup message ----------------------------------------------------------


def certificate_for(settings: "Settings", directory: Path) -> tuple[Path, Path]:
    """Return the certificate authority and the server's certificate, which is valid for the names of this machine."""
    from cardwright.kit.tls import is_host, self_made_certificate

    host = ANYWHERE.get(settings.host, settings.host)
    # An operating system also accepts host names that a certificate cannot hold, such as build_1.
    names = [name for name in (host, "localhost", "127.0.0.1", "::1", socket.gethostname()) if is_host(name)]
    try:
        return self_made_certificate(directory, names, datetime.now(UTC))
    except ValueError as error:
        path = directory / "ca-key.pem"
        hint = Hint(
            f"rm {shlex.quote(str(path))}", "the next start makes a new certificate authority, which clients must trust anew"
        )
        raise Failure(f"--tls: {path} is damaged: {error}", hint) from None


def status_command(directory: Path) -> str:
    """Return the ``status`` command for a data directory, with ``--data-dir`` unless it is the default of this folder."""
    from cardwright.instance_secrets import data_dir_of
    from cardwright.settings import Settings

    is_default = directory == data_dir_of(Settings.model_construct()).absolute()
    return "cardwright status" if is_default else f"cardwright status --data-dir {shlex.quote(str(directory))}"


def instance_of(settings: "Settings", listener: socket.socket, ca: Path | None, place: str) -> Instance:
    """Return the record of the instance for its data directory."""
    host = ANYWHERE.get(settings.host, settings.host)
    name = f"[{host}]" if ":" in host else host
    base_url = f"{'https' if ca else 'http'}://{name}:{listener.getsockname()[1]}/v3"
    return Instance(base_url=base_url, pid=os.getpid(), mode=settings.mode.value, ca=str(ca) if ca else None, data=place)


@dataclass(slots=True)
class StartupMessage:
    """The message that the instance is ready, and whether it was printed."""

    settings: "Settings"
    instance: Instance
    credentials: Credentials
    place: str
    directory: Path
    as_json: bool
    is_ready: bool = False

    def announce(self) -> None:
        """Print the message."""
        self.is_ready = True
        print(json.dumps(self._data()) if self.as_json else f"Cardwright {__version__} is ready.\n", flush=True)
        if not self.as_json:
            show_fields(self._fields())
            print(f'\nIn another terminal:  eval "$({status_command(self.directory)} -o env)"', flush=True)

    def _data(self) -> dict[str, Any]:
        instance = self.instance
        data = {
            "base_url": instance.base_url,
            "url": instance.root_url,
            "mode": instance.mode,
            "pid": instance.pid,
            "data": self.place,
        }
        tokens = asdict(self.credentials) if self.settings.is_sandbox else {}
        return data | tokens | ({"ca": instance.ca} if instance.ca else {})

    def _fields(self) -> list[tuple[str, str]]:
        root, settings, pair = self.instance.root_url, self.settings, self.credentials
        # The output of a production server ends in a log, which must not contain the tokens.
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
    """Poll the server in a thread. When it is ready, record the instance in the data directory and print the message."""
    ended = threading.Event()
    with ExitStack() as record:

        def announce_when_ready() -> None:
            while not ended.is_set() and not _answers(message.instance):
                time.sleep(POLL_S)
            if not ended.is_set():
                record.enter_context(announced(directory, message.instance))
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
