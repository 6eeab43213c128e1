"""Commands: the command line and its options. Each command imports its module when it runs, which keeps the start fast."""

import os
import sys
from enum import StrEnum
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cardwright import __version__
from cardwright.edges.cli.output import Failure, Hint, print_failure
from cardwright.edges.cli.status import OutputFormat
from cardwright.edges.cli.surroundings import failure_of_file, variable_hint
from cardwright.kit.digits import is_plain

if TYPE_CHECKING:
    # Functions import the settings late, because `cardwright --help` does not use pydantic (decision 10).
    from cardwright.settings import Settings

# Help has frames only on a terminal, not in files and pipes.
cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ModeName(StrEnum):
    """Values of ``--mode``."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


class LogLevel(StrEnum):
    """Values of ``--log-level``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Db = Annotated[
    str | None,
    typer.Option(
        envvar="CARDWRIGHT_DB",
        help="Database: a file, :memory:, or a DSN postgresql://…",
        show_default="a file in the data directory",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="CARDWRIGHT_DATA_DIR", help="Folder of the keys and of the database file.", show_default=".cardwright"),
]
Mode = Annotated[
    ModeName | None,
    typer.Option(
        envvar="CARDWRIGHT_MODE",
        help="Mode: production requires secrets and has no simulations and no sandbox-only routes.",
        show_default="sandbox",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="CARDWRIGHT_BASE_URL", help="Base URL of another instance.", show_default="the instance of the data directory"
    ),
]
Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="Format of the output: text, or env for a shell.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def number(kind: type[int] | type[float], low: int | None = None, high: int | None = None) -> dict[str, Any]:
    """Return the arguments of ``typer.Option`` for a number in ASCII digits between two bounds."""

    def parse(text: str) -> float:
        try:
            value = kind(text) if is_plain(text) else nan
        except ValueError:
            value = nan
        if not abs(value) < inf:
            raise typer.BadParameter(f"{text!r} is not a {'whole ' if kind is int else ''}number in the digits 0 to 9")
        if (low is not None and value < low) or (high is not None and value > high):
            raise typer.BadParameter(f"{text} is not {f'from {low} to {high}' if high is not None else f'at least {low}'}")
        return value

    return {"min": low, "max": high, "parser": parse}


def settings_from(**given: Any) -> "Settings":
    """Return the settings: options override the environment, which overrides ``.env``. Raises Failure.

    The failure does not contain the value, which may be a secret.
    """
    from pydantic import ValidationError

    from cardwright.settings import Settings

    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [(f"CARDWRIGHT_{str(detail['loc'][0]).upper()}", detail["msg"]) for detail in error.errors(include_input=False)]
        hint = variable_hint([name for name, _ in wrong])
        raise Failure("; ".join(f"{name}: {text}" for name, text in wrong), hint, 2) from None
    except UnicodeError:
        hint = Hint(
            "LC_ALL=C grep -an '[^ -~]' .env", "save the file as UTF-8; the command prints its lines with other characters"
        )
        raise Failure(".env is not UTF-8 text", hint, 2) from None
    if settings.db is not None and "://" not in settings.db:
        try:
            Path(settings.db).expanduser().resolve()
        except RuntimeError as error:
            # A loop of symbolic links, or ~name of a user that does not exist.
            raise Failure(
                f"--db {settings.db}: {error}", Hint(text="write the path of the file in full, as in --db /data/x.db"), 2
            ) from None
    return settings


def _version(is_given: bool) -> None:
    if is_given:
        print(f"cardwright {__version__}")
        raise typer.Exit


@cli.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Cardwright: a self-hosted card-issuing platform with Just-in-Time Funding."""


@cli.command()
def serve(
    db: Db = None,
    host: Annotated[
        str | None, typer.Option(envvar="CARDWRIGHT_HOST", help="Address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            envvar="CARDWRIGHT_PORT",
            **number(int, 0, 65535),
            help="TCP port; 0 takes any free port.",
            show_default="8181 or the next free one",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="CARDWRIGHT_WORKERS",
            **number(int, 1),
            help="Number of processes; more than 1 needs PostgreSQL.",
            show_default="1",
        ),
    ] = None,
    tls: Annotated[bool | None, typer.Option(envvar="CARDWRIGHT_TLS", help="Serve HTTPS with a development certificate.")] = None,
    mode: Mode = None,
    seed: Annotated[
        int | None,
        typer.Option(envvar="CARDWRIGHT_SEED", **number(int), help="Seed: the same seed and the same calls give the same bytes."),
    ] = None,
    data_dir: DataDir = None,
    allow_simulate: Annotated[
        bool | None, typer.Option(envvar="CARDWRIGHT_ALLOW_SIMULATE", help="Allow simulations in production mode.")
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option(envvar="CARDWRIGHT_LOG_LEVEL", help="Lowest level of log messages.", show_default="warning")
    ] = None,
    as_json: AsJson = False,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Start the platform."""
    settings = settings_from(
        db=db, host=host, port=port, workers=workers, tls=tls, mode=mode, seed=seed, data_dir=data_dir,
        allow_simulate=allow_simulate, log_level=log_level,
    )  # fmt: skip
    from cardwright.edges.cli.serve import serve
    from cardwright.kit import logs

    try:
        logs.configure(settings.log_level, settings.log_json, sys.stderr)
    except ValueError as error:
        raise Failure(f"CARDWRIGHT_LOG_LEVEL: {error}", variable_hint(["CARDWRIGHT_LOG_LEVEL"]), 2) from None
    serve(settings, as_json=as_json, until_eof=until_eof)


