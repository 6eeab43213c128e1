"""One batch: see once, decide each message in order, write once.

The batch is one database transaction, and no network call but the database's happens inside it. What a message left
behind is what the next message of the same account sees. A batch leaves the same rows as its messages one by one.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec
import structlog

from cardwright.core.counting import event_of, events_for
from cardwright.core.decide import decide, would_refuse
from cardwright.core.fee_groups import NO_FEES
from cardwright.core.holds import is_due
from cardwright.core.kinds import INCREMENT
from cardwright.core.messages import Expiry, Message
from cardwright.core.movement_docs import deposit_after
from cardwright.core.movements import SPENDING, DepositTransition, MovementKind, decide_movement
from cardwright.core.outcome import Decision
from cardwright.core.problems import (
    CARD_UNKNOWN,
    HOLD_NOT_DUE,
    INTERNAL,
    ORIGINAL_NOT_FOUND,
    TOKEN_TAKEN,
    USER_UNKNOWN,
    Problem,
)
from cardwright.core.record import RELOAD, Recorded, token_of, with_face
from cardwright.core.snapshot import Account, Snapshot
from cardwright.core.velocity import Control, counted, needs_history, recounted, usage_key
from cardwright.engine.assessing import FeeTaken, assessed_of, keep_fee, load_charged, unless_refunded
from cardwright.engine.cache import AccountEntry, AccountKey, Cache, Needs, ProgramEntry, SourceEntry
from cardwright.engine.cards import CardEntry, CardKey
from cardwright.engine.ids import IdSource
from cardwright.engine.moving import (
    Instructed,
    Moved,
    complete,
    entry_of,
    first_row,
    load_loaded,
    loads_in,
    movement_row,
    view_of,
)
from cardwright.engine.recording import (
    CARD_ACCOUNTS,
    after_chain,
    chain_of,
    chain_row,
    closed_increment,
    completed,
    details_of,
    inline_notification,
    journal_entry,
    notifications,
    record,
    with_increment,
)
from cardwright.kit.clock import Instant, ProgramClock, RealClock
from cardwright.kit.faults import fault
from cardwright.storage.hot import Conflict, Lane, MovementKey, Seen, Want, Write

Entry = TypeVar("Entry", CardEntry, AccountEntry)

_account = msgspec.msgpack.Decoder(Account)
_pack = msgspec.msgpack.encode
log = structlog.get_logger()


class Asked(NamedTuple):
    """A message on its way into a batch.

    ``card`` is as this process last saw it; the batch looks again when it has changed. ``root_id`` is the row of the chain
    that the message names. ``seed`` are the 63 random bits of its identifiers, drawn on arrival; ``received_ms`` is real
    time. ``inline_target`` is the sealed address of a webhook that the request itself names. ``request_hash`` belongs to a
    token that the sender chose.
    """

    card: CardEntry
    message: Message
    seed: int
    received_ms: Instant
    root_id: int | None = None
    inline_target: bytes | None = None
    chosen_token: str | None = None
    request_hash: bytes = b""


Ask = Asked | Instructed
"""Whatever the heart decides: a message to a card, or one to accounts."""


class Outcome(NamedTuple):
    """What a message became: its row, and what it takes to render it."""

    row: Recorded
    card: CardEntry
    program: ProgramEntry
    source: SourceEntry | None


Result = Outcome | Moved | Problem


@dataclass(slots=True)
class _Batch:
    """What a batch found out before deciding, and how things stand after the messages decided so far."""

    seen: Seen
    cards: dict[CardKey, CardEntry]
    holders: dict[AccountKey, AccountEntry]
    programs: dict[int, ProgramEntry]
    now: dict[int, Instant]
    real_ms: Instant
    accounts: dict[int, Account]
    roots: dict[int, Recorded]
    loaded: set[int]
    write: Write = field(default_factory=Write)
    by_token: dict[tuple[int, str], tuple[bytes, Outcome]] = field(default_factory=dict)
    by_movement: dict[MovementKey, tuple[bytes, Moved]] = field(default_factory=dict)


async def run_batch(lane: Lane, cache: Cache, ids: IdSource, real_clock: RealClock, asked: Sequence[Ask]) -> list[Result]:
    """Decides a batch in one transaction and answers each message, in order, after the commit.

    Raises Conflict when the batch must be run again, Unavailable when the database
    failed; nothing is kept in either case.
    """
    cards, holders, instructed, want = wanted(asked)
    seen = await lane.begin(want)
    try:
        batch = await configure(cache, cards, holders, seen, real_clock(), instructed)
        results = [answer(batch, ids, one) for one in asked]
        _conclude(batch)
    except BaseException:
        # Whatever happened, the accounts must not stay locked.
        await lane.abort()
        raise
    if not batch.write.transactions:
        await lane.abort()
        return results
    fault("commit.before")
    await lane.commit(batch.write)
    fault("commit.after")
    return results


def wanted(
    asked: Sequence[Ask],
) -> tuple[dict[CardKey, CardEntry], dict[AccountKey, AccountEntry], list[Instructed], Want]:
    """The cards and accounts of a batch, its movements, and what it must read."""
    spent = [one for one in asked if isinstance(one, Asked)]
    instructed = [one for one in asked if isinstance(one, Instructed)] if len(spent) < len(asked) else []
    cards = {one.card.key: one.card for one in spent}
    holders = {entry.key: entry for one in instructed for entry in one.accounts}
    want = Want(
        holder_ids=sorted({one.holder_id for one in cards.values()} | {one.holder_id for one in holders.values()}),
        program_ids=sorted({program_id for program_id, _ in (*cards, *holders)}),
        row_ids=sorted({one.root_id for one in asked if one.root_id is not None}),
        tokens=[(one.card.key[0], one.chosen_token) for one in spent if one.chosen_token is not None],
        movements=[one.key for one in instructed],
    )
    return cards, holders, instructed, want


async def configure(
    cache: Cache, cards: dict[CardKey, CardEntry], holders: dict[AccountKey, AccountEntry], seen: Seen, real_ms: Instant,
    instructed: Sequence[Instructed] = (),
) -> _Batch:  # fmt: skip
    """Replaces configuration that the locked revisions show to be out of date, and has what is new to it read."""
    await _refresh(cards, cache.reload_cards, seen)
    if holders:
        await _refresh(holders, cache.reload_accounts, seen)
    programs, now = {}, {}
    for program_id, row in seen.programs.items():
        programs[program_id] = await cache.program(program_id, row.revision, _needs(program_id, cards, seen, instructed))
        now[program_id] = ProgramClock(row.offset_ms, row.frozen_ms).at(real_ms)
    accounts = {holder_id: _account.decode(row.state) for holder_id, row in seen.holders.items()}
    for key, entry in cards.items():
        account = accounts[entry.holder_id]
        counted_controls = programs[key[0]].measure_of(entry.card).counted
        if account.has_history and counted_controls:
            accounts[entry.holder_id] = await _look_back(cache, entry, counted_controls, account, now[key[0]])
    roots = dict(seen.rows)
    if any(program.fees is not None for program in programs.values()):
        roots |= await load_charged(cache, programs, seen)
    loaded = await load_loaded(cache, holders.values()) if holders else set()
    return _Batch(seen, cards, holders, programs, now, real_ms, accounts, roots, loaded)


async def _refresh(
    entries: dict[tuple[int, str], Entry],
    reload: Callable[[Sequence[tuple[int, str]]], Awaitable[dict[tuple[int, str], Entry]]],
    seen: Seen,
) -> None:
    """Loads the entries again that the locked accounts show to be out of date."""
    stale = [key for key, entry in entries.items() if _is_stale(entry, seen)]
    if not stale:
        return
    fresh = await reload(stale)
    for key in stale:
        entry = fresh.get(key)
        if entry is None:
            # It went with a reset of its program; whoever asked for it is told so.
            del entries[key]
        elif _is_stale(entry, seen):
            raise Conflict("a card draws on another account now")
        else:
            entries[key] = entry


def _needs(program_id: int, cards: dict[CardKey, CardEntry], seen: Seen, instructed: Sequence[Instructed]) -> Needs:
    """What a batch needs of a program: what its cards are subject to, the sources of its chains and those that movements name."""
    sources = {row.source_id for row in seen.rows.values() if row.program_id == program_id}
    sources |= {one.source_id for one in instructed if one.program_id == program_id}
    facts = [entry.card for key, entry in cards.items() if key[0] == program_id]
    return Needs(facts, {source_id for source_id in sources if source_id is not None})


async def _look_back(
    cache: Cache, entry: CardEntry, controls: Sequence[Control], account: Account, now: Instant
) -> Account:
    """The account with the usage that its history gives to controls that are new to it, or were edited."""
    owner, user = entry.owner.token, entry.user.token
    missing = [control for control in controls if needs_history(control, account.usages.get(usage_key(control, user, owner)))]
    if not missing:
        return account
    events = await cache.events(entry.holder_id, user)
    usages = dict(account.usages)
    for control in missing:
        usages[usage_key(control, user, owner)] = recounted(control, events_for(control, events), now)
    return account.using(usages)


def _is_stale(entry: CardEntry | AccountEntry, seen: Seen) -> bool:
    holder = seen.holders.get(entry.holder_id)
    return holder is None or holder.revision != entry.revision


def answer(batch: _Batch, ids: IdSource, asked: Ask) -> Result:
    """One message's answer; what it changes is in the batch afterwards."""
    try:
        return _decide(batch, ids, asked) if isinstance(asked, Asked) else _move(batch, ids, asked)
    except Exception:
        # Deciding touches nothing, so a message that trips over a bug spoils only itself.
        log.exception("a message could not be decided", about=_name_of(asked))
        return Problem(INTERNAL)


