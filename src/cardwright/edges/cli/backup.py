"""`cardwright backup` and `cardwright restore`: a database in one file, and back into an empty database."""

import errno
import getpass
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cardwright import __version__
from cardwright.edges.cli.database_commands import check_current, database_of
from cardwright.edges.cli.output import Failure, Hint, print_notice, show_json
from cardwright.edges.cli.surroundings import command_with_place, variable_hint
from cardwright.kit.clock import system_ms
from cardwright.kit.files import new_file, open_file

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cardwright.settings import Settings
    from cardwright.storage.backup.backup_file import Header
    from cardwright.storage.backup.save import KeyFields
    from cardwright.storage.database import Database

PASSPHRASE = "CARDWRIGHT_BACKUP_PASSPHRASE"

EVERY_S = 0.2
"""Seconds between two lines of progress."""

SQLITE_FILES = ("", "-wal", "-shm")
"""Endings of the names of SQLite's files."""


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text in a line on the terminal, at most every ``EVERY_S`` seconds.

    It does nothing if stderr is not a terminal. At the end the line is removed.
    """
    is_shown, next_s = sys.stderr.isatty(), 0.0

    def show(text: str) -> None:
        nonlocal next_s
        if is_shown and time.monotonic() >= next_s:
            next_s = time.monotonic() + EVERY_S
            print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if is_shown:
            print(f"\r{'':<70}\r", end="", file=sys.stderr, flush=True)


# --- Backup -------------------------------------------------------------------------------


def backup(settings: "Settings", file: Path, *, with_keys: bool, is_replacing: bool, as_json: bool) -> None:
    """Write a backup of the database while it is in use. Raises Failure, OSError."""
    from cardwright.storage.backup.save import write_backup

    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    if os.path.lexists(file) and not is_replacing:
        command = f"cardwright backup {shlex.quote(str(file))}{' --with-keys' if with_keys else ''} --force"
        raise Failure(f"{file} exists", command_with_place(settings, command, "name another file, or replace it with --force"), 2)
    passphrase = _passphrase(settings, is_new=True) if with_keys else None
    with progress_line() as show, database_of(settings, is_read=True) as database:
        check_current(settings, database)
        _check_place(database, file)
        with new_file(file, is_replacing=is_replacing) as output:
            counts = write_backup(
                database, output, version=__version__, now=system_ms(),
                read_keys=lambda db: _key_fields(db, settings, passphrase),
                progress=lambda name, rows: show(f"{name}: {rows:,} rows"),
            )  # fmt: skip
        place = database.place
    size, rows = file.stat().st_size, sum(counts.values())
    if as_json:
        data = {"database": place, "file": str(file), "bytes": size, "rows": rows, "tables": counts, "with_keys": with_keys}
        show_json(data)
    print_notice(f"{file}: {rows:,} rows of {place} in {size:,} bytes, {'with' if with_keys else 'without'} keys")


def _check_place(database: "Database", file: Path) -> None:
    """Check that the backup does not replace the database. Raises Failure."""
    if database.is_sqlite and file.resolve() in [Path(database.path + ending).resolve() for ending in SQLITE_FILES]:
        raise Failure(f"{file} belongs to the database itself", Hint(text="name another file for the backup"), 2)


def _key_fields(db: "Connection", settings: "Settings", passphrase: str | None) -> "KeyFields":
    """Return the key check of the database and, with a passphrase, the sealed keys in use, which must be those of the database.

    Raises Failure, OSError.
    """
    from cardwright.kit.passphrase import seal
    from cardwright.storage.backup.save import KeyFields
    from cardwright.storage.data_keys import find_key_check

    key_check = find_key_check(db)
    if passphrase is None:
        return KeyFields(key_check)
    known = _available_secrets(settings)
    _check_key(known.get("master_key"), key_check, "the database")
    return KeyFields(key_check, seal(msgspec.json.encode(known).decode(), passphrase))


# --- Restore ------------------------------------------------------------------------------


def restore(settings: "Settings", file: Path, *, with_keys: bool, as_json: bool) -> None:
    """Load a backup into an empty database. Raises Failure, OSError; the database is then as before."""
    from cardwright.instance_secrets import SECRETS_FILE, data_dir_of, keep_secrets
    from cardwright.storage.backup.backup_file import BackupReader
    from cardwright.storage.backup.restore import check_revision
    from cardwright.storage.backup.restore import restore as load

    with progress_line() as show, open_file(file) as stream, _refusals(file):
        reader = BackupReader(stream, lambda fraction: show(f"{file}: {fraction:.0%} read"))
        check_revision(reader.header)
        known, restored = _keys_of(settings, reader.header, file, with_keys=with_keys)
        is_written = False

        def keep() -> None:
            # Before the commit: a repeat of the command would be refused after it, and finds its own file before it.
            nonlocal is_written
            is_written = bool(restored) and keep_secrets(settings, restored)

        with _idle_database(settings) as database:
            counts = load(database, reader, before_commit=keep)
            place = database.place
    rows, secrets_file = sum(counts.values()), data_dir_of(settings) / SECRETS_FILE
    if as_json:
        show_json({"database": place, "file": str(file), "rows": rows, "tables": counts, "keys_written": is_written})
    header = reader.header
    print_notice(f"{place}: {rows:,} rows of {header.created_time}, made by Cardwright {header.cardwright} on {header.database}")
    if is_written:
        print_notice(f"{secrets_file}: written")
    elif header.key_check is not None and "master_key" not in known:
        print_notice("help:  set CARDWRIGHT_MASTER_KEY to the master key of this database before you start a server")
    hint = command_with_place(settings, "cardwright verify")
    print_notice(f"next:  {hint.command}" if hint.command else f"help:  {hint.text}")


@contextmanager
def _idle_database(settings: "Settings") -> Iterator["Database"]:
    """Open the database, and keep servers from a SQLite file meanwhile. Raises Failure, OSError."""
    from cardwright.edges.cli.serve import lock_database_file
    from cardwright.instance_secrets import data_dir_of

    # The lock ends after the connections: closing a descriptor of the file would drop the locks of SQLite in this process.
    with ExitStack() as locks, database_of(settings, is_made=True) as database:
        if database.is_sqlite:
            locks.callback(os.close, lock_database_file(database.path, data_dir_of(settings).absolute()))
        yield database


def _keys_of(settings: "Settings", header: "Header", file: Path, *, with_keys: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Return the keys in use, and those in the backup if it is to be restored with them. Raises Failure, OSError.

    The master key in use must be that of the backup.
    """
    from cardwright.kit.passphrase import unseal

    known, restored = _available_secrets(settings), dict[str, str]()
    if with_keys:
        if header.keys is None:
            advice = "restore it without --with-keys, and set CARDWRIGHT_MASTER_KEY to the master key of its database"
            raise Failure(f"{file} has no keys", Hint(text=advice), 2)
        restored = msgspec.json.decode(unseal(header.keys, _passphrase(settings, is_new=False)), type=dict[str, str])
    if master_key := known.get("master_key", restored.get("master_key")):
        _check_key(master_key, header.key_check, str(file))
    return known, restored


