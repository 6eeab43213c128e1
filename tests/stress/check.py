"""Checks after a restart: no acknowledged message is lost, no request has a second effect, and the books balance."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, text

from cardwright.ledger.invariants import findings
from cardwright.storage.database import Database
from cardwright.storage.tables import message_tokens, transactions
from tests.stress import api_fixtures
from tests.stress.request_log import Memory, Message, differences
from tests.support.receiver import Receiver
from tests.support.server import Client

if TYPE_CHECKING:
    from tests.stress.kills import Figures

REPEATS_MAX = 24
"""Number of acknowledged requests that are sent again after each restart, half of them with another body."""

NEWEST = 150
"""Number of newest answers that are looked up after each restart. The last check looks up all answers."""


def after_restart(
    client: Client, address: str, memory: Memory, figures: "Figures", dice: random.Random, newest: int | None = NEWEST
) -> None:
    """Run all checks on the ``newest`` answers, or on all if None. Raises AssertionError, and OSError if the server dies."""
    answered = memory.answered()[-newest if newest is not None else None :]
    lost = [message.token for message in answered if not _is_kept(client, message)]
    assert not lost, f"acknowledged and lost: {lost}"
    figures.looked_up += len(answered)
    for message in memory.unanswered():
        _resolve(client, message, figures)
    _repeat(client, memory, figures, dice)
    _compare_books(client, address, memory)
    figures.verified += 1


def _is_kept(client: Client, message: Message) -> bool:
    assert message.answer is not None
    reply = client.get(f"/transactions/{message.token}")
    if reply.status == 404:
        return False
    assert reply.status == 200, reply.text
    changed = list(differences(message.answer, reply.json))
    assert not changed, f"{message.token} differs from its answer: {changed}"
    return True


def _resolve(client: Client, message: Message, figures: "Figures") -> None:
    """Send an unanswered request again: it gets the stored outcome, or a new one if nothing was stored."""
    stored = client.get(f"/transactions/{message.token}")
    assert stored.status in (200, 404), stored.text
    reply = client.post(message.path, message.body)
    assert reply.status == 201, f"{message.token}: {reply.status} {reply.text}"
    if stored.status == 200:
        figures.committed_unanswered += 1
        changed = list(differences(stored.json, reply.json["transaction"]))
        assert not changed, f"the repeat of {message.token} differs from the stored transaction: {changed}"
    figures.unanswered += 1
    message.answer = reply.json["transaction"]


def _repeat(client: Client, memory: Memory, figures: "Figures", dice: random.Random) -> None:
    """Repeat some answered requests: the same body gets the same answer, another body a conflict; neither has an effect."""
    answered = memory.answered()
    for number, message in enumerate(dice.sample(answered, min(REPEATS_MAX, len(answered)))):
        if number % 2:
            same = client.post(message.path, message.body)
            assert (same.status, same.json["transaction"]) == (201, message.answer), f"{message.token}: {same.text}"
            figures.repeated += 1
        else:
            other = client.post(message.path, {**message.body, "amount": api_fixtures.amount(message.cents + 1)})
            assert (other.status, other.json["error_code"]) == (409, "409002"), f"{message.token}: {other.text}"
            figures.refused += 1


def _compare_books(client: Client, address: str, memory: Memory) -> None:
    """Check the invariants, the number of transactions, and each balance against the sum of the answers."""
    with database_at(address) as database:
        verify(database)
        with database.read() as db:
            counts = [db.scalar(select(func.count()).select_from(table)) for table in (transactions, message_tokens)]
    assert counts == [len(memory.by_token)] * 2, f"{counts} rows for {len(memory.by_token)} requests"
    for user, held in memory.held_cents().items():
        # Every JIT load is on hold or spent, so the available balance is always 0.
        balances = (api_fixtures.ledger_cents(client, user), api_fixtures.available_cents(client, user))
        assert balances == (held, 0), f"{user}: (ledger, available) {balances}, by the answers {(held, 0)}"


def verify(database: Database) -> None:
    """Check the invariants of `cardwright verify`. Raises AssertionError if one is broken."""
    broken = [finding for finding in findings(database) if finding.broken]
    assert not broken, "\n".join(f"{finding.name}: {finding.violations}" for finding in broken)


def verify_from_outside(address: str, data_dir: Path) -> None:
    """Run `cardwright verify --secrets` as a command. Raises AssertionError if it reports a violation."""
    command = [sys.executable, "-m", "cardwright", "verify", "--db", address, "--data-dir", str(data_dir), "--secrets", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=data_dir, check=False)
    assert (run.returncode, json.loads(run.stdout)["sound"]) == (0, True), f"{run.stdout[-4000:]}{run.stderr[-2000:]}"


@contextmanager
def database_at(address: str) -> Iterator[Database]:
    """Yield the database at an address, opened without its server."""
    database = Database(address)
    try:
        yield database
    finally:
        database.close()


def expire_claims(address: str) -> None:
    """End the half-minute claims on notifications that a killed process had made."""
    with database_at(address) as database, database.write() as db:
        db.execute(text("UPDATE outbox SET due_ms = 0 WHERE state = 4"))


def deliveries(memory: Memory, figures: "Figures", inline: Receiver, hook: Receiver, patience_s: float) -> None:
    """Check that each transaction reached the webhook, and the endpoint that its request named, at least once."""
    wanted = {
        "hook": (hook, set(memory.by_token)),
        "inline": (inline, {token for token, message in memory.by_token.items() if "webhook" in message.body}),
    }
    deadline = time.monotonic() + patience_s
    for name, (receiver, tokens) in wanted.items():
        while (missing := tokens - heard(receiver).keys()) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not missing, f"{name}: {len(missing)} of {len(tokens)} notifications did not arrive, such as {sorted(missing)[:5]}"
        figures.due += len(tokens)
    for receiver, _ in wanted.values():
        figures.delivered += sum(heard(receiver).values())
        figures.delivered_again += sum(count - 1 for count in heard(receiver).values())
        _compare_notifications(memory, receiver)


def heard(receiver: Receiver) -> Counter[str]:
    """Return the number of notifications of each transaction that a receiver got."""
    return Counter(element["token"] for element in elements(receiver))


def elements(receiver: Receiver) -> Iterator[dict[str, Any]]:
    """Yield the transaction of each notification that a receiver got, repeats included."""
    for body in list(receiver.bodies):
        yield from json.loads(body)["transactions"]


def _compare_notifications(memory: Memory, receiver: Receiver) -> None:
    """Check that each notification has the content of the answer."""
    for element in elements(receiver):
        message = memory.by_token[element["token"]]
        assert message.answer == element, f"{message.token}: {list(differences(message.answer or {}, element))}"
