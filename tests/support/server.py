"""A real server in a process of its own, and a small client to talk to it."""

import base64
import contextlib
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

HOST = "127.0.0.1"
READY_SECONDS = 120
STOP_SECONDS = 60
APPLICATION_TOKEN = "test_application"
ACCESS_TOKEN = "test_access"

# What lives at the root of the server; every other path is the API's and stands below /v3.
ROOT_PATHS = ("/v3", "/sandbox", "/healthz", "/readyz", "/metrics", "/docs", "/openapi")

# uvicorn closes a connection that was idle for five seconds. We close ours sooner, so that no request is ever lost in
# between: a client that repeats a POST by itself would hide the very faults that tests look for.
IDLE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer of the server; `json` is None when the body is none; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str
    json: Any


class Client:
    """One keep-alive connection with a program's credentials. Not for several threads: give each its own."""

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
        """Sends `body` as JSON, or as it is when it is bytes. `headers` go over our own. Raises OSError, HTTPException."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Authorization": self._authorization, "Accept": "application/json"}
        sent |= {"Content-Type": "application/json"} if content is not None else {}
        if time.monotonic() - self._last_used > IDLE_SECONDS:
            self._connection.close()
        try:
            self._connection.request(method, _full_path(path), content, {**sent, **(headers or {})})
            return self._read()
        except BaseException:
            # Half an exchange is on the wire; the next request starts on a new connection.
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
    """A connection that opens with its first request and never again: when it is lost, the next request fails."""

    def connect(self) -> None:
        """Open it."""
        super().connect()
        self.auto_open = 0


def _full_path(path: str) -> str:
    first = urlsplit(path).path
    at_root = any(first == root or first.startswith((f"{root}/", f"{root}.")) for root in ROOT_PATHS)
    return path if at_root else f"/v3{path}"


class RunningServer:
    """`python -m cardwright serve` on a free port, ready when the constructor returns: `with RunningServer(db=…) as server`.

    `db` is an absolute file path or a DSN, `env` goes over the environment, `arguments` follow on the command line. The server
    runs in a folder of its own, which is also its `data_dir` unless another is given, and keeps both when it is started again.
    Raises RuntimeError with the server's own words when it does not become ready.
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
        options: dict[str, object] = {"--db": db, "--host": HOST, "--workers": workers, "--mode": mode, "--seed": seed}
        options["--data-dir"] = data_dir or self._home.name
        self._command = [sys.executable, "-m", "cardwright", "serve"]
        self._command += [str(word) for name, value in options.items() if value is not None for word in (name, value)]
        self._command += arguments
        # A developer's own settings must not leak into a test.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
        # A test that wants a limit sets it; the others must not depend on how fast the machine is.
        patient = {"CARDWRIGHT_ANSWER_LIMIT_S": "60"}
        ours = patient | {"CARDWRIGHT_APPLICATION_TOKEN": self.application_token, "CARDWRIGHT_ACCESS_TOKEN": self.access_token}
        self._env = {**clean, "PYTHONUNBUFFERED": "1", **ours, **(env or {})}
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
        """A new connection with the server's own credentials."""
        return Client(self.root_url, self.application_token, self.access_token, timeout_s=timeout_s)

    def output(self) -> str:
        """All that the server has printed so far, earlier starts included."""
        return self._log.read_text(errors="replace") if self._log.exists() else self._last_words

    def start(self) -> None:
        """Starts it, also again after `stop` or `kill`: on the same data, on another port."""
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
                raise RuntimeError(f"not ready in {self._ready_s} s: {' '.join(self._command)}\n{self.output()[-4000:]}")

    def stop(self) -> int:
        """SIGTERM, as an operator stops it, and its exit code; a server that does not heed it is killed, and that is an error."""
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
        """Wait for the end of the server after `terminate`; return whether it came in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL for the server and all its workers, as a crash. May be called again, also after `stop`."""
        # The group may be gone already; macOS says that of one that is dying with another error.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Stops it if it still runs and removes its folder; `output` stays readable."""
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
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
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
