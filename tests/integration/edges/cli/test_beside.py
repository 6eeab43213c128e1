"""Commands with a temporary or a running instance: `exec`, `explain`, `demo`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cardwright.edges.cli import demo as demo_command
from cardwright.edges.cli.client import Client
from cardwright.edges.cli.demo_scenario import Story
from cardwright.edges.cli.instance import Fresh, fresh_instance
from cardwright.edges.cli.output import Failure
from tests.support.waiting import until

# --- exec ---------------------------------------------------------------------------------

LOOK_AROUND = """
import base64, json, os, urllib.request
env = {name: value for name, value in os.environ.items() if name.startswith("CARDWRIGHT_")}
pair = f"{env['CARDWRIGHT_APPLICATION_TOKEN']}:{env['CARDWRIGHT_ACCESS_TOKEN']}".encode()
request = urllib.request.Request(env["CARDWRIGHT_BASE_URL"] + "/ping")
request.add_header("Authorization", "Basic " + base64.b64encode(pair).decode())
print(json.dumps({**env, "ping": json.load(urllib.request.urlopen(request))}))
raise SystemExit(7)
"""


WAIT_FOR_A_SIGNAL = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(33))
print(os.environ["CARDWRIGHT_URL"], flush=True)
time.sleep(600)
"""


