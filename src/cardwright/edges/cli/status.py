"""`cardwright status`: URL, credentials, data and readiness of the instance of a data directory."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING

from cardwright.edges.cli.client import ApiResponse, Client
from cardwright.edges.cli.instance import (
    Credentials,
    Instance,
    client_hints,
    environment_of,
    find_credentials,
    find_instance,
    on_its_database,
)
from cardwright.edges.cli.output import Failure, Hint, print_notice, show_fields, show_json
from cardwright.edges.cli.surroundings import command_with_place

if TYPE_CHECKING:
    from cardwright.settings import Settings


MIGRATIONS_MISSING = "migrations missing"
"""The status of an instance whose database has another schema."""


class OutputFormat(StrEnum):
    """Values of ``--output``."""

    TEXT = "text"
    ENV = "env"


def status(settings: "Settings", output_format: OutputFormat, *, as_json: bool) -> None:
    """Print the instance of a data directory. Raises Failure if there is none, or if it is not reachable or not ready."""
    from cardwright.instance_secrets import data_dir_of

    check_format(settings, "cardwright status", output_format, as_json=as_json)
    instance, pair = find_instance(settings), find_credentials(settings)
    response = _readiness(instance, settings)
    if response.status != 200:
        raise _not_ready(instance, response, settings)
    pair = _valid_credentials(instance, settings, pair)
    directory = str(data_dir_of(settings).absolute())
    if as_json:
        known = {name: value for name, value in asdict(instance).items() if value is not None}
        show_json({**known, "url": instance.root_url, "data_dir": directory, **asdict(pair), **response.body})
    elif output_format is OutputFormat.ENV:
        show_exports(environment_of(instance.base_url, pair, instance.ca))
    else:
        show_fields(
            [
                ("base URL", instance.base_url),
                ("application token", pair.application_token),
                ("admin access token", pair.access_token),
                ("explorer", f"{instance.root_url}/docs"),
                ("mode", instance.mode),
                ("process", str(instance.pid)),
                ("status", f"{response.body.get('status')}, schema {response.body.get('schema')}"),
                ("data", instance.data or ""),
                ("data directory", directory),
                ("certificate", instance.ca or ""),
            ],
            indent=0,
        )


def check_format(settings: "Settings", command: str, output_format: OutputFormat, *, as_json: bool) -> None:
    """Raise Failure if a command is given both ``--json`` and ``-o env``."""
    if as_json and output_format is OutputFormat.ENV:
        raise Failure("--json and -o env exclude each other", command_with_place(settings, f"{command} --json"), 2)


def show_exports(variables: Mapping[str, str]) -> None:
    """Print variables as lines for ``eval`` in a shell."""
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def _readiness(instance: Instance, settings: "Settings") -> ApiResponse:
    """Return the response of ``/readyz``. Raises Failure, with a note if the process has ended."""
    try:
        return Client(instance.root_url, ca=instance.ca, hints=client_hints(instance, settings)).request("GET", "/readyz")
    except Failure as failure:
        if _is_running(instance.pid):
            raise
        text = f"{failure}; the instance, process {instance.pid}, ended without a clean stop"
        raise Failure(text, on_its_database(instance, settings, "cardwright serve")) from None


def _valid_credentials(instance: Instance, settings: "Settings", pair: Credentials) -> Credentials:
    """Return the credentials of the environment, else those in the data directory, if the instance accepts them.

    Raises Failure if it accepts neither, because they were revoked or replaced.
    """
    from cardwright.instance_secrets import find_kept_pair

    kept = find_kept_pair(settings)
    pairs = [pair] if kept is None or Credentials(*kept) == pair else [pair, Credentials(*kept)]
    for known in pairs:
        client = Client(
            instance.root_url, known.application_token, known.access_token, instance.ca, client_hints(instance, settings)
        )
        if client.request("GET", "/v3/ping").status == 200:
            if known != pair:
                print_notice(
                    "notice: CARDWRIGHT_APPLICATION_TOKEN and CARDWRIGHT_ACCESS_TOKEN open nothing here and are not shown"
                )
            return known
    text = f"{instance.root_url} accepts no known credentials: they were revoked, or the server was started with others"
    raise Failure(text, on_its_database(instance, settings, "cardwright credentials add"))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        # A process of another user, or a number that no process can have.
        pass
    return True


def _not_ready(instance: Instance, response: ApiResponse, settings: "Settings") -> Failure:
    """Return the failure for a response other than 200: its ``status`` and ``reason``, and a hint."""
    body = response.body if isinstance(response.body, dict) else {}
    state = str(body.get("status", f"HTTP status {response.status}"))
    text = f"{instance.root_url} is not ready: {state}"
    if reason := body.get("reason"):
        text += f": {reason}"
    if state == MIGRATIONS_MISSING:
        text += f"; the database is at schema {body.get('schema') or 'none'}"
        return Failure(text, on_its_database(instance, settings, "cardwright migrate"))
    advice = "check that the database server runs and that its disk has space; the server's log has the details"
    return Failure(text, Hint(text=advice))