def _name_of(asked: Ask) -> str:
    return asked.card.key[1] if isinstance(asked, Asked) else asked.movement.token


def _decide(batch: _Batch, ids: IdSource, asked: Asked) -> Outcome | Problem:
    card = batch.cards.get(asked.card.key)
    if card is None:
        return Problem(CARD_UNKNOWN)
    if asked.root_id is not None:
        root = batch.roots.get(asked.root_id)
        # It went with a reset, or a seeded run gave its number to another purchase afterwards.
        if root is None or root.card_id != card.card_id:
            return Problem(ORIGINAL_NOT_FOUND)
        # Another process was faster, or the hold has been used or prolonged since it was found.
        if isinstance(asked.message, Expiry) and not is_due(chain_of(root), batch.now[asked.card.key[0]]):
            return Problem(HOLD_NOT_DUE)
    if asked.chosen_token is not None and (earlier := _find_earlier(batch, asked)) is not None:
        return earlier
    return _decide_one(batch, ids, asked)


def _find_earlier(batch: _Batch, asked: Asked) -> Outcome | Problem | None:
    """The outcome of the message that had this token first; a problem when that message said something else."""
    key = (asked.card.key[0], asked.chosen_token or "")
    if key in batch.by_token:
        digest, outcome = batch.by_token[key]
        return outcome if digest == asked.request_hash else Problem(TOKEN_TAKEN)
    if (replay := batch.seen.replays.get(key)) is None:
        return None
    if replay.request_hash != asked.request_hash:
        return Problem(TOKEN_TAKEN)
    row, program = batch.seen.rows[replay.transaction_id], batch.programs[key[0]]
    source = program.sources_by_id.get(row.source_id) if row.source_id is not None else None
    return Outcome(row, batch.cards[asked.card.key], program, source)


