"""The commands that work on a database itself: `migrate`, `verify` and `reset`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cardwright.edges.cli.say import Failure, show_json, show_table, tell

if TYPE_CHECKING:
    from cardwright.ledger.invariants import Finding
    from cardwright.settings import Settings
    from cardwright.storage.database import Database
    from cardwright.wiring import Secrets


@contextmanager
def database_of(settings: "Settings", *, is_made: bool = False) -> Iterator["Database"]:
    """The database of the settings; a SQLite file that is not there is only made when asked for. Raises Failure."""
    from sqlalchemy.exc import DBAPIError

    from cardwright.storage.database import Database
    from cardwright.wiring import address_of

    try:
        database = Database(address_of(settings))
    except ValueError as error:
        raise Failure(str(error), "cardwright serve --db cardwright.db", 2) from None
    if database.is_sqlite and not is_made and not Path(database.path).exists():
        raise Failure(f"--db {database.place} does not exist", f"cardwright migrate --db {database.place}   (makes it)")
    try:
        yield database
    except DBAPIError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        hint = "cardwright serve --db another.db" if database.is_sqlite else f"psql '{database.place}'"
        raise Failure(f"--db {database.place}: {reason}", hint) from None
    finally:
        database.close()


@contextmanager
def migrated(settings: "Settings", *, is_made: bool = False) -> Iterator[tuple["Database", bool]]:
    """The database at the schema of this version, and whether it had to be brought there."""
    from cardwright.storage.migrate import migrate, newest, present

    with database_of(settings, is_made=is_made) as database:
        if (found := present(database)) is not None and found > newest():
            text = f"--db {database.place} is at revision {found}, which this version ({newest()}) does not know"
            raise Failure(text, "pip install --upgrade cardwright")
        yield database, migrate(database)


@contextmanager
def opened(settings: "Settings") -> Iterator[tuple["Database", "Secrets"]]:
    """The database as a server needs it, with the default program in it, and the keys to it."""
    from sqlalchemy.exc import IntegrityError

    from cardwright.wiring import Misconfigured, ensure_default_program, load_secrets, make_vault

    keys = load_secrets(settings)
    with migrated(settings, is_made=True) as (database, _):
        vault = make_vault(settings, keys)
        try:
            ensure_default_program(database, vault, settings, keys)
        except IntegrityError:
            # Another server made it since we looked; now it is found.
            ensure_default_program(database, vault, settings, keys)
        except Misconfigured as error:
            raise Failure(str(error), "cardwright serve --help") from None
        yield database, keys


def migrate(settings: "Settings", *, sql: bool) -> None:
    """Brings the database to the schema of this version, or prints the statements that would."""
    from cardwright.storage.migrate import sql_of_all
    from cardwright.wiring import data_dir_of

    if sql:
        with database_of(settings, is_made=True) as database:
            print(sql_of_all(database), end="")
        return
    if settings.db is None:
        data_dir_of(settings).mkdir(parents=True, exist_ok=True, mode=0o700)
    with migrated(settings, is_made=True) as (database, was_changed):
        tell(f"{database.place}: {'brought to' if was_changed else 'already at'} the schema of this version")


def verify(settings: "Settings", *, secrets: bool, as_json: bool) -> bool:
    """Checks every invariant on a database that may be in use; tells whether all of them hold."""
    from cardwright.ledger.invariants import findings
    from cardwright.storage.migrate import newest, present

    with database_of(settings) as database:
        if (found := present(database)) != newest():
            text = f"--db {database.place} is at revision {found or 'none'}, and this version checks {newest()}"
            raise Failure(text, "cardwright migrate")
        report = list(findings(database, secrets=secrets))
        place = database.place
    is_sound = not any(finding.broken for finding in report)
    if as_json:
        show_json({"database": place, "sound": is_sound, "invariants": [asdict(finding) for finding in report]})
    else:
        _show_report(report)
        tell(f"{place}: {'the books are sound' if is_sound else 'the books are not sound'}")
    return is_sound


def _show_report(report: list["Finding"]) -> None:
    rows = [(one.promise, one.says, one.examined, f"{one.broken} broken" if one.broken else "sound") for one in report]
    show_table(("", "always true", "rows", ""), rows, ["red" if one.broken else "" for one in report])
    for finding in report:
        for violation in finding.violations:
            print(f"{violation.name}: {violation.where}: expected {violation.expected}, found {violation.found}")
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
            _ask(database.place)
        with database.write() as db:
            program_id = find_program_token(db, DEFAULT_PROGRAM)
            if program_id is None:
                raise Failure(f"--db {database.place} has no default program yet", "cardwright serve")
            removed = reset_program(db, program_id, first_clock(settings))["removed"]
        rows = ", ".join(f"{count} {name}" for name, count in removed.items())
        tell(f"{database.place}: removed {rows or 'nothing, it was empty'}")


def _ask(place: str) -> None:
    if not sys.stdin.isatty():
        raise Failure("--yes is needed where nobody can be asked", "cardwright reset --yes", 2)
    tell(f"This removes all cards, users and transactions of the default program in {place}.")
    if input("Type yes to go on: ").strip().lower() != "yes":
        raise Failure("nothing was removed", "cardwright reset --yes")
