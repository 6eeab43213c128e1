"""Restricted environments: a small disk that can be filled, and an unprivileged user."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import Account, owner_account


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """Mount a file system of this size at ``folder`` and yield the folder. Skips the test if mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, left: int = 0) -> Path:
    """Fill the file system except for ``left`` bytes; return the path of the file that fills it."""
    path = folder / "filler"
    space = os.statvfs(folder)
    with path.open("wb") as file:
        file.write(b"x" * max(space.f_bavail * space.f_frsize - left, 0))
    return path


def without_powers(folder: Path) -> dict[str, Any]:
    """Return options of ``subprocess`` for an unprivileged user, and make the user own ``folder``.

    Skips the test if that user cannot import Cardwright.
    """
    account = owner_account()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    if not _can_import(account):
        pytest.skip(f"the user {account.name} cannot read this environment")
    return account.popen


@cache
def _can_import(account: Account) -> bool:
    """Return whether processes of this user can import Cardwright."""
    command = [sys.executable, "-c", "import cardwright.edges.cli.commands"]
    return subprocess.run(command, capture_output=True, check=False, cwd="/", **account.popen).returncode == 0
