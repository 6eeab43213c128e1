"""Database commands: `migrate`, `verify` and `reset`."""

import errno
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from cardwright.edges.cli.output import Failure, Hint, print_notice, show_json
from cardwright.edges.cli.surroundings import check_folder, command_with_place, failure_of_database, nearest, serve_command
from cardwright.edges.cli.verify_report import show_report
from cardwright.kit.files import create_empty_file

if TYPE_CHECKING:
    from cardwright.instance_secrets import Secrets
    from cardwright.kit.vault import Vault
    from cardwright.settings import Settings
    from cardwright.storage.database import Database

T = TypeVar("T")


@contextmanager
def database_of(settings: "Settings", *, is_made: bool = False, is_read: bool = False) -> Iterator["Database"]:
    """Open the database of the settings. Raises Failure.

    A missing SQLite file is created only if ``is_made``. A file without write permission is accepted only if ``is_read``.
    """
    from sqlalchemy.exc import DBAPIError

    from cardwright.instance_secrets import address_of
    from cardwright.storage.database import Database
    from cardwright.storage.failures import Unavailable

    address = address_of(settings)
    if address == ":memory:":
        advice = "while that server runs, name the file that `serve` prints after `data`"
        raise Failure("--db :memory: is a private database of one server", Hint(text=advice), 2)
    try:
        database = Database(address)
        # The parts of a PostgreSQL address are first needed when a connection is made.
        urlsplit(address)
    except ValueError as error:
        # The error of a wrong PostgreSQL address may repeat a part of the password.
        text = "--db is not a valid postgresql:// address" if address.startswith("postgres") else str(error)
        advice = "use the path of a file, or postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        raise Failure(text, Hint(text=advice), 2) from None
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
    """Create the data directory with mode 0700. Raises Failure, OSError."""
    from cardwright.instance_secrets import data_dir_of

    directory = data_dir_of(settings)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        hint = Hint(f"ls -ld {shlex.quote(nearest(str(directory)))}", "name another folder with --data-dir")
        raise Failure(f"--data-dir {directory}: not a folder", hint) from None
    return directory


def make_database_file(path: str) -> None:
    """Create an empty SQLite file of mode 0600; SQLite gives its other files the same mode. Raises Failure, OSError."""
    # SQLite, too, creates the file that a symbolic link names.
    target = os.path.realpath(path)
    check_folder(path)
    check_folder(target)
    create_empty_file(Path(target))


