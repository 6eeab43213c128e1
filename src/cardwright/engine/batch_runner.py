"""Batch runner: loads once, decides each message in order, and writes once.

A batch is one database transaction, without other network calls inside. Each message sees the changes of the earlier messages
of the batch. A batch leaves the same rows as its messages one by one.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import structlog

from cardwright.core.decide import decide, would_refuse
from cardwright.core.decision import Decision
from cardwright.core.fee_groups import NO_FEES
from cardwright.core.holds import is_due
from cardwright.core.messages import ChainPart, Details, Expiry, Message
from cardwright.core.movement_json import deposit_after
from cardwright.core.movements import SPENDING, Deposit, DepositTransition, MovementKind, decide_movement
from cardwright.core.problems import (
    CARD_UNKNOWN,
    HOLD_NOT_DUE,
    INTERNAL,
    ORIGINAL_NOT_FOUND,
    TOKEN_TAKEN,
    USER_UNKNOWN,
    Problem,
)
from cardwright.core.render import details_decoder
from cardwright.core.snapshot import Account, Snapshot
from cardwright.core.transaction_row import RELOAD, TransactionRow, token_of, with_kind
from cardwright.core.transaction_types import INCREMENT
from cardwright.core.velocity import Change, counted, usage_keys
from cardwright.core.velocity_events import UNCHANGED, applied, are_stored, counted_chain, event_of, parts_of
from cardwright.engine.batch import Batch, CardRequest, CardResult, EngineRequest, Result, configure, read_set_of
from cardwright.engine.config_cache import AccountEntry, Cache, ProgramEntry, SourceEntry
from cardwright.engine.id_blocks import IdSource
from cardwright.engine.movement_rows import (
    MovementRequest,
    MovementResult,
    changes_of,
    complete,
    entry_of,
    first_row,
    holders_loaded_by,
    movement_row,
    view_of,
)
from cardwright.engine.real_time_fees import FeeTaken, add_fee, assessed_of, unless_refunded
from cardwright.engine.transaction_rows import (
    CARD_ACCOUNTS,
    after_chain,
    chain_of,
    chain_row,
    closed_increment,
    completed,
    details_of,
    events_of,
    inline_notification,
    journal_entry,
    record,
    with_increment,
    with_parts,
)
from cardwright.kit.clock import RealClock
from cardwright.kit.failpoints import async_failpoint
from cardwright.kit.limits import PATIENT
from cardwright.outbox.events import notifications
from cardwright.storage.account_transactions import NOTHING_RECENT, ids_of, is_full, with_newest
from cardwright.storage.engine.store import Worker, noop
from cardwright.storage.failures import Conflict, InDoubt

_pack = msgspec.msgpack.encode
log = structlog.get_logger()


COMMIT_S = 0.3
"""Seconds before the deadline after which no commit begins. Its answer could come too late, and the outcome would be unknown."""


class BatchInDoubt(Exception):
    """A batch that may have been committed. ``results`` are its answers if it was."""

    def __init__(self, doubt: InDoubt, results: list[Result]) -> None:
        super().__init__(str(doubt))
        self.doubt = doubt
        self.results = results


async def run_batch(
    worker: Worker,
    cache: Cache,
    ids: IdSource,
    real_clock: RealClock,
    requests: Sequence[EngineRequest],
    deadline: float | None = None,
    begin_commit: Callable[[], None] = noop,
) -> list[Result]:
    """Decide a batch in one transaction, and return the result of each message, in order, after the commit.

    ``begin_commit`` is called before the commit and may raise Conflict. ``deadline`` is a time of the event loop; a commit begins
    at the latest ``COMMIT_S`` before it. Without a deadline the limit is that of a command. Raises Conflict if the batch must run
    again, and Unavailable if the database failed; in both cases nothing is committed. Raises BatchInDoubt if the answer to COMMIT
    did not arrive.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + PATIENT.answer_s if deadline is None else deadline
    cards, holders, instructed, want = read_set_of(requests)
    loaded = await worker.begin(want, deadline)
    try:
        batch = await configure(cache, cards, holders, loaded, real_clock(), instructed, ids.first)
        results = [answer(batch, ids, request) for request in requests]
        _conclude(batch)
    except BaseException:
        # After any exception the locks of the accounts must be released.
        await worker.abort()
        raise
    if not batch.write.transactions:
        await worker.abort()
        _render(requests, results)
        return results
    try:
        await async_failpoint("commit.before")
        if clock() >= deadline - COMMIT_S:
            raise Conflict("too little time is left to commit")
        begin_commit()
    except BaseException:
        await worker.abort()
        raise
    # Render the answers while the database commits, which makes answers faster and the rate higher (decision 2).
    try:
        await worker.commit(batch.write, partial(_render, requests, results))
    except InDoubt as doubt:
        raise BatchInDoubt(doubt, results) from doubt
    await async_failpoint("commit.after")
    return results


