"""`cardwright program`: creates an isolated program on a running instance and shows its credentials."""

from typing import TYPE_CHECKING

from cardwright.edges.cli.client import ApiResponse, Client
from cardwright.edges.cli.instance import Credentials, client_of, environment_of
from cardwright.edges.cli.output import Failure, show_fields, show_json
from cardwright.edges.cli.status import OutputFormat, show_exports
from cardwright.edges.cli.surroundings import command_with_place

if TYPE_CHECKING:
    from cardwright.settings import Settings


def create_program(settings: "Settings", token: str | None, *, base_url: str | None, output_format: OutputFormat) -> None:
    """Create a program and show it. Raises Failure when no instance answers, and when the instance refuses the program."""
    client = client_of(settings, base_url)
    answer = client.request("POST", "/sandbox/programs", {} if token is None else {"token": token})
    if answer.status != 201 or not isinstance(answer.body, dict):
        raise _failure(client, answer, token, settings)
    program: dict[str, str] = answer.body
    credentials = Credentials(program["application_token"], program["access_token"])
    variables = environment_of(f"{client.root_url}/v3", credentials, client.ca) | {"CARDWRIGHT_PROGRAM": program["token"]}
    match output_format:
        case OutputFormat.ENV:
            show_exports(variables)
        case OutputFormat.JSON:
            show_json({"base_url": variables["CARDWRIGHT_BASE_URL"], **program})
        case OutputFormat.TEXT:
            show_fields(
                [
                    ("program", program["token"]),
                    ("base URL", variables["CARDWRIGHT_BASE_URL"]),
                    ("application token", credentials.application_token),
                    ("admin access token", credentials.access_token),
                    ("inbox for webhooks", f"{client.root_url}/sandbox/inbox/{program['token']}/{{any name}}"),
                ],
                indent=0,
            )


def _failure(client: Client, answer: ApiResponse, token: str | None, settings: "Settings") -> Failure:
    """The failure for an answer other than 201: the reason of the instance, and the command that helps."""
    reason = answer.body.get("error_message", answer.body) if isinstance(answer.body, dict) else answer.body
    text = f"{client.root_url}: {answer.status} {reason}"
    match answer.status:
        case 400 if token is not None:
            hint = command_with_place(settings, "cardwright program")
            return Failure(f"TOKEN {token}: {answer.status} {reason}", f"{hint}   (draws a token)", 2)
        case 401:
            return Failure(text, command_with_place(settings, "cardwright status") + "   (are these its credentials?)")
        case 403:
            return Failure(text, "cardwright serve --mode sandbox --db sandbox.db --data-dir sandbox")
        case _:
            return Failure(text, command_with_place(settings, "cardwright status"))
