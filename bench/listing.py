"""Cost of a page of a long list: `python -m bench.listing` compares programs with few and with many stored transactions.

It reads the first page, random pages in the middle, and successive pages, over HTTP, on both databases. It removes its
databases at the end. The ratios are comparable between machines.
"""

import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from bench.database import settle, start_postgres
from bench.seed import ENVIRONMENT, seed_cards, seed_transactions
from tests.support.issuing import read_of
from tests.support.postgres import TestPostgres
from tests.support.server import Client, RunningServer

EngineRequest = Callable[[], float]
"""A function that sends one request and returns the seconds until its answer."""

CARDS = 1_000
TRIES = 60
WARM = 5
"""Tries that do not count: the first one counts the blocks of a long list, once per process."""
WINDOW = {"start_date": "2000-01-01", "state": "ALL"}
"""Query for all transactions; the default window is 30 days."""


def main(
    *, small: Annotated[int, typer.Option()] = 1_000, large: Annotated[int, typer.Option()] = 1_000_000,
) -> None:  # fmt: skip
    """Print medians in milliseconds for few and for many stored transactions, and their ratio."""
    for kind in ("sqlite", "postgres"):
        with TemporaryDirectory(prefix="cardwright-listing-") as folder, start_postgres() as postgres, ExitStack() as stack:
            sides = [_open(stack, _stored(kind, postgres, Path(folder), stored), stored) for stored in (small, large)]
            print(f"\n{kind}: {small:,} and {large:,} transactions stored")
            for name in sides[0]:
                little, much = _medians(*(side[name] for side in sides))
                print(f"  {name:42} {little * 1000:8.2f} ms {much * 1000:8.2f} ms   ×{much / little:.2f}")


def _stored(kind: str, postgres: TestPostgres, folder: Path, stored: int) -> str:
    address = postgres.new_database() if kind == "postgres" else str(folder / f"{stored}.db")
    seed_transactions(seed_cards(address, CARDS), stored)
    settle(postgres, address)
    return address


def _open(stack: ExitStack, address: str, stored: int) -> dict[str, EngineRequest]:
    """Return requests by name, on a server that runs until the stack closes."""
    client = stack.enter_context(stack.enter_context(RunningServer(db=address, env=ENVIRONMENT)).client())
    # Each JIT load is a list entry too: the list has about twice as many entries as transactions, so this is its middle.
    middle = stored - stored % 10
    drawn = random.Random(stored)
    spread = max(1, stored // 4)
    places = iter(drawn.randrange(middle - spread, middle + spread) for _ in range(10_000))
    # A short list repeats. A long list has more pages than this run reads.
    pages = cycle(range(middle, middle + min(spread, 10_000), 10))
    return {
        "first page": partial(_once, client),
        "middle, any place": lambda: _once(client, start_index=next(places)),
        "middle, any place, created_time": lambda: _once(client, start_index=next(places), sort_by="created_time"),
        "middle, page after page": lambda: _once(client, start_index=next(pages)),
        "first page, rare type": partial(_once, client, type="refund"),
        "first page, default filter": partial(_once, client, state="", start_date=""),
    }


def _once(client: Client, **query: object) -> float:
    parameters = {name: value for name, value in (WINDOW | query).items() if value != ""}
    began = time.perf_counter()
    reply = client.get("/transactions", query=parameters)
    took = time.perf_counter() - began
    read_of(reply)
    return took


def _medians(little: EngineRequest, much: EngineRequest) -> tuple[float, float]:
    """Return the medians of both sides. They alternate, so that a busy moment of the machine affects both."""
    tries = [(little(), much()) for _ in range(WARM + TRIES)][WARM:]
    return statistics.median(little_s for little_s, _ in tries), statistics.median(much_s for _, much_s in tries)


if __name__ == "__main__":
    typer.run(main)
