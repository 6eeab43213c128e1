"""Seeding: creates a user, a card and a purchase through the API, and clones them with SQL.

The clones equal objects made through the API, with individual tokens, numbers and encrypted PANs. They lack the transitions of
the user's and the card's creation. `cardwright verify` finds no violation in them.
"""

import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from sqlalchemy import Table

from bench.database import is_sqlite
from bench.load import TOKEN_SIZE
from cardwright.core.pan import account_numbers, barcode_from, pan_from
from cardwright.kit.limits import ANSWER_S
from cardwright.kit.vault import MasterKey, Vault
from cardwright.storage.account_transactions import NOTHING_RECENT
from cardwright.storage.data_keys import load_data_keys
from cardwright.storage.database import Database
from cardwright.storage.engine.store import LIST_TRANSACTIONS
from cardwright.storage.tables import POSTGRES_ID_BLOCK, cards, config_history, holders, journal, pans, transactions, users
from tests.support.issuing import made_by
from tests.support.server import Client, RunningServer

MASTER_KEY = "5eed" * 16
# The default limit of the package. The servers of the tests have a longer one.
ENVIRONMENT = {"CARDWRIGHT_MASTER_KEY": MASTER_KEY, "CARDWRIGHT_ANSWER_LIMIT_S": str(ANSWER_S)}
PREFIX = "111111"

USER, CARD = "prototype-of-users", "prototype-of-cards"
PRODUCT, SOURCE = "product-{}", "source-{}"

PAIRS_AT_A_TIME = 100_000
DAY_MS = 86_400_000
STORED_DAYS = 90
"""Number of days over which the stored transactions are spread."""

STEP = 654_435_761
"""Step between account numbers. It is neither even nor a multiple of five, so modulo a power of ten it reaches every number."""