@cli.command()
def demo(as_json: AsJson = False) -> None:
    """Show a card, a purchase, its money and a decline, step by step, on an instance that is removed afterwards."""
    from cardwright.edges.cli.demo import demo

    demo(as_json=as_json)


@cli.command()
def migrate(
    db: Db = None,
    data_dir: DataDir = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL statements and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Migrate the database to the schema of this version."""
    from cardwright.edges.cli import database_commands

    database_commands.migrate(settings_from(db=db, data_dir=data_dir), sql=sql, as_json=as_json)


@cli.command()
def verify(
    db: Db = None,
    data_dir: DataDir = None,
    secrets: Annotated[
        bool, typer.Option("--secrets", help="Also search every column for card numbers and secrets; needs the master key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the invariants of the ledger, also while the database is in use."""
    from cardwright.edges.cli import database_commands

    if not database_commands.verify(settings_from(db=db, data_dir=data_dir), secrets=secrets, as_json=as_json):
        raise typer.Exit(1)


@cli.command()
def rekey(
    db: Db = None,
    data_dir: DataDir = None,
    data: Annotated[bool, typer.Option("--data", help="Seal all secrets under new data keys instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Wrap the data keys under a new master key: CARDWRIGHT_NEW_MASTER_KEY, or a new one in the data directory."""
    from cardwright.edges.cli import rekey

    settings = settings_from(db=db, data_dir=data_dir)
    if not data:
        rekey.rekey(settings, as_json=as_json)
    elif not rekey.rekey_data(settings, as_json=as_json):
        raise typer.Exit(1)


@cli.command()
def reset(
    db: Db = None,
    data_dir: DataDir = None,
    mode: Mode = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete all objects of the default program, transactions included; credentials and settings stay."""
    from cardwright.edges.cli import database_commands

    database_commands.reset(settings_from(db=db, data_dir=data_dir, mode=mode), is_sure=yes, as_json=as_json)


@cli.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Add the master key and the credentials in use, sealed under a passphrase.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    db: Db = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write all rows of the database, as of one instant, into a file, also while the database is in use."""
    from cardwright.edges.cli.backup import backup

    backup(settings_from(db=db, data_dir=data_dir), file, with_keys=with_keys, is_replacing=force, as_json=as_json)


@cli.command()
def restore(
    file: Annotated[Path, typer.Argument(help="File that `cardwright backup` wrote.")],
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Also write the keys of the backup into the data directory, if it has none.")
    ] = False,
    db: Db = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Load a backup into an empty database, of the same kind or of the other one."""
    from cardwright.edges.cli.backup import restore

    restore(settings_from(db=db, data_dir=data_dir), file, with_keys=with_keys, as_json=as_json)


@cli.command()
def status(
    db: Db = None,
    data_dir: DataDir = None,
    output_format: Output = OutputFormat.TEXT,
    as_json: AsJson = False,
) -> None:
    """Show URL, credentials and data of the instance that runs in this folder or in --data-dir."""
    from cardwright.edges.cli.status import status

    status(settings_from(db=db, data_dir=data_dir), output_format, as_json=as_json)


@cli.command()
def program(
    token: Annotated[str | None, typer.Argument(help="Token of the program.", show_default="drawn at random")] = None,
    base_url: BaseUrl = None,
    db: Db = None,
    data_dir: DataDir = None,
    output_format: Output = OutputFormat.TEXT,
    as_json: AsJson = False,
) -> None:
    """Create an isolated program on the running instance and show its credentials, which are shown only once."""
    from cardwright.edges.cli.program import create_program

    settings = settings_from(db=db, data_dir=data_dir)
    create_program(settings, token, base_url=base_url, output_format=output_format, as_json=as_json)


credentials = typer.Typer(no_args_is_help=True, help="List, add, rotate and revoke the credentials of a program.")
cli.add_typer(credentials, name="credentials")

ProgramToken = Annotated[str, typer.Option("--program", help="Token of the program.")]


@credentials.command("list")
def list_credentials(program: ProgramToken = "default", db: Db = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the valid credentials, without their tokens."""
    from cardwright.edges.cli import credentials_commands

    credentials_commands.list_credentials(settings_from(db=db, data_dir=data_dir), program, as_json=as_json)


@credentials.command("add")
def add_credential(program: ProgramToken = "default", db: Db = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Create a further credential and print its tokens, which are shown only once."""
    from cardwright.edges.cli import credentials_commands

    credentials_commands.add_credential(settings_from(db=db, data_dir=data_dir), program, as_json=as_json)


@credentials.command("rotate")
def rotate_credential(
    token: Annotated[
        str | None, typer.Argument(help="Token of the credential to replace.", show_default="the only valid one")
    ] = None,
    program: ProgramToken = "default",
    db: Db = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create the successor of a credential. The old one stays valid until it is revoked."""
    from cardwright.edges.cli import credentials_commands

    credentials_commands.rotate_credential(settings_from(db=db, data_dir=data_dir), program, token, as_json=as_json)


@credentials.command("revoke")
def revoke_credential(
    token: Annotated[str, typer.Argument(help="Token of the credential, as in the list.")],
    program: ProgramToken = "default",
    force: Annotated[bool, typer.Option("--force", help="Revoke the last valid credential too.")] = False,
    db: Db = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a credential for ever. Running servers refuse it within a second."""
    from cardwright.edges.cli import credentials_commands

    settings = settings_from(db=db, data_dir=data_dir)
    credentials_commands.revoke_credential(settings, program, token, is_forced=force, as_json=as_json)


@cli.command("format")
def format_json() -> None:
    """Read JSON from standard input and print it indented; numbers keep their digits."""
    from cardwright.edges.cli.format_json import format_json

    print(format_json(sys.stdin.buffer.read()), end="")


@cli.command()
def explain(
    token: Annotated[str, typer.Argument(help="Token of a transaction.")],
    base_url: BaseUrl = None,
    db: Db = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Explain why a purchase was approved or declined: each check, its inputs, and what would have led to an approval."""
    from cardwright.edges.cli.explain import explain

    explain(settings_from(db=db, data_dir=data_dir), token, base_url=base_url, as_json=as_json)


@cli.command()
def backtest(
    file: Annotated[
        Path, typer.Argument(help="JSON file with the changes, as in POST /sandbox/backtests; - for standard input.")
    ],
    max_approval_drop: Annotated[
        float | None,
        typer.Option(
            **number(float, 0), help="Largest drop of the approval rate in percentage points; a larger one ends with exit code 1."
        ),
    ] = None,
    base_url: BaseUrl = None,
    db: Db = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replay history under changed spend controls and report the difference."""
    from decimal import Decimal

    from cardwright.edges.cli.backtest import backtest

    drop = None if max_approval_drop is None else Decimal(str(max_approval_drop))
    settings = settings_from(db=db, data_dir=data_dir)
    if not backtest(settings, file, base_url=base_url, as_json=as_json, max_approval_drop=drop):
        raise typer.Exit(1)


@cli.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(
    command: Annotated[list[str] | None, typer.Argument(help="Command and its arguments.", metavar="-- COMMAND…")] = None,
    db: Annotated[
        str | None, typer.Option(help="Database of the instance.", show_default="a new one, removed afterwards")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(**number(int), help="Seed: the same seed and the same calls give the same bytes.")
    ] = None,
) -> None:
    """Run a command with a new instance; its environment has CARDWRIGHT_BASE_URL and the credentials."""
    from cardwright.edges.cli.exec_command import run_beside

    raise typer.Exit(run_beside(command or [], db=db, seed=seed))


def main() -> None:
    """Run the command line."""
    try:
        try:
            cli()
        finally:
            sys.stdout.flush()
    except Failure as failure:
        _end(failure)
    except BrokenPipeError:
        # The reader of the output, such as `head`, closed the pipe.
        _drop_output()
        sys.exit(1)
    except OSError as error:
        # For example an unreadable folder, a file in the place of a folder, or a full disk.
        _end(failure_of_file(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _end(failure: Failure) -> NoReturn:
    print_failure(failure)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    sys.exit(failure.code)


def _drop_output() -> None:
    """Redirect stdout to the null device. Otherwise the interpreter writes again at its end and prints a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
