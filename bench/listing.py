"""What a page of a long list costs: `python -m bench.listing` compares programs with little and with much in their past.

The first page, pages in the middle by number, and pages one after the other, over HTTP, on both databases. What it stores is
removed at the end. The figures are ratios, so that they mean something on any machine.
"""

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from bench.database import settle, start_postgres
from bench.seed import ENVIRONMENT, seed_cards, seed_transactions
from tests.support.issuing import read_of
from tests.support.server import Client, RunningServer

CARDS = 1_000
TRIES = 60
WARM = 5
WINDOW = {"start_date": "2000-01-01", "state": "ALL"}
"""Everything that there is; the default is thirty days."""


def main(
    *, small: Annotated[int, typer.Option()] = 1_000, large: Annotated[int, typer.Option()] = 1_000_000,
) -> None:  # fmt: skip
    """Prints medians in milliseconds for a small and a large past, and their ratio."""
    for kind in ("sqlite", "postgres"):
        with TemporaryDirectory(prefix="cardwright-listing-") as folder, start_postgres() as postgres:
            found = [_measured(kind, postgres, Path(folder), stored) for stored in (small, large)]
        print(f"\n{kind}: {small:,} and {large:,} transactions stored")
        for name, little in found[0].items():
            much = found[1][name]
            print(f"  {name:42} {little * 1000:8.2f} ms {much * 1000:8.2f} ms   ×{much / little:.2f}")


def _measured(kind: str, postgres: object, folder: Path, stored: int) -> dict[str, float]:
    address = postgres.new_database() if kind == "postgres" else str(folder / f"{stored}.db")  # type: ignore[attr-defined]
    seed_transactions(seed_cards(address, CARDS), stored)
    settle(postgres, address)  # type: ignore[arg-type]
    with RunningServer(db=address, env=ENVIRONMENT) as server, server.client() as client:
        # A transaction of JIT Funding is listed with its load, so there are about twice as many entries.
        middle = stored - stored % 10
        drawn = random.Random(stored)
        spread = max(1, stored // 4)
        found = {"first ever in the middle (counts)": _once(client, start_index=middle)}
        places = iter(drawn.randrange(middle - spread, middle + spread) for _ in range(10_000))
        found["first page"] = _median(lambda: _once(client))
        found["middle, any place"] = _median(lambda: _once(client, start_index=next(places)))
        by_creation = {"sort_by": "created_time"}
        found["middle, any place, created_time"] = _median(lambda: _once(client, start_index=next(places), **by_creation))
        pages = iter(range(middle, middle + 10_000_000, 10))
        found["middle, page after page"] = _median(lambda: _once(client, start_index=next(pages)))
        found["first page, rare type"] = _median(lambda: _once(client, type="refund"))
        found["first page, default filter"] = _median(lambda: _once(client, state="", start_date=""))
    if kind == "sqlite":
        Path(address).unlink()
    else:
        postgres.drop_database(address)  # type: ignore[attr-defined]
    return found


def _once(client: Client, **query: object) -> float:
    asked = {name: value for name, value in (WINDOW | query).items() if value != ""}
    began = time.perf_counter()
    reply = client.get("/transactions", query=asked)
    took = time.perf_counter() - began
    read_of(reply)
    return took


def _median(measure: Callable[[], float]) -> float:
    return statistics.median([measure() for _ in range(WARM + TRIES)][WARM:])


if __name__ == "__main__":
    typer.run(main)