class _View(NamedTuple):
    """What one message is decided by: the snapshot, the message as the transaction that it names completes it, its chain's
    root, and the funding source."""

    snapshot: Snapshot
    message: Message
    root: Recorded | None
    source: SourceEntry | None


def see(batch: _Batch, asked: Asked) -> _View:
    """The view of a message at this point of the batch."""
    entry, program = batch.cards[asked.card.key], batch.programs[asked.card.key[0]]
    named = batch.roots[asked.root_id] if asked.root_id is not None else None
    message = asked.message if named is None else completed(asked.message, named)
    root = named if message.follows else None
    if root is not None and message.details.assessed is not None:
        message = unless_refunded(message, root, batch.roots)
    product = program.products[entry.card.card_product_token]
    # A chain stays with the funding source that it began with.
    source = program.source_of(product) if root is None else program.sources_by_id.get(root.source_id or 0)
    measure = program.measure_of(entry.card)
    snapshot = Snapshot(
        program.currency, entry.card, entry.user, entry.owner, product, source.fact if source is not None else None,
        batch.accounts[entry.holder_id], chain_of(root) if root is not None else None, measure.controls,
        program.spend_of(entry.card, entry.user, product, message.details.merchant.mcc), measure.few,
        program.fees.get(entry.user.account_holder_group_token, NO_FEES) if program.fees else NO_FEES,
    )  # fmt: skip
    return _View(snapshot, message, root, source)


