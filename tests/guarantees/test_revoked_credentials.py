"""Revoked credentials: no process accepts one for longer than a heartbeat, and no request with another one fails."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cardwright.storage.monitor import HEARTBEAT_S
from tests.support.databases import migrated_file
from tests.support.failpoints import Failpoints
from tests.support.fixtures import module_server
from tests.support.issuing import client_of, made_by, new_program, read_of
from tests.support.server import Client, RunningServer
from tests.support.waiting import until

CONNECTIONS = 8
"""Connections of one credential. The kernel distributes them over the processes of a server."""

server = module_server()


def credentials(address: str, folder: Path, *words: str) -> Any:
    """Call `cardwright credentials` and return what it prints."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
    command = [sys.executable, "-m", "cardwright", "credentials", *words, "--db", address, "--data-dir", str(folder), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=folder).stdout)


class Load:
    """Requests with one credential over several connections, and their statuses."""

    def __init__(self, server: RunningServer, application_token: str, access_token: str) -> None:
        self._clients = [Client(server.root_url, application_token, access_token) for _ in range(CONNECTIONS)]
        self._is_over = threading.Event()
        self.statuses = Counter[int]()
        self._mutex = threading.Lock()

    def run(self, client: Client) -> None:
        """Send requests until the end."""
        while not self._is_over.is_set():
            status = client.get("/ping").status
            with self._mutex:
                self.statuses[status] += 1

    def answered(self) -> dict[int, int]:
        """Return the number of answers by status."""
        with self._mutex:
            return dict(self.statuses)

    def are_all(self, status: int) -> bool:
        """Return True if each connection gets this status now."""
        return {client.get("/ping").status for client in self._clients} == {status}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send requests during the block."""
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            runs = [threads.submit(self.run, client) for client in self._clients]
            try:
                yield
            finally:
                self._is_over.set()
            for run in runs:
                run.result()


@pytest.fixture
def servers(postgres_url: str, tmp_path: Path) -> Iterator[tuple[RunningServer, RunningServer]]:
    """Two servers with one database, the first of two processes and the second of one."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(RunningServer(db=postgres_url, workers=workers, data_dir=tmp_path)) for workers in (2, 1)
        )
        yield first, second


def test_rotation_under_load(servers: tuple[RunningServer, RunningServer], postgres_url: str, tmp_path: Path) -> None:
    """During a rotation no request with the new pair fails. After the revocation each process refuses the old pair, for ever."""
    (token,) = [row["token"] for row in credentials(postgres_url, tmp_path, "list")["credentials"]]
    new = credentials(postgres_url, tmp_path, "rotate")
    old_loads = [Load(server, server.application_token, server.access_token) for server in servers]
    new_loads = [Load(server, new["application_token"], new["access_token"]) for server in servers]
    with ExitStack() as stack:
        for load in new_loads:
            stack.enter_context(load.running())
        until(lambda: all(load.answered().get(200, 0) > 2 * CONNECTIONS for load in new_loads))
        assert all(load.are_all(200) for load in old_loads)
        credentials(postgres_url, tmp_path, "revoke", token)
        until(lambda: all(load.are_all(401) for load in old_loads))
        count = [load.answered()[200] for load in new_loads]
        until(lambda: all(load.answered()[200] > before for load, before in zip(new_loads, count, strict=True)))
    assert [load.answered().keys() for load in new_loads] == [{200}, {200}]
    assert all(load.are_all(401) for load in old_loads)


def test_start_with_another_pair_closes_the_former_in_running_processes(postgres_url: str, tmp_path: Path) -> None:
    """A second server with another access token makes the former one worthless in a server that runs already."""
    with RunningServer(db=postgres_url, workers=2, data_dir=tmp_path) as first:
        old = Load(first, first.application_token, first.access_token)
        assert old.are_all(200)
        env = {"CARDWRIGHT_ACCESS_TOKEN": "a replaced access token"}
        with RunningServer(db=postgres_url, data_dir=tmp_path, env=env) as second:
            new = [Load(server, first.application_token, env["CARDWRIGHT_ACCESS_TOKEN"]) for server in (first, second)]
            until(lambda: old.are_all(401))
            assert all(load.are_all(200) for load in new)


def test_heartbeat_leaves_room_for_a_second() -> None:
    """Two heartbeats and a slow read fit into the second that the documentation promises."""
    assert 2 * HEARTBEAT_S < 1


# --- One process ---------------------------------------------------------------------------