@contextmanager
def _refusals(file: Path) -> Iterator[None]:
    """Raise Failure for a backup that cannot be restored."""
    from cardwright.kit.passphrase import WrongPassphrase
    from cardwright.storage.backup.backup_file import Unreadable
    from cardwright.storage.backup.restore import RestoreRefused

    try:
        yield
    except Unreadable as error:
        raise Failure(f"{file}: {error}", Hint(text="use another copy of the backup; the database is as before")) from None
    except RestoreRefused as error:
        raise Failure(str(error), Hint(text=error.advice)) from None
    except WrongPassphrase as error:
        advice = f"set {PASSPHRASE} to the passphrase of the backup; without it, restore the rows without --with-keys"
        raise Failure(f"{file}: {error}", Hint(text=advice), 2) from None


# --- Keys ---------------------------------------------------------------------------------


def _available_secrets(settings: "Settings") -> dict[str, str]:
    from cardwright.instance_secrets import Misconfigured, available_secrets

    try:
        return available_secrets(settings)
    except Misconfigured as error:
        raise Failure(str(error), Hint(text=error.advice)) from None


def _check_key(master_key: str | None, key_check: str | None, owner: str) -> None:
    """Check that the master key in use is that of a database or a backup. Raises Failure."""
    from cardwright.instance_secrets import OTHER_KEY_ADVICE, Misconfigured, key_check_of

    try:
        actual = None if master_key is None else key_check_of(master_key)
    except Misconfigured as error:
        raise Failure(str(error), Hint(text=error.advice), 2) from None
    if actual is None or key_check not in (None, actual):
        text = "there is no master key" if actual is None else f"the master key in use is not that of {owner}"
        raise Failure(text, Hint(text=OTHER_KEY_ADVICE), 2)


def _passphrase(settings: "Settings", *, is_new: bool) -> str:
    """Return the passphrase of the environment, or ask for it. Raises Failure if a new one is too short."""
    from cardwright.kit.passphrase import LENGTH_MIN

    if settings.backup_passphrase is not None:
        passphrase = settings.backup_passphrase.get_secret_value()
    elif sys.stdin.isatty():
        passphrase = getpass.getpass("Passphrase of the keys: ")
        if is_new and getpass.getpass("The same passphrase again: ") != passphrase:
            raise Failure("the two passphrases differ", Hint(text="repeat the command; nothing was written"), 2)
    else:
        advice = f"set {PASSPHRASE}, at least {LENGTH_MIN} characters, or call the command on a terminal"
        raise Failure("--with-keys needs a passphrase", Hint(text=advice), 2)
    if is_new and len(passphrase) < LENGTH_MIN:
        hint = variable_hint([PASSPHRASE], f"use a passphrase of at least {LENGTH_MIN} characters")
        raise Failure(f"{PASSPHRASE}: the passphrase has fewer than {LENGTH_MIN} characters", hint, 2)
    return passphrase