Execute = Callable[..., Any]
Progress = Callable[[float], None]
"""A function that receives the completed share of the work."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """A database with cards: their tokens, 36 characters each, and the number of transactions stored before any load."""

    address: str
    tokens: bytes
    stored: int = 0

    @property
    def cards(self) -> int:
        """Number of cards."""
        return len(self.tokens) // TOKEN_SIZE


def seed_cards(address: str, count: int, *, products: int = 1, sources: int = 1, progress: Progress = lambda _: None) -> Seeded:
    """Fill an empty database: the cards share ``products`` card products, which share ``sources`` funding sources."""
    make_prototypes(address, products, sources)
    drawn, vault = random.Random(count), vault_of(address)
    with opened(address) as execute:
        execute(
            "CREATE TEMP TABLE people (n BIGINT, user_token TEXT, card_token TEXT, barcode TEXT, last_four TEXT, digest {}, "
            "sealed {}, product_id BIGINT, product_token TEXT)".format(*("BLOB" if is_sqlite(address) else "BYTEA",) * 2)
        )
        product_ids = dict(execute("SELECT token, id FROM card_products").fetchall())
        program_id = execute("SELECT program_id FROM cards").fetchone()[0]
        tokens = _insert_people(execute, people(count, drawn, vault, program_id, product_ids), count, progress)
        _clone_people(execute, is_sqlite(address))
        progress(1.0)
    return Seeded(address, tokens)


def make_prototypes(address: str, products: int, sources: int) -> None:
    """Create the objects to clone through the API, with a purchase and its clearing."""
    with RunningServer(db=address, env=ENVIRONMENT) as server, server.client() as client:
        for number in range(sources):
            made_by(client.post("/fundingsources/program", {"token": SOURCE.format(number), "name": f"Source {number}"}))
        for number in range(products):
            funding = {"enabled": True, "funding_source_token": SOURCE.format(number % sources)}
            config = {
                "fulfillment": {"payment_instrument": "VIRTUAL_PAN"},
                "card_life_cycle": {"activate_upon_issue": True},
                "jit_funding": {"program_funding_source": funding},
            }
            body = {"token": PRODUCT.format(number), "name": f"Product {number}", "start_date": "2020-01-01", "config": config}
            made_by(client.post("/cardproducts", body))
        person = {
            "first_name": "Ana", "last_name": "Lovelace", "address1": "1 Main Street", "city": "Oakland", "state": "CA",
            "postal_code": "94612", "country": "USA", "phone": "+15105551212", "birth_date": "1990-01-31",
            "metadata": {"tier": "gold"},
        }  # fmt: skip
        made_by(client.post("/users", {"token": USER, **person}))
        made_by(client.post("/cards", {"token": CARD, "user_token": USER, "card_product_token": PRODUCT.format(0)}))
        bought = made_by(client.post("/simulate/authorization", {"card_token": CARD, "amount": 10, "mid": "1234567890"}))
        clearing = {"original_transaction_token": bought["transaction"]["token"], "amount": 10}
        made_by(client.post("/simulate/clearing", clearing))


WINDOWS = ("DAY", "WEEK", "MONTH", "LIFETIME", "TRANSACTION")


def make_controls(client: Client, *, program: int, foreign: int) -> None:
    """Create velocity controls that decline nothing: of the program, each with different limits, and of users without cards."""
    for number in range(program):
        window = WINDOWS[number % len(WINDOWS)]
        body = {"currency_code": "USD", "amount_limit": 10**8 + number, "velocity_window": window, "name": f"Control {number}"}
        body |= {} if window == "TRANSACTION" else {"usage_limit": 10**6 + number}
        made_by(client.post("/velocitycontrols", body))
    for number in range(foreign):
        token = f"bench_stranger_{number}"
        made_by(client.post("/users", {"token": token}))
        body = {"currency_code": "USD", "amount_limit": 100, "velocity_window": "DAY", "association": {"user_token": token}}
        made_by(client.post("/velocitycontrols", body))


def vault_of(address: str) -> Vault:
    """Return the vault with the data keys of a database."""
    with closing(Database(address)) as database, database.read() as db:
        keys = load_data_keys(db, MasterKey.from_hex(MASTER_KEY))
    return Vault(lambda: keys)


def people(
    count: int, drawn: random.Random, vault: Vault, program_id: int, product_ids: dict[str, int]
) -> Iterator[tuple[Any, ...]]:
    """Yield the individual values of each card. Account numbers are distinct, because STEP visits each of them once."""
    program = str(program_id)
    room = account_numbers(PREFIX)
    account_number = drawn.randrange(room)
    products = sorted(product_ids.items())
    for number in range(1, count + 1):
        account_number = (account_number + STEP) % room
        pan = pan_from(PREFIX, account_number)
        user, card = (str(uuid.UUID(int=drawn.getrandbits(128), version=4)) for _ in range(2))
        product_token, product_id = products[number % len(products)]
        yield (
            number, user, card, barcode_from(drawn.randrange(10**20)), pan[-4:], vault.pan_digest(pan, program),
            vault.encrypt_pan(pan, program, card), product_id, product_token,
        )  # fmt: skip


def seed_transactions(seeded: Seeded, count: int, *, progress: Progress = lambda _: None) -> Seeded:
    """Add cleared purchases, two transactions each, evenly over the cards and the last STORED_DAYS days."""
    with opened(seeded.address) as execute:
        purchase, clearing = (
            execute(f"SELECT id, holder_id, card_id FROM transactions WHERE root_id IS {which} NULL").fetchone()
            for which in ("", "NOT")
        )
        proto = {"root": purchase[0], "cleared": clearing[0], "holder": purchase[1], "card": purchase[2]}
        # Ids are odd and go in steps of two; the first block of a PostgreSQL sequence has the purchase.
        first, pairs = POSTGRES_ID_BLOCK + 1, count // 2
        now_ms = time.time_ns() // 1_000_000
        apart_ms = max(1, STORED_DAYS * DAY_MS // max(1, pairs))
        begin_ms = now_ms - DAY_MS - apart_ms * pairs
        for start in range(0, pairs, PAIRS_AT_A_TIME):
            end = min(start + PAIRS_AT_A_TIME, pairs) - 1
            _clone_pairs(execute, proto, seeded.cards, (start, end), (first, begin_ms, apart_ms), is_sqlite(seeded.address))
            progress((end + 1) / pairs)
        execute(f"{LIST_TRANSACTIONS}WHERE id >= {first} ORDER BY holder_id, user_time_ms, id")
        if not is_sqlite(seeded.address):
            execute(f"SELECT setval('transaction_blocks', (SELECT max(id) / {POSTGRES_ID_BLOCK} + 2 FROM transactions))")
    return replace(seeded, stored=pairs * 2)


@contextmanager
def opened(address: str) -> Iterator[Execute]:
    """Yield a fast connection without durability. Its rows are durable after ``settle``."""
    if is_sqlite(address):
        connection = sqlite3.connect(address, isolation_level=None)
        for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY", "foreign_keys=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        yield _many_or_one(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        return
    with psycopg.connect(address) as db:
        # The clones refer to valid rows by construction, so foreign keys are not checked.
        for setting in ("session_replication_role = replica", "synchronous_commit = off", "work_mem = '256MB'", "jit = off"):
            db.execute(f"SET {setting}")
        yield _copy_or_execute(db)


def _many_or_one(connection: sqlite3.Connection) -> Execute:
    def execute(statement: str, rows: Iterator[tuple[Any, ...]] | None = None) -> Any:
        if rows is None:
            return connection.execute(statement)
        return connection.executemany(f"INSERT INTO {statement} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    return execute


def _copy_or_execute(db: psycopg.Connection) -> Execute:
    def execute(statement: str, rows: Iterator[tuple[Any, ...]] | None = None) -> Any:
        if rows is None:
            return db.execute(statement.encode())
        with db.cursor() as cursor, cursor.copy(f"COPY {statement} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)
        return None

    return execute


def _insert_people(execute: Execute, rows: Iterator[tuple[Any, ...]], count: int, progress: Progress) -> bytes:
    """Store the individual values of each card and return the cards' tokens."""
    tokens = bytearray()

    def kept() -> Iterator[tuple[Any, ...]]:
        for row in rows:
            tokens.extend(row[2].encode())
            if len(tokens) % (TOKEN_SIZE * 5_000) == 0:
                progress(0.5 * row[0] / count)
            yield row

    execute("people", kept())
    return bytes(tokens)


