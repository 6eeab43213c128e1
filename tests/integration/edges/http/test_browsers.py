"""Browsers: headers of answers for them, requests of foreign pages, and names of a server on a loopback address."""

import json
import socket
from dataclasses import dataclass
from typing import Any, cast

import pytest

from cardwright.edges.http.server import names_of
from cardwright.settings import Mode, Settings
from tests.support.databases import migrated_file
from tests.support.fixtures import shared_server
from tests.support.issuing import new_program
from tests.support.server import HOST, MASTER_KEY, Client, RunningServer

server = shared_server()

CHALLENGE = 'Basic realm="Cardwright", charset="UTF-8"'
CREDENTIAL = "authorization: Basic dGVzdF9hcHBsaWNhdGlvbjp0ZXN0X2FjY2Vzc190b2tlbg=="
WRONG = "authorization: Basic dGVzdF9hcHBsaWNhdGlvbjp3cm9uZw=="
JSON = "content-type: application/json"


@dataclass(frozen=True)
class Answer:
    """An answer as bytes on a connection. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The message of an error in the API's format."""
        return cast(str, json.loads(self.body)["error_message"])


def exchange(server: RunningServer, verb: str, path: str, *lines: str, body: bytes = b"", length: int | None = None) -> Answer:
    """Send a request with exactly these header lines, and return the answer. ``length`` announces more bytes than are sent."""
    size = [] if verb == "GET" else [f"content-length: {len(body) if length is None else length}"]
    head = "\r\n".join([f"{verb} {path} HTTP/1.1", *lines, *size, "connection: close", "", ""])
    with socket.create_connection((HOST, server.port), 60) as connection:
        connection.sendall(head.encode("latin-1") + body)
        head_bytes, _, content = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    first, *rest = head_bytes.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    return Answer(int(first.split()[1]), headers, content)


def here(server: RunningServer) -> str:
    """Return the line ``Host`` of a request to a server."""
    return f"host: {HOST}:{server.port}"


# --- Headers of answers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "path", "lines", "length"),
    [
        ("GET", "/v3/users", (), None),
        ("GET", "/v3/users", (WRONG,), None),
        ("GET", "/v3/users", ("authorization: Bearer x",), None),
        ("HEAD", "/v3/users", (WRONG,), None),
        ("GET", "/v3/nowhere", (), None),
        ("POST", "/v3/cards", (WRONG, JSON), None),
        # The server refuses these by their heads, before the body.
        ("POST", "/v3/cards", (WRONG, JSON), 400_000),
        ("POST", "/v3/cards", (JSON,), 400_000),
        ("GET", "/sandbox/program", (WRONG,), None),
        ("POST", "/sandbox/inbox/default/box?status=401", (), None),
    ],
)
def test_every_401_names_the_scheme(
    server: RunningServer, verb: str, path: str, lines: tuple[str, ...], length: int | None
) -> None:
    """Each 401 has a challenge (RFC 9110, 11.6.1), with the character set of the credentials (RFC 7617)."""
    answer = exchange(server, verb, path, here(server), *lines, length=length)
    assert (answer.status, answer.headers.get("www-authenticate")) == (401, CHALLENGE)


def test_other_answers_have_no_challenge(server: RunningServer) -> None:
    """A browser must not ask for a password after an answer that is not a 401."""
    for path, status in (("/v3/users", 200), ("/v3/nowhere", 404), ("/healthz", 200)):
        answer = exchange(server, "GET", path, here(server), CREDENTIAL)
        assert (answer.status, "www-authenticate" in answer.headers) == (status, False)


