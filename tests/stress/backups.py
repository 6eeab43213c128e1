"""Backups under load: the rows of one instant, restored on the other database, where every read answers the same bytes.

``python -m tests.stress.backups`` runs both directions with 500 reads each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from cardwright.resources.catalog import ROUTES
from cardwright.storage.database import Database
from tests.stress import check
from tests.stress.object_graph import ObjectGraph, filled, place_of, required_query, working_values
from tests.support.failpoints import Failpoints
from tests.support.issuing import client_of, made_by, new_program
from tests.support.postgres import TestPostgres
from tests.support.server import Client, RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until

BUYERS = 6

BOOKED_MIN = 30
"""Number of messages that are booked while the backup is between two tables."""

TABLE = 3
"""The table before which the backup pauses. The snapshot exists from the first table on."""

PASSPHRASE = "a passphrase for tests"

OF_THE_MOMENT = ("/v3/ping", "/sandbox/clock", "/sandbox/inbox", "/sandbox/deliveries", "/sandbox/program")
"""Beginnings of paths whose answers depend on the time, or on the deliveries of the restored server."""


@dataclass(slots=True)
class Figures:
    """The counts of one run. ``booked`` messages were answered while the backup ran; the backup has none of them."""

    name: str
    rows: int = 0
    booked: int = 0
    reads: int = 0
    different: int = 0


class Load:
    """Buyers that buy and clear in a program until they are stopped."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._over = threading.Event()
        self._counts = [0] * BUYERS
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._buy, args=(number,), daemon=True) for number in range(BUYERS)]

    @property
    def booked(self) -> int:
        """The number of answered messages."""
        return sum(self._counts)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _buy(self, number: int) -> None:
        with self._shop.connect() as client:
            while not self._over.is_set() and not self.refused:
                body = {"card_token": "jit", "amount": 10, "mid": f"m{number}"}
                for path in ("authorization", "clearing"):
                    reply = client.post(f"/simulate/{path}", body)
                    if reply.status != 201:
                        self.refused.append(reply.text)
                        return
                    self._counts[number] += 1
                    body = {"original_transaction_token": reply.json["transaction"]["token"], "amount": 10}


def run(source: str, target: str, *, reads: int = 500) -> Figures:
    """Back up a database under load, restore it on an empty one, and compare ``reads`` answers of both servers.

    Raises AssertionError if a row is missing, an invariant is broken, or an answer differs.
    """
    figures = Figures(f"{_kind(source)} to {_kind(target)}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cardwright-backup-")))
        failpoints = stack.enter_context(Failpoints())
        file, data, restored_data = folder / "cardwright.backup", folder / "data", folder / "restored"
        data.mkdir()
        with RunningServer(db=source, data_dir=data, workers=2 if "://" in source else None) as server:
            shop, idle = Shop(server), new_program(server)
            with client_of(server, idle) as client:
                answers = _answers(client, server.root_url, idle["token"], reads)
            with Load(shop) as load:
                until(lambda: load.booked > BOOKED_MIN or load.refused)
                figures.rows, figures.booked = _back_up(source, data, file, failpoints, load)
            assert not load.refused, load.refused[:3]
        _command("restore", file, "--with-keys", "--db", target, "--data-dir", restored_data)
        check.verify_from_outside(target, restored_data)
        with RunningServer(db=target, data_dir=restored_data, workers=2 if "://" in target else None) as server:
            with client_of(server, idle) as client:
                different = [path for path, text in answers.items() if client.get(path).text != text]
                new = made_by(client.post("/users", {}))
                assert client.get(f"/users/{new['token']}").json == new
            with client_of(server, shop.program) as client:
                body = {"card_token": "jit", "amount": 10, "mid": "after"}
                assert client.post("/simulate/authorization", body).status == 201
            assert "Traceback" not in server.output(), server.output()[-8000:]
        with closing(Database(target)) as database:
            check.verify(database)
    figures.reads, figures.different = len(answers), len(different)
    assert not different, f"{len(different)} of {len(answers)} answers differ: {different[:5]}"
    return figures


def unproven(figures: Figures) -> list[str]:
    """Return the dangerous states that a run did not reach."""
    return [] if figures.booked else ["no message was booked during the backup"]


def table(runs: Sequence[Figures]) -> str:
    """Return the figures as a table."""
    head = "| backup under load, restored | rows | *reached:* messages booked meanwhile | reads | different answers |"
    lines = [f"| {run.name} | {run.rows:,} | {run.booked:,} | {run.reads:,} | {run.different} |" for run in runs]
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *lines])


def _kind(address: str) -> str:
    return "PostgreSQL" if "://" in address else "SQLite"


def _back_up(address: str, data: Path, file: Path, failpoints: Failpoints, load: Load) -> tuple[int, int]:
    """Write a backup that pauses until messages were booked; return its rows and the number of these messages."""
    failpoints.arm("backup.table", f"pause {TABLE}")
    results = list[str]()
    words = ("backup", file, "--with-keys", "--db", address, "--data-dir", data, "--json")
    thread = threading.Thread(target=lambda: results.append(_command(*words, env=failpoints.environment)), daemon=True)
    thread.start()
    assert failpoints.wait("backup.table"), "the backup did not begin"
    before = load.booked
    until(lambda: load.booked >= before + BOOKED_MIN or load.refused)
    booked = load.booked - before
    failpoints.release("backup.table")
    thread.join()
    assert results, "the backup failed"
    return json.loads(results[0])["rows"], booked


def _answers(client: Client, root_url: str, program: str, count: int) -> dict[str, str]:
    """Make an object of every kind and further purchases; return at least ``count`` paths and the answers of their GETs."""
    graph = ObjectGraph(client, root_url, program, "restored")
    graph.make()
    answers = dict[str, str]()
    for place in map(place_of, ROUTES):
        if place[0] == "GET" and not place[1].startswith(OF_THE_MOMENT) and (values := working_values(graph, place)) is not None:
            query = "&".join(f"{name}={value}" for name, value in required_query(graph, place).items())
            answers[f"{filled(place[1], values)}?{query}"] = ""
    body = {"card_token": graph.words["card_token"], "amount": 1, "mid": "m1"}
    while len(answers) < count:
        transaction = made_by(client.post("/simulate/authorization", body))["transaction"]
        answers[f"/v3/transactions/{transaction['token']}?version=v2"] = ""
        answers[f"/v3/transactions/{transaction['token']}"] = ""
    for path in answers:
        answers[path] = client.get(path).text
    return answers


def _command(*words: object, env: dict[str, str] | None = None) -> str:
    """Run a command of Cardwright and return its output. Raises AssertionError if it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
    variables = clean | {"CARDWRIGHT_BACKUP_PASSPHRASE": PASSPHRASE} | (env or {})
    done = subprocess.run(
        [sys.executable, "-m", "cardwright", *map(str, words)], capture_output=True, text=True, check=False, env=variables
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both directions. Return 1 if no message was booked during a backup."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.backups", description=__doc__)
    parser.add_argument("--reads", type=int, default=500, help="number of compared answers (default: 500)")
    options = parser.parse_args(arguments)
    with TestPostgres(durable=False) as postgres, tempfile.TemporaryDirectory(prefix="cardwright-backups-") as folder:
        runs = [
            run(str(Path(folder, "source.db")), postgres.new_database(), reads=options.reads),
            run(postgres.new_database(), str(Path(folder, "target.db")), reads=options.reads),
        ]
    print(table(runs))
    return 1 if any(map(unproven, runs)) else 0


if __name__ == "__main__":
    sys.exit(main())
