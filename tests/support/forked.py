"""Forked commands: each forks from a process that has imported Cardwright, because the import takes most of the start time."""

import multiprocessing
import os
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
    "cardwright.edges.cli.explain", "cardwright.edges.cli.serve", "cardwright.edges.http.server", "cardwright.settings",
    "cardwright.storage.migrate", "cardwright.storage.reset", "cardwright.wiring", __name__,
])  # fmt: skip


@dataclass(frozen=True)
class Start:
    """The words of a command, the folder and the user of its process, and the files for its output and its errors."""

    words: Sequence[str]
    cwd: Path
    account: Account | None
    output: Path
    errors: Path


def run_forked(start: Start) -> int:
    """Run the command with this process's environment, wait for its end and return its exit code. Raises TimeoutError."""
    process = CONTEXT.Process(target=_command, args=(start, dict(os.environ)))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"still running after {SECONDS} s: {' '.join(start.words)}")
    return process.exitcode


def _command(start: Start, environment: Mapping[str, str]) -> None:
    for number, path in ((1, start.output), (2, start.errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["cardwright", *start.words]
    os.chdir(start.cwd)
    if start.account is not None and start.account.uid != os.geteuid():
        os.setgroups([])
        os.setgid(start.account.gid)
        os.setuid(start.account.uid)
    from cardwright.edges.cli.commands import main

    main()