def _render(requests: Sequence[EngineRequest], results: list[Result]) -> None:
    """Render the answers and store them in the results."""
    for index, (request, result) in enumerate(zip(requests, results, strict=True)):
        if isinstance(request, CardRequest) and request.view is not None and isinstance(result, CardResult):
            try:
                results[index] = result._replace(answer=request.view(result))
            except Exception:
                # The decision is committed, and the caller can look it up. The other messages still get their answers.
                log.exception("an answer could not be rendered", about=_name_of(request))
                results[index] = Problem(INTERNAL)


def answer(batch: Batch, ids: IdSource, request: EngineRequest) -> Result:
    """Return the result of one message, and apply its changes to the batch."""
    try:
        return _decide(batch, ids, request) if isinstance(request, CardRequest) else _move(batch, ids, request)
    except Exception:
        # A decision has no side effects, so a bug affects only its own message.
        log.exception("a message could not be decided", about=_name_of(request))
        return Problem(INTERNAL)


def _name_of(request: EngineRequest) -> str:
    return request.card.key[1] if isinstance(request, CardRequest) else request.movement.token


def _decide(batch: Batch, ids: IdSource, request: CardRequest) -> CardResult | Problem:
    card = batch.cards.get(request.card.key)
    if card is None:
        return Problem(CARD_UNKNOWN)
    if request.root_id is not None:
        root = batch.roots.get(request.root_id)
        refunded = root if request.refund_of is None else batch.roots.get(request.refund_of)
        # A reset deleted the row, or a seeded run has since given its id to another purchase.
        if root is None or refunded is None or not root.card_id == refunded.card_id == card.card_id:
            return Problem(ORIGINAL_NOT_FOUND)
        # Another process expired the hold first, or the hold was used or prolonged since it was found.
        if isinstance(request.message, Expiry) and not is_due(chain_of(root), batch.now[request.card.key[0]]):
            return Problem(HOLD_NOT_DUE)
    if request.chosen_token is not None and (earlier := _find_earlier(batch, request)) is not None:
        return earlier
    return _decide_one(batch, ids, request)


def _find_earlier(batch: Batch, request: CardRequest) -> CardResult | Problem | None:
    """Return the outcome of the first message with this token, or None. Return TOKEN_TAKEN if its request was different."""
    key = (request.card.key[0], request.chosen_token or "")
    if key in batch.by_token:
        digest, outcome = batch.by_token[key]
        return outcome if digest == request.request_hash else Problem(TOKEN_TAKEN)
    if (replay := batch.loaded.replays.get(key)) is None:
        return None
    if replay.request_hash != request.request_hash:
        return Problem(TOKEN_TAKEN)
    row, program = batch.loaded.rows[replay.transaction_id], batch.programs[key[0]]
    source = program.sources_by_id.get(row.source_id) if row.source_id is not None else None
    return CardResult(row, batch.cards[request.card.key], program, source)


class _View(NamedTuple):
    """The input of one decision: snapshot, message completed by its original transaction, root of its chain, funding source."""

    snapshot: Snapshot
    message: Message
    root: TransactionRow | None
    source: SourceEntry | None


