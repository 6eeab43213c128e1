"""Baseline: a straightforward design with one database transaction per authorization and one statement per step, over HTTP.

It takes the same request and sends a similar answer. It reads card, user and product, locks the balance, and stores the
answer, the postings and the notification. `uvicorn` runs it with uvloop and httptools, like Cardwright.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import psycopg

from bench.load import Place
from tests.support import free_port

POOL = 16
"""Number of connections. More of them made the baseline slower on two cores."""

SCHEMA = """
CREATE TABLE products (id bigint PRIMARY KEY, token text NOT NULL, config jsonb NOT NULL);
CREATE TABLE users (id bigint PRIMARY KEY, token text NOT NULL, status text NOT NULL, doc jsonb NOT NULL);
CREATE TABLE cards (id bigint PRIMARY KEY, token text NOT NULL UNIQUE, user_id bigint NOT NULL REFERENCES users,
    product_id bigint NOT NULL REFERENCES products, state text NOT NULL, last_four text NOT NULL, expires timestamptz NOT NULL);
CREATE TABLE balances (user_id bigint PRIMARY KEY REFERENCES users, ledger bigint NOT NULL, held bigint NOT NULL)
    WITH (fillfactor = 60);
CREATE TABLE transactions (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, token text NOT NULL UNIQUE,
    user_id bigint NOT NULL REFERENCES users, card_id bigint NOT NULL REFERENCES cards, amount bigint NOT NULL,
    state text NOT NULL, created timestamptz NOT NULL, answer text NOT NULL);
CREATE INDEX ON transactions (user_id, created);
CREATE TABLE postings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, transaction_id bigint NOT NULL REFERENCES transactions,
    account text NOT NULL, amount bigint NOT NULL);
CREATE INDEX ON postings (transaction_id);
CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event text NOT NULL, transaction_id bigint NOT NULL,
    state text NOT NULL, due timestamptz NOT NULL);
CREATE INDEX ON outbox (due) WHERE state = 'DUE';
"""

SEED = (
    'INSERT INTO products VALUES (1, \'product-0\', \'{"allow_gpa_auth": true, "jit": true, "ecommerce": true}\')',
    'INSERT INTO users SELECT k, \'user-\' || k, \'ACTIVE\', \'{"first_name": "Ana", "postal_code": "94612"}\' '
    "FROM generate_series(1, %(count)s::bigint) k",
    "INSERT INTO cards SELECT k, lpad(k::text, 36, '0'), k, 1, 'ACTIVE', '1234', '2031-01-01' "
    "FROM generate_series(1, %(count)s::bigint) k",
    "INSERT INTO balances SELECT k, 0, 0 FROM generate_series(1, %(count)s::bigint) k",
)

SELECT_CARD = "SELECT id, user_id, product_id, state, last_four, expires FROM cards WHERE token = %s"
SELECT_USER = "SELECT token, status, doc FROM users WHERE id = %s"
SELECT_PRODUCT = "SELECT token, config FROM products WHERE id = %s"
LOCK_BALANCE = "SELECT ledger, held FROM balances WHERE user_id = %s FOR UPDATE"
INSERT_TRANSACTION = (
    "INSERT INTO transactions (token, user_id, card_id, amount, state, created, answer) VALUES (%s, %s, %s, %s, %s, %s, %s) "
    "RETURNING id"
)
INSERT_POSTINGS = f"INSERT INTO postings (transaction_id, account, amount) VALUES {', '.join(['(%s, %s, %s)'] * 4)}"
UPDATE_BALANCE = "UPDATE balances SET ledger = %s, held = %s WHERE user_id = %s"
INSERT_OUTBOX = "INSERT INTO outbox (event, transaction_id, state, due) VALUES (%s, %s, 'DUE', %s)"


def seed_baseline(dsn: str, count: int) -> bytes:
    """Create tables and cards; return the cards' tokens, 36 characters each, without a separator."""
    with psycopg.connect(dsn) as db:
        db.execute(SCHEMA)
        for statement in SEED:
            db.execute(statement, {"count": count})
    return b"".join(b"%036d" % number for number in range(1, count + 1))


# --- The server ---------------------------------------------------------------------------


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Request(msgspec.Struct):
    """A purchase."""

    card_token: str
    amount: Decimal
    mid: str