def _decide_one(batch: _Batch, ids: IdSource, asked: Asked) -> Outcome:
    entry, program = batch.cards[asked.card.key], batch.programs[asked.card.key[0]]
    snapshot, message, root, source = see(batch, asked)
    now, program_row = batch.now[program.id], batch.seen.programs[program.id]
    decision = decide(snapshot, message, now)
    details = details_of(message, snapshot, decision, asked.chosen_token)
    row_id, fee_id = ids.next(), ids.next() if decision.fee is not None else 0
    if decision.fee is not None and decision.fee.root is None:
        details = msgspec.structs.replace(details, assessed=assessed_of(decision.fee, fee_id))
    row = record(
        row_id=row_id,
        keys=(program.id, entry.holder_id, entry.card_id, source.id if source is not None else None),
        revisions=(program.revision, entry.revision),
        decision=decision,
        details=details,
        root=root,
        seed=asked.seed,
        now=now,
        # On a frozen clock nothing takes any time, or the same calls would not give the same bytes.
        duration_ms=max(0, batch.real_ms - asked.received_ms) if program_row.frozen_ms is None else 0,
    )
    outcome = Outcome(row, entry, program, source)
    usages = decision.account.usages
    if program.shadows:
        shadowed = msgspec.structs.replace(snapshot, controls=program.shadows_of(entry.card), few=None)
        batch.write.shadow_hits += [(program.id, one.id, row.id) for one in would_refuse(shadowed, message, decision, now)]
    if controls := program.measure_of(entry.card).counted:
        keys = [usage_key(control, entry.user.token, entry.owner.token) for control in controls]
        usages = counted(controls, keys, usages, event_of(row, details), now)
    _keep(batch, asked, outcome, decision, root, decision.account.using(usages))
    if decision.fee is not None and details.assessed is not None:
        face = source.face if source is not None else None
        taken = FeeTaken(decision.fee, details.assessed, fee_id, row, entry.user.token, face)
        keep_fee(taken, batch.write, batch.accounts, batch.roots)
    if details.increments and decision.chain is not None and not decision.chain.hold_left:
        batch.write.chains |= {row_id: closed_increment(row_id) for row_id, _ in details.increments}
    if program.reloads and row.impacted is not None and row.impacted < 0:
        spender = AccountEntry((program.id, entry.user.token), entry.holder_id, entry.revision, entry.user, entry.owner)
        _reload(batch, ids, program, spender, entry.card.card_product_token, row)
    return outcome


def _keep(
    batch: _Batch, asked: Asked, outcome: Outcome, decision: Decision, root: Recorded | None, account: Account
) -> None:
    """Takes a decision into the batch: the next message sees it, and it is among what will be written."""
    row, write = outcome.row, batch.write
    batch.accounts[row.holder_id] = account
    write.transactions.append(row)
    if row.impacted:
        if decision.legs.overdraft:
            write.account_journal.append(journal_entry(row, decision.legs))
        else:
            write.journal.append(journal_entry(row, decision.legs[:CARD_ACCOUNTS]))
    if root is not None and decision.chain is not None:
        batch.roots[root.id] = changed = after_chain(root, decision.chain)
        write.chains[root.id] = chain_row(changed)
        if row.kind == INCREMENT:
            batch.roots[root.id] = grown = with_increment(changed, row)
            write.grown[root.id] = grown.details
    if asked.inline_target is not None:
        write.outbox.append(inline_notification(row, asked.inline_target))
    if asked.chosen_token is not None:
        write.tokens.append((row.program_id, asked.chosen_token, row.id, asked.request_hash))
        batch.by_token[row.program_id, asked.chosen_token] = asked.request_hash, outcome


def _move(batch: _Batch, ids: IdSource, asked: Instructed) -> Moved | Problem:
    """Decides a movement: all its transactions and its document, or the problem that stands in its way."""
    entries = [batch.holders[one.key] for one in asked.accounts if one.key in batch.holders]
    if len(entries) < len(asked.accounts):
        return Problem(USER_UNKNOWN)
    program = batch.programs[asked.program_id]
    if (earlier := _find_earlier_movement(batch, program, asked)) is not None:
        return earlier
    root = batch.roots.get(asked.root_id) if asked.root_id is not None else None
    if asked.root_id is not None and (root is None or root.card_id is not None or root.holder_id != entries[0].holder_id):
        # It went with a reset, or a seeded run gave its number to another transaction afterwards.
        return Problem(ORIGINAL_NOT_FOUND)
    first = len(batch.write.transactions)
    moved = _carry_out(batch, ids, program, asked, entries, root)
    if program.reloads and isinstance(moved, Moved) and (spent := batch.write.transactions[first]).kind in SPENDING:
        _reload(batch, ids, program, entries[0], None, spent)
    return moved