def see(batch: Batch, request: CardRequest) -> _View:
    """Return the input for the decision of a message at this point of the batch."""
    entry, program = batch.cards[request.card.key], batch.programs[request.card.key[0]]
    named = batch.roots[request.root_id] if request.root_id is not None else None
    message = request.message if named is None else completed(request.message, named)
    root = named if message.follows else None
    if root is not None and message.details.assessed is not None:
        message = unless_refunded(message, root, batch.roots)
    product = program.products[entry.card.card_product_token]
    # A chain keeps the funding source of its root.
    source = program.source_of(product) if root is None else program.sources_by_id.get(root.source_id or 0)
    limits = program.limits_of(entry.card)
    snapshot = Snapshot(
        program.currency, entry.card, entry.user, entry.owner, product, source.fact if source is not None else None,
        batch.accounts[entry.holder_id], chain_of(root) if root is not None else None, limits.applicable,
        program.spend_of(entry.card, entry.user, product, message.details.merchant.mcc), limits.strictest,
        program.fees.get(entry.user.account_holder_group_token, NO_FEES) if program.fees else NO_FEES,
    )  # fmt: skip
    return _View(snapshot, message, root, source)


def _decide_one(batch: Batch, ids: IdSource, request: CardRequest) -> CardResult:
    entry, program = batch.cards[request.card.key], batch.programs[request.card.key[0]]
    snapshot, message, root, source = see(batch, request)
    row_id, program_row = ids.next(), batch.loaded.programs[program.id]
    now = snapshot.account.time_of(row_id, batch.now[program.id])
    decision = decide(snapshot, message, now)
    details = details_of(message, snapshot, decision, request.chosen_token, request.refund_of)
    fee_id = ids.next() if decision.fee is not None else 0
    if decision.fee is not None and decision.fee.root is None:
        details = msgspec.structs.replace(details, assessed=assessed_of(decision.fee, fee_id))
    row = record(
        row_id=row_id,
        keys=(program.id, entry.holder_id, entry.card_id, source.id if source is not None else None),
        revisions=(program.revision, entry.revision),
        decision=decision,
        details=details,
        root=root,
        seed=request.seed,
        now=now,
        # On a frozen clock the duration is 0, so that equal calls give equal bytes.
        duration_ms=max(0, batch.real_ms - request.received_ms) if program_row.frozen_ms is None else 0,
    )
    outcome = CardResult(row, entry, program, source)
    usages = decision.account.usages
    if program.shadows:
        shadowed = msgspec.structs.replace(snapshot, velocity_limits=program.shadows_of(entry.card), strictest_limits=None)
        batch.write.shadow_hits += [
            (program.id, control.id, row.id) for control in would_refuse(shadowed, message, decision, now)
        ]
    controls, parts = program.limits_of(entry.card).counted, None
    if controls or row.root_id is not None or request.refund_of is not None:
        changes, parts = _changes(batch, row, details)
        if controls:
            keys = usage_keys(controls, entry.user.token, entry.owner.token)
            usages = counted(controls, keys, usages, changes, now)
    _keep(batch, request, outcome, decision, root, decision.account.after(usages, row_id, now))
    if parts is not None:
        chain_id = request.refund_of or row.root_id or 0
        batch.roots[chain_id] = grown = with_parts(batch.roots[chain_id], parts)
        batch.write.grown[chain_id] = grown.details
    if decision.fee is not None and details.assessed is not None:
        fragments = source.fragments if source is not None else None
        taken = FeeTaken(decision.fee, details.assessed, fee_id, row, entry.user.token, fragments)
        add_fee(taken, batch.write, batch.accounts, batch.roots)
    if details.increments and decision.chain is not None and not decision.chain.hold_left:
        batch.write.chains |= {row_id: closed_increment(row_id) for row_id, _ in details.increments}
    if program.reloads and row.impacted is not None and row.impacted < 0:
        spender = AccountEntry((program.id, entry.user.token), entry.holder_id, entry.revision, entry.user, entry.owner)
        _reload(batch, ids, program, spender, entry.card.card_product_token, row)
    return outcome


