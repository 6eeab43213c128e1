"""End of server processes: within a limit if the shutdown hangs, and together with their parent."""

import os
import signal
import subprocess

import pytest

from tests.integration.edges.cli.test_serve import Server, running
from tests.support.failpoints import Failpoints
from tests.support.waiting import until

SAFETY_S = 60
"""A safety limit only, in seconds, for a busy machine."""


def descendants(pid: int) -> set[int]:
    """Return all descendants of a process."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listing.splitlines())}
    children = {child for child, parent in parents.items() if parent == pid}
    return children.union(*(descendants(child) for child in children))


def is_running(pid: int) -> bool:
    """Return True if the process runs and is no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return state != "" and not state.startswith("Z")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_that_hangs_is_ended(number: int) -> None:
    """A server whose shutdown hangs is ended with exit code 1 and one line on stderr, and leaves no process."""
    with Failpoints() as failpoints, running("--port", 0, env={**os.environ, **failpoints.environment}) as server:
        failpoints.arm("stop.before", "pause")
        started = descendants(server.process.pid)
        server.process.send_signal(number)
        assert failpoints.wait("stop.before", SAFETY_S)
        _, errors = server.process.communicate(timeout=SAFETY_S)
        assert failpoints.is_reached("stop.before"), "the shutdown must still hang when the process ends"
        assert server.process.returncode == 1
        assert errors.count("the process did not stop in time and is ended") == 1, errors
        until(lambda: not any(map(is_running, started)), SAFETY_S)


def test_worker_that_hangs_is_ended(postgres_url: str) -> None:
    """With two workers, one of which hangs in its shutdown, all processes end."""
    with Failpoints() as failpoints:
        environment = {**os.environ, **failpoints.environment}
        with running("--db", postgres_url, "--workers", 2, "--port", 0, env=environment) as server:
            failpoints.arm("stop.before", "pause")
            started = descendants(server.process.pid)
            assert len(started) >= 2
            server.process.terminate()
            assert failpoints.wait("stop.before", SAFETY_S)
            server.process.wait(SAFETY_S)
            assert failpoints.is_reached("stop.before"), "the shutdown must still hang when the process ends"
            until(lambda: not any(map(is_running, started)), SAFETY_S)


def test_workers_end_with_a_killed_parent(postgres_url: str) -> None:
    """SIGKILL of the parent also ends its workers."""
    server = Server("--db", postgres_url, "--workers", 2, "--port", 0)
    started = descendants(server.process.pid)
    assert len(started) >= 2
    server.process.kill()
    server.process.wait()
    until(lambda: not any(map(is_running, started)), SAFETY_S)
    server.process.communicate()


def test_clean_stop_has_exit_code_0() -> None:
    """A server that stops in time ends with exit code 0."""
    with running("--port", 0) as server:
        assert server.end() == 0
