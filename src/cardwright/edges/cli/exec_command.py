"""`cardwright exec`: runs a command with a new instance and removes the instance afterwards."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from cardwright.edges.cli.instance import fresh_instance
from cardwright.edges.cli.output import Failure, Hint
from cardwright.edges.cli.surroundings import failure_of_file, has_password

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

NOT_RUNNABLE = 127
"""The exit code of a shell for a command that is not found."""


def run_beside(command: Sequence[str], *, db: str | None, seed: int | None) -> int:
    """Return the command's exit code; 128 plus the signal's number if a signal ended it, as a shell does."""
    if not command:
        advice = "write the command and its arguments after --; the example prints the environment that a command gets"
        raise Failure("exec: no command is given", _example(db, seed, advice), 2)
    _check_command(command[0])
    options = [] if seed is None else ["--seed", str(seed)]
    with fresh_instance(db=db, options=options) as fresh:
        # The program that `cardwright program` created belongs to another instance.
        outer = {name: value for name, value in os.environ.items() if name != "CARDWRIGHT_PROGRAM"}
        code = _run(command, {**outer, **fresh.environment})
    return code if code >= 0 else 128 - code


def _example(db: str | None, seed: int | None, advice: str) -> Hint:
    if db is not None and has_password(db):
        return Hint(text=advice)
    options = [*(() if db is None else ("--db", db)), *(() if seed is None else ("--seed", str(seed)))]
    return Hint(shlex.join(["cardwright", "exec", *options, "--", "env"]), advice)


def _check_command(name: str) -> None:
    """Check that a command exists and is executable. Raises Failure if not."""
    if shutil.which(name) is not None:
        return
    try:
        os.stat(name)
    except FileNotFoundError:
        raise Failure(
            f"{name}: command not found", Hint(text="check the spelling and PATH, or give the path of the program"), NOT_RUNNABLE
        ) from None
    except OSError as error:
        raise failure_of_file(error, NOT_RUNNABLE) from None
    raise Failure(f"{name}: not executable", f"ls -ld {shlex.quote(name)}", NOT_RUNNABLE)


def _run(command: Sequence[str], env: Mapping[str, str]) -> int:
    child = subprocess.Popen(command, env=env)

    def forward(number: int, _frame: object) -> None:
        # The terminal sends its signals to all processes in the foreground, so the child has them already.
        if number not in FROM_THE_TERMINAL or not _is_in_foreground():
            with suppress(ProcessLookupError):
                child.send_signal(number)

    with ExitStack() as before:
        for number in FORWARDED:
            before.callback(signal.signal, number, signal.signal(number, forward))
        return child.wait()


def _is_in_foreground() -> bool:
    """Return whether the terminal sends its signals to this process group."""
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