@pytest.mark.parametrize(
    ("verb", "path", "lines", "body", "length", "status"),
    [
        ("GET", "/v3/users", (CREDENTIAL,), b"", None, 200),
        ("HEAD", "/v3/users", (CREDENTIAL,), b"", None, 405),
        ("POST", "/v3/users", (CREDENTIAL, JSON), b"{}", None, 201),
        ("DELETE", "/sandbox/inbox/box", (CREDENTIAL,), b"", None, 204),
        ("POST", "/sandbox/programs", (CREDENTIAL, JSON), b"{}", None, 201),
        ("POST", "/v3/cards/getbypan", (CREDENTIAL, JSON), b'{"pan":"1111110000000000"}', None, 400),
        ("GET", "/v3/nowhere", (CREDENTIAL,), b"", None, 404),
        ("GET", "/v3/users", (), b"", None, 401),
        ("POST", "/v3/users", (WRONG, JSON), b"", 400_000, 401),
        ("POST", "/v3/users", (CREDENTIAL, JSON), b"", 4_000_000, 413),
        ("POST", "/v3/users", (CREDENTIAL, JSON, "origin: https://evil.example"), b"{}", None, 403),
    ],
)
def test_no_answer_of_the_api_is_stored(
    server: RunningServer, verb: str, path: str, lines: tuple[str, ...], body: bytes, length: int | None, status: int
) -> None:
    """Every answer below /v3 and /sandbox forbids caches to store it, because it may have a card number or a credential."""
    answer = exchange(server, verb, path, here(server), *lines, body=body, length=length)
    assert (answer.status, answer.headers["cache-control"]) == (status, "no-store")


# --- Pages of other origins ---------------------------------------------------------------

FOREIGN = ("origin: https://evil.example", "origin: null", "origin: http://127.0.0.1:1", "sec-fetch-site: cross-site")


@pytest.mark.parametrize("line", FOREIGN)
def test_a_foreign_page_cannot_post_to_the_inbox(server: RunningServer, line: str) -> None:
    """A message from a page of another origin gets 403, also before its body has arrived, and is not stored."""
    made = new_program(server)
    path = f"/sandbox/inbox/{made['token']}/box"
    for length in (None, 400_000):
        answer = exchange(server, "POST", path, here(server), line, body=b"{}", length=length)
        assert (answer.status, "another origin" in answer.error) == (403, True)
    with Client(server.root_url, made["application_token"], made["access_token"]) as client:
        assert client.get("/sandbox/inbox/box").json["data"] == []


def test_senders_of_webhooks_and_the_explorer_may_post_to_the_inbox(server: RunningServer) -> None:
    """A message without ``Origin``, or from a page of the server itself, is stored."""
    made = new_program(server)
    path, same = f"/sandbox/inbox/{made['token']}/box", f"origin: {server.root_url}"
    for lines in ((), (same,), (same, "sec-fetch-site: same-origin"), ("sec-fetch-site: none",)):
        assert exchange(server, "POST", path, here(server), *lines, body=b"{}").status == 200
    with Client(server.root_url, made["application_token"], made["access_token"]) as client:
        assert len(client.get("/sandbox/inbox/box").json["data"]) == 4


@pytest.mark.parametrize("line", FOREIGN)
def test_a_foreign_page_changes_nothing(server: RunningServer, line: str) -> None:
    """A browser that stores the credentials adds them to requests of every page. Changes of a foreign page get 403, reads do not.

    The answer to a read is no danger: the browser does not show it to the page.
    """
    with server.client() as client:
        made = client.post("/users", {"first_name": "Ana"}).json["token"]
        for verb, path, body in (
            ("POST", "/v3/users", b'{"token":"eve"}'),
            ("PUT", f"/v3/users/{made}", b'{"first_name":"Eve"}'),
            ("POST", "/sandbox/reset", b'{"confirm":true}'),
            ("DELETE", "/sandbox/inbox/box", b""),
            ("POST", "/v3/webhooks/x/ping", b""),
        ):
            answer = exchange(server, verb, path, here(server), CREDENTIAL, JSON, line, body=body)
            assert (answer.status, "another origin" in answer.error) == (403, True), (verb, path)
        assert exchange(server, "GET", f"/v3/users/{made}", here(server), CREDENTIAL, line).status == 200
        assert client.get(f"/users/{made}").json["first_name"] == "Ana"
        assert client.get("/users/eve").status == 404
    made_here = exchange(server, "POST", "/v3/users", here(server), CREDENTIAL, JSON, f"origin: {server.root_url}", body=b"{}")
    assert made_here.status == 201


