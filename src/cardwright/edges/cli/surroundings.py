"""Failures of the environment: errors of files, folders, settings and databases, each with the command to type next."""

import errno
import fcntl
import os
import shlex
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardwright.edges.cli.output import Failure, Hint

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

    from cardwright.settings import Settings
    from cardwright.storage.database import Database
    from cardwright.storage.failures import Unavailable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

PLACE = ("db", "data_dir")
"""The settings for the location of an instance's data."""

SERVE_OPTIONS = (*PLACE, "host", "port", "workers", "tls", "mode", "seed", "allow_simulate", "log_level")
"""The settings that are options of ``serve``."""

ENV_FILE = Path(".env")


# --- Hints --------------------------------------------------------------------------------


def command_with_place(settings: "Settings", command: str, text: str = "") -> Hint:
    """Return a command to type next, with the ``--db`` and ``--data-dir`` that were given, and the advice ``text``.

    Without them the command would work on the database of the default data directory.
    """
    return _with_options(settings, command, PLACE, text)


def serve_command(settings: "Settings", text: str = "", **changes: Any) -> Hint:
    """Return ``cardwright serve`` with the options that were given, except for ``changes``. None drops an option."""
    return _with_options(settings.model_copy(update=changes), "cardwright serve", SERVE_OPTIONS, text)


def _with_options(settings: "Settings", command: str, names: tuple[str, ...], text: str) -> Hint:
    """Return a hint that repeats the options which the environment does not set.

    A DSN with a password is not printed, and with ``***`` in its place it would not work. Then the hint is advice in words.
    """
    inherited = inherited_settings()
    words = list[str]()
    for name in names:
        value, option = getattr(settings, name), name.replace("_", "-")
        if value is None or value == getattr(inherited, name):
            continue
        if name == "db" and has_password(value):
            advice = f"run `{command}` with the same --db as before (its password is not repeated here)"
            return Hint(text=f"{text}; {advice}" if text else advice)
        words += [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    return Hint(f"{command} {shlex.join(words)}" if words else command, text)


def inherited_settings() -> "Settings":
    """Return the settings that the next command has without options: those of the environment and of ``.env``."""
    from pydantic import ValidationError

    from cardwright.settings import Settings

    try:
        return Settings()
    except (ValidationError, UnicodeError, OSError):
        return Settings.model_construct()


def has_password(address: str) -> bool:
    """Return whether a database address has a password in it, in clear or as ``***``."""
    from cardwright.storage.database import without_password

    rest = address.partition("://")[2]
    return ":***@" in rest or without_password(address).partition("://")[2] != rest


def variable_hint(names: list[str], text: str = "") -> Hint:
    """Return the hint for wrong settings: ``unset`` for variables, the lines to correct for ``.env``."""
    wanted = {name.upper() for name in names}
    if variables := sorted(name for name in os.environ if name.upper() in wanted):
        return Hint(f"unset {' '.join(variables)}", text)
    if ENV_FILE.is_file():
        pattern = "".join(f" -e {name}" for name in sorted(wanted))
        advice = f"correct or remove the line in {ENV_FILE.absolute()}"
        return Hint(f"grep -in{pattern} {ENV_FILE}", f"{text}; {advice}" if text else advice)
    return Hint(text=text or "correct the option")


# --- Files and folders --------------------------------------------------------------------


def failure_of_file(error: OSError, code: int = 1) -> Failure:
    """Return the failure for an error of the operating system; it names the file."""
    reason = error.strerror or str(error) or type(error).__name__
    is_full = error.errno in FULL
    if error.filename is None:
        advice = "check the output device, its free space and the limits of this process"
        return Failure(reason, Hint("df -h") if is_full else Hint(text=advice), code)
    path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
    command = f"df -h {shlex.quote(nearest(_folder_of(path)))}" if is_full else f"ls -ld {shlex.quote(nearest(path))}"
    return Failure(f"{path}: {reason}", command, code)


def check_folder(path: str) -> None:
    """Check that the folder of a database file exists. Raises Failure if it does not, OSError if it cannot be entered."""
    folder = Path(path).parent
    try:
        mode = os.stat(folder).st_mode
    except FileNotFoundError:
        raise Failure(f"--db {path}: the folder {folder} does not exist", f"mkdir -p {shlex.quote(str(folder))}", 2) from None
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def nearest(path: str) -> str:
    """Return the path, or the nearest of its parents that exists."""
    while not os.path.lexists(path) and _folder_of(path) != path:
        path = _folder_of(path)
    return path


def _folder_of(path: str) -> str:
    return os.path.dirname(path) or "."


# --- Databases ----------------------------------------------------------------------------


def failure_of_database(database: "Database", error: "DBAPIError | Unavailable") -> Failure:
    """Return the failure for an error of a database; it names ``--db`` without a password."""
    from sqlalchemy.exc import DBAPIError

    from cardwright.storage.failures import reason_of

    if database.is_sqlite:
        cause = error if isinstance(error, DBAPIError) else error.__cause__
        hint = _sqlite_hint(database.path, cause.orig if isinstance(cause, DBAPIError) else cause)
    else:
        hint = _postgres_hint(database.dsn)
    return Failure(f"--db {database.place}: {reason_of(error)}", hint)


def _postgres_hint(dsn: str) -> Hint:
    advice = "check that the server runs, and check host, port, user, password and database in --db"
    if dsn == os.environ.get("CARDWRIGHT_DB"):
        return Hint("psql \"$CARDWRIGHT_DB\" -c 'SELECT 1'", advice)
    return Hint(text=advice) if has_password(dsn) else Hint(f"psql {shlex.quote(dsn)} -c 'SELECT 1'", advice)


def _sqlite_hint(path: str, error: object) -> Hint:
    code = error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode") else 0
    folder = nearest(_folder_of(path))
    match code:
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return Hint(f"df -h {shlex.quote(folder)}")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return Hint(f"ls -ld {shlex.join(dict.fromkeys((folder, nearest(path))))}")
        case sqlite3.SQLITE_BUSY:
            return Hint(text="another process keeps a lock on the file; stop that process, or repeat the command later")
        case _:
            return Hint(text=f"restore {path} from a backup, or name another database with --db")


@contextmanager
def locked_data_dir(directory: Path) -> Iterator[None]:
    """Lock a data directory against other commands that replace ``secrets.json``, which would lose one of both changes.

    Raises Failure, OSError.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            advice = "run the command again when the other one has ended"
            raise Failure(f"--data-dir {directory}: another command is replacing its secrets", Hint(text=advice)) from None
        yield
    finally:
        os.close(descriptor)