def _changes(batch: Batch, row: TransactionRow, details: Details) -> tuple[Sequence[Change], tuple[ChainPart, ...] | None]:
    """Return the usage changes of a message, and the parts of its chain if the root must store them.

    ``Decision.use`` is in the row's details. A give-back is at most the amount that its chain counted, in the windows of its
    parts.
    """
    event = event_of(row, details)
    if event is None:
        return UNCHANGED, None
    chain_id = counted_chain(row, details)
    if chain_id is None or chain_id == row.id:
        return (Change(row.created_ms, event),), None
    root = batch.roots[chain_id]
    known = details_decoder.decode(root.details)
    changes, parts = applied(event, row.created_ms, parts_of(root, known))
    return changes, parts if are_stored(row, event, known) else None


def _keep(
    batch: Batch, request: CardRequest, outcome: CardResult, decision: Decision, root: TransactionRow | None, account: Account
) -> None:
    """Add a decision to the batch: to the state that the next message sees, and to the write set."""
    row, write = outcome.row, batch.write
    batch.accounts[row.holder_id] = account
    write.transactions.append(row)
    if row.impacted:
        # Most entries have legs only on the four card accounts, and the shorter statement is cheaper.
        if decision.legs.overdraft:
            write.account_journal.append(journal_entry(row, decision.legs))
        else:
            write.journal.append(journal_entry(row, decision.legs[:CARD_ACCOUNTS]))
    if root is not None and decision.chain is not None:
        batch.roots[root.id] = changed = after_chain(root, decision.chain)
        write.chains[root.id] = chain_row(changed)
        if row.type_id == INCREMENT:
            batch.roots[root.id] = grown = with_increment(changed, row)
            write.grown[root.id] = grown.details
    if request.inline_target is not None:
        write.outbox.append(inline_notification(row, request.inline_target))
    if request.chosen_token is not None:
        write.tokens.append((row.program_id, request.chosen_token, row.id, request.request_hash))
        batch.by_token[row.program_id, request.chosen_token] = request.request_hash, outcome


def _move(batch: Batch, ids: IdSource, request: MovementRequest) -> MovementResult | Problem:
    """Decide a movement and its auto reload. Return its result, or the problem that prevents it."""
    entries = [batch.holders[account.key] for account in request.accounts if account.key in batch.holders]
    if len(entries) < len(request.accounts):
        return Problem(USER_UNKNOWN)
    program = batch.programs[request.program_id]
    if (earlier := _find_earlier_movement(batch, program, request)) is not None:
        return earlier
    root = batch.roots.get(request.root_id) if request.root_id is not None else None
    if request.root_id is not None and (root is None or root.card_id is not None or root.holder_id != entries[0].holder_id):
        # A reset deleted the row, or a seeded run has since given its id to another transaction.
        return Problem(ORIGINAL_NOT_FOUND)
    first = len(batch.write.transactions)
    moved = _carry_out(batch, ids, program, request, entries, root)
    if program.reloads and isinstance(moved, MovementResult) and (spent := batch.write.transactions[first]).type_id in SPENDING:
        _reload(batch, ids, program, entries[0], None, spent)
    return moved