def clone(table: Table, source: str, **changed: str) -> str:
    """Return an INSERT of copies of the prototype ``t``. ``changed`` has other columns as SQL over ``t`` and ``p``."""
    columns = table.c.keys()
    values = ", ".join(changed.get(column, f"t.{column}") for column in columns)
    return f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {values} FROM {source}"


def _clone_people(execute: Execute, sqlite: bool) -> None:
    card = execute("SELECT id, user_id, holder_id, barcode, last_four FROM cards").fetchone()
    card_id, user_id, holder_id, barcode, last_four = card
    user_doc = f"replace(t.doc, '{USER}', p.user_token)"
    fact_doc = f"replace(replace({user_doc}, '{CARD}', p.card_token), '\"{PRODUCT.format(0)}\"', '\"' || p.product_token || '\"')"
    fact_doc = f'replace({fact_doc}, \'"last_four":"{last_four}"\', \'"last_four":"\' || p.last_four || \'"\')'
    card_doc = f"replace(replace({fact_doc}, '{barcode}', p.barcode), '_{last_four}\"', '_' || p.last_four || '\"')"
    of = "people p CROSS JOIN {} t WHERE t.id = {} ORDER BY p.n"
    newest = "SELECT max(revision) FROM config_history WHERE kind = {0} AND object_id = {1}"
    history = f"people p CROSS JOIN config_history t WHERE t.kind = {{0}} AND t.object_id = {{1}} AND t.revision = ({newest})"
    nothing = f"X'{NOTHING_RECENT.hex()}'" if sqlite else f"'\\x{NOTHING_RECENT.hex()}'::bytea"
    execute(clone(holders, of.format("holders", holder_id), id="t.id + p.n", recent=nothing))
    of_both = {"id": "t.id + p.n", "holder_id": "t.holder_id + p.n"}
    user_fact, card_fact = user_doc.replace("t.doc", "t.fact"), fact_doc.replace("t.doc", "t.fact")
    execute(clone(users, of.format("users", user_id), **of_both, token="p.user_token", doc=user_doc, fact=user_fact))
    of_card = of_both | {"token": "p.card_token", "doc": card_doc, "fact": card_fact, "user_id": "t.user_id + p.n"}
    of_card |= {"pan_sealed": "p.sealed", "pan_digest": "p.digest"}
    of_card |= {name: f"p.{name}" for name in ("product_id", "last_four", "barcode")}
    execute(clone(cards, of.format("cards", card_id), **of_card))
    execute(clone(config_history, history.format(3, user_id), object_id="t.object_id + p.n", doc=user_doc))
    execute(clone(config_history, history.format(4, card_id), object_id="t.object_id + p.n", doc=fact_doc))
    execute(clone(pans, f"people p CROSS JOIN cards t WHERE t.id = {card_id}", digest="p.digest"))
    if not sqlite:
        for table in ("holders", "users", "cards"):
            execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")


def _clone_pairs(
    execute: Execute, proto: dict[str, int], count: int, span: tuple[int, int], base: tuple[int, int, int], sqlite: bool
) -> None:
    (start, end), (first, begin_ms, apart_ms) = span, base
    series = f"generate_series({start}::bigint, {end}::bigint) AS p(k)"
    if sqlite:
        series = f"(WITH RECURSIVE s(k) AS (VALUES ({start}) UNION ALL SELECT k + 1 FROM s WHERE k < {end}) SELECT k FROM s) AS p"
    own_id = f"({first} + p.k * 4 + CASE WHEN t.id = {proto['root']} THEN 0 ELSE 2 END)"
    # Steps of a large prime visit every card before they repeat one, and in an order unlike that of the indexes.
    key_columns = {"id": own_id, "holder_id": f"({proto['holder']} + 1 + (p.k * 15485863) % {count})"}
    at_ms = f"({begin_ms} + p.k * {apart_ms})"
    both = f"{series} CROSS JOIN {{}} t WHERE t.id IN ({proto['root']}, {proto['cleared']}) ORDER BY 1"
    transaction_columns = {
        "card_id": f"({proto['card']} + 1 + (p.k * 15485863) % {count})",
        "created_ms": at_ms,
        "user_time_ms": at_ms,
    }
    transaction_columns |= {"seed": "((p.k * 2654435761) % 4611686018427387904)"}
    transaction_columns |= {"root_id": f"CASE WHEN t.root_id IS NULL THEN NULL ELSE {first} + p.k * 4 END"}
    execute(clone(transactions, both.format("transactions"), **key_columns, **transaction_columns))
    execute(clone(journal, both.format("journal"), **key_columns, booked_ms=at_ms))