# --- Names of the server ------------------------------------------------------------------

PLACES = (
    ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/v3/users"), ("POST", "/v3/users"),
    ("POST", "/sandbox/inbox/default/box"),
)  # fmt: skip


@pytest.mark.parametrize(("verb", "path"), PLACES)
def test_a_rebound_name_is_refused(server: RunningServer, verb: str, path: str) -> None:
    """A sandbox on a loopback address answers 421 to another name in ``Host``, for every path, and says what to do."""
    for name in ("evil.example", f"evil.example:{server.port}", "192.0.2.1", "localhost.evil.example"):
        for length in (None, 400_000):
            answer = exchange(server, verb, path, f"host: {name}", CREDENTIAL, JSON, body=b"{}" * (verb == "POST"), length=length)
            assert answer.status == 421
            assert json.loads(answer.body)["error_code"] == "421001"
            assert name in answer.error
            assert "--host" in answer.error


def test_a_rebound_name_stores_nothing(server: RunningServer) -> None:
    """A message for the inbox under another name is not stored, and the refusal is counted."""
    with server.client() as client:
        before = len(client.get("/sandbox/inbox/rebound").json["data"])
        exchange(server, "POST", "/sandbox/inbox/default/rebound", "host: evil.example", body=b"{}")
        assert len(client.get("/sandbox/inbox/rebound").json["data"]) == before
        assert 'cardwright_refused_connections_total{reason="host"}' in client.get("/metrics").text


@pytest.mark.parametrize(
    "name", ["localhost", "LOCALHOST.:99", "cards.localhost", "127.0.0.1", "127.1.2.3:1", "[::1]:8181", None]
)
def test_local_names_are_served(server: RunningServer, name: str | None) -> None:
    """Names that always lead to this machine are served, with any port, and so is a request without ``Host``."""
    lines = () if name is None else (f"host: {name}",)
    for verb, path in PLACES:
        assert exchange(server, verb, path, *lines, CREDENTIAL, JSON, body=b"{}").status in (200, 201)


def test_the_name_of_the_machine_is_served(tmp_path: Any) -> None:
    """The name of the machine, for which ``--tls`` makes a certificate, is served too."""
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db"), arguments=("--host", "localhost")) as other:
        assert exchange(other, "GET", "/healthz", f"host: {socket.gethostname()}").status == 200
        assert exchange(other, "GET", "/healthz", "host: evil.example").status == 421


class Listener:
    """A listening socket with the given address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def getsockname(self) -> tuple[str, int]:
        return self._address, 8181


@pytest.mark.parametrize(
    ("mode", "host", "address", "is_checked"),
    [
        (Mode.SANDBOX, "127.0.0.1", "127.0.0.1", True),
        (Mode.SANDBOX, "Cards.Test", "127.0.0.1", True),
        (Mode.SANDBOX, "::1", "::1", True),
        (Mode.SANDBOX, "0.0.0.0", "0.0.0.0", False),
        (Mode.SANDBOX, "::", "::", False),
        (Mode.SANDBOX, "192.168.0.7", "192.168.0.7", False),
        (Mode.PRODUCTION, "127.0.0.1", "127.0.0.1", False),
    ],
)
def test_only_a_sandbox_on_a_loopback_address_checks_names(mode: Mode, host: str, address: str, is_checked: bool) -> None:
    """Production and servers on other addresses have names that they do not know, such as that of a proxy or of a container."""
    settings = Settings(_env_file=None, mode=mode, host=host)  # type: ignore[call-arg]
    names = names_of(settings, cast(socket.socket, Listener(address)))
    assert names == ({host.lower(), socket.gethostname().lower()} if is_checked else None)


def test_production_serves_every_name(tmp_path: Any) -> None:
    """A production server behind a proxy gets the public name in ``Host``, and serves it."""
    env = {"CARDWRIGHT_MASTER_KEY": MASTER_KEY}
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db"), mode="production", env=env) as other:
        assert exchange(other, "GET", "/v3/users", "host: cards.example.com", CREDENTIAL).status == 200
