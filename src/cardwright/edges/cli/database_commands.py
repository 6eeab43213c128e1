"""The commands that work on a database itself: `migrate`, `verify` and `reset`."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cardwright.edges.cli.output import Failure, print_notice, show_json, show_table
from cardwright.edges.cli.surroundings import command_with_place, failure_of_database
from cardwright.kit.files import create_empty_file

if TYPE_CHECKING:
    from cardwright.ledger.invariants import Finding
    from cardwright.settings import Settings
    from cardwright.storage.database import Database
    from cardwright.wiring import Secrets


@contextmanager
def database_of(settings: "Settings", *, is_made: bool = False, is_read: bool = False) -> Iterator["Database"]:
    """The database of the settings. Raises Failure.

    A SQLite file that does not exist is made only if ``is_made``; one that cannot be written is accepted only if ``is_read``.
    """
    from sqlalchemy.exc import DBAPIError

    from cardwright.storage.database import Database
    from cardwright.storage.failures import Unavailable
    from cardwright.wiring import address_of

    address = address_of(settings)
    try:
        database = Database(address)
        # The parts of a PostgreSQL address are first needed when a connection is made.
        urlsplit(address)
    except ValueError as error:
        # The error of a wrong PostgreSQL address may repeat a part of the password.
        text = "--db is no valid postgresql:// address" if address.startswith("postgres") else str(error)
        raise Failure(text, "cardwright serve --db postgresql://user:password@host:5432/database", 2) from None
    if database.is_sqlite:
        if is_made:
            if settings.db is None:
                make_data_dir(settings)
            make_database_file(database.path)
        check_database_file(database.path, is_read=is_read)
    try:
        yield database
    except (DBAPIError, Unavailable) as error:
        raise failure_of_database(database, error) from None
    finally:
        database.close()


def make_data_dir(settings: "Settings") -> Path:
    """Make the data directory, which only its owner may enter. Raises Failure, OSError."""
    from cardwright.wiring import data_dir_of

    directory = data_dir_of(settings)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        raise Failure(f"--data-dir {directory}: not a folder", "cardwright serve --data-dir ~/.cardwright") from None
    return directory


def make_database_file(path: str) -> None:
    """Make an empty SQLite file that only its owner may read; SQLite gives the files beside it the same mode."""
    try:
        # SQLite, too, makes the file that a symbolic link names.
        create_empty_file(Path(os.path.realpath(path)))
    except FileNotFoundError:
        folder = Path(path).parent
        raise Failure(f"--db {path}: there is no folder {folder}", f"mkdir -p {folder}", 2) from None


def check_database_file(path: str, *, is_read: bool = False) -> None:
    """Refuse what cannot be a SQLite database before SQLite opens it. Raises Failure, OSError."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise Failure(f"--db {path} does not exist", f"cardwright migrate --db {path}   (makes it)") from None
    if not stat.S_ISREG(mode):
        raise Failure(f"--db {path} is not a regular file", f"ls -ld {path}")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    if not is_read and not os.access(path, os.W_OK):
        raise Failure(f"--db {path} may not be written", f"ls -ld {Path(path).parent} {path}")


@contextmanager
def migrated(settings: "Settings", *, is_made: bool = False) -> Iterator[tuple["Database", bool]]:
    """The database at the schema of this version, and whether it had to be brought there."""
    from cardwright.storage.migrate import MigrationBlocked, migrate, present

    with database_of(settings, is_made=is_made) as database:
        check_revision(database, present(database))
        try:
            was_changed = migrate(database)
        except MigrationBlocked as error:
            hint = f"{command_with_place(settings, 'cardwright migrate')}   (again, when it has ended)"
            raise Failure(f"--db {database.place}: {error}", hint) from None
        yield database, was_changed


def check_revision(database: "Database", revision: str | None) -> None:
    """Refuse a database at a revision that this version does not know. Raises Failure."""
    from cardwright.storage.migrate import newest, revisions

    if revision is None or revision in revisions():
        return
    text = f"--db {database.place} is at revision {revision}, which this version ({newest()}) does not know"
    if revision > newest():
        raise Failure(text, "pip install --upgrade cardwright")
    raise Failure(text, "cardwright --version   (the database was made by another one, or by another program)")