def _carry_out(
    batch: Batch,
    ids: IdSource,
    program: ProgramEntry,
    request: MovementRequest,
    entries: Sequence[AccountEntry],
    root: TransactionRow | None,
) -> MovementResult | Problem:
    """Decide a movement whose accounts are known, and add it to the batch. Return its result or a problem."""
    source = program.sources_by_id.get(request.source_id) if request.source_id is not None else None
    if request.source_id is not None and source is None:
        # A reset deleted the source.
        return Problem(ORIGINAL_NOT_FOUND)
    accounts = [batch.accounts[entry.holder_id] for entry in entries]
    snapshot = view_of(program, entries, accounts, source, root, batch.now[program.id], batch.holders_with_loads)
    steps = decide_movement(snapshot, request.movement)
    if isinstance(steps, Problem):
        return steps
    rows, after = list[TransactionRow](), dict[int, Account]()
    row_ids = [ids.next() for _ in steps]
    now = max(account.time_of(row_ids[0], batch.now[program.id]) for account in accounts)
    for step, row_id in zip(steps, row_ids, strict=True):
        entry = entries[step.party]
        account = after.get(entry.holder_id, accounts[step.party]).moved(program.currency, step.impacted, 0)
        after[entry.holder_id] = account = account.marked(row_id, now)
        rows.append(first_row(step, entry, program, request, account, row_id, now))
    done, doc = complete(rows, steps, entries, request, source, root)
    batch.accounts.update(after)
    batch.holders_with_loads |= holders_loaded_by(done)
    write = batch.write
    write.transactions += done
    write.account_journal += [entry_of(row, step) for row, step in zip(done, steps, strict=True) if row.impacted]
    write.movements.append(movement_row(request, entries, done[0], doc))
    for change in changes_of(request.movement, done, steps, doc):
        batch.events.append(change.event)
        if isinstance(request.movement, Deposit):
            write.movements.append(change.movement_row(done[0].id))
    if root is not None and steps[0].chain is not None:
        batch.roots[root.id] = changed = after_chain(root, steps[0].chain)
        write.chains[root.id] = chain_row(changed)
        if isinstance(request.movement, DepositTransition):
            write.reworded[root.id] = now, deposit_after(request.movement, steps[0], root, now)
    moved = MovementResult(doc, program)
    batch.by_movement[request.key] = request.request_hash, moved
    return moved


def _reload(
    batch: Batch, ids: IdSource, program: ProgramEntry, spender: AccountEntry, product_token: str | None, spent: TransactionRow
) -> None:
    """Decide an auto reload if the available balance is below its trigger amount. If its order has a problem, skip it."""
    reload = program.reload_of(spender.owner.token, product_token)
    ledger, held = batch.accounts[spender.holder_id].money(program.currency)
    available = ledger - held
    if reload is None or available >= reload.trigger:
        return
    # No other resource uses a row's token of the kind RELOAD, so each row causes at most one order.
    order = reload.order(with_kind(token_of(spent), RELOAD), spender.user.token, available)
    instructed = MovementRequest(
        (spender,), MovementKind.ORDER, order, spent.seed, batch.real_ms, b"", source_id=reload.source_id
    )
    _carry_out(batch, ids, program, instructed, [spender], None)


def _find_earlier_movement(batch: Batch, program: ProgramEntry, request: MovementRequest) -> MovementResult | Problem | None:
    """Return the result of the first movement with this token, or None. Return TOKEN_TAKEN if its request was different."""
    if request.key in batch.by_movement:
        digest, moved = batch.by_movement[request.key]
        return moved if digest == request.request_hash else Problem(TOKEN_TAKEN)
    if (replay := batch.loaded.movements.get(request.key)) is None:
        return None
    return MovementResult(replay.doc, program) if replay.request_hash == request.request_hash else Problem(TOKEN_TAKEN)


def _conclude(batch: Batch) -> None:
    """Add the rows that are written once a batch: each changed account, and the notifications."""
    write, recent = batch.write, dict[int, bytes]()
    for row in write.transactions:
        named = with_newest(recent.get(row.holder_id) or batch.loaded.holders[row.holder_id].recent, row.id)
        if is_full(named):
            write.listed += ids_of(named)
            named = NOTHING_RECENT
        recent[row.holder_id] = named
    write.holders = [(holder_id, _pack(batch.accounts[holder_id]), named) for holder_id, named in sorted(recent.items())]
    subscriptions = {key: program.subscriptions for key, program in batch.programs.items()}
    write.outbox += notifications([*events_of(write.transactions, subscriptions), *batch.events], subscriptions)
