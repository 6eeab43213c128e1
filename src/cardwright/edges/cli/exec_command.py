"""`cardwright exec`: runs a command beside an instance made for it, and leaves nothing behind."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from cardwright.edges.cli.instance import fresh_instance
from cardwright.edges.cli.output import Failure

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def run_beside(command: Sequence[str], *, db: str | None, seed: int | None) -> int:
    """The command's exit code; 128 more than the signal's number when a signal ended it, as a shell counts."""
    if not command:
        raise Failure("no command is given", "cardwright exec -- pytest", 2)
    if shutil.which(command[0]) is None:
        raise Failure(f"{command[0]}: command not found, or not executable", f"ls -l {command[0]}", 127)
    options = [] if seed is None else ["--seed", str(seed)]
    with fresh_instance(db=db, options=options) as fresh:
        # The program that `cardwright program` created belongs to another instance.
        outer = {name: value for name, value in os.environ.items() if name != "CARDWRIGHT_PROGRAM"}
        code = _run(command, {**outer, **fresh.environment})
    return code if code >= 0 else 128 - code


def _run(command: Sequence[str], env: Mapping[str, str]) -> int:
    child = subprocess.Popen(command, env=env)

    def forward(number: int, _frame: object) -> None:
        # What the terminal sends to its foreground processes has reached the child as well.
        if number not in FROM_THE_TERMINAL or not _is_in_foreground():
            with suppress(ProcessLookupError):
                child.send_signal(number)

    with ExitStack() as before:
        for number in FORWARDED:
            before.callback(signal.signal, number, signal.signal(number, forward))
        return child.wait()


def _is_in_foreground() -> bool:
    """Whether the terminal sends its signals to this process group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
