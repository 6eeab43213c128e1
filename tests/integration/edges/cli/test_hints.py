"""Hints: each failure of the command line is provoked, and its ``next:`` command, typed as printed, removes the cause."""

import ast
import errno
import fcntl
import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cardwright.edges.cli import backup, database_commands, demo, output
from cardwright.edges.cli.database_commands import opened
from cardwright.edges.cli.demo_scenario import Promise
from cardwright.edges.cli.instance import Fresh, fresh_instance
from cardwright.edges.cli.surroundings import command_with_place, serve_command
from cardwright.settings import Settings
from cardwright.storage import migrate
from tests.integration.edges.cli.conftest import Done
from tests.support import free_port
from tests.support.server import ACCESS_TOKEN, APPLICATION_TOKEN, MASTER_KEY

SRC = Path(output.__file__).parents[2]
TIMEOUT_S = 120
"""A safety limit only, in seconds."""

CHANGES_SHELL = ("unset ", "export ", "mkdir ", "rm ")
"""Beginnings of commands after which the failed command must not fail in the same way."""

PRODUCTION = {"APPLICATION_TOKEN": APPLICATION_TOKEN, "ACCESS_TOKEN": ACCESS_TOKEN, "MASTER_KEY": MASTER_KEY}
"""Secrets that production mode accepts, by the names of their variables."""

MAY_FAIL = ("psql ",)
"""Beginnings of commands of other programs that report the reason of the failure themselves."""

DRIVER = """
import os, sys
from cardwright.edges.cli import output
from cardwright.edges.cli.commands import main
create = output.Failure.__init__
def record(self, *arguments, **options):
    frame = sys._getframe(1)
    with open(os.environ["RECORD"], "a") as file:
        print(frame.f_code.co_filename, frame.f_lineno, file=file)
    create(self, *arguments, **options)
output.Failure.__init__ = record
exec(os.environ["PATCH"])
sys.argv[0] = "cardwright"
main()
"""


# --- The failures in the source -----------------------------------------------------------


