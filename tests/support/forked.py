"""Forked commands: each forks from a process that has imported Cardwright, because the import takes most of the start time."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.postgres import Account

SECONDS = 120
"""Maximum wait for the end of a command, in seconds."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "__main__", "cardwright.edges.cli.commands", "cardwright.edges.cli.backtest", "cardwright.edges.cli.database_commands",
    "cardwright.edges.cli.explain", "cardwright.edges.cli.serve", "cardwright.edges.http.application",
    "cardwright.edges.http.server", "cardwright.settings", "cardwright.storage.migrate", "cardwright.storage.reset",
    "cardwright.wiring", __name__,
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Start:
    """The words of a command, its environment, folder and user, and the files to which its output and errors are appended."""

    words: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path
    output: Path
    errors: Path
    account: Account | None = None


class ForkedProcess:
    """A command in a forked process and in its own session, with the methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, start: Start) -> None:
        self._process = CONTEXT.Process(target=_command, args=(start,))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, the negative number of the signal that ended the process, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("cardwright", timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def run_forked(start: Start) -> int:
    """Run the command, wait for its end and return its exit code. Raises TimeoutError after ``SECONDS``."""
    process = ForkedProcess(start)
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        raise TimeoutError(f"still running after {SECONDS} s: {' '.join(start.words)}") from None


def _command(start: Start) -> None:
    os.setsid()
    for number, path in ((1, start.output), (2, start.errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(start.environment)
    sys.argv = ["cardwright", *start.words]
    os.chdir(start.cwd)
    if start.account is not None and start.account.uid != os.geteuid():
        os.setgroups([])
        os.setgid(start.account.gid)
        os.setuid(start.account.uid)
    from cardwright.edges.cli.commands import main

    main()
