"""One batch: see once, decide each message in order, write once.

The batch is one database transaction, and no network call but the database's happens inside it. What a message left
behind is what the next message of the same account sees. A batch leaves the same rows as its messages one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import structlog

from cardwright.core.checks import address_verdict
from cardwright.core.decide import Decision, decide
from cardwright.core.messages import Message
from cardwright.core.problems import CARD_UNKNOWN, INTERNAL, TOKEN_TAKEN, Problem
from cardwright.core.record import Recorded
from cardwright.core.snapshot import Account, Snapshot
from cardwright.core.words import TYPES
from cardwright.engine.cache import Cache, CardEntry, CardKey, ProgramEntry, SourceEntry
from cardwright.kit.clock import Instant, ProgramClock, RealClock
from cardwright.kit.faults import fault
from cardwright.outbox.events import BATCH_MAX, Category, interested, outbox_row
from cardwright.storage.hot import Conflict, Lane, Seen, Write

_account = msgspec.msgpack.Decoder(Account)
_pack = msgspec.msgpack.encode
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asked:
    """A message on its way into a batch.

    ``seed`` are the 63 random bits of its identifiers, drawn on arrival; ``received_ms`` is real time. ``inline_target``
    is the sealed address of a webhook that the request itself names. ``request_hash`` belongs to a token that the
    sender chose.
    """

    card: CardKey
    message: Message
    seed: int
    received_ms: Instant
    inline_target: bytes | None = None
    chosen_token: str | None = None
    request_hash: bytes = b""


class Outcome(NamedTuple):
    """What a message became: its row, and what it takes to render it."""

    row: Recorded
    card: CardEntry
    program: ProgramEntry
    source: SourceEntry | None


Result = Outcome | Problem


class IdSource:
    """Transaction ids for this process: odd ones for messages, each followed by the id of its load side."""

    def __init__(self) -> None:
        self._block = iter(range(0))
        self._left = 0

    def refill(self, block: range) -> None:
        """Takes over a block; what was left of the one before is given up."""
        self._block, self._left = iter(block), len(block)

    def has(self, count: int) -> bool:
        """Whether so many ids are left."""
        return self._left >= count

    def next(self) -> int:
        """The next id."""
        self._left -= 1
        return next(self._block)


@dataclass(slots=True)
class _Context:
    """What the batch found out before deciding."""

    seen: Seen
    cards: dict[CardKey, CardEntry]
    programs: dict[int, ProgramEntry]
    now: dict[int, Instant]
    real_ms: Instant


async def run_batch(lane: Lane, cache: Cache, ids: IdSource, real_clock: RealClock, batch: Sequence[Asked]) -> list[Result]:
    """Decides a batch in one transaction and answers each message, in order, after the commit.

    Every card must be in the cache. Raises Conflict when the batch must be run again, Unavailable when the database
    failed; nothing is kept in either case.
    """
    cards = {asked.card: entry for asked in batch if (entry := cache.find_card(asked.card)) is not None}
    holder_ids = sorted({entry.holder_id for entry in cards.values()})
    program_ids = sorted({asked.card[0] for asked in batch})
    tokens = [(asked.card[0], asked.chosen_token) for asked in batch if asked.chosen_token is not None]
    seen = await lane.begin(holder_ids, program_ids, tokens)
    try:
        context = await _configure(cache, cards, seen, real_clock())
        write, results = _decide_all(context, ids, batch)
    except BaseException:
        # Whatever happened, the accounts must not stay locked.
        await lane.abort()
        raise
    if not write.transactions:
        await lane.abort()
        return results
    fault("commit.before")
    await lane.commit(write)
    fault("commit.after")
    return results


async def _configure(cache: Cache, cards: dict[CardKey, CardEntry], seen: Seen, real_ms: Instant) -> _Context:
    """Replaces configuration that the locked revisions show to be out of date."""
    stale = [key for key, entry in cards.items() if _is_stale(entry, seen)]
    if stale:
        await cache.reload_cards(stale)
        for key in stale:
            entry = cache.find_card(key)
            if entry is None:
                # The card went with a reset of its program; whoever asked for it is told so.
                del cards[key]
            elif _is_stale(entry, seen):
                raise Conflict("a card draws on another account now")
            else:
                cards[key] = entry
    programs, now = {}, {}
    for program_id, row in seen.programs.items():
        programs[program_id] = await cache.program(program_id, row.revision)
        now[program_id] = ProgramClock(row.offset_ms, row.frozen_ms).at(real_ms)
    for program_id, program in programs.items():
        await cache.products(program, (entry.card.card_product_token for key, entry in cards.items() if key[0] == program_id))
    return _Context(seen, cards, programs, now, real_ms)


def _is_stale(entry: CardEntry, seen: Seen) -> bool:
    holder = seen.holders.get(entry.holder_id)
    return holder is None or holder.revision != entry.revision


def _decide_all(context: _Context, ids: IdSource, batch: Sequence[Asked]) -> tuple[Write, list[Result]]:
    write, results, fresh = Write(), list[Result](), list[tuple[Asked, Outcome]]()
    accounts = {holder_id: _account.decode(row.state) for holder_id, row in context.seen.holders.items()}
    untouched = dict(accounts)
    by_token: dict[tuple[int, str], tuple[bytes, Outcome]] = {}
    for asked in batch:
        if asked.card not in context.cards:
            results.append(Problem(CARD_UNKNOWN))
            continue
        if asked.chosen_token is not None and (earlier := _find_earlier(context, by_token, asked)) is not None:
            results.append(earlier)
            continue
        try:
            outcome, account = _decide_one(context, ids, asked, accounts)
        except Exception:
            # Deciding touches nothing, so a message that trips over a bug spoils only itself.
            log.exception("a message could not be decided", card=asked.card[1])
            results.append(Problem(INTERNAL))
            continue
        row = outcome.row
        accounts[row.holder_id] = account
        write.transactions.append(row)
        if row.impacted:
            write.journal.append(_entry(row))
        if asked.chosen_token is not None:
            write.tokens.append((row.program_id, asked.chosen_token, row.id, asked.request_hash))
            by_token[row.program_id, asked.chosen_token] = asked.request_hash, outcome
        fresh.append((asked, outcome))
        results.append(outcome)
    write.holders = [(key, _pack(account)) for key, account in accounts.items() if account is not untouched[key]]
    write.outbox = _notifications(context, fresh)
    return write, results


def _decide_one(context: _Context, ids: IdSource, asked: Asked, accounts: dict[int, Account]) -> tuple[Outcome, Account]:
    """The outcome of one message and the account after it."""
    entry, program = context.cards[asked.card], context.programs[asked.card[0]]
    product = program.products[entry.card.card_product_token]
    source = program.source_of(product)
    source_fact = source.fact if source is not None else None
    snapshot = Snapshot(
        program.currency, entry.card, entry.user, entry.owner, product, source_fact, accounts[entry.holder_id]
    )
    decision = decide(snapshot, asked.message, context.now[program.id])
    row = _record(context, asked, entry, program, source, snapshot, decision, ids.next())
    return Outcome(row, entry, program, source), decision.account


def _find_earlier(context: _Context, by_token: dict[tuple[int, str], tuple[bytes, Outcome]], asked: Asked) -> Result | None:
    """The outcome of the message that had this token first; a problem when that message said something else."""
    key = (asked.card[0], asked.chosen_token or "")
    if key in by_token:
        digest, outcome = by_token[key]
        return outcome if digest == asked.request_hash else Problem(TOKEN_TAKEN)
    if (replay := context.seen.replays.get(key)) is None:
        return None
    if replay.request_hash != asked.request_hash:
        return Problem(TOKEN_TAKEN)
    program, entry = context.programs[key[0]], context.cards[asked.card]
    source = program.source_of(program.products[entry.card.card_product_token])
    return Outcome(context.seen.replayed[replay.transaction_id], entry, program, source)


def _record(
    context: _Context,
    asked: Asked,
    entry: CardEntry,
    program: ProgramEntry,
    source: SourceEntry | None,
    snapshot: Snapshot,
    decision: Decision,
    row_id: int,
) -> Recorded:
    details = asked.message.details
    verdict = address_verdict(snapshot, asked.message)
    if verdict is not None or decision.order_refused or asked.chosen_token is not None:
        details = msgspec.structs.replace(
            details, address_verdict=verdict, order_refused=decision.order_refused, chosen_token=asked.chosen_token
        )
    now = context.now[program.id]
    ledger, held = decision.account.money(decision.currency)
    clock_is_frozen = context.seen.programs[program.id].frozen_ms is not None
    return Recorded(
        id=row_id,
        program_id=program.id,
        holder_id=entry.holder_id,
        card_id=entry.card_id,
        source_id=source.id if source is not None else None,
        kind=decision.kind,
        state=decision.state.value,
        first_state=decision.state.value,
        code=decision.reason.number,
        created_ms=now,
        user_time_ms=now,
        # On a frozen clock nothing takes any time, or the same calls would not give the same bytes.
        duration_ms=0 if clock_is_frozen else max(0, context.real_ms - asked.received_ms),
        currency=decision.currency,
        request_amount=decision.requested,
        amount=decision.amount,
        impacted=decision.impacted,
        moved=decision.moved,
        hold_left=decision.held,
        ledger=ledger,
        available=ledger - held,
        root_id=None,
        seed=asked.seed,
        program_revision=program.revision,
        holder_revision=entry.revision,
        details=_pack(details),
    )


def _entry(row: Recorded) -> tuple[object, ...]:
    """The journal entry of an authorization: what JIT Funding brings and what the account has becomes a hold."""
    available = row.moved - row.amount
    return (row.id, row.program_id, row.holder_id, row.source_id, row.currency, row.created_ms, -row.moved, available, row.amount)


def _notifications(context: _Context, fresh: Sequence[tuple[Asked, Outcome]]) -> list[dict[str, object]]:
    """One outbox row for up to ten events to one webhook, one for each webhook that a request names itself."""
    rows, registered = list[dict[str, object]](), dict[tuple[int, int], list[int]]()
    for asked, (row, _card, program, _source) in fresh:
        if asked.inline_target is not None:
            now = context.now[program.id]
            rows.append(outbox_row(program.id, now, Category.TRANSACTION, [row.id], target=asked.inline_target))
        if program.subscriptions:
            for webhook_id in interested(program.subscriptions, f"transaction.{TYPES[row.kind]}"):
                registered.setdefault((program.id, webhook_id), []).append(row.id)
    for (program_id, webhook_id), refs in registered.items():
        for start in range(0, len(refs), BATCH_MAX):
            chunk = refs[start : start + BATCH_MAX]
            rows.append(outbox_row(program_id, context.now[program_id], Category.TRANSACTION, chunk, webhook_id=webhook_id))
    return rows