@cache
def sites() -> dict[str, tuple[Path, int, int]]:
    """Return each call of ``Failure`` in the source: ``module.function#number``, with file, first and last line."""
    places = dict[str, tuple[Path, int, int]]()

    def collect(file: Path, node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else function
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id == "Failure":
                number = sum(key.startswith(f"{file.stem}.{name}#") for key in places) + 1
                places[f"{file.stem}.{name}#{number}"] = (file, child.lineno, child.end_lineno or child.lineno)
            collect(file, child, name)

    for file in sorted(SRC.rglob("*.py")):
        collect(file, ast.parse(file.read_text(encoding="utf-8")), "")
    return places


def site_at(file: str, line: int) -> str:
    """Return the key of the call of ``Failure`` at a line."""
    keys = [key for key, (path, first, last) in sites().items() if path == Path(file) and first <= line <= last]
    assert len(keys) == 1, f"{file}:{line}"
    return keys[0]


# --- Surroundings -------------------------------------------------------------------------


class Scene:
    """The folder, environment and processes in which a command fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, instance: Callable[[], Fresh], stack: ExitStack) -> None:
        self.monkeypatch = monkeypatch
        self.instance = instance
        self.stack = stack
        self.patch = ""

    def env(self, **variables: object) -> None:
        """Set variables ``CARDWRIGHT_…``."""
        for name, value in variables.items():
            self.monkeypatch.setenv(f"CARDWRIGHT_{name}", str(value))

    def write(self, path: str, content: str | bytes | dict[str, Any] = "") -> None:
        """Write a file and the folder that it is in."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content) if isinstance(content, dict) else content
        Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())

    def record(self, root_url: str, **values: object) -> None:
        """Record an instance in the data directory, with the credentials ``a`` and ``b``."""
        known = {"base_url": f"{root_url}/v3", "pid": os.getpid(), "mode": "sandbox"}
        self.write(".cardwright/instance.json", {**known, **values})
        self.write(".cardwright/secrets.json", {"application_token": "a", "access_token": "b"})

    def take_token(self) -> None:
        """Record the real instance, which has a program with the token ``taken``."""
        self.record_real().client.request("POST", "/sandbox/programs", {"token": "taken"})

    def record_real(self) -> Fresh:
        """Record the real instance and its credentials in the data directory."""
        fresh = self.instance()
        self.record(fresh.instance.root_url)
        tokens = {"application_token": fresh.credentials.application_token, "access_token": fresh.credentials.access_token}
        self.write(".cardwright/secrets.json", tokens)
        return fresh

    def database(self, path: str = "x.db") -> None:
        """Create a database as a server leaves it."""
        with opened(Settings(db=path)):
            pass

    def production_database(self) -> None:
        """Create a database as a production server leaves it."""
        secrets = {name.lower(): value for name, value in PRODUCTION.items()}
        with opened(Settings(db="x.db", mode="production", **secrets)):  # type: ignore[arg-type]
            pass

    def two_credentials(self) -> None:
        """Create a database whose default program has two credentials."""
        for access_token in ("first", "second"):
            with opened(Settings(db="x.db", application_token="app", access_token=access_token)):  # type: ignore[arg-type]
                pass
            with sqlite3.connect("x.db") as db:
                db.execute("UPDATE credentials SET is_given = 0")

    def last_credential(self) -> None:
        """Create a database whose only credential has the token ``last``."""
        self.database()
        with sqlite3.connect("x.db") as db:
            db.execute("UPDATE credentials SET token = 'last'")

    def lose_pair(self) -> None:
        """Leave a pair in secrets.json that opens nothing."""
        self.write(".cardwright/secrets.json", {"application_token": "a", "access_token": "b"})

    def revision(self, revision: str) -> None:
        """Create a database and set its revision."""
        self.database()
        with sqlite3.connect("x.db") as db:
            db.execute("UPDATE alembic_version SET version_num = ?", (revision,))

    def stub(self, status: int, body: dict[str, Any]) -> str:
        """Start a server that answers each request alike, and return its URL."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = json.dumps(body).encode()
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.stack.callback(server.server_close)
        self.stack.callback(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def call_stub(self, status: int, body: dict[str, Any]) -> None:
        """Set the variables of client programs to such a server."""
        self.env(BASE_URL=f"{self.stub(status, body)}/v3", APPLICATION_TOKEN="a", ACCESS_TOKEN="b")
        self.write("change.json", {})

    def call_nothing(self, change: str | bytes) -> None:
        """Set the variables of client programs to an address without a server, and write the file of a backtest."""
        self.env(BASE_URL=f"http://127.0.0.1:{free_port()}/v3", APPLICATION_TOKEN="a", ACCESS_TOKEN="b")
        self.write("change.json", change)

    def malformed(self) -> None:
        """Overwrite the pages of a database behind its header."""
        self.database()
        with Path("x.db").open("r+b") as file:
            file.seek(100)
            file.write(b"\x17" * 40_000)

    def read_only(self) -> None:
        """Simulate a missing write permission, because root always has it."""
        self.database()
        allowed = os.access
        self.monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))

    def blocked(self) -> None:
        """Let another migration hold the database."""
        self.database()

        def refuse(_: object) -> bool:
            raise migrate.MigrationBlocked("another migration holds the database")

        self.monkeypatch.setattr(migrate, "migrate", refuse)

    def newer_version(self) -> None:
        """Give this version another newest revision than the database has."""
        self.database()
        self.monkeypatch.setattr(migrate, "newest", lambda: "9999")

    def refuse_confirmation(self) -> None:
        """Answer the question of `reset` with no."""
        self.database()
        self.monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        self.monkeypatch.setattr("builtins.input", lambda _: "no")

    def raise_error(self) -> None:
        """Let `migrate` meet an error of the operating system that names no file."""

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.monkeypatch.setattr(database_commands, "migrate", fail)

    def demo_on(self, client: Any, story: Any = None) -> None:
        """Let the demo use a client, or run another story."""
        fresh = type("Temporary", (), {"client": client})
        self.monkeypatch.setattr(demo, "fresh_instance", lambda: nullcontext(fresh))
        if story is not None:
            self.monkeypatch.setattr(demo, "Story", story)

    def take_port(self) -> None:
        """Listen on the port of ``CARDWRIGHT_PORT``."""
        listener = self.stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.env(PORT=listener.getsockname()[1])

    def lock_file(self) -> None:
        """Lock a database file as a server does."""
        self.database()
        descriptor = os.open("x.db", os.O_RDONLY)
        self.stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def lock_folder(self) -> None:
        """Lock the data directory as `rekey` does."""
        self.database()
        descriptor = os.open(".cardwright", os.O_RDONLY)
        self.stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def database_of_variable(self, key: str) -> None:
        """Create a database whose master key is in the environment."""
        self.env(MASTER_KEY=key)
        self.database()

    def back_up(self, passphrase: str | None = None, *, with_keys: bool = False) -> None:
        """Create a database and its backup ``x.backup``, and set the variable of the passphrase."""
        self.database()
        self.env(BACKUP_PASSPHRASE="a long passphrase")
        backup.backup(Settings(db="x.db"), Path("x.backup"), with_keys=with_keys, is_replacing=False, as_json=False)
        self.monkeypatch.delenv("CARDWRIGHT_BACKUP_PASSPHRASE")
        if passphrase is not None:
            self.env(BACKUP_PASSPHRASE=passphrase)

    def answer_differently(self) -> None:
        """Answer the questions for a passphrase with two different ones."""
        self.database()
        answers = iter(("a long passphrase", "another passphrase"))
        self.monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        self.monkeypatch.setattr("getpass.getpass", lambda _: next(answers))


class BrokenStory:
    """A demo with a result that is not as expected."""

    def __init__(self, _client: object) -> None:
        self.promises = [Promise("a result", False)]

    def play(self) -> Iterator[Any]:
        yield from ()


class RefusingClient:
    """A client whose every request fails."""

    root_url = "http://127.0.0.1:1"

    def request(self, *_: object) -> Any:
        return type("Response", (), {"status": 500, "body": {}})


# --- The table ----------------------------------------------------------------------------


def nothing(_: Scene) -> None:
    """Leave the empty folder as it is."""


@dataclass(frozen=True)
class Case:
    """A failure: its site in the source, the command, the surroundings, and text that error or hint must have."""

    site: str
    words: str
    arrange: Callable[[Scene], object] = nothing
    contains: tuple[str, ...] = ()
    command: str | None = None
    """The expected command; the empty string for advice in words only."""


DEAD = "http://127.0.0.1:1"
MISSING = {"status": "migrations missing", "schema": "0000"}
FAILED = {"token": "t", "state": "FAILED", "error": "stopped"}
UNREACHABLE = "postgresql://127.0.0.1:1/x"

CASES = [
    Case("backtest._body#1", "backtest change.json", lambda s: s.call_nothing(b"\xff"), ("not UTF-8",), ""),
    Case("backtest._body#2", "backtest change.json", lambda s: s.call_nothing("{"), ("not JSON", "velocity_controls"), ""),
    Case("backtest.__call__#1", "backtest change.json", lambda s: s.call_stub(400, {"error_message": "no"}), ("/docs",), ""),
    Case("backtest.__call__#1", "backtest change.json", lambda s: s.call_stub(500, {}), ("sandbox mode",), ""),
    Case("backtest.__call__#1", "backtest change.json", lambda s: s.call_stub(401, {}), ("CARDWRIGHT_ACCESS_TOKEN",), ""),
    Case("backtest._finished#1", "backtest change.json", lambda s: s.call_stub(200, FAILED), ("ended with FAILED",), ""),
    Case("backup.backup#1", "backup x.backup --db x.db", Scene.back_up, ("another file",),
         "cardwright backup x.backup --force --db x.db"),
    Case("backup._check_place#1", "backup x.db --force --db x.db", Scene.database, ("another file",), ""),
    Case("backup._keys_of#1", "restore x.backup --with-keys --db y.db", Scene.back_up, ("without --with-keys",), ""),
    Case("backup._refusals#1", "restore x.backup --db y.db", lambda s: s.write("x.backup", "{}"), ("another copy",), ""),
    Case("backup._refusals#2", "restore x.backup --db x.db", lambda s: (s.back_up(), populate("x.db")), ("name another",), ""),
    Case("backup._refusals#3", "restore x.backup --with-keys --db y.db", lambda s: s.back_up("hunter2", with_keys=True),
         ("the passphrase is wrong", "CARDWRIGHT_BACKUP_PASSPHRASE"), ""),
    Case("backup._available_secrets#1", "restore x.backup --db y.db",
         lambda s: (s.back_up(), s.write(".cardwright/secrets.json", "{")), ("from a backup",), ""),
    Case("backup._check_key#1", "restore x.backup --db y.db", lambda s: (s.back_up(), s.env(MASTER_KEY="hunter2")),
         ("64 hexadecimal digits",), ""),
    Case("backup._check_key#2", "restore x.backup --db y.db", lambda s: (s.back_up(), s.env(MASTER_KEY=f"{9:064x}")),
         ("not that of x.backup", "CARDWRIGHT_MASTER_KEY"), ""),
    Case("backup._check_key#2", "backup y.backup --with-keys --db x.db",
         lambda s: (s.back_up("a long passphrase"), Path(".cardwright/secrets.json").unlink()), ("no master key",), ""),
    Case("backup._passphrase#1", "backup y.backup --with-keys --db x.db", Scene.answer_differently, ("repeat",), ""),
    Case("backup._passphrase#2", "backup y.backup --with-keys --db x.db", Scene.database, ("BACKUP_PASSPHRASE",), ""),
    Case("backup._passphrase#3", "backup y.backup --with-keys --db x.db", lambda s: s.back_up("hunter2"),
         ("at least 12",), "unset CARDWRIGHT_BACKUP_PASSPHRASE"),
    Case("client.request#1", "explain t --base-url http://127.0.0.1:2/v3", lambda s: s.record(DEAD), command="cardwright status"),
    Case("client.request#1", "explain t --data-dir 'it is here'",
         lambda s: (s.record(DEAD), Path(".cardwright").rename("it is here")),
         command="cardwright serve --data-dir 'it is here'"),
    Case("client._connect#1", "explain t --base-url https://127.0.0.1:1/v3", lambda s: (s.record_real(), s.env(CA="no.pem")),
         ("no.pem", "ca.pem"), "unset CARDWRIGHT_CA"),
    Case("client._connect#1", "status", lambda s: s.record("https://127.0.0.1:1", ca="no.pem"), ("no.pem",), ""),
    Case("client._address#1", "explain t --base-url here", lambda s: s.record(DEAD), command="cardwright status"),
    Case("client._address#1", "explain t", lambda s: (s.record(DEAD), s.env(BASE_URL="here")), ("http://127.0.0.1:8181/v3",),
         "unset CARDWRIGHT_BASE_URL"),
    Case("commands.settings_from#1", "verify --db x.db", lambda s: (s.database(), s.env(LOG_JSON="hunter2", RETENTION_DAYS=0)),
         command="unset CARDWRIGHT_LOG_JSON CARDWRIGHT_RETENTION_DAYS"),
    Case("commands.settings_from#1", "verify", lambda s: s.write(".env", "CARDWRIGHT_LOG_JSON=hunter2"), ("correct or remove",),
         "grep -in -e CARDWRIGHT_LOG_JSON .env"),
    Case("commands.settings_from#2", "verify", lambda s: s.write(".env", b"CARDWRIGHT_PORT=\xff\n"), ("UTF-8",)),
    Case("commands.settings_from#3", "verify --db ~no-such-user/x.db", command=""),
    Case("commands.serve#1", "serve", lambda s: s.write(".env", "CARDWRIGHT_LOG_LEVEL=loud"), ("correct or remove",)),
    Case("database_commands.database_of#1", "verify --db :memory:", command=""),
    Case("database_commands.database_of#2", "verify --db postgresql://me:hunter2@[/y", command=""),
    Case("database_commands.database_of#2", "reset --yes --db mysql://x", command=""),
    Case("database_commands.make_data_dir#1", "migrate --data-dir file/below", lambda s: s.write("file"), command="ls -ld file"),
    Case("database_commands.check_database_file#1", "verify", nothing, ("--data-dir", "the current folder is /")),
    Case("database_commands.check_database_file#1", "reset --yes --db 'a b/x.db'", nothing, ("does not exist",)),
    Case("database_commands.check_database_file#2", "verify --db 'a folder'", lambda _: Path("a folder").mkdir(),
         command="ls -ld 'a folder'"),
    Case("database_commands.check_database_file#3", "reset --yes --db x.db", Scene.read_only, command="ls -ld . x.db"),
    Case("database_commands.migrated#1", "migrate --db x.db", Scene.blocked, ("again",), "cardwright migrate --db x.db"),
    Case("database_commands._empty#1", "verify --db x.db", lambda s: s.write("x.db"), ("name the database",), ""),
    Case("database_commands._empty#1", "reset --yes --db x.db", lambda s: s.write("x.db"), ("name the database",), ""),
    Case("database_commands.check_revision#1", "verify --db x.db", lambda s: s.revision("9999"), ("revision 9999",), ""),
    Case("database_commands.check_revision#2", "verify --db x.db", lambda s: s.revision("0000"), command="cardwright --version"),
    Case("database_commands.opened#1", "serve --port 0", lambda s: s.write(".cardwright/secrets.json", {}), ("restore",), ""),
    Case("database_commands._vault_of#1", "verify --secrets --db x.db",
         lambda s: (s.database(), Path(".cardwright/secrets.json").unlink()), ("MASTER_KEY is not set", "--data-dir"), ""),
    Case("database_commands._vault_of#1", "verify --secrets --db x.db",
         lambda s: (s.database(), s.env(MASTER_KEY="7" * 64)), ("another master key",), ""),
    Case("database_commands._vault_of#1", "verify --secrets --db x.db",
         lambda s: (s.database(), s.env(MASTER_KEY="hunter2")), ("64 hexadecimal digits",), ""),
    Case("database_commands.check_current#1", "verify --db x.db", Scene.newer_version, command="cardwright migrate --db x.db"),
    Case("database_commands.check_mode#1", "serve --db x.db --port 0", Scene.production_database, ("CARDWRIGHT_MODE",),
         "cardwright serve --db x.db --port 0 --mode production"),
    Case("database_commands.check_mode#2", "serve --db x.db --mode production --port 0",
         lambda s: (s.database(), s.env(**PRODUCTION)), ("CARDWRIGHT_MODE is production", "new database"), ""),
    Case("database_commands.check_reset#1", "reset --yes --db x.db", Scene.production_database, ("CARDWRIGHT_MODE",), ""),
    Case("database_commands.check_current#1", "backup y.backup --db x.db", Scene.newer_version,
         command="cardwright migrate --db x.db"),
    Case("database_commands.reset#1", "reset --yes --mode production --db x.db", Scene.database, ("sandbox database",), ""),
    Case("database_commands.reset#2", "reset --yes --db x.db", lambda s: s.write("x.db", migrated_file()),
         ("nothing to remove",), ""),
    Case("database_commands._ask#1", "reset --db x.db", Scene.database, command="cardwright reset --yes --db x.db"),
    Case("database_commands._ask#1", "reset --db x.db --mode sandbox", lambda s: (s.database(), s.env(MODE="production")),
         command="cardwright reset --yes --mode sandbox --db x.db"),
    Case("database_commands._ask#2", "reset --db x.db", Scene.refuse_confirmation, command="cardwright reset --yes --db x.db"),
    Case("credentials_commands.rotate_credential#1", "credentials rotate --db x.db", Scene.two_credentials, ("TOKEN",),
         "cardwright credentials list --db x.db"),
    Case("credentials_commands.create#1", "credentials add --db x.db",
         lambda s: (s.database(), Path(".cardwright/secrets.json").unlink()), ("CARDWRIGHT_MASTER_KEY",), ""),
    Case("credentials_commands._program_id#1", "credentials list --program p --db x.db", Scene.database, ("--program p",), ""),
    Case("credentials_commands._failure_of#1", "credentials revoke last --db x.db", Scene.last_credential, ("--force",),
         "cardwright credentials add --db x.db"),
    Case("credentials_commands._failure_of#2", "credentials revoke nothing --db x.db", Scene.database, ("not found",),
         "cardwright credentials list --db x.db"),
    Case("demo.demo#1", "demo --json", lambda s: s.demo_on(None, BrokenStory), command="cardwright demo --json"),
    Case("demo_scenario._ask#1", "demo", lambda s: s.demo_on(RefusingClient()), command="cardwright demo"),
    Case("exec_command.run_beside#1", "exec --db x.db", command="cardwright exec --db x.db -- env"),
    Case("exec_command._check_command#1", "exec -- no-such-program", command=""),
    Case("exec_command._check_command#2", "exec -- ./plain", lambda s: s.write("plain"), command="ls -ld ./plain"),
    Case("explain._failure#1", "explain nothing", Scene.record_real, ("nothing", "the program default", "reset"), ""),
    Case("explain._failure#2", "explain t", lambda s: s.call_stub(500, {}), ("sandbox mode",), ""),
    Case("explain._failure#2", "explain t", lambda s: (s.record_real(), s.env(ACCESS_TOKEN="wrong")), ("401",),
         "unset CARDWRIGHT_ACCESS_TOKEN"),
    Case("program._failure#1", "program taken", Scene.take_token, ("without TOKEN",), "cardwright program"),
    Case("program._failure#2", "program", lambda s: s.call_stub(403, {}), ("sandbox mode",), ""),
    Case("program._failure#2", "program", lambda s: (s.record_real(), s.env(ACCESS_TOKEN="wrong")), ("401",),
         "unset CARDWRIGHT_ACCESS_TOKEN"),
    Case("rekey._failure#1", "rekey --db x.db", lambda s: (s.database(), s.env(MASTER_KEY="ab" * 32)), ("--data-dir",), ""),
    Case("surroundings.locked_data_dir#1", "rekey --db x.db", Scene.lock_folder, ("replacing its secrets",), ""),
    Case("rekey._new_key#1", "rekey --db x.db",
         lambda s: (s.production_database(), s.env(**PRODUCTION, NEW_MASTER_KEY="ab" * 32)),
         ("CARDWRIGHT_NEW_MASTER_KEY: it is not random",),
         "export CARDWRIGHT_NEW_MASTER_KEY=$(openssl rand -hex 32)"),
    Case("rekey._keyed#1", "rekey --data --db x.db", lambda s: s.write("x.db", migrated_file()), ("first start",),
         "cardwright serve --db x.db"),
    Case("rekey._rekey_by_variable#1", "rekey --db x.db", lambda s: s.database_of_variable("ab" * 32), ("keep the new key",)),
    Case("instance.find_instance#1", "status", nothing, ("the current folder is /",), "cardwright serve"),
    Case("instance.find_instance#1", "explain t --db x.db --data-dir keys", command="cardwright serve --db x.db --data-dir keys"),
    Case("instance.find_instance#2", "status", lambda s: s.write(".cardwright/instance.json", "{"), ("restart",),
         "rm .cardwright/instance.json"),
    Case("instance.find_credentials#1", "status", lambda s: (s.record(DEAD), s.write(".cardwright/secrets.json", "{")),
         ("from a backup",), ""),
    Case("instance.find_credentials#2", "status", lambda s: (s.record(DEAD), Path(".cardwright/secrets.json").unlink()),
         ("CARDWRIGHT_APPLICATION_TOKEN",), ""),
    Case("instance._fresh#1", "exec --db x.db -- true", lambda s: (s.write("file"), s.env(DATA_DIR="file")), ("above",), ""),
    Case("serve.serve#1", "serve --db x.db", Scene.take_port, command="cardwright serve --db x.db --port 0"),
    Case("serve.serve#2", "serve --host 203.0.113.7 --db x.db", command="cardwright serve --db x.db"),
    Case("serve.serve#3", "serve --port 0", lambda s: setattr(s, "patch", "import cardwright.edges.http.server as server\n"
         "server.run = lambda *_: None"), command="cardwright serve --port 0 --log-level info"),
    Case("serve.check#1", "serve", lambda s: s.write(".env", "CARDWRIGHT_WORKERS=0"), command="cardwright serve --workers 1"),
    Case("serve.check#2", "serve --workers 2 --db x.db", nothing, ("--db postgresql://",), "cardwright serve --db x.db"),
    Case("serve.check#3", f"serve --workers 2 --seed 1 --db {UNREACHABLE}",
         command=f"cardwright serve --db {UNREACHABLE} --seed 1"),
    Case("serve.check#4", "serve", lambda s: s.env(BIN_PREFIX=12), command="unset CARDWRIGHT_BIN_PREFIX"),
    Case("serve._check_production#1", "serve --mode production --seed 1", command="cardwright serve --mode production"),
    Case("serve._check_production#1", "serve --mode production", lambda s: s.env(SEED=1), command="unset CARDWRIGHT_SEED"),
    Case("serve._check_production#2", "serve --mode production", lambda s: s.env(OUTGOING_HOSTS="no host"), ("HOST:PORT",),
         "unset CARDWRIGHT_OUTGOING_HOSTS"),
    Case("serve._check_secrets#1", "serve --mode production", nothing, ("keep them",)),
    Case("serve._check_secrets#1", "serve --mode production", lambda s: s.env(**PRODUCTION | {"ACCESS_TOKEN": ""}),
         ("CARDWRIGHT_ACCESS_TOKEN is set, but empty",), "export CARDWRIGHT_ACCESS_TOKEN=$(openssl rand -hex 32)"),
    Case("serve._check_secrets#2", "serve --mode production", lambda s: s.env(**PRODUCTION | {"ACCESS_TOKEN": "admin"}),
         ("CARDWRIGHT_ACCESS_TOKEN: ", "16 characters"), "export CARDWRIGHT_ACCESS_TOKEN=$(openssl rand -hex 32)"),
    Case("serve._check_secrets#3", "serve --mode production", lambda s: s.env(**PRODUCTION | {"MASTER_KEY": "ab" * 32}),
         ("CARDWRIGHT_MASTER_KEY: it is not random",), "export CARDWRIGHT_MASTER_KEY=$(openssl rand -hex 32)"),
    Case("serve._check_host#1", "serve --tls --host build_1", command="cardwright serve --tls"),
    Case("serve.check_master_keys#1", "serve", lambda s: s.env(MASTER_KEY="abc"), ("keep it",)),
    Case("serve.check_master_keys#1", "rekey --db x.db", lambda s: (s.database(), s.env(NEW_MASTER_KEY="abc")),
         ("CARDWRIGHT_NEW_MASTER_KEY",)),
    Case("serve.lock_database_file#1", "serve --db x.db --port 0", Scene.lock_file, ("stop that server",), ""),
    Case("serve.certificate_for#1", "serve --tls --port 0", lambda s: s.write(".cardwright/ca-key.pem"),
         ("trust",)),
    Case("status.check_format#1", "status --json -o env", command="cardwright status --json"),
    Case("status._readiness#1", "status", lambda s: s.record(DEAD, pid=999_999_999), ("ended",), "cardwright serve"),
    Case("status._readiness#1", "status", lambda s: s.record(DEAD, pid=999_999_999, data=str(Path("x.db").absolute())),
         command="cardwright serve --db {folder}/x.db"),
    Case("status._not_ready#1", "status", lambda s: s.record(s.stub(503, MISSING), data=str(Path("x.db").absolute())), ("0000",),
         "cardwright migrate --db {folder}/x.db"),
    Case("status._not_ready#1", "status", lambda s: s.record(s.stub(503, MISSING), data="postgresql://me:***@db/x"),
         ("same --db",), ""),
    Case("status._valid_credentials#1", "status", lambda s: (s.record_real(), s.env(ACCESS_TOKEN="wrong"), s.lose_pair()),
         ("accepts no known credentials",), "cardwright credentials add"),
    Case("status._not_ready#2", "status", lambda s: s.record(s.stub(503, {"status": "unavailable"})), ("log",), ""),
    Case("surroundings.failure_of_file#1", "migrate --db x.db", Scene.raise_error, command=""),
    Case("surroundings.failure_of_file#2", "verify --data-dir 'a file/below'", lambda s: s.write("a file"),
         command="ls -ld 'a file'"),
    Case("surroundings.failure_of_file#2", "backtest no.json", lambda s: s.call_nothing("{}"), command="ls -ld ."),
    Case("surroundings.check_folder#1", "serve --db 'no where/x.db' --port 0", command="mkdir -p 'no where'"),
    Case("surroundings.check_folder#1", "migrate --db nowhere/x.db", command="mkdir -p nowhere"),
    Case("surroundings.failure_of_database#1", "verify --db x.db", Scene.malformed, ("from a backup",), ""),
    Case("surroundings.failure_of_database#1", f"verify --db {UNREACHABLE}", nothing, ("host, port",),
         f"psql {UNREACHABLE} -c 'SELECT 1'"),
    Case("surroundings.failure_of_database#1", "verify --db postgresql://me:hunter2@127.0.0.1:1/x", nothing,
         ("host, port",), ""),
    Case("surroundings.failure_of_database#1", "verify", lambda s: s.env(DB="postgresql://me:hunter2@127.0.0.1:1/x"),
         command="psql \"$CARDWRIGHT_DB\" -c 'SELECT 1'"),
]  # fmt: skip


def populate(path: str) -> None:
    """Insert a second program, so that the database is not empty."""
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO programs (token, name, short_code, settings, revision, clock_offset_ms, created_ms) "
                   "VALUES ('second', '', '', '{}', 1, 0, 0)")  # fmt: skip


def migrated_file() -> bytes:
    """Return a database file with the schema and without a program."""
    with database_commands.migrated(Settings(db="schema.db"), is_made=True):
        pass
    return Path("schema.db").read_bytes()


def test_every_failure_has_a_case() -> None:
    """Each call of ``Failure`` in the source has a case."""
    assert {case.site for case in CASES} == set(sites())


# --- Running ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instance() -> Iterator[Callable[[], Fresh]]:
    """An instance that starts when a case first needs it."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(fresh_instance()))


