"""Outages of a SQLite database: a full disk, files that cannot be written, a lock that another process holds.

The database is on a separate small ext4 file system, whose image is in memory. ``mount -o remount,ro`` fails while a server has
files open for writing, and a tmpfs lets such a server write into immutable files. On ext4 an immutable file refuses every write,
even if a process has it open. A file system that became read-only after an error does the same.
"""

import contextlib
import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

IMAGE_BYTES = 96 << 20
MEMORY = Path("/dev/shm")

NOTICED_S = 8.0
"""The longest wait for the first refusal of a full or read-only disk."""

FELT_S = 1.0
"""Duration of an outage after the first refusal."""


class MountError(RuntimeError):
    """An error for a machine on which nothing can be mounted; the text has the reason."""


class Disk:
    """A mounted file system with room for one database: `with Disk() as disk: disk.database`.

    Raises MountError if the file system cannot be created or mounted.
    """

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="cardwright-disk-", dir=MEMORY if MEMORY.is_dir() else None)
        image, self.folder = Path(self._home.name, "image"), Path(self._home.name, "mount")
        self.folder.mkdir()
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        try:
            # -m 0: ext4 reserves no blocks for root, because the tests often run as root.
            _run("mkfs.ext4", "-q", "-m", "0", str(image))
            _run("mount", "-o", "loop", str(image), str(self.folder))
        except MountError:
            self._home.cleanup()
            raise

    @property
    def database(self) -> str:
        """The path of the database."""
        return str(self.folder / "cardwright.db")

    def fill(self) -> None:
        """Fill the disk to less than 1 KiB of free space."""
        with (self.folder / "ballast").open("wb") as file:
            size, end = IMAGE_BYTES, 0
            while size >= 1024:
                try:
                    os.posix_fallocate(file.fileno(), end, size)
                except OSError:
                    size //= 2
                else:
                    end += size

    def empty(self) -> None:
        """Remove the file that ``fill`` wrote."""
        (self.folder / "ballast").unlink()

    def set_read_only(self, is_read_only: bool) -> None:
        """Make the database and its log immutable, or writable again. The shared-memory file is mapped, so it is left alone."""
        files = [name for name in (self.database, f"{self.database}-wal") if Path(name).exists()]
        _run("chattr", "+i" if is_read_only else "-i", *files)

    def close(self) -> None:
        """Unmount and remove the file system."""
        with contextlib.suppress(MountError):
            self.set_read_only(False)
        _run("umount", str(self.folder))
        self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DiskFull:
    """A full disk, until ``FELT_S`` after the first refusal."""

    def __init__(self, disk: Disk, is_felt: Callable[[], bool]) -> None:
        self._disk, self._is_felt = disk, is_felt

    def strike(self) -> None:
        """Fill the disk."""
        self._disk.fill()

    def mend(self) -> float:
        """Free the disk."""
        _wait_until_felt(self._is_felt)
        self._disk.empty()
        return time.monotonic()


class ReadOnly:
    """Immutable files, until ``FELT_S`` after the first refusal."""

    def __init__(self, disk: Disk, is_felt: Callable[[], bool]) -> None:
        self._disk, self._is_felt = disk, is_felt

    def strike(self) -> None:
        """Make the files immutable."""
        self._disk.set_read_only(True)

    def mend(self) -> float:
        """Make the files writable."""
        _wait_until_felt(self._is_felt)
        self._disk.set_read_only(False)
        return time.monotonic()


class HeldLock:
    """A write lock of SQLite that another process holds for some seconds."""

    def __init__(self, path: str, seconds: float) -> None:
        self._seconds = seconds
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=20, check_same_thread=False)

    def strike(self) -> None:
        """Take the lock."""
        self._connection.execute("BEGIN IMMEDIATE")

    def mend(self) -> float:
        """Release the lock."""
        time.sleep(self._seconds)
        self._connection.execute("ROLLBACK")
        moment = time.monotonic()
        self._connection.close()
        return moment


def _wait_until_felt(is_felt: Callable[[], bool]) -> None:
    deadline = time.monotonic() + NOTICED_S
    while not is_felt() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(FELT_S)


def _run(*command: str) -> None:
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MountError(f"{command[0]} is not installed") from error
    if made.returncode:
        raise MountError(f"{' '.join(command)}: {made.stderr.strip() or made.returncode}")
