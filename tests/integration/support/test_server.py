"""Running server of the tests: a separate process, and a client that returns every response."""

import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Client, RunningServer


class Echo(http.server.BaseHTTPRequestHandler):
    """A handler that answers with the request and the port of its connection."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        document = {"method": self.command, "path": self.path, "body": body, "port": self.client_address[1], **self.headers}
        content = json.dumps(document).encode() if self.path != "/v3/text" else b"no JSON"
        self.send_response(404 if self.path == "/v3/nowhere" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        """Suppress the log."""


@pytest.fixture
def client() -> Iterator[Client]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_address[1]}", "Aladdin", "open sesame") as client:
            yield client
        server.shutdown()


def test_client_sends_what_it_was_given(client: Client) -> None:
    """Verb, path, JSON body and credentials arrive, and one connection serves all requests."""
    made = client.post("/users", {"token": "ana"})
    assert (made.status, made.json["method"], made.json["path"]) == (200, "POST", "/v3/users")
    assert json.loads(made.json["body"]) == {"token": "ana"}
    assert made.json["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # The example of RFC 7617.
    assert client.put("/users/ana", b"raw").json["body"] == "raw"
    assert client.delete("/users/ana").json["method"] == "DELETE"
    assert client.get("/users", query={"count": 5}).json["path"] == "/v3/users?count=5"
    assert client.get("/ping", headers={"Authorization": "none"}).json["Authorization"] == "none"
    assert client.get("/ping").json["port"] == made.json["port"]


@pytest.mark.parametrize(
    ("path", "full"),
    [
        ("/users", "/v3/users"),
        ("/v3/users", "/v3/users"),
        ("/healthz", "/healthz"),
        ("/sandbox/clock", "/sandbox/clock"),
        ("/openapi.json", "/openapi.json"),
        ("/docsandmore", "/v3/docsandmore"),
    ],
)
def test_paths_of_the_root_and_of_the_api(client: Client, path: str, full: str) -> None:
    """Short paths go to the API under /v3. Paths of the root stay unchanged."""
    assert client.get(path).json["path"] == full


def test_client_tells_of_errors_and_of_text(client: Client) -> None:
    """An error status is a normal reply, and a body that is not JSON is available as text."""
    assert client.get("/nowhere").status == 404
    assert (client.get("/text").json, client.get("/text").text) == (None, "no JSON")


def test_server_that_cannot_start_tells_why(tmp_path: Path) -> None:
    """The error of a server that cannot start contains the server's output."""
    with pytest.raises(RuntimeError, match=r"\n(.*\n)*.*[Nn]o such option"):
        RunningServer(db=str(tmp_path / "cardwright.db"), arguments=("--no-such-option",))


def test_server_runs_crashes_and_runs_again(tmp_path: Path) -> None:
    """A server answers when it runs, fails at once when killed, restarts on the same data, and stops on request."""
    with RunningServer(db=str(tmp_path / "cardwright.db")) as server:
        with server.client() as client:
            assert client.get("/readyz").status == 200
            assert client.get("/ping").status == 200
            server.kill()
            with pytest.raises((OSError, http.client.HTTPException)):
                client.get("/readyz")
        server.start()
        with server.client() as client:
            assert client.get("/readyz").status == 200
        assert server.stop() == 0
    assert "Traceback" not in server.output()