@contextmanager
def opened(settings: "Settings") -> Iterator[tuple["Database", "Secrets"]]:
    """The database as a server needs it, with the default program in it, and the keys to it."""
    from sqlalchemy.exc import IntegrityError

    from cardwright.wiring import Misconfigured, ensure_default_program, ensure_secrets, find_key_check, make_vault

    with migrated(settings, is_made=True) as (database, _):
        try:
            keys = ensure_secrets(settings, find_key_check(database))
            vault = make_vault(settings, keys)
            try:
                ensure_default_program(database, vault, settings, keys)
            except IntegrityError:
                # Another server inserted it after the look-up above; now the look-up finds it.
                ensure_default_program(database, vault, settings, keys)
        except Misconfigured as error:
            raise Failure(str(error), error.next_step) from None
        yield database, keys


def migrate(settings: "Settings", *, sql: bool) -> None:
    """Brings the database to the schema of this version, or prints the statements that would."""
    from cardwright.storage.migrate import sql_of_all

    if sql:
        with database_of(settings, is_made=True) as database:
            print(sql_of_all(database), end="")
        return
    with migrated(settings, is_made=True) as (database, was_changed):
        print_notice(f"{database.place}: {'brought to' if was_changed else 'already at'} the schema of this version")


def verify(settings: "Settings", *, secrets: bool, as_json: bool) -> bool:
    """Checks every invariant on a database that may be in use; tells whether all of them hold."""
    from cardwright.ledger.invariants import findings
    from cardwright.storage.migrate import newest, present

    with database_of(settings, is_read=True) as database:
        revision = present(database)
        check_revision(database, revision)
        if revision != newest():
            text = f"--db {database.place} is at revision {revision or 'none'}, and this version checks {newest()}"
            raise Failure(text, command_with_place(settings, "cardwright migrate"))
        report = list(findings(database, secrets=secrets))
        place = database.place
    is_sound = not any(finding.broken for finding in report)
    if as_json:
        show_json({"database": place, "sound": is_sound, "invariants": [asdict(finding) for finding in report]})
    else:
        _show_report(report)
        print_notice(f"{place}: {'the books are sound' if is_sound else 'the books are not sound'}")
    return is_sound


def _show_report(report: list["Finding"]) -> None:
    rows = [
        (finding.promise, finding.says, finding.examined, f"{finding.broken} broken" if finding.broken else "sound")
        for finding in report
    ]
    show_table(("", "always true", "rows", ""), rows, ["red" if finding.broken else "" for finding in report])
    for finding in report:
        for violation in finding.violations:
            print(f"{violation.name}: {violation.where}: expected {violation.expected}, found {violation.actual}")
        if finding.broken > len(finding.violations):
            print(f"{finding.name}: and {finding.broken - len(finding.violations)} more")


def reset(settings: "Settings", *, is_sure: bool) -> None:
    """Removes everything of the default program but its credentials and settings."""
    from cardwright.storage.programs import find_program_token
    from cardwright.storage.reset import reset_program
    from cardwright.wiring import DEFAULT_PROGRAM, first_clock

    if not settings.is_sandbox:
        raise Failure("--mode production: what was booked stays booked", "cardwright reset --mode sandbox", 2)
    with migrated(settings) as (database, _):
        if not is_sure:
            _ask(database.place, command_with_place(settings, "cardwright reset --yes"))
        with database.write() as db:
            program_id = find_program_token(db, DEFAULT_PROGRAM)
            if program_id is None:
                hint = command_with_place(settings, "cardwright serve")
                raise Failure(f"--db {database.place} has no default program yet", hint)
            removed = reset_program(db, program_id, first_clock(settings))["removed"]
        rows = ", ".join(f"{count} {name}" for name, count in removed.items())
        print_notice(f"{database.place}: removed {rows or 'nothing, it was empty'}")


def _ask(place: str, next_step: str) -> None:
    if not sys.stdin.isatty():
        raise Failure("--yes is needed when standard input is no terminal", next_step, 2)
    print_notice(f"This removes all cards, users and transactions of the default program in {place}.")
    if input("Type yes to go on: ").strip().lower() != "yes":
        raise Failure("nothing was removed", next_step)
