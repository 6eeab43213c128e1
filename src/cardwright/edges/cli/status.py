"""`cardwright status`: whether an instance runs here, where it answers, and what opens it."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING

from cardwright.edges.cli.client import ApiResponse, Client
from cardwright.edges.cli.instance import Instance, environment_of, find_credentials, find_instance
from cardwright.edges.cli.output import Failure, show_fields, show_json
from cardwright.edges.cli.surroundings import command_with_place

if TYPE_CHECKING:
    from cardwright.settings import Settings


MIGRATIONS_MISSING = "migrations missing"
"""The status of an instance whose database has another schema."""


class OutputFormat(StrEnum):
    """How a status is written."""

    TEXT = "text"
    JSON = "json"
    ENV = "env"


def status(settings: "Settings", output_format: OutputFormat) -> None:
    """Shows the instance of a data directory. Raises Failure when there is none, or it does not answer, or is not ready."""
    instance, pair = find_instance(settings), find_credentials(settings)
    answer = _readiness(instance, settings)
    if answer.status != 200:
        raise _not_ready(instance, answer, settings)
    match output_format:
        case OutputFormat.ENV:
            show_exports(environment_of(instance.base_url, pair, instance.ca))
        case OutputFormat.JSON:
            known = {name: value for name, value in asdict(instance).items() if value is not None}
            show_json({**known, **asdict(pair), **answer.body})
        case OutputFormat.TEXT:
            show_fields(
                [
                    ("base URL", instance.base_url),
                    ("application token", pair.application_token),
                    ("admin access token", pair.access_token),
                    ("explorer", f"{instance.root_url}/docs"),
                    ("mode", instance.mode),
                    ("process", str(instance.pid)),
                    ("status", f"{answer.body.get('status')}, schema {answer.body.get('schema')}"),
                    ("certificate", instance.ca or ""),
                ],
                indent=0,
            )


def show_exports(variables: Mapping[str, str]) -> None:
    """Print variables as lines for ``eval`` in a shell."""
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def _readiness(instance: Instance, settings: "Settings") -> ApiResponse:
    """The answer of ``/readyz``. Raises Failure; one of a process that has ended says so."""
    try:
        return Client(instance.root_url, ca=instance.ca).request("GET", "/readyz")
    except Failure as failure:
        if _is_running(instance.pid):
            raise
        text = f"{failure}; the instance, process {instance.pid}, ended without a clean stop"
        raise Failure(text, command_with_place(settings, "cardwright serve")) from None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        # A process of another user, or a number that the file's reader cannot judge.
        pass
    return True


def _not_ready(instance: Instance, answer: ApiResponse, settings: "Settings") -> Failure:
    """The failure for an answer other than 200: its ``status`` and ``reason``, and the command that helps."""
    body = answer.body if isinstance(answer.body, dict) else {}
    state = str(body.get("status", f"HTTP status {answer.status}"))
    text = f"{instance.root_url} is not ready: {state}"
    if reason := body.get("reason"):
        text += f": {reason}"
    if state == MIGRATIONS_MISSING:
        text += f"; the database is at schema {body.get('schema') or 'none'}"
        return Failure(text, command_with_place(settings, "cardwright migrate"))
    return Failure(text, "check that the database answers and has space; the log of the server says more")