def test_exec_gives_the_command_an_instance(spawn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command gets a ready instance in its environment. Its exit code is passed on, and no file remains."""
    monkeypatch.setenv("CARDWRIGHT_PROGRAM", "of_another_instance")
    done = spawn("exec", "--seed", 5, "--", sys.executable, "-c", LOOK_AROUND)
    assert done.code == 7, done.err
    variables = json.loads(done.out)
    assert variables["ping"]["success"] is True
    assert "CARDWRIGHT_PROGRAM" not in variables
    assert variables["CARDWRIGHT_BASE_URL"] == f"{variables['CARDWRIGHT_URL']}/v3"
    assert list(Path.cwd().iterdir()) == []
    again = spawn("exec", "--seed", 5, "--", sys.executable, "-c", LOOK_AROUND)
    assert json.loads(again.out)["CARDWRIGHT_ACCESS_TOKEN"] == variables["CARDWRIGHT_ACCESS_TOKEN"], "a seed gives the same token"


def test_exec_uses_the_database_it_is_given(spawn: Callable[..., Any], cardwright: Callable[..., Any]) -> None:
    """With --db the database and its keys stay for a later `serve`."""
    assert spawn("exec", "--db", "kept.db", "--", "true").code == 0
    assert cardwright("verify", "--db", "kept.db").code == 0
    assert Path(".cardwright/secrets.json").exists()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [([], 2, "no command is given"), (["--", "no-such-program"], 127, "command not found"), (["--", "."], 127, "not executable")],
)
def test_exec_reports_an_invalid_command(command: list[str], code: int, message: str, cardwright: Callable[..., Any]) -> None:
    """The exit codes are those of a shell, and the error has the reason."""
    done = cardwright("exec", *command)
    assert done.code == code
    assert message in done.err


def test_exec_forwards_signals() -> None:
    """A signal to `exec` reaches the command. The command's exit code is passed on, and the instance ends."""
    command = [sys.executable, "-m", "cardwright", "exec", "--", sys.executable, "-c", WAIT_FOR_A_SIGNAL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        root_url = process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 33
    assert not is_answering(root_url)


def test_instance_does_not_outlive_a_killed_parent() -> None:
    """The instance ends even if `exec` is killed with SIGKILL."""
    waits = "import os, time; print(os.environ['CARDWRIGHT_URL'], os.getpid(), flush=True); time.sleep(600)"
    command = [sys.executable, "-m", "cardwright", "exec", "--", sys.executable, "-c", waits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        root_url, child = process.stdout.readline().split()
        assert is_answering(root_url)
        process.kill()
        process.wait()
        os.kill(int(child), signal.SIGKILL)
    until(lambda: not is_answering(root_url))


def is_answering(root_url: str) -> bool:
    try:
        return Client(root_url).request("GET", "/healthz").status == 200
    except Failure:
        return False


# --- explain ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instance() -> Iterator[Fresh]:
    """An instance on which the complete demo ran."""
    with fresh_instance() as fresh:
        story = Story(fresh.client)
        list(story.play())
        assert [promise for promise in story.promises if not promise.is_kept] == []
        yield fresh


@pytest.fixture
def tokens(instance: Fresh, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the tokens of the demo's purchases, the declined one first, and set the variables of the instance."""
    for name, value in instance.environment.items():
        monkeypatch.setenv(name, value)
    transactions = instance.client.request("GET", "/v3/transactions?state=ALL&type=authorization").body["data"]
    return [transaction["token"] for transaction in sorted(transactions, key=lambda transaction: str(transaction["state"]))]


def test_explain_shows_the_first_refusal(tokens: list[str], cardwright: Callable[..., Any]) -> None:
    """The explanation of a declined purchase names the check that declined it. Later checks are marked as not reached."""
    done = cardwright("explain", tokens[0])
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[1] == "DECLINED: 1003 Card suspended"
    assert "declined by    card_is_active" in lines
    assert any(line.startswith("card_is_active") and "refuse" in line and "card.state SUSPENDED" in line for line in lines)
    assert any(line.startswith("card_is_in_date") and "not reached" in line for line in lines)
    assert not any(line != line.rstrip() for line in lines)


def test_explain_shows_an_approval(tokens: list[str], cardwright: Callable[..., Any]) -> None:
    """An approved purchase passed every check."""
    done = cardwright("explain", tokens[1])
    assert "APPROVED: 0000" in done.out
    assert "refuse" not in done.out
    decision = json.loads(cardwright("explain", tokens[1], "--json").out)
    assert {check["verdict"] for check in decision["checks"]} == {"pass"}


def test_explain_reports_each_failure(tokens: list[str], cardwright: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown token, a missing server, an invalid URL, and wrong or missing credentials cause different errors."""
    assert "nothing: there is no such transaction in the program default at " in cardwright("explain", "nothing").err
    assert "cannot connect to" in cardwright("explain", tokens[0], "--base-url", "http://127.0.0.1:1/v3").err
    for wrong in ("here", "http://here:x/v3", "ftp://here/v3"):
        assert cardwright("explain", tokens[0], "--base-url", wrong).code == 2
    monkeypatch.setenv("CARDWRIGHT_ACCESS_TOKEN", "wrong")
    assert "answered 401: Invalid credential" in cardwright("explain", tokens[0]).err
    monkeypatch.delenv("CARDWRIGHT_ACCESS_TOKEN")
    done = cardwright("explain", tokens[0])
    assert done.code == 1
    assert "there are no credentials" in done.err


# --- demo ---------------------------------------------------------------------------------


def test_demo_keeps_its_promises(spawn: Callable[..., Any]) -> None:
    """The demo runs in an empty folder to its end, keeps each of its promises, and leaves no file."""
    done = spawn("demo", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["is_kept"] is True
    assert len(report["promises"]) >= 15
    assert [promise for promise in report["promises"] if not promise["is_kept"]] == []
    paths = [step["path"] for step in report["steps"][:5]]
    assert paths == ["/v3/fundingsources/program", "/v3/cardproducts", "/v3/users", "/v3/cards", "/v3/simulate/authorization"]
    assert list(Path.cwd().iterdir()) == []


def test_demo_prints_plain_lines(instance: Fresh, cardwright: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """If stdout is no terminal, the demo prints neither colours nor blanks at the ends of lines."""
    instance.client.request("POST", "/sandbox/reset", {})
    use(instance, monkeypatch)
    done = cardwright("demo")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "\x1b" not in done.out
    assert [line for line in lines if line != line.rstrip()] == []
    assert [int(line[:2]) for line in lines if re.match(r"[ 1]\d  \w", line)] == list(range(1, 15))
    assert "    transaction.gpa_order.funding.source.type   program" in lines
    assert "would pass if  the card's state is ACTIVE (POST /v3/cardtransitions)" in lines
    assert "BROKEN" not in done.out


def test_demo_fails_when_a_promise_is_broken(
    instance: Fresh, cardwright: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response that breaks a promise ends the demo with an error that names the promise."""
    instance.client.request("POST", "/sandbox/reset", {})
    instance.client.request("PUT", "/sandbox/program", {"mask_funding_source_tokens": True})
    use(instance, monkeypatch)
    try:
        done = cardwright("demo")
    finally:
        instance.client.request("PUT", "/sandbox/program", {"mask_funding_source_tokens": False})
    assert done.code == 1
    assert "results not as expected: the order names the funding source made in step 1" in done.err
    assert "BROKEN  the order names the funding source made in step 1" in done.out


def use(instance: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demo use the running instance, because a separate one would prove nothing more."""

    class Here:
        def __enter__(self) -> Fresh:
            return instance

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(demo_command, "fresh_instance", Here)


def test_refused_step_ends_the_demo(instance: Fresh, cardwright: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that the platform refuses ends the demo with the request and the status."""
    instance.client.request("POST", "/sandbox/reset", {})
    instance.client.request("POST", "/v3/fundingsources/program", {"token": "demo_funding", "name": "Somebody else's"})
    use(instance, monkeypatch)
    done = cardwright("demo")
    assert done.code == 1
    assert "POST /v3/fundingsources/program was answered 409" in done.err
