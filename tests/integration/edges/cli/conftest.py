"""Fixtures of the command line: commands in this process, or in a separate one if signals matter."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def a_clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start each test in an empty folder and without variables of Cardwright. Return the folder."""
    for name in [name for name in os.environ if name.startswith("CARDWRIGHT_") and not name.startswith("CARDWRIGHT_TEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cardwright(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs a command in this process, which is twenty times faster than a separate one."""
    from cardwright.edges.cli.commands import main

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["cardwright", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as ended:
            code = ended.code
        output = capsys.readouterr()
        return Done(int(code or 0), output.out, output.err)

    return run


def command_line(*arguments: object) -> list[str]:
    """Return the arguments that start a command in a separate process."""
    return [sys.executable, "-m", "cardwright", *map(str, arguments)]


@pytest.fixture
def spawn() -> Callable[..., Done]:
    """Return a function that runs a command in a separate process and waits for its end."""

    def run(*arguments: object, **options: Any) -> Done:
        done = subprocess.run(command_line(*arguments), capture_output=True, text=True, check=False, timeout=120, **options)
        return Done(done.returncode, done.stdout, done.stderr)

    return run
