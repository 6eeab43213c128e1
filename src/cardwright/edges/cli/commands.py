"""The commands: serve."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cardwright.kit import logs
from cardwright.settings import Mode, Settings

cli = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)


@cli.callback()
def root() -> None:
    """Cardwright: a self-hosted card-issuing platform with Just-in-Time Funding."""


@cli.command()
def serve(
    db: Annotated[str | None, typer.Option(help="a file path, :memory: or postgresql://…")] = None,
    host: Annotated[str | None, typer.Option()] = None,
    port: Annotated[int | None, typer.Option()] = None,
    workers: Annotated[int | None, typer.Option()] = None,
    mode: Annotated[Mode | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    data_dir: Annotated[Path | None, typer.Option()] = None,
    tls: Annotated[bool | None, typer.Option()] = None,
) -> None:
    """Starts the platform."""
    from cardwright.edges.http.server import bind, run
    from cardwright.storage.database import Database
    from cardwright.storage.migrate import migrate
    from cardwright.wiring import address_of, data_dir_of, ensure_default_program, load_secrets, make_vault, settled

    given = {k: v for k, v in locals().items() if k in Settings.model_fields and v is not None}
    with settled(Settings(**given)) as settings:
        logs.configure(settings.log_level, settings.log_json, sys.stderr)
        data_dir_of(settings).mkdir(parents=True, exist_ok=True)
        keys = load_secrets(settings)
        listener = bind(settings.host, settings.port)
        database = Database(address_of(settings))
        migrate(database)
        ensure_default_program(database, make_vault(settings, keys), settings, keys)
        database.close()
        print(f"http://{settings.host}:{listener.getsockname()[1]}/v3", keys.application_token, keys.access_token, flush=True)
        run(settings, listener, None)


def main() -> None:
    """Runs the command line."""
    cli()
