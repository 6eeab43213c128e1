"""`cardwright serve`: refused settings, output, certificate, and end."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from cardwright.edges.cli.database_commands import opened
from cardwright.edges.cli.output import Failure
from cardwright.edges.cli.serve import certificate_for, check
from cardwright.kit.secret_rules import DOCUMENTED_KEYS
from cardwright.settings import Settings
from tests.support import free_port
from tests.support.failpoints import Failpoints
from tests.support.server import ACCESS_TOKEN, APPLICATION_TOKEN, MASTER_KEY
from tests.support.waiting import until

KEY = "ab" * 32
PRODUCTION = {
    "mode": "production", "application_token": APPLICATION_TOKEN, "access_token": ACCESS_TOKEN, "master_key": MASTER_KEY,
}  # fmt: skip
WEAK = [
    *((name, value, "") for name in ("application_token", "access_token", "master_key") for value in (None, "", " ")),
    ("application_token", "admin", ": production needs at least 16 characters, and it has 5"),
    ("access_token", "x" * 15, ": production needs at least 16 characters, and it has 15"),
    ("access_token", f"{ACCESS_TOKEN}\n", ": it begins or ends with white space"),
    ("application_token", "an:application:token", ": it contains a colon"),
    ("access_token", APPLICATION_TOKEN, ": it equals the application token"),
    ("master_key", "abc", ": a master key is 64 hexadecimal digits"),
    ("master_key", MASTER_KEY[:-1] + "g", ": a master key is 64 hexadecimal digits"),
    ("master_key", MASTER_KEY + "00", ": a master key is 64 hexadecimal digits"),
    ("master_key", "0" * 64, ": it is not random: it has 1 different bytes"),
    ("master_key", "ab" * 32, ": it is not random: it has 1 different bytes"),
    ("master_key", bytes([*range(15), *range(15), 1, 2]).hex(), ": it is not random: it has 15 different bytes"),
    ("master_key", bytes(range(32)).hex().upper(), ": it is an example of the documentation"),
    *(("master_key", key, ": it is an example of the documentation") for key in DOCUMENTED_KEYS),
]
"""Secrets that production mode refuses: the setting, its value, and the reason."""


class Server:
    """A server in a separate process, and the announcement that it printed when it was ready."""

    def __init__(self, *arguments: object, **options: Any) -> None:
        command = [sys.executable, "-m", "cardwright", "serve", "--json", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.communicate()[1])
        self.announcement: dict[str, Any] = json.loads(line)
        self.place = urlsplit(self.announcement["base_url"])

    def post(self, path: str) -> int:
        """Return the status of a POST with an empty object."""
        connection = http.client.HTTPConnection(str(self.place.hostname), self.place.port, timeout=60)
        connection.request("POST", path, "{}", {"Content-Type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        return status

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.communicate()


@contextmanager
def running(*arguments: object, **options: Any) -> Iterator[Server]:
    server = Server(*arguments, **options)
    try:
        yield server
    finally:
        server.end()


# --- Refused starts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names", "hint"),
    [
        ({"workers": 2}, "--workers 2", "--db postgresql://"),
        ({"workers": 2, "db": ":memory:"}, "--workers 2", "--db postgresql://"),
        ({"workers": 0}, "--workers", "cardwright serve"),
        ({"workers": 2, "seed": 1, "db": "postgresql://nobody/x"}, "--seed", "--seed 1"),
        ({"db": "nowhere/x.db"}, "--db nowhere/x.db", "mkdir -p nowhere"),
        ({"mode": "production"}, "CARDWRIGHT_MASTER_KEY", "export CARDWRIGHT_MASTER_KEY="),
        ({**PRODUCTION, "access_token": None}, "CARDWRIGHT_ACCESS_TOKEN", "export CARDWRIGHT_ACCESS_TOKEN="),
        ({**PRODUCTION, "seed": 1}, "--seed", "cardwright serve"),
        ({**PRODUCTION, "outgoing_hosts": "no host"}, "CARDWRIGHT_OUTGOING_HOSTS", "HOST:PORT"),
        *(
            ({**PRODUCTION, name: value}, f"CARDWRIGHT_{name.upper()}{reason}", f"export CARDWRIGHT_{name.upper()}=$(openssl")
            for name, value, reason in WEAK
        ),
        ({"bin_prefix": "12"}, "CARDWRIGHT_BIN_PREFIX", "correct the option"),
        ({"tls": True, "host": "build_1"}, "--host build_1", "cardwright serve --tls"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], names: str, hint: str) -> None:
    """Each wrong setting causes an error with its option, a hint and exit code 2."""
    with pytest.raises(Failure) as failure:
        check(Settings(**given))
    assert names in str(failure.value)
    assert hint in f"{failure.value.hint.text} {failure.value.hint.command}"
    assert failure.value.code == 2


def test_production_with_its_secrets_is_accepted() -> None:
    """Production mode with all its secrets passes the check."""
    check(Settings(**PRODUCTION))


def test_empty_variable_is_a_missing_secret(spawn: Callable[..., Any]) -> None:
    """An unset ``${VAR}`` of a compose file gives an empty variable. Production says so and refuses it."""
    secrets = {f"CARDWRIGHT_{name.upper()}": value for name, value in PRODUCTION.items()}
    done = spawn("serve", "--port", 0, env={**os.environ, **secrets, "CARDWRIGHT_ACCESS_TOKEN": ""})
    assert (done.code, done.out) == (2, "")
    assert "needs CARDWRIGHT_ACCESS_TOKEN; CARDWRIGHT_ACCESS_TOKEN is set, but empty" in done.err
    assert list(Path.cwd().iterdir()) == []


def test_empty_variable_opens_nothing_in_the_sandbox() -> None:
    """In the sandbox an empty secret counts as not given: the first start generates it, and no empty pair opens anything."""
    with opened(Settings(application_token="", access_token=" ", master_key="")) as (_, keys):  # type: ignore[arg-type]
        assert min(len(keys.application_token), len(keys.access_token)) >= 32
        assert len(keys.master_key) == 64


def test_refused_start_names_the_option(spawn: Callable[..., Any]) -> None:
    """A wrong option ends the command with exit code 2, the reason on stderr, an empty stdout and no file."""
    done = spawn("serve", "--workers", 2)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: --workers 2 needs PostgreSQL")
    assert "help:  or name a database: --db postgresql://" in done.err
    assert "next:  cardwright serve\n" in done.err
    assert list(Path.cwd().iterdir()) == []


def test_wrong_variable_is_named_without_its_value(spawn: Callable[..., Any]) -> None:
    """An invalid variable is named without its value, which may be a secret."""
    done = spawn("serve", env={**os.environ, "CARDWRIGHT_LOG_JSON": "hunter2"})
    assert done.code == 2
    assert "CARDWRIGHT_LOG_JSON" in done.err
    assert "hunter2" not in done.err


def test_taken_port_is_reported(spawn: Callable[..., Any]) -> None:
    """A taken port causes an error that names the address. The server chooses no other port."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        done = spawn("serve", "--port", holder.getsockname()[1])
    assert done.code == 1
    assert done.err.startswith("error: --port: 127.0.0.1:")
    assert "next:  cardwright serve" in done.err


