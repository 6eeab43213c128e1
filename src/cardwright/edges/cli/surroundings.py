"""Failures of the surroundings: errors of files, folders and databases as one line and the command to type next."""

import errno
import os
import shlex
import sqlite3
from typing import TYPE_CHECKING

from cardwright.edges.cli.output import Failure

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

    from cardwright.settings import Settings
    from cardwright.storage.database import Database
    from cardwright.storage.failures import Unavailable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def command_with_place(settings: "Settings", command: str) -> str:
    """Return a command to type next, with the ``--db`` and ``--data-dir`` of the settings, quoted for the shell.

    Without them it would work on the database of the default data directory. A password is shown as ``***``.
    """
    from cardwright.storage.database import without_password

    words = []
    if settings.db is not None:
        words += ["--db", without_password(settings.db) if "://" in settings.db else settings.db]
    if settings.data_dir is not None:
        words += ["--data-dir", str(settings.data_dir)]
    return f"{command} {shlex.join(words)}" if words else command


def failure_of_file(error: OSError) -> Failure:
    """Return the failure that an error of the operating system means; it names the file."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return Failure(reason, "df -h" if error.errno in FULL else "")
    path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
    return Failure(f"{path}: {reason}", f"df -h {_folder_of(path)}" if error.errno in FULL else f"ls -ld {_nearest(path)}")


def failure_of_database(database: "Database", error: "DBAPIError | Unavailable") -> Failure:
    """Return the failure that a database's refusal means; it names ``--db`` without a password."""
    from sqlalchemy.exc import DBAPIError

    from cardwright.storage.failures import reason_of

    cause = error if isinstance(error, DBAPIError) else error.__cause__
    hint = f"psql '{database.place}'"
    if database.is_sqlite:
        hint = _sqlite_hint(database.path, cause.orig if isinstance(cause, DBAPIError) else cause)
    return Failure(f"--db {database.place}: {reason_of(error)}", hint)


def _sqlite_hint(path: str, error: object) -> str:
    code = error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode") else 0
    match code:
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return f"df -h {_folder_of(path)}"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return f"ls -ld {_folder_of(path)} {path}"
        case sqlite3.SQLITE_BUSY:
            return f"fuser {path}   (shows the processes that use it)"
        case _:
            return f"restore {path} from a backup, or  cardwright serve --db another.db"


def _folder_of(path: str) -> str:
    return os.path.dirname(path) or "."


def _nearest(path: str) -> str:
    """The path, or the first of its parents that exists: what explains the error is there."""
    while not os.path.lexists(path) and _folder_of(path) != path:
        path = _folder_of(path)
    return path
