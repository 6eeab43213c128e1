"""Checks after an outage: times of all answers, no acknowledged message lost, and no refused message booked."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from sqlalchemy import func, select

from cardwright.storage.tables import message_tokens, transactions
from tests.stress import api_fixtures, check
from tests.stress.load import HEALTHZ, PURCHASE, READYZ, Exchange, Load
from tests.stress.request_log import Memory, differences
from tests.support.receiver import Receiver
from tests.support.server import Client

SAMPLE = 40
"""Number of acknowledged messages nearest to the outage that are read and compared. All must exist."""

REPEATS = 6
"""Number of acknowledged messages, and of refused messages, that are sent again after each outage."""

TRIES = 5
"""Attempts of a repeat that is answered 503: on a busy machine a time limit may be reached without an outage."""

GRACE_S = 0.1
"""Time before SIGTERM: a request that is sent later may find a closed connection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The time limits of a server, in seconds."""

    answer_s: float = 5.0
    recovery_s: float = 2.0
    ready_s: float = 2.0
    stop_s: float = 5.0


@dataclass(slots=True)
class Moments:
    """An outage in seconds of ``time.monotonic``; ``stop_s`` is the moment of SIGTERM if it was sent."""

    strike_s: float
    return_s: float
    stop_s: float | None = None


@dataclass
class Record:
    """An outage and its counts. The JSON file of a run has one record for each outage."""

    site: str
    kind: str
    phase: str
    number: int
    is_reached: bool = False
    requests: int = 0
    refused: int = 0
    slowest_ms: int = 0
    times_ms: dict[int, int] = field(default_factory=dict)
    """Times of all answers during the outage, by 10 ms."""
    recovery_ms: int | None = None
    ready_ms: int | None = None
    stop_ms: int | None = None
    log_lines: int = 0
    acknowledged: int = 0
    certain: int = 0
    """Refusals whose outcome is known: the message was not booked."""
    unknown: int = 0
    unknown_booked: int = 0
    repeated: int = 0
    verified: int = 0
    took_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def name(self) -> tuple[str, str, int]:
        """The key of the outage in a run."""
        return self.site, self.kind, self.number

    def json(self) -> dict[str, Any]:
        """Return the stored form."""
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Record":
        """Return the record of a stored form."""
        return cls(**{**stored, "times_ms": {int(time_ms): count for time_ms, count in stored["times_ms"].items()}})


@dataclass
class Books:
    """The expected contents of the database: sums and tokens only, because a run has tens of thousands of messages."""

    held: Counter[str] = field(default_factory=Counter)
    booked: int = 0
    refused: set[str] = field(default_factory=set)
    due: set[str] = field(default_factory=set)
    due_inline: set[str] = field(default_factory=set)

    def add(self, memory: Memory) -> None:
        """Add the messages of one outage. Those without an answer must never be booked."""
        self.held.update(memory.held_cents())
        for message in memory.by_token.values():
            if message.answer is None:
                self.refused.add(message.token)
                continue
            self.booked += 1
            self.due.add(message.token)
            if "webhook" in message.body:
                self.due_inline.add(message.token)


def check_times(record: Record, exchanges: Sequence[Exchange], moments: Moments, limits: Limits) -> None:
    """Count and time the answers since the start of the outage; record every answer that is wrong or late."""
    during = [exchange for exchange in exchanges if exchange.answered_s >= moments.strike_s]
    answered = [exchange for exchange in during if not _met_stop(exchange, moments)]
    record.requests = len(answered)
    record.refused = sum(exchange.status == 503 for exchange in answered)
    record.times_ms = dict(Counter(round(exchange.took_s * 100) * 10 for exchange in answered))
    record.slowest_ms = max((round(exchange.took_s * 1000) for exchange in answered), default=0)
    record.violations += [text for exchange in answered if (text := _fault(exchange, moments, limits))]
    if moments.stop_s is None:
        _check_recovery(record, during, moments, limits)
    _check_readiness(record, during, moments, limits)


def _met_stop(exchange: Exchange, moments: Moments) -> bool:
    """Return whether an unanswered request was sent after SIGTERM, so no answer is due."""
    return moments.stop_s is not None and exchange.status == 0 and exchange.sent_s > moments.stop_s - GRACE_S


def _fault(exchange: Exchange, moments: Moments, limits: Limits) -> str:
    prefix = f"{exchange.target} sent {exchange.sent_s - moments.strike_s:+.2f} s after the strike"
    if exchange.status == 0:
        return f"{prefix}: no answer in {exchange.took_s:.2f} s: {exchange.text}"
    if exchange.took_s > limits.answer_s:
        return f"{prefix}: answered after {exchange.took_s:.2f} s ({exchange.status})"
    if exchange.target == HEALTHZ and exchange.status != 200:
        return f"{prefix}: {exchange.status} {exchange.text}"
    if exchange.target in (HEALTHZ, READYZ) or exchange.status < 300:
        return ""
    if (exchange.status, exchange.code) != (503, "503001"):
        return f"{prefix}: {exchange.status} {exchange.text}"
    if exchange.is_unknown and exchange.message is not None and exchange.message.token not in exchange.text:
        return f"{prefix}: an unknown outcome without its token: {exchange.text}"
    return ""


def _check_recovery(record: Record, during: Sequence[Exchange], moments: Moments, limits: Limits) -> None:
    """Check the time from the database's return to the first approval or, if later, to the last refused purchase.

    Also check that /readyz is ready in time after the first approval.
    """
    purchases = [exchange for exchange in during if exchange.target == PURCHASE]
    first = min((e.answered_s for e in purchases if e.status == 201 and e.answered_s > moments.return_s), default=None)
    if first is None:
        record.violations.append("no purchase was approved after the database's return")
        return
    last_refused = max((e.sent_s for e in purchases if e.status != 201), default=0.0)
    recovery_s = max(first, last_refused) - moments.return_s
    record.recovery_ms = round(max(recovery_s, 0.0) * 1000)
    if recovery_s > limits.recovery_s:
        record.violations.append(
            f"purchases: first approved {first - moments.return_s:.2f} s after the return, "
            f"the last refused one sent {last_refused - moments.return_s:+.2f} s after it"
        )
    polls = [e for e in during if e.target == READYZ and e.status == 200 and e.sent_s > moments.return_s]
    ready = min((e.answered_s for e in polls), default=None)
    if ready is None:
        record.violations.append("/readyz did not answer ready again")
        return
    record.ready_ms = round((ready - moments.return_s) * 1000)
    if ready > max(first, moments.return_s) + limits.ready_s:
        record.violations.append(f"/readyz answered ready only {ready - moments.return_s:.2f} s after the return")


def _check_readiness(record: Record, during: Sequence[Exchange], moments: Moments, limits: Limits) -> None:
    """Check that `/readyz` does not answer ready while purchases have been refused for longer than the limit."""
    purchases = sorted((e for e in during if e.target == PURCHASE and e.status), key=lambda exchange: exchange.answered_s)
    ready = [exchange for exchange in during if exchange.target == READYZ and exchange.status == 200]
    for begin_s, end_s in _refusals(purchases, moments):
        wrong = [e for e in ready if e.sent_s > begin_s + limits.ready_s and e.answered_s < end_s]
        if wrong:
            record.violations.append(
                f"/readyz answered ready {len(wrong)} times, {wrong[0].sent_s - begin_s:.2f} s after the first refused purchase"
            )


def _refusals(purchases: Sequence[Exchange], moments: Moments) -> Iterator[tuple[float, float]]:
    """Yield spans in which every purchase was refused, from the first sending to the last."""
    run = list[Exchange]()
    for exchange in (*purchases, None):
        if exchange is not None and exchange.status == 503:
            run.append(exchange)
        elif run:
            yield max(moments.strike_s, min(e.sent_s for e in run)), max(e.sent_s for e in run)
            run = []


def check_messages(record: Record, client: Client, address: str, load: Load, moments: Moments, dice: Random) -> None:
    """Compare the database with the answers, resolve the unknown outcomes, and repeat some of the other messages."""
    memory = load.memory
    sent = [exchange for exchange in load.exchanges if exchange.message is not None]
    booked = booked_tokens(address, memory)
    acknowledged = [exchange for exchange in sent if exchange.status == 201]
    unknown = [exchange for exchange in sent if exchange.is_unknown]
    certain = [exchange for exchange in sent if exchange.is_refused and not exchange.is_unknown]
    record.acknowledged, record.certain, record.unknown = len(acknowledged), len(certain), len(unknown)
    record.violations += [f"acknowledged and lost: {token}" for token in sorted(_tokens(acknowledged) - booked)]
    record.violations += [f"refused and carried out: {token}" for token in sorted(_tokens(certain) & booked)]
    for exchange in sorted(acknowledged, key=lambda e: abs(e.answered_s - moments.strike_s))[:SAMPLE]:
        record.violations += _lookup_faults(client, exchange)
    for exchange in unknown:
        _resolve(record, client, exchange, booked, dice)
    # Repeat a refused message only if it is the newest of its chain. After a later message another outcome would be right.
    newest = {chain[-1].token for chain in memory.chains.values()}
    last = [exchange for exchange in certain if exchange.message is not None and exchange.message.token in newest]
    for repeatable in (acknowledged, last):
        for exchange in dice.sample(repeatable, min(REPEATS, len(repeatable))):
            _repeat(record, client, exchange)


def _tokens(exchanges: Sequence[Exchange]) -> set[str]:
    return {exchange.message.token for exchange in exchanges if exchange.message is not None}


def booked_tokens(address: str, memory: Memory) -> set[str]:
    """Return the tokens of the memory that have a transaction in the database."""
    tokens, booked = list(memory.by_token), set[str]()
    with check.database_at(address) as database, database.read() as db:
        for start in range(0, len(tokens), 500):
            chosen = message_tokens.c.token.in_(tokens[start : start + 500])
            booked |= set(db.scalars(select(message_tokens.c.token).where(chosen)))
    return booked


def _lookup_faults(client: Client, exchange: Exchange) -> list[str]:
    message = exchange.message
    assert message is not None
    assert message.answer is not None
    reply = client.get(f"/transactions/{message.token}")
    if reply.status != 200:
        return [f"GET of {message.token}: {reply.status} {reply.text[:200]}"]
    changed = list(differences(message.answer, reply.json))
    return [f"{message.token} differs from its answer: {changed}"] if changed else []


def _resolve(record: Record, client: Client, exchange: Exchange, booked: set[str], dice: Random) -> None:
    """Look up an unknown outcome. Repeat a booked message; repeat half of the others, which must otherwise stay unbooked."""
    message = exchange.message
    assert message is not None
    is_booked = message.token in booked
    reply = client.get(f"/transactions/{message.token}")
    if (reply.status == 200) != is_booked or reply.status not in (200, 404):
        record.violations.append(f"unknown {message.token}: GET {reply.status}, booked: {is_booked}; {reply.text[:200]}")
    if is_booked:
        record.unknown_booked += 1
        message.answer = reply.json
        _repeat(record, client, exchange)
    elif dice.random() < 0.5:
        _repeat(record, client, exchange)


def _repeat(record: Record, client: Client, exchange: Exchange) -> None:
    """Send a message again. It must get the first answer, or be booked now if it had none."""
    message = exchange.message
    assert message is not None
    for _ in range(TRIES):
        reply = client.post(message.path, message.body)
        if reply.status != 503:
            break
    record.repeated += 1
    if reply.status != 201:
        record.violations.append(f"repeat of {message.token}: {reply.status} {reply.text[:200]}")
        return
    transaction = reply.json["transaction"]
    changed = list(differences(message.answer, transaction)) if message.answer is not None else []
    if changed:
        record.violations.append(f"repeat of {message.token} differs: {changed}")
    message.answer = message.answer or transaction


def check_books(record: Record, client: Client, address: str, books: Books) -> None:
    """Check all invariants, the number of rows and every balance, and that no refused message was booked later."""
    with check.database_at(address) as database:
        try:
            check.verify(database)
        except AssertionError as error:
            record.violations.append(f"verify: {error}")
        with database.read() as db:
            counts = [db.scalar(select(func.count()).select_from(table)) for table in (transactions, message_tokens)]
            late = books.refused & set(db.scalars(select(message_tokens.c.token)))
    if counts != [books.booked] * 2:
        record.violations.append(f"{counts} rows for {books.booked} messages")
    record.violations += [f"refused and carried out later: {token}" for token in sorted(late)]
    for user, cents in books.held.items():
        balances = (api_fixtures.ledger_cents(client, user), api_fixtures.available_cents(client, user))
        if balances != (cents, 0):
            record.violations.append(f"{user}: (ledger, available) {balances}, by the answers {(cents, 0)}")
    record.verified += 1


@dataclass
class Arrivals:
    """Notifications that a receiver got, counted by transaction token. Counted bodies are dropped."""

    receiver: Receiver
    tokens: Counter[str] = field(default_factory=Counter)

    def count(self) -> None:
        """Count the notifications since the last call."""
        with self.receiver.lock:
            self.tokens += check.heard(self.receiver)
            self.receiver.bodies.clear()
            self.receiver.headers.clear()

    def missing(self, due: set[str], patience_s: float) -> set[str]:
        """Return the due tokens that have not arrived within ``patience_s`` seconds."""
        deadline = time.monotonic() + patience_s
        while True:
            self.count()
            missing = due - self.tokens.keys()
            if not missing or time.monotonic() > deadline:
                return missing
            time.sleep(0.2)


LAST_OF_BANNER = "In another terminal:"


def log_lines_since(output: str, length: int) -> list[str]:
    """Return the log lines of a server's output after the first ``length`` characters.

    A new server answers before it prints its banner, so the output may contain the banner, which has no log lines.
    """
    lines = [line for line in output[length:].splitlines() if line.strip()]
    banner_ends = [number for number, line in enumerate(lines, 1) if line.startswith(LAST_OF_BANNER)]
    return lines[max(banner_ends, default=0) :]