@pytest.mark.parametrize("arguments", [("--host", "203.0.113.7"), ("--host", "no.such.host.invalid", "--port", 0)])
def test_wrong_host_is_reported(arguments: tuple[object, ...], spawn: Callable[..., Any]) -> None:
    """A host that is not this machine causes an error that names it."""
    done = spawn("serve", *arguments)
    assert done.code == 1
    assert done.err.startswith(f"error: --host {arguments[1]}")


def test_unreachable_database_is_reported(spawn: Callable[..., Any]) -> None:
    """An unreachable database causes an error with its address, without the password and a traceback."""
    done = spawn("serve", "--db", f"postgresql://me:hunter2@127.0.0.1:{free_port()}/x", "--port", 0)
    assert done.code == 1
    assert done.err.startswith("error: --db postgresql://me:***@127.0.0.1:")
    assert "Traceback" not in done.err
    assert "hunter2" not in done.err


# --- Output -------------------------------------------------------------------------------


def test_two_servers_take_two_ports_but_not_one_file(spawn: Callable[..., Any]) -> None:
    """Without a port the next free one is taken. A second server on the same SQLite file is refused."""
    with running("--db", "one.db") as first, running("--db", "two.db") as second:
        assert first.place.port != second.place.port
        assert min(first.place.port or 0, second.place.port or 0) >= 8181
        third = spawn("serve", "--db", "one.db", "--port", 0)
        assert third.code == 1
        assert "--db" in third.err
        assert "another Cardwright server is using this database" in third.err
    with running("--db", "elsewhere.db", "--data-dir", "keys", "--port", 0):
        refused = spawn("serve", "--db", "elsewhere.db", "--data-dir", "keys", "--port", 0)
        assert f"next:  cardwright status --data-dir {Path.cwd() / 'keys'}\n" in refused.err


