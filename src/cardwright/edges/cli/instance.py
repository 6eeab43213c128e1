"""Instances: the one that a data directory records, and temporary ones for a single command."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from cardwright.edges.cli.client import Client, ClientHints
from cardwright.edges.cli.output import Failure, Hint, print_notice
from cardwright.edges.cli.surroundings import command_with_place, variable_hint
from cardwright.kit.files import read_file, replace_file

if TYPE_CHECKING:
    from cardwright.settings import Settings

FILE = "instance.json"
STOP_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Address and data of an instance. ``base_url`` ends in ``/v3``; ``ca`` is the certificate authority to trust.

    ``data`` is the absolute path of the database file, or the DSN without its password.
    """

    base_url: Annotated[str, msgspec.Meta(pattern="^https?://[^/]+")]
    pid: int
    mode: str
    ca: str | None = None
    data: str | None = None

    @property
    def root_url(self) -> str:
        """The URL without ``/v3``, for ``/sandbox``, ``/docs`` and ``/metrics``."""
        return root_of(self.base_url)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of the default program."""

    application_token: str
    access_token: str


def root_of(base_url: str) -> str:
    """Return the URL without ``/v3``."""
    return base_url.rstrip("/").removesuffix("/v3")


def environment_of(base_url: str, credentials: Credentials, ca: str | None) -> dict[str, str]:
    """Return the environment variables for client programs."""
    variables = {
        "CARDWRIGHT_BASE_URL": base_url,
        "CARDWRIGHT_URL": root_of(base_url),
        "CARDWRIGHT_APPLICATION_TOKEN": credentials.application_token,
        "CARDWRIGHT_ACCESS_TOKEN": credentials.access_token,
    }
    return variables | ({"CARDWRIGHT_CA": ca, "REQUESTS_CA_BUNDLE": ca} if ca is not None else {})


# --- The instance of a data directory -----------------------------------------------------


@contextmanager
def announced(directory: Path, instance: Instance) -> Iterator[None]:
    """Record an instance in its data directory while it runs."""
    path = directory / FILE
    try:
        replace_file(path, json.dumps({name: value for name, value in asdict(instance).items() if value is not None}).encode())
    except OSError as error:
        # The instance itself works without the file.
        print_notice(f"warning: {path}: {error.strerror}; `cardwright status` does not find this instance")
        yield
        return
    try:
        yield
    finally:
        # Another instance may have recorded itself in the same directory meanwhile; its file stays.
        with suppress(OSError, ValueError, KeyError):
            if json.loads(read_file(path))["pid"] == instance.pid:
                path.unlink()


def find_instance(settings: "Settings") -> Instance:
    """Return the instance that a data directory records. Raises Failure if there is none, OSError if it cannot be read."""
    from cardwright.instance_secrets import data_dir_of

    path = data_dir_of(settings) / FILE
    try:
        return msgspec.json.decode(read_file(path), type=Instance)
    except FileNotFoundError:
        directory = path.parent.absolute()
        advice = f"call it in the folder where the server was started, or name --data-dir; the current folder is {Path.cwd()}"
        raise Failure(
            f"no instance runs in --data-dir {directory}", command_with_place(settings, "cardwright serve", advice)
        ) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        hint = Hint(f"rm {shlex.quote(str(path))}", "remove the file and restart the server, which writes it again")
        raise Failure(f"{path} is damaged: {error}", hint) from None


def find_credentials(settings: "Settings") -> Credentials:
    """Return the credentials of the environment, else those in the data directory. Raises Failure, OSError."""
    from cardwright.instance_secrets import Misconfigured, find_secrets

    try:
        keys = find_secrets(settings)
    except Misconfigured as error:
        raise Failure(str(error), Hint(text=error.advice)) from None
    except FileNotFoundError as error:
        advice = (
            "call it in the folder where the server was started, name --data-dir, or set CARDWRIGHT_APPLICATION_TOKEN and "
            f"CARDWRIGHT_ACCESS_TOKEN; the current folder is {Path.cwd()}"
        )
        raise Failure(f"there are no credentials: {error.filename} does not exist", Hint(text=advice)) from None
    return Credentials(keys["application_token"], keys["access_token"])


def client_of(settings: "Settings", base_url: str | None) -> Client:
    """Return a client of the data directory's instance, or of ``base_url``, with the same credentials. Raises Failure."""
    if base_url is None:
        instance = find_instance(settings)
        url, ca, hints = instance.root_url, instance.ca, client_hints(instance, settings)
    else:
        url, ca, hints = root_of(base_url), os.environ.get("CARDWRIGHT_CA"), _hints_of_address(settings)
    pair = find_credentials(settings)
    return Client(url, pair.application_token, pair.access_token, ca, hints)