def _carry_out(
    batch: _Batch, ids: IdSource, program: ProgramEntry, asked: Instructed, entries: Sequence[AccountEntry], root: Recorded | None
) -> Moved | Problem:
    """Decides a movement whose accounts are known, and takes it into the batch."""
    source = program.sources_by_id.get(asked.source_id) if asked.source_id is not None else None
    if asked.source_id is not None and source is None:
        # It went with a reset.
        return Problem(ORIGINAL_NOT_FOUND)
    accounts = [batch.accounts[entry.holder_id] for entry in entries]
    seen = view_of(program, entries, accounts, source, root, batch.now[program.id], batch.loaded)
    steps = decide_movement(seen, asked.movement)
    if isinstance(steps, Problem):
        return steps
    rows, after = list[Recorded](), dict[int, Account]()
    for step in steps:
        entry = entries[step.party]
        account = after.get(entry.holder_id, accounts[step.party]).moved(program.currency, step.impacted, 0)
        after[entry.holder_id] = account
        rows.append(first_row(step, entry, program, asked, account, ids.next(), batch.now[program.id]))
    done, doc = complete(rows, steps, entries, asked, source, root)
    batch.accounts.update(after)
    batch.loaded |= loads_in(done)
    write = batch.write
    write.transactions += done
    write.account_journal += [entry_of(row, step) for row, step in zip(done, steps, strict=True) if row.impacted]
    write.movements.append(movement_row(asked, entries, done[0], doc))
    if root is not None and steps[0].chain is not None:
        batch.roots[root.id] = changed = after_chain(root, steps[0].chain)
        write.chains[root.id] = chain_row(changed)
        if isinstance(asked.movement, DepositTransition):
            now = batch.now[program.id]
            write.reworded[root.id] = now, deposit_after(asked.movement, steps[0], root, now)
    moved = Moved(doc, program)
    batch.by_movement[asked.key] = asked.request_hash, moved
    return moved


def _reload(
    batch: _Batch, ids: IdSource, program: ProgramEntry, spender: AccountEntry, product_token: str | None, spent: Recorded
) -> None:
    """Fills the account up when what was just spent left less than its auto reload wants; what cannot be ordered is not."""
    reload = program.reload_of(spender.owner.token, product_token)
    ledger, held = batch.accounts[spender.holder_id].money(program.currency)
    available = ledger - held
    if reload is None or available >= reload.trigger:
        return
    # The third face of a row's token is nobody's else, so an order of this token is made once for each row.
    order = reload.order(with_face(token_of(spent), RELOAD), spender.user.token, available)
    instructed = Instructed(
        (spender,), MovementKind.ORDER, order, spent.seed, batch.real_ms, b"", source_id=reload.source_id
    )
    _carry_out(batch, ids, program, instructed, [spender], None)


def _find_earlier_movement(batch: _Batch, program: ProgramEntry, asked: Instructed) -> Moved | Problem | None:
    """The movement that had this token first; a problem when it said something else."""
    if asked.key in batch.by_movement:
        digest, moved = batch.by_movement[asked.key]
        return moved if digest == asked.request_hash else Problem(TOKEN_TAKEN)
    if (replay := batch.seen.movements.get(asked.key)) is None:
        return None
    return Moved(replay.doc, program) if replay.request_hash == asked.request_hash else Problem(TOKEN_TAKEN)


def _conclude(batch: _Batch) -> None:
    """What is written once for the whole batch: each account that changed, and who is told."""
    write = batch.write
    touched = {row.holder_id for row in write.transactions}
    states = ((holder_id, _pack(batch.accounts[holder_id])) for holder_id in sorted(touched))
    write.holders = [(holder_id, state) for holder_id, state in states if state != batch.seen.holders[holder_id].state]
    write.outbox += notifications(write.transactions, {key: program.subscriptions for key, program in batch.programs.items()})
