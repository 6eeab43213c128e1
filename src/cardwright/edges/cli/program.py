"""`cardwright program`: the creation of an isolated program on a running instance."""

from typing import TYPE_CHECKING

from cardwright.edges.cli.client import ApiResponse, Client
from cardwright.edges.cli.instance import Credentials, client_of, credentials_hint, environment_of
from cardwright.edges.cli.output import Failure, Hint, show_fields, show_json
from cardwright.edges.cli.status import OutputFormat, check_format, show_exports
from cardwright.edges.cli.surroundings import command_with_place

if TYPE_CHECKING:
    from cardwright.settings import Settings


def create_program(
    settings: "Settings", token: str | None, *, base_url: str | None, output_format: OutputFormat, as_json: bool
) -> None:
    """Create a program and print its credentials. Raises Failure if no instance answers or if it refuses the program."""
    check_format(settings, "cardwright program", output_format, as_json=as_json)
    client = client_of(settings, base_url)
    response = client.request("POST", "/sandbox/programs", {} if token is None else {"token": token})
    if response.status != 201 or not isinstance(response.body, dict):
        raise _failure(client, response, token, settings)
    program: dict[str, str] = response.body
    credentials = Credentials(program["application_token"], program["access_token"])
    variables = environment_of(f"{client.root_url}/v3", credentials, client.ca) | {"CARDWRIGHT_PROGRAM": program["token"]}
    if as_json:
        show_json({"url": client.root_url, "base_url": variables["CARDWRIGHT_BASE_URL"], **program})
    elif output_format is OutputFormat.ENV:
        show_exports(variables)
    else:
        show_fields(
            [
                ("program", program["token"]),
                ("base URL", variables["CARDWRIGHT_BASE_URL"]),
                ("application token", credentials.application_token),
                ("admin access token", credentials.access_token),
                ("webhook inbox", f"{client.root_url}/sandbox/inbox/{program['token']}/{{any name}}"),
            ],
            indent=0,
        )


def _failure(client: Client, response: ApiResponse, token: str | None, settings: "Settings") -> Failure:
    """Return the failure for a status other than 201: the reason of the instance, and a hint."""
    reason = response.body.get("error_message", response.body) if isinstance(response.body, dict) else response.body
    if response.status == 400 and token is not None:
        hint = command_with_place(settings, "cardwright program", "without TOKEN, the instance draws a token")
        return Failure(f"TOKEN {token}: {client.root_url} answered 400: {reason}", hint, 2)
    hint = credentials_hint(settings) if response.status == 401 else Hint(
        text="use an instance in sandbox mode, such as: cardwright serve --mode sandbox --db sandbox.db --data-dir sandbox"
    )  # fmt: skip
    return Failure(f"{client.root_url} answered {response.status}: {reason}", hint)