def test_program_manages_its_credentials(server: RunningServer) -> None:
    """A program lists, adds, rotates and revokes its own pairs. The list has no tokens, and the last pair stays."""
    program = new_program(server)
    with client_of(server, program) as client:
        (first,) = read_of(client.get("/sandbox/credentials"))["data"]
        assert (first["given"], set(first)) == (False, {"token", "created_time", "given"})
        refused = client.delete(f"/sandbox/credentials/{first['token']}")
        assert (refused.status, refused.json["error_code"]) == (409, "409004")
        made = made_by(client.post(f"/sandbox/credentials/{first['token']}/rotate", {}))
        listed = client.get("/sandbox/credentials")
        assert read_of(listed)["count"] == 2
        assert made["access_token"] not in listed.text
        with client_of(server, made) as successor:
            assert read_of(successor.get(f"/sandbox/credentials/{first['token']}")) == first
            assert read_of(successor.delete(f"/sandbox/credentials/{first['token']}"))["token"] == first["token"]
            assert successor.get(f"/sandbox/credentials/{first['token']}").status == 404
            until(lambda: client.get("/ping").status == 401)
            assert [row["token"] for row in read_of(successor.get("/sandbox/credentials"))["data"]] == [made["token"]]
            assert successor.delete(f"/sandbox/credentials/{made['token']}?force=true").status == 200
            until(lambda: successor.get("/ping").status == 401)


def test_program_cannot_touch_the_credentials_of_another(server: RunningServer) -> None:
    """The token of another program's pair is a 404, and that pair stays valid."""
    first, second = new_program(server), new_program(server)
    with client_of(server, first) as client, client_of(server, second) as other:
        token = read_of(other.get("/sandbox/credentials"))["data"][0]["token"]
        replies = [
            client.delete(f"/sandbox/credentials/{token}?force=true"),
            client.post(f"/sandbox/credentials/{token}/rotate", {}),
        ]
        assert [(reply.status, reply.json["error_code"]) for reply in replies] == [(404, "404043")] * 2
        assert read_of(other.get("/sandbox/credentials"))["count"] == 1


def test_two_revocations_at_once_leave_one_pair(servers: tuple[RunningServer, RunningServer]) -> None:
    """Of two processes that each revoke another of the last two pairs, one is refused."""
    for _ in range(10):
        program = new_program(servers[0])
        with client_of(servers[0], program) as client:
            second = made_by(client.post("/sandbox/credentials", {}))
            tokens = [row["token"] for row in read_of(client.get("/sandbox/credentials"))["data"]]
        barrier = threading.Barrier(2)

        def revoke(server: RunningServer, pair: dict[str, Any], token: str, barrier: threading.Barrier = barrier) -> int:
            with client_of(server, pair) as client:
                client.get("/ping")
                barrier.wait()
                return client.delete(f"/sandbox/credentials/{token}").status

        with ThreadPoolExecutor(2) as threads:
            runs = [threads.submit(revoke, *given) for given in zip(servers, (program, second), tokens, strict=True)]
            assert sorted(run.result() for run in runs) == [200, 409]


def test_lookup_before_a_revocation_is_not_cached_after_it(database_url: str) -> None:
    """A pair that was looked up before its revocation, and whose answer comes after the cache was emptied, is not cached.

    The first request pauses between look-up and cache. A second one, with another spelling of the header, shows by its 401 that
    the process has emptied its cache.
    """
    with Failpoints() as failpoints, RunningServer(db=database_url, env=failpoints.environment) as server:
        program = new_program(server)
        with client_of(server, program) as slow, client_of(server, program) as other, ThreadPoolExecutor(1) as thread:
            token = read_of(other.get("/sandbox/credentials"))["data"][0]["token"]
            pair = f"{program['application_token']}:{program['access_token']}".encode()
            header = {"Authorization": f"basic {base64.b64encode(pair).decode()}"}
            failpoints.arm("credential.cache.before", "pause")
            request = thread.submit(slow.get, "/ping", headers=header)
            assert failpoints.wait("credential.cache.before")
            assert other.delete(f"/sandbox/credentials/{token}?force=true").status == 200
            until(lambda: other.get("/ping").status == 401)
            failpoints.release("credential.cache.before")
            assert request.result().status in (200, 401), "it began before the revocation"
            assert slow.get("/ping", headers=header).status == 401


def test_seeded_program_adds_pairs_after_a_reset(tmp_path: Path) -> None:
    """After a reset a seeded server draws the tokens of existing pairs again. It skips them and creates new pairs."""
    with RunningServer(db=migrated_file(tmp_path / "seeded.db"), seed=7) as seeded, seeded.client() as client:
        pairs = [made_by(client.post("/sandbox/credentials", {})) for _ in range(4)]
        read_of(client.post("/sandbox/reset", {}))
        pairs += [made_by(client.post("/sandbox/credentials", {})) for _ in range(3)]
    assert len({pair["token"] for pair in pairs}) == 7


def test_other_pairs_stay_valid(server: RunningServer) -> None:
    """While a pair is revoked, every request with another one succeeds, also before the heartbeat reads the new revision."""
    first, second = new_program(server), new_program(server)
    with client_of(server, first) as client, client_of(server, second) as other:
        token = read_of(client.get("/sandbox/credentials"))["data"][0]["token"]
        assert client.delete(f"/sandbox/credentials/{token}?force=true").status == 200
        statuses: list[int] = []
        until(lambda: statuses.append(other.get("/ping").status) or client.get("/ping").status == 401)
        assert set(statuses) == {200}
