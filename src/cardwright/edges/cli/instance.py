"""A running instance, as other commands find it by its data directory, and instances that live as long as one command."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from cardwright.edges.cli.client import Client
from cardwright.edges.cli.output import Failure, print_notice
from cardwright.kit.files import read_file, replace_file

if TYPE_CHECKING:
    from cardwright.settings import Settings

FILE = "instance.json"
STOP_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Where an instance answers. ``base_url`` ends in ``/v3``; ``ca`` is the certificate to trust when it speaks TLS."""

    base_url: Annotated[str, msgspec.Meta(pattern="^https?://[^/]+")]
    pid: int
    mode: str
    ca: str | None = None

    @property
    def root_url(self) -> str:
        """What everything that is not the API's stands under."""
        return root_of(self.base_url)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens the default program."""

    application_token: str
    access_token: str


def root_of(base_url: str) -> str:
    """The address without ``/v3``."""
    return base_url.rstrip("/").removesuffix("/v3")


def environment_of(base_url: str, credentials: Credentials, ca: str | None) -> dict[str, str]:
    """The variables under which programs find an instance."""
    variables = {
        "CARDWRIGHT_BASE_URL": base_url,
        "CARDWRIGHT_URL": root_of(base_url),
        "CARDWRIGHT_APPLICATION_TOKEN": credentials.application_token,
        "CARDWRIGHT_ACCESS_TOKEN": credentials.access_token,
    }
    return variables | ({"CARDWRIGHT_CA": ca, "REQUESTS_CA_BUNDLE": ca} if ca is not None else {})


# --- One that somebody else started -------------------------------------------------------


@contextmanager
def announced(directory: Path, instance: Instance) -> Iterator[None]:
    """Leaves word of an instance in its data directory for as long as it runs."""
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
        # Another one may have started on the same directory meanwhile; its word is not ours to take back.
        with suppress(OSError, ValueError, KeyError):
            if json.loads(read_file(path))["pid"] == instance.pid:
                path.unlink()


def find_instance(settings: "Settings") -> Instance:
    """The instance of a data directory. Raises Failure when none has left word there."""
    from cardwright.wiring import data_dir_of

    path = data_dir_of(settings) / FILE
    try:
        return msgspec.json.decode(read_file(path), type=Instance)
    except FileNotFoundError:
        hint = "cardwright serve   (or name the --data-dir of one that runs)"
        raise Failure(f"no instance runs in --data-dir {path.parent}", hint) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Failure(f"{path} is damaged: {error}", f"rm {path}   (a running instance writes it at its next start)") from None


def find_credentials(settings: "Settings") -> Credentials:
    """The credentials of the environment, else those that the first start left in the data directory."""
    from cardwright.wiring import Misconfigured, find_secrets

    try:
        keys = find_secrets(settings)
    except Misconfigured as error:
        raise Failure(str(error), error.next_step) from None
    except FileNotFoundError as error:
        hint = "export CARDWRIGHT_APPLICATION_TOKEN=… CARDWRIGHT_ACCESS_TOKEN=…"
        raise Failure(f"there are no credentials: {error.filename} does not exist", hint) from None
    return Credentials(keys["application_token"], keys["access_token"])


def client_of(settings: "Settings", base_url: str | None) -> Client:
    """Talks to the instance of the settings, or to another one's address with the same credentials. Raises Failure."""
    if base_url is None:
        instance, pair = find_instance(settings), find_credentials(settings)
        return Client(instance.root_url, pair.application_token, pair.access_token, instance.ca)
    pair = find_credentials(settings)
    return Client(root_of(base_url), pair.application_token, pair.access_token, os.environ.get("CARDWRIGHT_CA"))


# --- One of our own -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fresh:
    """An instance that lives as long as the command that made it."""

    instance: Instance
    credentials: Credentials

    @property
    def environment(self) -> dict[str, str]:
        """How the command's own programs find it."""
        return environment_of(self.instance.base_url, self.credentials, self.instance.ca)

    @property
    def client(self) -> Client:
        """Talks to it."""
        pair = self.credentials
        return Client(self.instance.root_url, pair.application_token, pair.access_token, self.instance.ca)


@contextmanager
def fresh_instance(*, db: str | None = None, options: Sequence[str] = ()) -> Iterator[Fresh]:
    """Starts an instance on a free port and ends it. Without ``db`` it keeps its data in a place of its own, which goes with it.

    The child notices the end of this process by the end of its standard input, so it does not outlive even a killed parent.
    """
    command = [sys.executable, "-m", "cardwright", "serve", "--port", "0", "--json", "--until-eof"]
    command += ["--db", db or ":memory:", *options]
    env = dict(os.environ) if db else {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
    # The root directory has no .env whose settings would leak in. A session of its own: Ctrl-C is for the command.
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
        raise Failure("the instance did not start; its own words stand above", "cardwright serve")
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