@contextmanager
def path_with_cardwright(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a shell find the command."""
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield


def typed(script: str) -> Done:
    """Run a script in a shell; a server that becomes ready is stopped and counts as success."""
    with Path("typed.err").open("w+", errors="replace") as errors:
        process = subprocess.Popen(
            ["sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        safety = threading.Timer(TIMEOUT_S, lambda: os.killpg(process.pid, signal.SIGKILL))
        safety.start()
        assert process.stdout is not None
        lines, is_server = list[str](), False
        for line in process.stdout:
            lines.append(line)
            if " is ready." in line:
                is_server = True
                os.killpg(process.pid, signal.SIGTERM)
        code = process.wait()
        safety.cancel()
        errors.seek(0)
        return Done(0 if is_server else code, "".join(lines), errors.read())


def error_of(printed: str) -> str | None:
    """Return the error line, or None."""
    return next((line for line in printed.splitlines() if line.startswith("error: ")), None)


def fail_here(words: list[str], cardwright: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> tuple[Done, str]:
    """Run a command in this process. Return its output and the site of its failure."""
    places, create = list[str](), output.Failure.__init__

    def record(self: output.Failure, *arguments: Any, **options: Any) -> None:
        frame: FrameType = sys._getframe(1)
        places.append(site_at(frame.f_code.co_filename, frame.f_lineno))
        create(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(output.Failure, "__init__", record)
        done = cardwright(*words)
    return done, places[-1]


def fail_in_a_process(words: list[str], patch: str) -> tuple[Done, str]:
    """Run a command in a separate process, because it keeps its locks and signal handlers until it ends."""
    env = {**os.environ, "RECORD": "record", "PATCH": patch}
    command = [sys.executable, "-c", DRIVER, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=env)
    file, line = Path("record").read_text().splitlines()[-1].rsplit(" ", 1)
    return Done(done.returncode, done.stdout, done.stderr), site_at(file, int(line))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.site} {case.words}")
def test_hint_leads_out(
    case: Case,
    instance: Callable[[], Fresh],
    cardwright: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each failure occurs. Its command exits 0 or ends with another error. Advice without a command is marked as help."""
    words = shlex.split(case.words)
    with ExitStack() as stack:
        scene = Scene(monkeypatch, instance, stack)
        with monkeypatch.context() as patched:
            scene.monkeypatch = patched
            case.arrange(scene)
            variables = {name: value for name, value in os.environ.items() if name.startswith("CARDWRIGHT_")}
            if words[0] == "serve":
                done, site = fail_in_a_process(words, scene.patch)
            else:
                done, site = fail_here(words, cardwright, monkeypatch)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert (site, done.code != 0, "Traceback" in done.err) == (case.site, True, False), done.err
        marks = {line[:7]: line[7:] for line in done.err.splitlines() if not line.startswith("warning: ")}
        error, advice, command = (marks.get(mark, "") for mark in ("error: ", "help:  ", "next:  "))
        assert advice or command
        assert "***" not in command
        assert "hunter2" not in done.err
        for text in case.contains:
            assert text in f"{error}\n{advice}", done.err
        if case.command is not None:
            assert command == case.command.format(folder=tmp_path), done.err
        if command:
            with path_with_cardwright(monkeypatch):
                follow(command, case, error)


def follow(command: str, case: Case, error: str) -> None:
    """Run the command. If it changes the surroundings of the failed command, run that one again."""
    result = typed(command)
    assert "Syntax error" not in result.err, result.err
    if result.code != 0 and not command.startswith(MAY_FAIL):
        assert command.startswith("cardwright "), result.err
        assert error_of(result.err) not in (None, f"error: {error}"), result.err
    if command.startswith(CHANGES_SHELL):
        if command.startswith(("mkdir", "rm")):
            command = ":"
        again = typed(f"{command}\ncardwright {case.words}")
        assert error_of(again.err) != f"error: {error}", again.err


# --- Properties of hints ------------------------------------------------------------------


def test_password_is_neither_printed_nor_masked_in_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command with a masked password would not work. Advice takes its place; if a variable has the DSN, nothing is needed."""
    settings = Settings(db="postgresql://me:hunter2@127.0.0.1/x", data_dir=Path("keys"), workers=2)
    for hint in (command_with_place(settings, "cardwright migrate", "wait"), serve_command(settings, port=0)):
        assert hint.command == ""
        assert "with the same --db" in hint.text
        assert "hunter2" not in hint.text
    monkeypatch.setenv("CARDWRIGHT_DB", "postgresql://me:hunter2@127.0.0.1/x")
    assert command_with_place(settings, "cardwright migrate").command == "cardwright migrate --data-dir keys"


def test_options_are_repeated_and_quoted() -> None:
    """The command has the options that were given, so that it works on the same database in the same mode."""
    settings = Settings(db="it's.db", data_dir=Path("a b"), mode="production", tls=True, port=8443)  # type: ignore[arg-type]
    expected = ["cardwright", "serve", "--db", "it's.db", "--data-dir", "a b", "--port", "0", "--tls", "--mode", "production"]
    assert shlex.split(serve_command(settings, port=0).command) == expected
    assert shlex.split(command_with_place(settings, "cardwright migrate").command) == [
        "cardwright", "migrate", "--db", "it's.db", "--data-dir", "a b",
    ]  # fmt: skip


def test_cases_are_distinct() -> None:
    """All cases differ."""
    assert len({(case.site, case.words, str(case.command), case.contains) for case in CASES}) == len(CASES)
    assert replace(CASES[0], command="x") != CASES[0]
