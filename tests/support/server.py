"""Server in a separate process, and a small HTTP client for it."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from tests.support import free_port
from tests.support.forked import ForkedProcess, Start

HOST = "127.0.0.1"
READY_SECONDS = 120
STOP_SECONDS = 60
APPLICATION_TOKEN = "test_application"
ACCESS_TOKEN = "test_access_token"
MASTER_KEY = hashlib.sha256(b"master key of the tests").hexdigest()
"""A key that production mode accepts: it is random enough and stands in no file."""
FAILPOINTS = "CARDWRIGHT_FAILPOINTS"

# Paths at the root of the server. Every other path belongs to the API, below /v3.
ROOT_PATHS = ("/v3", "/sandbox", "/healthz", "/readyz", "/metrics", "/docs", "/openapi")

# uvicorn closes a connection after five idle seconds. The client closes it earlier, so that no request is lost at that moment.
# It does not retry requests, because a retry could hide the faults that tests look for.
IDLE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer of the server. `json` is None if the body is not JSON. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str
    json: Any


class Client:
    """A keep-alive connection with a program's credentials. Not safe for several threads: each thread needs a client."""

    def __init__(self, root_url: str, application_token: str, access_token: str, *, timeout_s: float = 60) -> None:
        parts = urlsplit(root_url)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        pair = f"{application_token}:{access_token}".encode()
        self._authorization = f"Basic {base64.b64encode(pair).decode()}"
        self._last_used = 0.0

    def get(self, path: str, *, query: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("GET", f"{path}?{urlencode(query)}" if query else path, headers=headers)

    def post(self, path: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("POST", path, body, headers=headers)

    def put(self, path: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("PUT", path, body, headers=headers)

    def delete(self, path: str, *, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("DELETE", path, headers=headers)

    def request(self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> Reply:
        """Send `body` as JSON, or unchanged if it is bytes.

        `headers` override the defaults. Raises OSError or HTTPException without a response.
        """
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Authorization": self._authorization, "Accept": "application/json"}
        sent |= {"Content-Type": "application/json"} if content is not None else {}
        if time.monotonic() - self._last_used > IDLE_SECONDS:
            self._connection.close()
        try:
            self._connection.request(method, _full_path(path), content, {**sent, **(headers or {})})
            return self._read()
        except BaseException:
            # The exchange is incomplete, so the next request needs a new connection.
            self._connection.close()
            raise
        finally:
            self._last_used = time.monotonic()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> Reply:
        answer = self._connection.getresponse()
        text = answer.read().decode()
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        return Reply(status=answer.status, headers={k.lower(): v for k, v in answer.getheaders()}, text=text, json=body)


class OpenConnection(http.client.HTTPConnection):
    """A connection that opens once. If it is lost, the next request fails."""

    def connect(self) -> None:
        """Open the connection and disable automatic reconnects."""
        super().connect()
        self.auto_open = 0


def _full_path(path: str) -> str:
    first = urlsplit(path).path
    at_root = any(first == root or first.startswith((f"{root}/", f"{root}.")) for root in ROOT_PATHS)
    return path if at_root else f"/v3{path}"


class RunningServer:
    """`cardwright serve` on a free port, ready when the constructor returns: `with RunningServer(db=…) as server`.

    A server without worker processes and failpoints is forked from a process that has imported Cardwright.

    `db` is an absolute file path or a DSN. `env` overrides the environment, and `arguments` are added to the command line. The
    server runs in a new temporary folder, which is also its `data_dir` by default. A restart keeps both.
    Raises RuntimeError with the output of the server if it does not become ready.
    """

    def __init__(
        self,
        *,
        db: str,
        workers: int | None = None,
        mode: str | None = None,
        seed: int | None = None,
        data_dir: str | Path | None = None,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        ready_s: float = READY_SECONDS,
    ) -> None:
        self.db, self.application_token, self.access_token = db, APPLICATION_TOKEN, ACCESS_TOKEN
        self._home = tempfile.TemporaryDirectory(prefix="cardwright-server-")
        self._log = Path(self._home.name, "output.log")
        self._last_words = ""
        self._ready_s = ready_s
        self._process: ForkedProcess | subprocess.Popen[bytes]
        options: dict[str, object] = {"--db": db, "--host": HOST, "--workers": workers, "--mode": mode, "--seed": seed}
        options["--data-dir"] = data_dir or self._home.name
        self._words = ["serve", *(str(word) for name, value in options.items() if value is not None for word in (name, value))]
        self._words += arguments
        # Settings of the developer's environment must not reach a test.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
        # Only a test of the answer limit sets a short one. Other tests must not depend on the speed of the machine.
        patient = {"CARDWRIGHT_ANSWER_LIMIT_S": "60"}
        ours = patient | {"CARDWRIGHT_APPLICATION_TOKEN": self.application_token, "CARDWRIGHT_ACCESS_TOKEN": self.access_token}
        self._env = {**clean, "PYTHONUNBUFFERED": "1", **ours, **(env or {})}
        # Worker processes start from the program of their parent, and failpoints are read by an import.
        self._can_fork = workers is None and FAILPOINTS not in self._env
        self.start()

    @property
    def root_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v3"

    @property
    def pid(self) -> int:
        return self._process.pid

    def client(self, *, timeout_s: float = 60) -> Client:
        """Return a new client with the credentials of the default program."""
        return Client(self.root_url, self.application_token, self.access_token, timeout_s=timeout_s)

    def output(self) -> str:
        """Return the output of the server so far, with that of earlier starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else self._last_words

    def start(self) -> None:
        """Start the server, also again after `stop` or `kill`: on the same data and another port."""
        for last_try in (False, False, True):
            self.port = free_port(HOST)
            self._launch()
            try:
                if self._is_ready():
                    return
            except BaseException:
                self.kill()
                raise
            self.kill()
            if last_try or "address already in use" not in self.output().lower():
                raise RuntimeError(f"not ready in {self._ready_s} s: {' '.join(self._words)}\n{self.output()[-4000:]}")

    def stop(self) -> int:
        """Send SIGTERM and return the exit code. A server that does not stop in time is killed. Raises RuntimeError then."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the server did not stop in {STOP_SECONDS} s:\n{self.output()[-4000:]}") from None
        finally:
            self.kill()

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        self._process.send_signal(signal.SIGTERM)

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end of the server after `terminate`, at most this time; return True if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def kill(self) -> None:
        """Send SIGKILL to the server and all its workers, like a crash. Idempotent, even after `stop`."""
        # The process group may have ended already. For a group that is ending, macOS raises another error.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Stop the server if it runs and remove its folder. `output` stays readable."""
        try:
            if self._process.poll() is None:
                self.stop()
        finally:
            self.kill()
            self._last_words = self.output()
            self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _launch(self) -> None:
        words = [*self._words, "--port", str(self.port)]
        if self._can_fork:
            folder, log = Path(self._home.name), self._log
            self._process = ForkedProcess(Start(words=words, environment=self._env, cwd=folder, output=log, errors=log))
            return
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cardwright", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self._home.name,
                env=self._env,
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        deadline = time.monotonic() + self._ready_s
        with self.client(timeout_s=5) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if client.get("/readyz").status == 200:
                        return True
                time.sleep(0.02)
        return False
