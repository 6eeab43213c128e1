"""Readers: many clients page through lists of transactions while purchases arrive; no entry is repeated or missed.

``python -m tests.stress.readers`` runs 50 readers of each kind and 2,000 purchases, on SQLite and with two processes on
PostgreSQL.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.stress.overlap import running_pair
from tests.support.postgres import TestPostgres
from tests.support.server import HOST, OpenConnection, RunningServer
from tests.support.shop import Shop
from tests.support.waiting import until

COUNTS = (3, 5, 7, 10, 25, 50, 100)
"""Sizes of the readers' pages."""

KEPT_OPEN: tuple[dict[str, str], ...] = (
    {}, {"state": "ALL"}, {"state": "ALL", "type": "authorization"}, {"state": "ALL", "sort_by": "created_time"},
    {"sort_by": "user_transaction_time"}, {"user_token": "ana"}, {"state": "ALL", "card_token": "jit"},
)  # fmt: skip
"""The lists of readers that keep one connection open."""

PLAIN: tuple[dict[str, str], ...] = tuple(query for query in KEPT_OPEN if query.get("state") == "ALL")
"""The lists of readers that open a connection for each page: lists that no entry leaves."""

DATABASES = ("sqlite", "postgres")

CLEARED_EVERY = 8
"""One of this number of purchases is cleared, so it leaves the lists of the default states."""

IDLE = {"CARDWRIGHT_IDLE_TIMEOUT_S": "600"}
"""An idle timeout longer than a reader's wait for purchases."""


@dataclass
class Purchases:
    """The purchases so far. Each page that is read allows one more purchase."""

    shop: Shop
    bought: list[str] = field(default_factory=list)
    cleared: set[str] = field(default_factory=set)
    allowed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _numbers: Iterator[int] = field(default_factory=count)

    def arrive(self, number: int) -> None:
        """Allow purchases one by one; return after the purchase ``number``."""
        while (bought := len(self.bought)) < number:
            self.allowed.release()
            until(lambda before=bought: len(self.bought) > before)  # type: ignore[misc]

    def buy(self) -> None:
        """Buy once, and clear every eighth purchase."""
        with closing(self.shop.connect()) as client:
            self._buy(client)

    def run(self, end: int) -> None:
        """Buy as allowed, up to ``end`` purchases in all."""
        with closing(self.shop.connect()) as client:
            while len(self.bought) < end:
                self.allowed.acquire()
                if len(self.bought) < end:
                    self._buy(client)

    def _buy(self, client: Any) -> None:
        body = {"card_token": "jit", "amount": 1, "mid": "m1"}
        made = client.post("/simulate/authorization", body)
        assert made.status == 201, made.text
        token = made.json["transaction"]["token"]
        self.bought.append(token)
        if next(self._numbers) % CLEARED_EVERY == 0:
            self.cleared.add(token)
            made = client.post("/simulate/clearing", {"original_transaction_token": token, "amount": 1})
            assert made.status == 201, made.text


