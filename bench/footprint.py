"""Footprint: the bytes that one purchase adds to the database, by table, without a webhook and with one.

``python -m bench.footprint`` makes purchases over HTTP on SQLite and on PostgreSQL; each is an authorization and its clearing.
One connection makes them, so each event is one notification; under load one row of the outbox has up to ten events. Only the
second half of the purchases counts: by then PostgreSQL reuses the space of updated rows.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import psycopg
import typer

from bench.database import is_sqlite, settle, start_postgres
from bench.load import TOKEN_SIZE
from bench.seed import ENVIRONMENT, seed_cards
from cardwright.storage.sqlite_connection import connect_sqlite
from tests.support.issuing import made_by, read_of
from tests.support.postgres import TestPostgres
from tests.support.receiver import a_receiver
from tests.support.server import Client, RunningServer
from tests.support.waiting import until

CARDS = 1_000
DELIVERY_S = 600
"""The longest wait for the delivery of all notifications; only a safety limit."""

SQLITE_SIZES = "SELECT s.tbl_name, sum(d.pgsize) FROM dbstat d JOIN sqlite_schema s ON s.name = d.name GROUP BY s.tbl_name"
POSTGRES_SIZES = "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables"


def main(purchases: Annotated[int, typer.Option(help="Purchases, of which the second half counts.")] = 10_000) -> None:
    """Print a Markdown table with the bytes per purchase on both databases."""
    columns = {}
    with start_postgres() as postgres, TemporaryDirectory() as folder:
        for name in ("SQLite", "PostgreSQL"):
            for webhooks in (0, 1):
                address = str(Path(folder, f"{webhooks}.db")) if name == "SQLite" else postgres.new_database()
                columns[f"{name}, {('no webhook', 'one webhook')[webhooks]}"] = bytes_per_purchase(
                    postgres, address, purchases // 2, webhooks
                )
    print_table(columns)


def bytes_per_purchase(postgres: TestPostgres, address: str, purchases: int, webhooks: int) -> dict[str, float]:
    """Return the bytes of a purchase by table, indexes included."""
    tokens = seed_cards(address, CARDS).tokens.decode()
    cards = [tokens[start : start + TOKEN_SIZE] for start in range(0, len(tokens), TOKEN_SIZE)]
    with a_receiver() as receiver, RunningServer(db=address, env=ENVIRONMENT) as server, server.client() as client:
        for number in range(webhooks):
            config = {"url": receiver.url, "basic_auth_username": "bench_user", "basic_auth_password": "B3nch-Hook-Passw0rd!"}
            made_by(client.post("/webhooks", {"name": f"hook {number}", "events": ["transaction.*"], "config": config}))
        sizes = []
        for _ in range(2):
            make_purchases(client, cards, purchases)
            wait_for_deliveries(client)
            settle(postgres, address)
            sizes.append(sizes_of(address))
    before, after = sizes
    return {table: (size - before[table]) / purchases for table, size in after.items()}


def make_purchases(client: Client, cards: Sequence[str], purchases: int) -> None:
    """Make purchases, evenly over the cards."""
    for number in range(purchases):
        body = {"card_token": cards[number % len(cards)], "amount": 10, "mid": "1234567890"}
        bought = made_by(client.post("/simulate/authorization", body))["transaction"]["token"]
        made_by(client.post("/simulate/clearing", {"original_transaction_token": bought, "amount": 10}))


def wait_for_deliveries(client: Client) -> None:
    """Wait until no notification is due or being sent."""
    for state in ("DUE", "SENDING"):
        path = f"/sandbox/deliveries?count=1&state={state}"
        until(lambda path=path: read_of(client.get(path))["count"] == 0, DELIVERY_S)  # type: ignore[misc]


def sizes_of(address: str) -> Counter[str]:
    """Return the bytes of each table with its indexes."""
    if is_sqlite(address):
        with closing(connect_sqlite(address)) as db:
            return Counter(dict(db.execute(SQLITE_SIZES).fetchall()))
    with psycopg.connect(address) as db:
        return Counter(dict(db.execute(POSTGRES_SIZES).fetchall()))


def print_table(columns: dict[str, dict[str, float]]) -> None:
    """Print the tables that grow by at least one byte per purchase, the largest first, and the sum of all."""
    total = Counter[str]()
    for column in columns.values():
        total.update(column)
    print(f"| bytes per purchase | {' | '.join(columns)} |")
    print("| --- " + "| ---: " * len(columns) + "|")
    for table, _ in total.most_common():
        if any(column.get(table, 0) >= 1 for column in columns.values()):
            print(f"| `{table}` | {' | '.join(f'{column.get(table, 0):,.0f}' for column in columns.values())} |")
    print(f"| all tables | {' | '.join(f'{sum(column.values()):,.0f}' for column in columns.values())} |")


if __name__ == "__main__":
    typer.run(main)