def test_life_of_an_instance(cardwright: Callable[..., Any], spawn: Callable[..., Any]) -> None:
    """A server writes instance.json, and `status` finds it. A signal ends it with exit code 0 and removes the file."""
    with running("--port", 0) as server:
        announcement, word = server.announcement, Path(".cardwright/instance.json")
        assert announcement["base_url"].endswith("/v3")
        kept = json.loads(word.read_text())
        data = str(Path(".cardwright/cardwright.db").absolute())
        assert kept == {"base_url": announcement["base_url"], "pid": server.process.pid, "mode": "sandbox", "data": data}

        status = json.loads(cardwright("status", "--json").out)
        assert {name: status[name] for name in announcement} == announcement
        assert status["url"] == announcement["base_url"].removesuffix("/v3")
        assert (status["status"], status["data"], status["data_dir"]) == ("ready", data, str(Path(".cardwright").absolute()))
        lines = [line.split("  ", 1) for line in cardwright("status").out.splitlines()]
        shown = {name: value.strip() for name, value in lines}
        assert (shown["base URL"], shown["data"]) == (announcement["base_url"], data)
        assert shown["data directory"] == str(Path(".cardwright").absolute())
        elsewhere = spawn("status", "--data-dir", Path(".cardwright").absolute(), "--json", cwd="/")
        assert json.loads(elsewhere.out)["data"] == data

        exported = cardwright("status", "-o", "env").out
        shell = f'{exported}\nprintf "%s %s %s" "$CARDWRIGHT_BASE_URL" "$CARDWRIGHT_APPLICATION_TOKEN" "$CARDWRIGHT_ACCESS_TOKEN"'
        read = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
        assert read == f"{announcement['base_url']} {announcement['application_token']} {announcement['access_token']}"

        assert server.end() == 0
        assert not word.exists()
    gone = cardwright("status")
    assert gone.code == 1
    assert "no instance runs in --data-dir" in gone.err
    assert "next:  cardwright serve" in gone.err


def test_status_detects_a_crashed_instance(cardwright: Callable[..., Any]) -> None:
    """If instance.json remains after a crash, `status` reports that it cannot connect."""
    folder = Path(".cardwright")
    folder.mkdir()
    word = {"base_url": f"http://127.0.0.1:{free_port()}/v3", "pid": 1, "mode": "sandbox"}
    (folder / "instance.json").write_text(json.dumps(word))
    (folder / "secrets.json").write_text('{"application_token": "a", "access_token": "b"}')
    done = cardwright("status")
    assert done.code == 1
    assert "cannot connect to" in done.err