@dataclass
class Readings:
    """The counts of the readers of one kind."""

    kind: str
    readers: int = 0
    pages: int = 0
    pages_after_arrivals: int = 0
    entries: int = 0
    expected: int = 0
    repeated: int = 0
    missed: int = 0

    def add(self, other: "Readings") -> None:
        """Add the counts of another reader."""
        for name in ("readers", "pages", "pages_after_arrivals", "entries", "expected", "repeated", "missed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def ask(connection: OpenConnection, headers: Mapping[str, str], query: Mapping[str, object]) -> dict[str, Any]:
    """Return a page of the list."""
    connection.request("GET", f"/v3/transactions?{urlencode(query)}", headers=headers)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text
    return dict(json.loads(text))


def read_all(
    purchases: Purchases, ports: Sequence[int], query: Mapping[str, str], size: int, begin: int, end: int, *, kept_open: bool
) -> Readings:
    """Read a list to its end over one connection, or with a new connection for each page, to the processes in turn.

    The reader starts after ``begin`` purchases. Another purchase arrives after every page, up to ``end``.
    """
    purchases.arrive(begin)
    headers = {"Authorization": purchases.shop.client._authorization}
    known, got, turns = set(purchases.bought), Counter[str](), cycle(ports)
    readings = Readings("", readers=1)
    bought_before, index, is_more = len(purchases.bought), 0, True
    connection = OpenConnection(HOST, next(turns), timeout=120)
    while is_more:
        page = ask(connection, headers, {**query, "count": size, "start_index": index})
        got.update(entry["token"] for entry in page["data"])
        index, is_more = index + page["count"], page["is_more"]
        readings.pages += 1
        if not kept_open:
            connection.close()
            connection = OpenConnection(HOST, next(turns), timeout=120)
        purchases.arrive(min(bought_before + 1, end))
        readings.pages_after_arrivals += is_more and len(purchases.bought) > bought_before
        bought_before = len(purchases.bought)
    connection.close()
    expected = known if query.get("state") == "ALL" else known - purchases.cleared
    readings.entries, readings.expected = got.total(), len(expected)
    readings.repeated = got.total() - len(got)
    readings.missed = len(expected - got.keys())
    return readings


def run(
    servers: Sequence[RunningServer], *, readers: int, purchases: int, first: int = 300, seed: int = 1
) -> tuple[Readings, Readings]:
    """Run readers of both kinds while the purchases arrive. ``first`` purchases are made before.

    The readers start one after the other during the purchases.
    """
    shop, drawn = Shop(servers[0], frozen=False), random.Random(seed)
    bought = Purchases(shop)
    for _ in range(first):
        bought.buy()
    ports, end = [server.port for server in servers], first + purchases
    kinds = Readings("one connection"), Readings("a connection for each page")
    with ThreadPoolExecutor(2 * readers + 4) as threads:
        buyers = [threads.submit(bought.run, end) for _ in range(4)]
        reading = []
        for readings, lists, kept_open in ((kinds[0], KEPT_OPEN, True), (kinds[1], PLAIN, False)):
            for number, (query, port) in enumerate(islice(zip(cycle(lists), cycle(ports), strict=False), readers)):
                own_port_first = [port, *(other for other in ports if other != port)]
                size, begin = drawn.choice(COUNTS), first + number * purchases // (2 * readers)
                reader = threads.submit(read_all, bought, own_port_first, query, size, begin, end, kept_open=kept_open)
                reading.append((readings, reader))
        for readings, reader in reading:
            readings.add(reader.result())
        bought.allowed.release(end)
        for buyer in buyers:
            buyer.result()
    shop.client.close()
    return kinds


def report(name: str, kinds: Sequence[Readings], seconds: float) -> Iterator[str]:
    """Yield the figures as lines."""
    for readings in kinds:
        yield (
            f"{name}, {readings.kind}: {readings.readers} readers, {readings.pages:,} pages, {readings.pages_after_arrivals:,} "
            f"of them after an arrival, {readings.entries:,} entries, {readings.repeated:,} repeated, "
            f"{readings.missed:,} of {readings.expected:,} missed"
        )
    yield f"{name}: {seconds:.0f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the readers on both databases. Return 1 if an entry was missed, or repeated on one connection."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.readers", description=__doc__)
    parser.add_argument("--readers", type=int, default=50, help="readers of each kind (default: 50)")
    parser.add_argument("--purchases", type=int, default=2_000, help="purchases during the reading (default: 2000)")
    parser.add_argument("--db", nargs="*", choices=DATABASES, default=DATABASES)
    options = parser.parse_args(arguments)
    is_broken = False
    for name in options.db:
        with ExitStack() as stack:
            if name == "sqlite":
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cardwright-readers-"))
                servers = [stack.enter_context(RunningServer(db=str(Path(folder, "cardwright.db")), env=IDLE))]
            else:
                postgres = stack.enter_context(TestPostgres(durable=False))
                servers = list(stack.enter_context(running_pair(postgres.new_database())).servers)
            begun = time.monotonic()
            kinds = run(servers, readers=options.readers, purchases=options.purchases)
            for line in report(name, kinds, time.monotonic() - begun):
                print(line, flush=True)
            is_broken |= bool(kinds[0].repeated or kinds[0].missed or kinds[1].missed)
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(main())