def client_hints(instance: Instance, settings: "Settings") -> ClientHints:
    """Return the hints for the instance that the data directory records."""
    start = on_its_database(instance, settings, "cardwright serve")
    ca = Hint(text="restart the server with --tls, which writes the certificate authority again")
    return ClientHints(connect=start, ca=ca, address=Hint(text="restart the server, which writes its address again"))


def on_its_database(instance: Instance, settings: "Settings", command: str) -> Hint:
    """Return a command on the instance's database, which ``--db`` of ``serve`` may have put outside the data directory."""
    from cardwright.instance_secrets import address_of

    if settings.db is not None or instance.data in (None, str(Path(address_of(settings)).absolute())):
        return command_with_place(settings, command)
    return command_with_place(settings.model_copy(update={"db": instance.data}), command)


def _hints_of_address(settings: "Settings") -> ClientHints:
    """Return the hints for an instance that ``--base-url`` or ``CARDWRIGHT_BASE_URL`` names."""
    format_text = "use an address such as http://127.0.0.1:8181/v3"
    connect = command_with_place(settings, "cardwright status", "start that server, or correct its address")
    ca_text = "CARDWRIGHT_CA must name the ca.pem of that server; without it, the authorities of this system apply"
    ca = variable_hint(["CARDWRIGHT_CA"], ca_text)
    if "CARDWRIGHT_BASE_URL" in os.environ:
        address = variable_hint(["CARDWRIGHT_BASE_URL"], format_text)
    else:
        address = command_with_place(settings, "cardwright status", format_text)
    return ClientHints(connect=connect, ca=ca, address=address)


def credentials_hint(settings: "Settings") -> Hint:
    """Return the hint for an instance that does not accept the credentials."""
    from cardwright.instance_secrets import SECRETS_FILE, data_dir_of

    names = ["CARDWRIGHT_APPLICATION_TOKEN", "CARDWRIGHT_ACCESS_TOKEN"]
    if any(name in os.environ for name in names) and (data_dir_of(settings) / SECRETS_FILE).is_file():
        return variable_hint(names, "without these variables, the credentials of the data directory apply")
    return Hint(text=f"set {names[0]} and {names[1]} to the credentials of a program of that instance")


# --- Temporary instances ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fresh:
    """A temporary instance, which ends with the command that started it."""

    instance: Instance
    credentials: Credentials

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for its client programs."""
        return environment_of(self.instance.base_url, self.credentials, self.instance.ca)

    @property
    def client(self) -> Client:
        """A client with its credentials."""
        pair = self.credentials
        return Client(self.instance.root_url, pair.application_token, pair.access_token, self.instance.ca)


@contextmanager
def fresh_instance(*, db: str | None = None, options: Sequence[str] = ()) -> Iterator[Fresh]:
    """Start an instance on a free port and stop it at the end. Without ``db`` its data is removed at the end.

    The child ends when its standard input ends, so it does not outlive a parent that was killed.
    """
    command = [sys.executable, "-m", "cardwright", "serve", "--mode", "sandbox", "--port", "0", "--json", "--until-eof"]
    command += ["--db", db or ":memory:", *options]
    env = dict(os.environ) if db else {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
    # The root directory has no .env with other settings. In a new session, Ctrl-C reaches only the command.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=None if db else "/", start_new_session=True
    )
    try:
        yield _fresh(process)
    finally:
        _stop(process)


def _fresh(process: "subprocess.Popen[bytes]") -> Fresh:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Failure("the instance did not start", Hint(text="the output above names the cause"))
    message: dict[str, Any] = json.loads(line)
    instance = Instance(base_url=message["base_url"], pid=process.pid, mode=message["mode"], ca=message.get("ca"))
    return Fresh(instance, Credentials(message["application_token"], message["access_token"]))


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
