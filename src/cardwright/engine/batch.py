"""Batch: its requests, the read set, and the rows and configuration that are loaded before the decisions."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec

from cardwright.core.messages import Message
from cardwright.core.problems import Problem
from cardwright.core.snapshot import Account
from cardwright.core.transaction_row import TransactionRow
from cardwright.core.velocity import Control, recounted, usage_keys
from cardwright.core.velocity_events import changes_for
from cardwright.engine.card_cache import CardEntry, CardKey
from cardwright.engine.config_cache import AccountEntry, AccountKey, Cache, Needs, ProgramEntry, SourceEntry
from cardwright.engine.movement_rows import MovementRequest, MovementResult, load_holders_with_loads
from cardwright.engine.real_time_fees import load_charged
from cardwright.kit.clock import Instant, ProgramClock
from cardwright.outbox.events import Event, Target
from cardwright.storage.engine.store import LoadedRows, MovementKey, ReadSet, WriteSet
from cardwright.storage.failures import Conflict

CachedEntry = TypeVar("CachedEntry", CardEntry, AccountEntry)

_account = msgspec.msgpack.Decoder(Account)


class CardRequest(NamedTuple):
    """A message about a card, and all that a batch needs to decide it.

    ``card`` is the cached card; the batch reloads it if it is out of date. ``root_id`` is the row of the transaction that the
    message refers to, ``refund_of`` the root of the chain that a refund returns. ``seed`` contains the 63 random bits of its
    identifiers, drawn on arrival. ``received_ms`` is real time. ``inline_target`` is the address of a webhook in the request.
    ``request_hash`` goes with ``chosen_token``. ``view`` renders the answer; an expiry has none.
    """

    card: CardEntry
    message: Message
    seed: int
    received_ms: Instant
    root_id: int | None = None
    refund_of: int | None = None
    inline_target: Target | None = None
    chosen_token: str | None = None
    request_hash: bytes = b""
    view: Callable[["CardResult"], bytes] | None = None


NEWEST_ID = 2**62
"""A number above all transaction ids."""

EngineRequest = CardRequest | MovementRequest
"""A request to the engine: a message about a card, or a movement between accounts."""


class CardResult(NamedTuple):
    """The result of a message: its row, the entries that rendering needs, and the rendered answer."""

    row: TransactionRow
    card: CardEntry
    program: ProgramEntry
    source: SourceEntry | None
    answer: bytes = b""


Result = CardResult | MovementResult | Problem


@dataclass(slots=True)
class Batch:
    """The state of a batch: the loaded data, with the changes of the messages decided so far.

    ``events`` contains the events that are not derived from a transaction row.
    """

    loaded: LoadedRows
    cards: dict[CardKey, CardEntry]
    holders: dict[AccountKey, AccountEntry]
    programs: dict[int, ProgramEntry]
    now: dict[int, Instant]
    real_ms: Instant
    accounts: dict[int, Account]
    roots: dict[int, TransactionRow]
    holders_with_loads: set[int]
    events: list[Event] = field(default_factory=list)
    write: WriteSet = field(default_factory=WriteSet)
    by_token: dict[tuple[int, str], tuple[bytes, CardResult]] = field(default_factory=dict)
    by_movement: dict[MovementKey, tuple[bytes, MovementResult]] = field(default_factory=dict)


def read_set_of(
    requests: Sequence[EngineRequest],
) -> tuple[dict[CardKey, CardEntry], dict[AccountKey, AccountEntry], list[MovementRequest], ReadSet]:
    """Return the cards, accounts, movements and read set of a batch."""
    for_cards = [request for request in requests if isinstance(request, CardRequest)]
    movements = (
        [request for request in requests if isinstance(request, MovementRequest)] if len(for_cards) < len(requests) else []
    )
    cards = {request.card.key: request.card for request in for_cards}
    holders = {entry.key: entry for request in movements for entry in request.accounts}
    row_ids = {request.root_id for request in requests}
    row_ids |= {request.refund_of for request in for_cards if request.refund_of is not None}
    want = ReadSet(
        holder_ids=sorted({card.holder_id for card in cards.values()} | {holder.holder_id for holder in holders.values()}),
        program_ids=sorted({program_id for program_id, _ in (*cards, *holders)}),
        row_ids=sorted(row_id for row_id in row_ids if row_id is not None),
        tokens=[(request.card.key[0], request.chosen_token) for request in for_cards if request.chosen_token is not None],
        movements=[request.key for request in movements],
    )
    return cards, holders, movements, want


async def configure(
    cache: Cache, cards: dict[CardKey, CardEntry], holders: dict[AccountKey, AccountEntry], loaded: LoadedRows, real_ms: Instant,
    instructed: Sequence[MovementRequest] = (), first_id: int = NEWEST_ID,
) -> Batch:  # fmt: skip
    """Return the batch, with configuration of the locked revisions: reload outdated entries and load missing ones.

    ``first_id`` is the lowest id that a message of the batch can get.
    """
    await _refresh(cards, cache.reload_cards, loaded)
    if holders:
        await _refresh(holders, cache.reload_accounts, loaded)
    programs, now = {}, {}
    for program_id, row in loaded.programs.items():
        programs[program_id] = await cache.program(program_id, row.revision, _needs(program_id, cards, loaded, instructed))
        now[program_id] = ProgramClock(row.offset_ms, row.frozen_ms).time_at(real_ms)
    accounts = {holder_id: _account.decode(row.state) for holder_id, row in loaded.holders.items()}
    for key, entry in cards.items():
        account = accounts[entry.holder_id]
        counted_controls = programs[key[0]].limits_of(entry.card).counted
        if account.has_history and counted_controls:
            # Use the time of the decisions, because usage of an earlier window does not count in theirs.
            time_ms = account.time_of(first_id, now[key[0]])
            accounts[entry.holder_id] = await _look_back(cache, entry, counted_controls, account, time_ms)
    roots = dict(loaded.rows)
    if any(program.fees is not None for program in programs.values()):
        roots |= await load_charged(cache, programs, loaded)
    holders_with_loads = await load_holders_with_loads(cache, holders.values()) if holders else set()
    return Batch(loaded, cards, holders, programs, now, real_ms, accounts, roots, holders_with_loads)


async def _refresh(
    entries: dict[tuple[int, str], CachedEntry],
    reload: Callable[[Sequence[tuple[int, str]]], Awaitable[dict[tuple[int, str], CachedEntry]]],
    loaded: LoadedRows,
) -> None:
    """Reload the entries whose revision differs from that of the locked account.

    Raises Conflict if an entry now belongs to an account that is not locked.
    """
    stale = [key for key, entry in entries.items() if _is_stale(entry, loaded)]
    if not stale:
        return
    fresh = await reload(stale)
    for key in stale:
        entry = fresh.get(key)
        if entry is None:
            # A reset of its program deleted it. Its requests get CARD_UNKNOWN or USER_UNKNOWN.
            del entries[key]
        elif _is_stale(entry, loaded):
            raise Conflict("a card or user belongs to another account now")
        else:
            entries[key] = entry


def _needs(program_id: int, cards: dict[CardKey, CardEntry], loaded: LoadedRows, instructed: Sequence[MovementRequest]) -> Needs:
    """Return the needs of a batch: the cards, and the funding sources of its chains and movements."""
    sources = {row.source_id for row in loaded.rows.values() if row.program_id == program_id}
    sources |= {request.source_id for request in instructed if request.program_id == program_id}
    facts = [entry.card for key, entry in cards.items() if key[0] == program_id]
    return Needs(facts, {source_id for source_id in sources if source_id is not None})


async def _look_back(cache: Cache, entry: CardEntry, controls: Sequence[Control], account: Account, now: Instant) -> Account:
    """Return the account with the usage of controls that are new or edited, counted from its history."""
    keys = usage_keys(controls, entry.user.token, entry.owner.token)
    missing = [pair for pair in zip(controls, keys, strict=True) if pair[1] not in account.usages]
    if not missing:
        return account
    past = await cache.past(entry.holder_id, entry.user.token)
    usages = dict(account.usages)
    for control, key in missing:
        usages[key] = recounted(control, changes_for(control, past), now)
    return account.using(usages)


def _is_stale(entry: CardEntry | AccountEntry, loaded: LoadedRows) -> bool:
    holder = loaded.holders.get(entry.holder_id)
    return holder is None or holder.revision != entry.revision
