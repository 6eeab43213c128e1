"""Small files: complete reads and atomic writes. An OSError raised here names the file."""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cardwright.kit.failpoints import failpoint

PRIVATE = 0o600


def read_file(path: Path) -> bytes:
    """Return the content of a regular file. Raises OSError; for a FIFO it does so at once and does not wait for a writer."""
    with open_file(path) as file:
        return file.read()


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a regular file, open for reading. Raises OSError like ``read_file``."""
    with _errors_naming(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            file = os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    with file:
        yield file


def create_file(path: Path, content: bytes) -> bool:
    """Create a file of mode 0600 and return True, or return False if it exists. Of concurrent callers exactly one creates it.

    A crash or a full disk leaves no file or a complete one, because the content is on disk before the name exists.
    """
    with _temporary(path, content, PRIVATE) as temporary, _errors_naming(path):
        failpoint("file.written")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
    return True


def replace_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file, replacing an existing one. A crash or a full disk leaves the old one or the new one."""
    with _temporary(path, content, mode) as temporary, _errors_naming(path):
        temporary.replace(path)
        _sync_folder(path.parent)


@contextmanager
def new_file(path: Path, *, is_replacing: bool) -> Iterator[BinaryIO]:
    """Yield the new file ``<path>.part`` of mode 0600. At the end it is on disk and gets its name.

    An exception removes it, so that an existing file stays as it is. A killed process leaves it, and the next call writes over
    it. Raises FileExistsError if ``path`` exists and ``is_replacing`` is false, and BlockingIOError if another process writes it.
    """
    part = path.with_name(f"{path.name}.part")
    with _errors_naming(part):
        file = os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, PRIVATE), "wb")
    try:
        with _errors_naming(part):
            _take(file.fileno(), part)
        try:
            with _errors_naming(part):
                yield file
                file.flush()
                os.fsync(file.fileno())
            failpoint("file.written")
            if not is_replacing and os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            with _errors_naming(path):
                part.replace(path)
                _sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)
    finally:
        # After an error such as a full disk, the buffered rest cannot be written either.
        with suppress(OSError):
            file.close()


def _take(descriptor: int, part: Path) -> None:
    """Lock and empty a part file. Raises BlockingIOError if another process writes it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # The process that had the lock may have renamed the file before.
    if not os.path.lexists(part) or not os.path.samestat(os.fstat(descriptor), os.lstat(part)):
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
    os.fchmod(descriptor, PRIVATE)
    os.ftruncate(descriptor, 0)


def create_empty_file(path: Path) -> None:
    """Create an empty file of mode 0600 under any umask; a file that exists stays as it is.

    Raises OSError if it cannot be created.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
    except FileExistsError:
        return
    _sync_folder(path.parent)


@contextmanager
def _temporary(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """Yield a file next to ``path`` with the content on disk. It is removed at the end unless it was renamed."""
    with _errors_naming(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with _errors_naming(path), os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Raise OSErrors of the block again with the file's name: some calls only have a descriptor or the temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _sync_folder(folder: Path) -> None:
    """Sync the folder's entries to disk: fsync of a file does not cover its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
