"""What must be true after every restart: nothing acknowledged is lost, nothing happened twice, the books balance."""

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
"""How many acknowledged requests are sent again after each restart, half of them with another body."""

NEWEST = 150
"""How many answers are looked up after each restart, the newest; at the end all are."""


def after_restart(
    client: Client, address: str, memory: Memory, figures: "Figures", dice: random.Random, newest: int | None = NEWEST
) -> None:
    """All of it, with so many of the answers, or all when None. Raises AssertionError, and OSError when the server dies."""
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
    assert not changed, f"{message.token} is not what was told: {changed}"
    return True


def _resolve(client: Client, message: Message, figures: "Figures") -> None:
    """Asks again with the same token and body: the outcome is the one that is there, or a new one."""
    stored = client.get(f"/transactions/{message.token}")
    assert stored.status in (200, 404), stored.text
    reply = client.post(message.path, message.body)
    assert reply.status == 201, f"{message.token}: {reply.status} {reply.text}"
    if stored.status == 200:
        figures.committed_untold += 1
        changed = list(differences(stored.json, reply.json["transaction"]))
        assert not changed, f"{message.token} became another one: {changed}"
    figures.unanswered += 1
    message.answer = reply.json["transaction"]


def _repeat(client: Client, memory: Memory, figures: "Figures", dice: random.Random) -> None:
    """Sends some again: the same body gives the same bytes, another body is a conflict; neither has an effect."""
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
    """The invariants; no transaction beyond those that were asked for; balances as the answers add up to."""
    with database_at(address) as database:
        verify(database)
        with database.read() as db:
            counts = [db.scalar(select(func.count()).select_from(table)) for table in (transactions, message_tokens)]
    assert counts == [len(memory.by_token)] * 2, f"{counts} rows for {len(memory.by_token)} requests"
    for user, held in memory.held_cents().items():
        # What Just-in-Time Funding brought is on hold or spent, so nothing is ever left over.
        balances = (api_fixtures.ledger_cents(client, user), api_fixtures.available_cents(client, user))
        assert balances == (held, 0), f"{user}: (ledger, available) {balances}, by the answers {(held, 0)}"


def verify(database: Database) -> None:
    """The invariants of `cardwright verify`. Raises AssertionError."""
    broken = [finding for finding in findings(database) if finding.broken]
    assert not broken, "\n".join(f"{finding.name}: {finding.violations}" for finding in broken)


def verify_from_outside(address: str, data_dir: Path) -> None:
    """`cardwright verify`, as an operator types it, card numbers in clear included. Raises AssertionError."""
    command = [sys.executable, "-m", "cardwright", "verify", "--db", address, "--data-dir", str(data_dir), "--secrets", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=data_dir, check=False)
    assert (run.returncode, json.loads(run.stdout)["sound"]) == (0, True), f"{run.stdout[-4000:]}{run.stderr[-2000:]}"


@contextmanager
def database_at(address: str) -> Iterator[Database]:
    """The database from outside, as an auditor sees it."""
    database = Database(address)
    try:
        yield database
    finally:
        database.close()


def expire_claims(address: str) -> None:
    """Lets half a minute pass for the notifications that a dead process had claimed."""
    with database_at(address) as database, database.write() as db:
        db.execute(text("UPDATE outbox SET due_ms = 0 WHERE state = 4"))


def deliveries(memory: Memory, figures: "Figures", inline: Receiver, hook: Receiver, patience_s: float) -> None:
    """Every transaction reached the registered webhook, and the address that its own request named, at least once."""
    wanted = {
        "hook": (hook, set(memory.by_token)),
        "inline": (inline, {token for token, message in memory.by_token.items() if "webhook" in message.body}),
    }
    deadline = time.monotonic() + patience_s
    for name, (receiver, tokens) in wanted.items():
        while (missing := tokens - heard(receiver).keys()) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not missing, f"{name}: {len(missing)} of {len(tokens)} notifications never came, such as {sorted(missing)[:5]}"
        figures.due += len(tokens)
    for receiver, _ in wanted.values():
        figures.delivered += sum(heard(receiver).values())
        figures.delivered_again += sum(count - 1 for count in heard(receiver).values())
        _compare_notifications(memory, receiver)


def heard(receiver: Receiver) -> Counter[str]:
    """How often a receiver was told of each transaction."""
    return Counter(element["token"] for element in elements(receiver))


def elements(receiver: Receiver) -> Iterator[dict[str, Any]]:
    """Every transaction that a receiver was told of, repeats included."""
    for body in list(receiver.bodies):
        yield from json.loads(body)["transactions"]


def _compare_notifications(memory: Memory, receiver: Receiver) -> None:
    """A notification says what the answer said, each time it comes."""
    for element in elements(receiver):
        message = memory.by_token[element["token"]]
        assert message.answer == element, f"{message.token}: {list(differences(message.answer or {}, element))}"