def check_database_file(path: str, *, is_read: bool = False) -> None:
    """Check that a path can be a SQLite database before SQLite opens it. Raises Failure, OSError."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        advice = (
            "name the database of a server with --db or --data-dir, or call the command in the folder where the server was "
            f"started; the current folder is {Path.cwd()}"
        )
        command = f"ls -la {shlex.quote(nearest(os.path.abspath(path)))}"
        raise Failure(f"--db {path} does not exist", Hint(command, advice)) from None
    if not stat.S_ISREG(mode):
        raise Failure(f"--db {path} is not a regular file", f"ls -ld {shlex.quote(path)}")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    if not is_read and not os.access(path, os.W_OK):
        raise Failure(f"--db {path} may not be written by this user", f"ls -ld {shlex.join((str(Path(path).parent), path))}")


@contextmanager
def migrated(
    settings: "Settings", *, is_made: bool = False, check: Callable[["Settings", "Database"], None] | None = None
) -> Iterator[tuple["Database", bool]]:
    """Migrate the database to the schema of this version. Yield it, and True if it had another schema. Raises Failure.

    An empty database is migrated only if ``is_made``. ``check`` may refuse a database with tables before its migration.
    """
    from cardwright.storage.migrate import MigrationBlocked, migrate, present

    with database_of(settings, is_made=is_made) as database:
        revision = present(database)
        check_revision(database, revision)
        if revision is None and not is_made:
            raise _empty(database)
        if revision is not None and check is not None:
            check(settings, database)
        try:
            was_changed = migrate(database)
        except MigrationBlocked as error:
            advice = "migrate again when the other migration or transaction has ended"
            raise Failure(f"--db {database.place}: {error}", command_with_place(settings, "cardwright migrate", advice)) from None
        yield database, was_changed


def _empty(database: "Database") -> Failure:
    """Return the failure for a database without tables. A migration would only create empty ones."""
    return Failure(f"--db {database.place} has no tables of Cardwright", Hint(text="name the database of a server with --db"))


def check_revision(database: "Database", revision: str | None) -> None:
    """Check that the revision of the database is among the migrations of this version. Raises Failure."""
    from cardwright.storage.migrate import newest, revisions

    if revision is None or revision in revisions():
        return
    text = f"--db {database.place} is at revision {revision}, which this version ({newest()}) does not know"
    if revision > newest():
        raise Failure(text, Hint(text=f"install the version of Cardwright that has revision {revision}"))
    raise Failure(text, Hint("cardwright --version", "another version or another program made this database"))


def check_current(settings: "Settings", database: "Database") -> None:
    """Check that the database has the schema of this version. Raises Failure."""
    from cardwright.storage.migrate import newest, present

    revision = present(database)
    check_revision(database, revision)
    if revision is None:
        raise _empty(database)
    if revision != newest():
        text = f"--db {database.place} is at revision {revision}, and this version works with {newest()}"
        raise Failure(text, command_with_place(settings, "cardwright migrate"))


@contextmanager
def current_database(settings: "Settings", *, is_read: bool = False) -> Iterator["Database"]:
    """Open a database that has the schema of this version. Raises Failure."""
    with database_of(settings, is_read=is_read) as database:
        check_current(settings, database)
        yield database


def check_mode(settings: "Settings", database: "Database") -> None:
    """Check that a server in the mode of the settings may open the database. Raises Failure."""
    from cardwright.settings import Mode
    from cardwright.wiring import find_mode

    if (mode := find_mode(database)) in (None, settings.mode):
        return
    if mode == Mode.PRODUCTION:
        hint = serve_command(settings, "for another database, use --db; for this one, set CARDWRIGHT_MODE", mode=Mode.PRODUCTION)
        raise Failure(f"--db {database.place} is a production database, and CARDWRIGHT_MODE is {settings.mode}", hint, 2)
    advice = "production mode needs a new database, because cards and money of a sandbox are fictitious; name it with --db"
    text = f"--db {database.place} is a sandbox database, and CARDWRIGHT_MODE is {settings.mode}"
    raise Failure(text, Hint(text=advice), 2)


def check_reset(_settings: "Settings", database: "Database") -> None:
    """Check that the objects in the database may be deleted. Raises Failure."""
    from cardwright.settings import Mode
    from cardwright.wiring import find_mode

    if find_mode(database) == Mode.PRODUCTION:
        advice = "name a sandbox database with --db; whatever CARDWRIGHT_MODE is, no command deletes objects in this one"
        raise Failure(f"--db {database.place} is a production database: reset removes nothing in it", Hint(text=advice), 2)


@contextmanager
def opened(settings: "Settings") -> Iterator[tuple["Database", "Secrets"]]:
    """Open the database for a server: migrated, with the default program, and with its keys. Raises Failure, OSError."""
    from cardwright.instance_secrets import Misconfigured, ensure_secrets
    from cardwright.storage.data_keys import find_key_check
    from cardwright.wiring import ensure_default_program, open_vault, seal_rows_in_clear

    with migrated(settings, is_made=True, check=check_mode) as (database, _):
        try:
            settings = without_client_tokens(settings)
            with database.read() as db:
                key_check = find_key_check(db)
            keys = ensure_secrets(settings, key_check)
            vault = _unless_inserted(partial(open_vault, database, settings))
            replaced = _unless_inserted(partial(ensure_default_program, database, vault, settings, keys))
            seal_rows_in_clear(database, vault)
        except Misconfigured as error:
            raise Failure(str(error), Hint(text=error.advice)) from None
        if former := ", ".join(replaced):
            print_notice(f"notice: the default program has new credentials; the former ones ({former}) open nothing now")
        yield database, keys


def without_client_tokens(settings: "Settings") -> "Settings":
    """Return the settings of a sandbox server without tokens that the shell has loaded for client programs.

    ``status -o env`` and ``program -o env`` set CARDWRIGHT_BASE_URL together with the tokens. These belong to the instance at
    that address. A data directory with a master key and without tokens has always got its tokens from the environment, so
    they stay then.
    """
    from cardwright.instance_secrets import SECRETS_FILE, data_dir_of, find_kept_pair

    names = ("CARDWRIGHT_APPLICATION_TOKEN", "CARDWRIGHT_ACCESS_TOKEN")
    if not settings.is_sandbox or "CARDWRIGHT_BASE_URL" not in os.environ or not all(name in os.environ for name in names):
        return settings
    kept = find_kept_pair(settings)
    if kept is None and os.path.lexists(data_dir_of(settings) / SECRETS_FILE):
        return settings
    if kept != tuple(os.environ[name] for name in names):
        address = os.environ["CARDWRIGHT_BASE_URL"]
        print_notice(f"notice: {' and '.join(names)} belong to {address}; this server has credentials of its own")
    return settings.model_copy(update={"application_token": None, "access_token": None})


def _unless_inserted(step: Callable[[], T]) -> T:
    """Return the result of a step that inserts missing rows."""
    from sqlalchemy.exc import IntegrityError

    try:
        return step()
    except IntegrityError:
        # Another server inserted them after the look-up, so a second look-up finds them.
        return step()


def migrate(settings: "Settings", *, sql: bool, as_json: bool) -> None:
    """Migrate the database to the schema of this version, or print the SQL statements of the migration."""
    from cardwright.storage.migrate import newest, sql_of_all

    if sql:
        with database_of(settings, is_made=True) as database:
            statements = sql_of_all(database)
            if as_json:
                show_json({"database": database.place, "revision": newest(), "sql": statements})
            else:
                print(statements, end="")
        return
    with migrated(settings, is_made=True) as (database, was_changed):
        if as_json:
            show_json({"database": database.place, "revision": newest(), "was_changed": was_changed})
        print_notice(f"{database.place}: {'migrated to' if was_changed else 'already at'} the schema of this version")


def verify(settings: "Settings", *, secrets: bool, as_json: bool) -> bool:
    """Check every invariant on a database that may be in use. Return whether all of them hold."""
    from cardwright.ledger.invariants import PROMISES, findings

    with current_database(settings, is_read=True) as database:
        report = list(findings(database, vault=_vault_of(settings, database) if secrets else None))
        place = database.place
    is_sound = not any(finding.broken for finding in report)
    if as_json:
        invariants = [asdict(finding) for finding in report]
        show_json({"database": place, "sound": is_sound, "promises": PROMISES, "invariants": invariants})
    else:
        show_report(report)
        print_notice(f"{place}: {'all invariants hold' if is_sound else 'at least one invariant is broken'}")
    return is_sound


def _vault_of(settings: "Settings", database: "Database") -> "Vault":
    """Return the vault of the database: a search for secrets needs to know them. Raises Failure, OSError."""
    from cardwright.instance_secrets import Misconfigured
    from cardwright.wiring import vault_of

    try:
        return vault_of(settings, database)
    except Misconfigured as error:
        raise Failure(f"--secrets: {error}", Hint(text=error.advice)) from None


def reset(settings: "Settings", *, is_sure: bool, as_json: bool) -> None:
    """Remove everything of the default program except its credentials and settings."""
    from cardwright.storage.programs import find_program_token
    from cardwright.storage.reset import reset_program
    from cardwright.wiring import DEFAULT_PROGRAM, first_clock

    if not settings.is_sandbox:
        advice = "name a sandbox database with --db, and set --mode sandbox or CARDWRIGHT_MODE"
        raise Failure("--mode production: reset removes nothing in production mode", Hint(text=advice), 2)
    with migrated(settings, check=check_reset) as (database, _):
        if not is_sure:
            mode = " --mode sandbox" if "mode" in settings.model_fields_set else ""
            _ask(database.place, command_with_place(settings, f"cardwright reset --yes{mode}"))
        with database.write() as db:
            program_id = find_program_token(db, DEFAULT_PROGRAM)
            if program_id is None:
                hint = Hint(text="there is nothing to remove; the first start of a server creates the default program")
                raise Failure(f"--db {database.place} has no default program yet", hint)
            removed = reset_program(db, program_id, first_clock(settings))["removed"]
        if as_json:
            show_json({"database": database.place, "removed": removed})
        rows = ", ".join(f"{count} {name}" for name, count in removed.items())
        print_notice(f"{database.place}: removed {rows or 'nothing, it was empty'}")


def _ask(place: str, hint: Hint) -> None:
    """Ask for confirmation on the terminal. Raises Failure without one."""
    if not sys.stdin.isatty():
        raise Failure("reset needs --yes if standard input is not a terminal", hint, 2)
    print_notice(f"This removes all cards, users and transactions of the default program in {place}.")
    try:
        reply = input("Type yes to continue: ")
    except EOFError:
        reply = ""
    if reply.strip().lower() != "yes":
        raise Failure("not confirmed; nothing was removed", hint)
