"""`cardwright credentials`: list, add, rotate and revoke, directly in the database."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardwright.edges.cli.database_commands import current_database
from cardwright.edges.cli.output import Failure, Hint, print_notice, show_fields, show_json, show_table
from cardwright.edges.cli.surroundings import command_with_place, locked_data_dir

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cardwright.core.problems import Problem
    from cardwright.kit.vault import Vault
    from cardwright.resources.sandbox.credentials import CredentialCreated
    from cardwright.settings import Settings
    from cardwright.storage.database import Database


def list_credentials(settings: "Settings", program: str, *, as_json: bool) -> None:
    """Print the valid credentials of a program. Raises Failure."""
    from msgspec import to_builtins

    from cardwright.resources.sandbox.credentials import credential_of
    from cardwright.storage.credentials import list_credentials

    with current_database(settings) as database, database.read() as db:
        rows = list_credentials(db, _program_id(db, database, program))
    shown = [to_builtins(credential_of(row)) for row in rows]
    if as_json:
        show_json({"database": database.place, "program": program, "credentials": shown})
        return
    show_table(
        ("credential", "created", "origin"),
        [(row["token"], row["created_time"], "given" if row["given"] else "added") for row in shown],
    )


def add_credential(settings: "Settings", program: str, *, as_json: bool) -> None:
    """Create a further credential of a program and print it with its tokens. Raises Failure, OSError."""
    with _problems_of(settings, program), current_database(settings) as database:
        created, path = _Creation(settings, database, program).create(None)
    _show_created(program, created, path, as_json=as_json)


def rotate_credential(settings: "Settings", program: str, token: str | None, *, as_json: bool) -> None:
    """Create the successor of a credential, by default of the only valid one, and print it. Raises Failure, OSError."""
    from cardwright.storage.credentials import list_credentials

    with _problems_of(settings, program), current_database(settings) as database:
        if token is None:
            with database.read() as db:
                tokens = [row.token for row in list_credentials(db, _program_id(db, database, program))]
            if len(tokens) != 1:
                verb = "list" if tokens else "add"
                text = f"TOKEN is missing: the program {program} has {len(tokens)} valid credentials"
                raise Failure(text, _command(settings, program, verb), 2)
            (token,) = tokens
        created, path = _Creation(settings, database, program).create(token)
    _show_created(program, created, path, as_json=as_json)
    next_command = _command(settings, program, f"revoke {token}").command
    print_notice(f"The credential {token} stays valid. When no client uses it:  {next_command}")


def revoke_credential(settings: "Settings", program: str, token: str, *, is_forced: bool, as_json: bool) -> None:
    """Revoke a credential of a program. Raises Failure."""
    from msgspec import to_builtins

    from cardwright.kit.clock import system_ms
    from cardwright.resources.sandbox.credentials import revoke_in

    with _problems_of(settings, program), current_database(settings) as database, database.write() as db:
        revoked = revoke_in(db, _program_id(db, database, program), token, system_ms(), is_forced=is_forced)
    if as_json:
        show_json({"program": program, **to_builtins(revoked)})
    print_notice(f"revoked the credential {token} of the program {program}; running servers refuse it within a second")
    if revoked.given:
        print_notice(
            "notice: the servers of this database were started with it; before the next start, set CARDWRIGHT_APPLICATION_TOKEN "
            "and CARDWRIGHT_ACCESS_TOKEN to other credentials, or call `cardwright credentials add` if secrets.json has it"
        )


@dataclass(frozen=True, slots=True)
class _Creation:
    """The creation of a credential, which may also replace the one in ``secrets.json``."""

    settings: "Settings"
    database: "Database"
    program: str

    def create(self, replaced: str | None) -> tuple["CredentialCreated", Path | None]:
        """Return the new credential, and the path of ``secrets.json`` if the file now has it.

        The file gets the new credential of the default program if servers take theirs from it, and if its present one is
        replaced or opens nothing. Raises Problem, Failure and OSError.
        """
        from cardwright.instance_secrets import SECRETS_FILE, Misconfigured, data_dir_of, keep_pair
        from cardwright.kit.clock import system_ms
        from cardwright.kit.ids import Ids
        from cardwright.resources.sandbox.credentials import add_to
        from cardwright.storage.credentials import list_credentials, move_given
        from cardwright.wiring import vault_of

        directory = data_dir_of(self.settings)
        is_locked = os.path.lexists(directory / SECRETS_FILE)
        try:
            vault = vault_of(self.settings, self.database)
            with locked_data_dir(directory) if is_locked else nullcontext(), self.database.write() as db:
                program_id = _program_id(db, self.database, self.program)
                is_kept = self._replaces_kept(db, vault, replaced)
                created = add_to(db, program_id, vault, Ids(), system_ms(), replaced)
                if not is_kept:
                    return created, None
                if not any(row.is_given and row.token != replaced for row in list_credentials(db, program_id)):
                    move_given(db, program_id, created.token)
                # Before the commit, so that a full disk undoes both.
                return created, keep_pair(self.settings, created.application_token, created.access_token)
        except Misconfigured as error:
            raise Failure(str(error), Hint(text=error.advice)) from None

    def _replaces_kept(self, db: "Connection", vault: "Vault", replaced: str | None) -> bool:
        """Return True if the new credential belongs into ``secrets.json``."""
        from cardwright.instance_secrets import find_kept_pair
        from cardwright.storage.credentials import find_access, token_of
        from cardwright.wiring import DEFAULT_PROGRAM

        is_from_environment = self.settings.application_token is not None or self.settings.access_token is not None
        kept = find_kept_pair(self.settings)
        if self.program != DEFAULT_PROGRAM or is_from_environment or kept is None:
            return False
        digest = vault.credential_digest(*kept)
        return replaced == token_of(digest) or find_access(db, digest) is None


def _show_created(program: str, created: "CredentialCreated", path: Path | None, *, as_json: bool) -> None:
    from msgspec import to_builtins

    if as_json:
        show_json({"program": program, **to_builtins(created), **({} if path is None else {"file": str(path)})})
    else:
        fields = [
            ("credential", created.token),
            ("application token", created.application_token),
            ("admin access token", created.access_token),
        ]
        show_fields(fields, indent=0)
    if path is not None:
        print_notice(f"{path} has the new credential, so the next start uses it")


def _program_id(db: "Connection", database: "Database", program: str) -> int:
    """Return the id of a program. Raises Failure."""
    from cardwright.storage.programs import find_program_token

    program_id = find_program_token(db, program)
    if program_id is None:
        hint = Hint(text="correct --program; the first start of a server creates the program default")
        raise Failure(f"--program {program}: {database.place} has no such program", hint)
    return program_id


@contextmanager
def _problems_of(settings: "Settings", program: str) -> Iterator[None]:
    """Raise Failure for a problem of an action."""
    from cardwright.core.problems import Problem

    try:
        yield
    except Problem as problem:
        raise _failure_of(problem, settings, program) from None


def _failure_of(problem: "Problem", settings: "Settings", program: str) -> Failure:
    from cardwright.core.problems import LAST_CREDENTIAL

    if problem.kind is LAST_CREDENTIAL:
        text = f"TOKEN is the last valid credential of the program {program}"
        return Failure(text, _command(settings, program, "add", "add another one first, or revoke this one with --force"))
    return Failure(str(problem), _command(settings, program, "list"))


def _command(settings: "Settings", program: str, verb: str, text: str = "") -> Hint:
    """Return a command on the same program and database."""
    option = "" if program == "default" else f" --program {program}"
    return command_with_place(settings, f"cardwright credentials {verb}{option}", text)
