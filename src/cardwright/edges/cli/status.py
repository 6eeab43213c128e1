"""`cardwright status`: whether an instance runs here, where it answers, and what opens it."""

import shlex
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING

from cardwright.edges.cli.client import Client
from cardwright.edges.cli.instance import environment_of, find_credentials, find_instance
from cardwright.edges.cli.say import Failure, show_fields, show_json

if TYPE_CHECKING:
    from cardwright.settings import Settings


class Form(StrEnum):
    """How a status is written."""

    TEXT = "text"
    JSON = "json"
    ENV = "env"


def status(settings: "Settings", form: Form) -> None:
    """Shows the instance of a data directory. Raises Failure when there is none, or it does not answer, or is not ready."""
    instance, pair = find_instance(settings), find_credentials(settings)
    answer = Client(instance.root_url, ca=instance.ca).request("GET", "/readyz")
    if answer.status != 200:
        raise Failure(f"{instance.root_url} is not ready: {answer.body}", "cardwright migrate")
    match form:
        case Form.ENV:
            for name, value in environment_of(instance.base_url, pair, instance.ca).items():
                print(f"export {name}={shlex.quote(value)}")
        case Form.JSON:
            known = {name: value for name, value in asdict(instance).items() if value is not None}
            show_json({**known, **asdict(pair), **answer.body})
        case Form.TEXT:
            show_fields(
                [
                    ("base URL", instance.base_url),
                    ("application token", pair.application_token),
                    ("admin access token", pair.access_token),
                    ("explorer", f"{instance.root_url}/docs"),
                    ("mode", instance.mode),
                    ("process", str(instance.pid)),
                    ("status", f"{answer.body['status']}, schema {answer.body['schema']}"),
                    ("certificate", instance.ca or ""),
                ],
                indent=0,
            )