class App:
    """An ASGI application with a pool of connections."""

    def __init__(self) -> None:
        self._pool: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
        self._decoder = msgspec.json.Decoder(Request)
        self._encoder = msgspec.json.Encoder(decimal_format="number")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, or open and close the pool."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        assert dict(scope["headers"]).get(b"authorization", b"").startswith(b"Basic ")
        message = await receive()
        body = await self._authorize(self._decoder.decode(message["body"]))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(POOL):
            self._pool.put_nowait(await psycopg.AsyncConnection.connect(os.environ["BASELINE_DSN"], prepare_threshold=0))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        while not self._pool.empty():
            await self._pool.get_nowait().close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _authorize(self, request: Request) -> bytes:
        db = await self._pool.get()
        try:
            async with db.transaction():
                return await self._decide(db, request)
        finally:
            self._pool.put_nowait(db)

    async def _decide(self, db: psycopg.AsyncConnection[Any], request: Request) -> bytes:
        now, amount = datetime.now(UTC), int(request.amount * 100)
        card = await _fetch_row(db, SELECT_CARD, request.card_token)
        user = await _fetch_row(db, SELECT_USER, card[1])
        product = await _fetch_row(db, SELECT_PRODUCT, card[2])
        ledger, held = await _fetch_row(db, LOCK_BALANCE, card[1])
        approved = card[3] == "ACTIVE" and user[1] == "ACTIVE" and card[5] > now and product[1]["jit"]
        assert approved, "the seeded cards and users are active and the product has JIT Funding"
        load = max(0, amount - (ledger - held))
        ledger, held = ledger + load, held + amount
        token = str(uuid.uuid4())
        answer = self._encoder.encode(answer_of(request, token, card, user, product, ledger, held, load, now))
        (transaction_id,) = await _fetch_row(
            db, INSERT_TRANSACTION, token, card[1], card[0], amount, "PENDING", now, answer.decode()
        )
        legs = [("program_funding", -load), ("available", load), ("available", -amount), ("held", amount)]
        await db.execute(INSERT_POSTINGS, [value for leg in legs for value in (transaction_id, *leg)])
        await db.execute(UPDATE_BALANCE, (ledger, held, card[1]))
        await db.execute(INSERT_OUTBOX, ("transaction.authorization", transaction_id, now))
        return answer


async def _fetch_row(db: psycopg.AsyncConnection[Any], query: str, *values: object) -> tuple[Any, ...]:
    row = await (await db.execute(query.encode(), values)).fetchone()
    assert row is not None
    return tuple(row)


def answer_of(
    request: Request, token: str, card: tuple[Any, ...], user: tuple[Any, ...], product: tuple[Any, ...], ledger: int, held: int,
    load: int, now: datetime,
) -> dict[str, Any]:  # fmt: skip
    """Return an answer with the fields of Cardwright's answer, about 2.5 KB."""
    time_text = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    money = {
        "currency_code": "USD", "ledger_balance": Decimal(ledger) / 100, "available_balance": Decimal(ledger - held) / 100,
        "credit_balance": Decimal("0.00"), "pending_credits": Decimal("0.00"), "impacted_amount": -request.amount,
    }  # fmt: skip
    approved = {"code": "0000", "memo": "Approved or completed successfully"}
    source = {
        "type": "program", "token": "source-0", "active": True, "name": "Source 0", "is_default_account": False,
        "created_time": time_text, "last_modified_time": time_text,
    }  # fmt: skip
    order = {
        "token": token, "amount": Decimal(load) / 100, "created_time": time_text, "last_modified_time": time_text,
        "transaction_token": token, "state": "PENDING", "response": approved,
        "funding": {"amount": Decimal(load) / 100, "source": source}, "funding_source_token": "source-0",
        "user_token": user[0], "currency_code": "USD",
    }  # fmt: skip
    merchant = {
        "mid": request.mid, "mcc": "6411", "network_mid": request.mid, "mcc_groups": ["NONE"], "name": "Marqeta Storefront",
        "address": "330 Central Ave. St.", "city": "St. Petersburg", "state": "CA", "postal_code": "33705", "country": "USA",
        "poi": {"partial_approval_capable": "1"},
    }  # fmt: skip
    transaction = {
        "type": "authorization", "state": "PENDING", "identifier": token[:8], "token": token, "user_token": user[0],
        "acting_user_token": user[0], "card_token": request.card_token, "card_product_token": product[0],
        "gpa": money | {"balances": {"USD": money}}, "gpa_order": order, "duration": 1, "created_time": time_text,
        "user_transaction_time": time_text, "settlement_date": time_text, "request_amount": request.amount,
        "amount": request.amount, "currency_code": "USD", "approval_code": "123456", "response": approved,
        "network": "DISCOVER", "acquirer": {"system_trace_audit_number": "123456"}, "user": {"metadata": {"tier": "gold"}},
        "card": {"last_four": card[4], "metadata": {}}, "issuer_received_time": time_text,
        "issuer_payment_node": "c4a7d1e05b2f48369d80e6f3127ab5c9", "network_reference_id": "123456789012",
        "card_acceptor": merchant, "is_recurring": False, "is_installment": False,
    }  # fmt: skip
    echo = {str(number): time_text for number in (0, 2, 3, 4, 7, 11, 12, 13, 14, 15, 17, 21, 24, 26, 37, 38, 39, 42, 54, 63)}
    return {"transaction": transaction, "raw_iso8583": echo | {"43": merchant, "180": "dflt"}}


app = App()


# --- Running it ---------------------------------------------------------------------------


@contextmanager
def running(dsn: str) -> Iterator[tuple[Place, int]]:
    """Run the baseline in a separate process; yield its address and process id."""
    place = Place("127.0.0.1", free_port())
    command = [sys.executable, "-m", "uvicorn", "bench.baseline:app", "--host", place.host, "--port", str(place.port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", "--backlog", "4096"]
    server = subprocess.Popen(command, env={**os.environ, "BASELINE_DSN": dsn})
    try:
        _wait_for(server, place)
        yield place, server.pid
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(server: "subprocess.Popen[bytes]", place: Place) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(place, 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the baseline did not start")
