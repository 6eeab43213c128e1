"""Checks after an outage: times of all answers, and no acknowledged message lost, no refused message carried out."""

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
"""How many acknowledged messages, the nearest to the outage, are read and compared after each. All are checked to exist."""

REPEATS = 6
"""How many acknowledged, and how many refused messages are sent again after each outage."""

TRIES = 5
"""How often a message is repeated while it is answered 503: on a busy machine a time limit may be reached without an outage."""

GRACE_S = 0.1
"""A request that is sent so shortly before SIGTERM may meet a closed connection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The times within which a server must act, in seconds."""

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
    """An outage and all that was counted about it; the JSON file of a run holds one of these for each outage."""

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
    """Refusals that say that nothing was done."""
    unknown: int = 0
    unknown_booked: int = 0
    repeated: int = 0
    verified: int = 0
    took_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def name(self) -> tuple[str, str, int]:
        """What distinguishes it in a run."""
        return self.site, self.kind, self.number

    def json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Record":
        """From what was stored."""
        return cls(**{**stored, "times_ms": {int(time_ms): count for time_ms, count in stored["times_ms"].items()}})


@dataclass
class Books:
    """What the database must hold by all answers of a run; kept small, as a run has tens of thousands of messages."""

    held: Counter[str] = field(default_factory=Counter)
    booked: int = 0
    refused: set[str] = field(default_factory=set)
    due: set[str] = field(default_factory=set)
    due_inline: set[str] = field(default_factory=set)

    def add(self, memory: Memory) -> None:
        """Add the messages of one outage; those without an answer must never be carried out."""
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
    """Count and time what was answered from the strike on; note every answer that is wrong or late."""
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
    """Whether the server was ordered to stop before the request was sent, so that nothing had to answer it."""
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
    """From the database's return to the first message carried out and, if later, to the last sending of a refused one."""
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
        record.violations.append("/readyz never said ready again")
        return
    record.ready_ms = round((ready - moments.return_s) * 1000)
    if ready > max(first, moments.return_s) + limits.ready_s:
        record.violations.append(f"/readyz said ready {ready - moments.return_s:.2f} s after the return only")


def _check_readiness(record: Record, during: Sequence[Exchange], moments: Moments, limits: Limits) -> None:
    """While purchases have been refused for longer than the limit, `/readyz` must not say ready."""
    purchases = sorted((e for e in during if e.target == PURCHASE and e.status), key=lambda exchange: exchange.answered_s)
    ready = [exchange for exchange in during if exchange.target == READYZ and exchange.status == 200]
    for begin_s, end_s in _refusals(purchases, moments):
        wrong = [e for e in ready if e.sent_s > begin_s + limits.ready_s and e.answered_s < end_s]
        if wrong:
            record.violations.append(
                f"/readyz said ready {len(wrong)} times, {wrong[0].sent_s - begin_s:.2f} s after purchases began to be refused"
            )


def _refusals(purchases: Sequence[Exchange], moments: Moments) -> Iterator[tuple[float, float]]:
    """Spans in which every purchase was refused, from the sending of the first to the sending of the last of them."""
    run = list[Exchange]()
    for exchange in (*purchases, None):
        if exchange is not None and exchange.status == 503:
            run.append(exchange)
        elif run:
            yield max(moments.strike_s, min(e.sent_s for e in run)), max(e.sent_s for e in run)
            run = []


def check_messages(record: Record, client: Client, address: str, load: Load, moments: Moments, dice: Random) -> None:
    """Compare the database with the answers, find out or repeat what is unknown, repeat some of the others."""
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
    # A message that was refused is repeated only while no later one has changed its chain: another outcome would be right then.
    newest = {chain[-1].token for chain in memory.chains.values()}
    last = [exchange for exchange in certain if exchange.message is not None and exchange.message.token in newest]
    for repeatable in (acknowledged, last):
        for exchange in dice.sample(repeatable, min(REPEATS, len(repeatable))):
            _repeat(record, client, exchange)


def _tokens(exchanges: Sequence[Exchange]) -> set[str]:
    return {exchange.message.token for exchange in exchanges if exchange.message is not None}


def booked_tokens(address: str, memory: Memory) -> set[str]:
    """Those of the memory's tokens that the database has a transaction of."""
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
    """Look an unknown outcome up; what was carried out is repeated, what was not is repeated or left alone for ever."""
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
    """Send a message again: the first answer comes, or, if there was none, the message is carried out now."""
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
    """All invariants, the number of rows, every balance; no message that was refused was carried out later."""
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
    """Notifications that a receiver got, counted by the token of their transaction; bodies are dropped once counted."""

    receiver: Receiver
    tokens: Counter[str] = field(default_factory=Counter)

    def count(self) -> None:
        """Count what has arrived since the last time."""
        with self.receiver.lock:
            self.tokens += check.heard(self.receiver)
            self.receiver.bodies.clear()
            self.receiver.headers.clear()

    def missing(self, due: set[str], patience_s: float) -> set[str]:
        """Those of the due tokens that have not arrived when the time is over."""
        deadline = time.monotonic() + patience_s
        while True:
            self.count()
            missing = due - self.tokens.keys()
            if not missing or time.monotonic() > deadline:
                return missing
            time.sleep(0.2)


LAST_OF_BANNER = "In another terminal:"


def log_lines_since(output: str, length: int) -> list[str]:
    """Return the log lines of a server's output after so many characters.

    A server that was started just before answers before it prints its addresses, and these are no log lines.
    """
    lines = [line for line in output[length:].splitlines() if line.strip()]
    banner_ends = [number for number, line in enumerate(lines, 1) if line.startswith(LAST_OF_BANNER)]
    return lines[max(banner_ends, default=0) :]
