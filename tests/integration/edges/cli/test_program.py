"""`cardwright program`: a new isolated program on a running instance, for shells, clients and people."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cardwright.edges.cli.client import Client
from cardwright.edges.cli.instance import Fresh, fresh_instance
from tests.integration.edges.cli.conftest import command_line
from tests.support import free_port
from tests.support.server import ACCESS_TOKEN, APPLICATION_TOKEN, MASTER_KEY

VARIABLES = (
    "CARDWRIGHT_BASE_URL",
    "CARDWRIGHT_URL",
    "CARDWRIGHT_APPLICATION_TOKEN",
    "CARDWRIGHT_ACCESS_TOKEN",
    "CARDWRIGHT_PROGRAM",
)
PRODUCTION = {
    "CARDWRIGHT_MODE": "production",
    "CARDWRIGHT_APPLICATION_TOKEN": APPLICATION_TOKEN,
    "CARDWRIGHT_ACCESS_TOKEN": ACCESS_TOKEN,
    "CARDWRIGHT_MASTER_KEY": MASTER_KEY,
}


@pytest.fixture(scope="module")
def instance() -> Iterator[Fresh]:
    """A running instance."""
    with fresh_instance() as fresh:
        yield fresh


@pytest.fixture
def environment(instance: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that `cardwright status -o env` prints for the instance."""
    for name, value in instance.environment.items():
        monkeypatch.setenv(name, value)


def program_of(instance: Fresh, application_token: str, access_token: str) -> dict[str, Any]:
    """Return the program of some credentials."""
    answer = Client(instance.instance.root_url, application_token, access_token).request("GET", "/sandbox/program")
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.body
    return body


@pytest.mark.usefixtures("environment")
def test_a_shell_enters_the_program(instance: Fresh, cardwright: Callable[..., Any]) -> None:
    """The lines of `-o env` set the address, the credentials and the token of a new program; each call draws another token."""
    first, second = cardwright("program", "-o", "env"), cardwright("program", "-o", "env")
    assert (first.code, first.err) == (0, "")
    shell = f"{first.out}\nfor name in {' '.join(VARIABLES)}; do eval echo \\$$name; done"
    values = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.split()
    base_url, root_url, application_token, access_token, token = values
    assert (base_url, root_url) == (instance.instance.base_url, instance.instance.root_url)
    assert program_of(instance, application_token, access_token)["token"] == token
    assert token not in second.out
    box = instance.client.request("POST", f"/sandbox/inbox/{token}/letters", {"a": 1})
    assert box.status == 200, box.body


@pytest.mark.usefixtures("environment")
def test_a_client_reads_json(instance: Fresh, cardwright: Callable[..., Any]) -> None:
    """`--json` prints the response of the instance and its URLs. A given token becomes the token of the program."""
    printed = json.loads(cardwright("program", "chosen", "--json").out)
    assert (printed["token"], printed["name"], printed["base_url"]) == ("chosen", "chosen", instance.instance.base_url)
    assert printed["url"] == instance.instance.root_url
    assert program_of(instance, printed["application_token"], printed["access_token"])["token"] == "chosen"


@pytest.mark.usefixtures("environment")
def test_people_read_two_columns(instance: Fresh, cardwright: Callable[..., Any]) -> None:
    """Without an option the command prints token, base URL, credentials and the address of the inbox."""
    lines = dict(line.split("  ", 1) for line in cardwright("program", "readable").out.splitlines())
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    assert fields["program"] == "readable"
    assert fields["webhook inbox"] == f"{instance.instance.root_url}/sandbox/inbox/readable/{{any name}}"
    assert program_of(instance, fields["application token"], fields["admin access token"])["token"] == "readable"


@pytest.mark.usefixtures("environment")
def test_a_taken_token_is_refused(cardwright: Callable[..., Any]) -> None:
    """The error names the taken token, and the next command draws another one."""
    assert cardwright("program", "taken").code == 0
    done = cardwright("program", "taken", "-o", "env")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: TOKEN taken: ")
    assert "is the token of another program" in done.err
    assert "next:  cardwright program\n" in done.err


@pytest.mark.usefixtures("environment")
def test_wrong_credentials_are_refused(cardwright: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong credentials cause the error 401, and no program is created."""
    monkeypatch.setenv("CARDWRIGHT_ACCESS_TOKEN", "wrong")
    done = cardwright("program")
    assert (done.code, done.out, "401: Invalid credential" in done.err) == (1, "", True), done
    assert "next:  unset CARDWRIGHT_ACCESS_TOKEN CARDWRIGHT_APPLICATION_TOKEN" in done.err or "help:" in done.err


def test_an_instance_is_needed(cardwright: Callable[..., Any]) -> None:
    """Without an instance the error names the data directory, and the next command starts a server."""
    done = cardwright("program", "-o", "env")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no instance runs in --data-dir ")
    assert "next:  cardwright serve" in done.err


def test_an_address_without_a_server_is_named(cardwright: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At an address where no server listens, the error names the address."""
    monkeypatch.setenv("CARDWRIGHT_APPLICATION_TOKEN", "app")
    monkeypatch.setenv("CARDWRIGHT_ACCESS_TOKEN", "access")
    root_url = f"http://127.0.0.1:{free_port()}"
    done = cardwright("program", "--base-url", f"{root_url}/v3")
    assert (done.code, done.out, root_url in done.err) == (1, "", True), done
    assert "next:  cardwright status" in done.err


def test_production_mode_has_no_new_programs(cardwright: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In production mode the error is 403, and the advice names an instance in sandbox mode."""
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    command = command_line("serve", "--json", "--port", 0, "--db", Path.cwd() / "production.db", "--until-eof")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert json.loads(process.stdout.readline())["mode"] == "production"
        done = cardwright("program", "-o", "env")
        process.stdin.close()
        assert process.wait(60) == 0
    assert (done.code, done.out) == (1, "")
    assert "403" in done.err
    assert "not available in production mode" in done.err
    assert "cardwright serve --mode sandbox --db sandbox.db" in done.err