def test_banner_has_all_fields() -> None:
    """The banner has the base URL, both tokens, the explorer, the inbox, the mode and the place of the data."""
    command = [sys.executable, "-m", "cardwright", "serve", "--port", "0", "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(11)]
        process.terminate()
    fields = dict(line.strip().split("  ", 1) for line in lines if "  " in line.strip())
    banner = {name: value.strip() for name, value in fields.items()}
    assert banner["base URL"].endswith("/v3")
    assert banner["explorer"] == banner["base URL"].removesuffix("v3") + "docs"
    assert banner["inbox for webhooks"].endswith("/sandbox/inbox/default/{any name}")
    assert banner["mode"] == "sandbox"
    assert banner["data"] == str(Path.cwd() / ".cardwright" / "cardwright.db")
    assert banner["application token"]
    assert banner["admin access token"]


@pytest.mark.parametrize("place", [[], ["--data-dir", "it's here"], ["--db", "elsewhere/one.db"], ["--db", ":memory:"]])
def test_hint_leads_to_the_instance(place: list[str]) -> None:
    """The printed line for another terminal sets the variables of this instance, not of the default one."""
    Path("elsewhere").mkdir()
    command = [sys.executable, "-m", "cardwright", "serve", "--port", "0", *place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = dict[str, str]()
        while "In another terminal:" not in lines and (line := process.stdout.readline()):
            name, _, value = line.strip().partition("  ")
            lines[name] = value.strip()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        typed = f'{lines["In another terminal:"]}\nprintf "%s" "$CARDWRIGHT_BASE_URL"'
        shell = subprocess.run(["sh", "-c", typed], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
        process.terminate()
    assert (shell.stdout, shell.stderr) == (lines["base URL"], "")
    assert ("--data-dir" in lines["In another terminal:"]) is bool(place)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_production_banner_has_no_tokens(form: list[str]) -> None:
    """The output of a production server contains no tokens, because it may be logged."""
    secrets = {f"CARDWRIGHT_{name.upper()}": value for name, value in PRODUCTION.items()}
    env = {
        **os.environ,
        **secrets,
        "CARDWRIGHT_APPLICATION_TOKEN": "hunter2-application",
        "CARDWRIGHT_ACCESS_TOKEN": "hunter2-access-token",
    }
    command = [sys.executable, "-m", "cardwright", "serve", "--port", "0", *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.terminate()
        printed = first + process.stdout.read()
    assert "/v3" in printed
    assert "production" in printed
    assert "hunter2" not in printed


def test_tls_is_trusted_with_the_certificate_it_names(cardwright: Callable[..., Any]) -> None:
    """With --tls the server uses HTTPS with a certificate of a private CA. `status -o env` exports the CA file."""
    with running("--port", 0, "--tls") as server:
        assert server.place.scheme == "https"
        context = ssl.create_default_context(cafile=server.announcement["ca"])
        for name in ("127.0.0.1", "localhost"):
            connection = http.client.HTTPSConnection(name, server.place.port, context=context, timeout=60)
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200
            connection.close()
        assert cardwright("status").code == 0
        exported = cardwright("status", "-o", "env").out
        assert f"export CARDWRIGHT_CA={server.announcement['ca']}" in exported
        assert f"export REQUESTS_CA_BUNDLE={server.announcement['ca']}" in exported


@pytest.mark.parametrize(("machine", "named"), [("build-1", True), ("build_1", False), ("", False)])
def test_machine_name_is_left_out_where_a_certificate_cannot_hold_it(
    machine: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine name that is invalid in a certificate is left out, so that --tls starts on any machine."""
    monkeypatch.setattr(socket, "gethostname", lambda: machine)
    _, server = certificate_for(Settings(tls=True, host="0.0.0.0"), tmp_path)
    names = x509.load_pem_x509_certificate(server.read_bytes()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    expected = ["127.0.0.1", "localhost", "::1"] + ([machine] if named else [])
    assert [str(name.value) for name in names.value] == expected


# --- End ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_request_under_way_is_answered_before_the_end(number: int) -> None:
    """After a signal the server accepts no request, but answers the one in progress."""
    end_during_a_request(number, lambda server: lambda: not is_listening(server), "--db", ":memory:", "--port", 0)


def test_request_under_way_is_answered_by_every_worker(postgres_url: str) -> None:
    """With two processes on PostgreSQL, the idle one ends, and the other one answers first."""

    def one_ends(server: Server) -> Callable[[], bool]:
        count = children(server)
        return lambda: children(server) < count

    end_during_a_request(signal.SIGTERM, one_ends, "--db", postgres_url, "--port", 0, "--workers", 2)


def end_during_a_request(number: int, effect: Callable[[Server], Callable[[], bool]], *arguments: object) -> None:
    """Send a signal while a request pauses at a failpoint. Release the request when the signal has an effect.

    ``effect`` runs before the signal and returns the condition that detects the effect.
    """
    with Failpoints() as failpoints, running(*arguments, env={**os.environ, **failpoints.environment}) as server:
        failpoints.arm("inbox.answer.before", "pause")
        with ThreadPoolExecutor(1) as thread:
            request = thread.submit(server.post, "/sandbox/inbox/default/slow")
            assert failpoints.wait("inbox.answer.before")
            is_stopping = effect(server)
            server.process.send_signal(number)
            until(is_stopping)
            assert not request.done()
            failpoints.release("inbox.answer.before")
            assert request.result() == 200
        assert server.process.wait(60) == 0


def is_listening(server: Server) -> bool:
    """Return True if the server accepts a new connection."""
    try:
        socket.create_connection((server.place.hostname, server.place.port)).close()
    except ConnectionRefusedError:
        return False
    return True


def children(server: Server) -> int:
    """Return the number of child processes. One that has ended and is not waited for yet (state Z) does not count."""
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,stat="], capture_output=True, text=True, check=True).stdout.split()
    return sum(int(parent) == server.process.pid and state[0] != "Z" for parent, state in zip(*[iter(listed)] * 2, strict=True))


@pytest.mark.parametrize("after_s", [0.2, 0.6, 1.0])
def test_signal_before_it_is_ready_ends_it_too(after_s: float) -> None:
    """A signal during the start ends the command, and no instance.json remains."""
    command = [sys.executable, "-m", "cardwright", "serve", "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(after_s)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in errors
    assert not Path(".cardwright/instance.json").exists()


def test_memory_leaves_nothing() -> None:
    """A server in memory keeps its data in a folder that is removed at the end."""
    with running("--db", ":memory:", "--port", 0) as server:
        folder = Path(server.announcement["data"]).parent
        assert folder.is_dir()
        assert server.end() == 0
    assert not folder.exists()
    assert list(Path.cwd().iterdir()) == []


def test_quick_answers_import_little() -> None:
    """The code of `--help` and `--version` imports neither database, server nor settings."""
    heavy = ("sqlalchemy", "uvicorn", "pydantic", "aiohttp", "alembic", "psycopg", "rich.console")
    code = f"import cardwright.edges.cli.commands, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sqlite_needs_nothing_of_postgresql() -> None:
    """A server on SQLite does not load the driver of PostgreSQL, which takes a sixth of a second and 9 MB."""
    code = "import cardwright.edges.cli.serve, cardwright.wiring, sys; print('psycopg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_another_master_key_is_noticed_at_start(tmp_path: Path) -> None:
    """A database that was filled under one master key is not opened under another."""
    first, second = (
        Settings(db=str(tmp_path / "x.db"), application_token="app", access_token="access", master_key=key)  # type: ignore[arg-type]
        for key in (KEY, "cd" * 32)
    )
    with opened(first), opened(first):
        pass
    with pytest.raises(Failure, match="another master key"), opened(second):
        pass
