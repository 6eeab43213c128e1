"""A batch on its way through the engine: what is asked, what must be read for it, and what was found before deciding begins."""

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
from cardwright.outbox.events import Event
from cardwright.storage.engine.store import LoadedRows, MovementKey, ReadSet, WriteSet
from cardwright.storage.failures import Conflict

CachedEntry = TypeVar("CachedEntry", CardEntry, AccountEntry)

_account = msgspec.msgpack.Decoder(Account)


class CardRequest(NamedTuple):
    """A message on its way into a batch.

    ``card`` is as this process last saw it; the batch looks again when it has changed. ``root_id`` is the row of the chain
    that the message names, ``refund_of`` the root of the chain that a refund gives back. ``seed`` are the 63 random bits of
    its identifiers, drawn on arrival; ``received_ms`` is real time. ``inline_target`` is the sealed address of a webhook that
    the request itself names. ``request_hash`` belongs to a token that the sender chose. ``view`` renders the answer;
    a message of the clock has none.
    """

    card: CardEntry
    message: Message
    seed: int
    received_ms: Instant
    root_id: int | None = None
    refund_of: int | None = None
    inline_target: bytes | None = None
    chosen_token: str | None = None
    request_hash: bytes = b""
    view: Callable[["CardResult"], bytes] | None = None


NEWEST_ID = 2**62
"""Higher than all ids of transactions."""

EngineRequest = CardRequest | MovementRequest
"""Whatever the engine decides: a message to a card, or one to accounts."""


class CardResult(NamedTuple):
    """What a message became: its row, what it takes to render it, and the answer that the message's view made of that."""

    row: TransactionRow
    card: CardEntry
    program: ProgramEntry
    source: SourceEntry | None
    answer: bytes = b""


Result = CardResult | MovementResult | Problem


@dataclass(slots=True)
class Batch:
    """What a batch found out before deciding, and how things stand after the messages decided so far.

    ``events`` are those that no transaction tells of.
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
    """The cards and accounts of a batch, its movements, and what it must read."""
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
    """Replace configuration that the locked revisions show to be out of date, and read what is new to it.

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
            # At the instant of the decisions: usage of an earlier window would be none in theirs.
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
    """Loads the entries again that the locked accounts show to be out of date."""
    stale = [key for key, entry in entries.items() if _is_stale(entry, loaded)]
    if not stale:
        return
    fresh = await reload(stale)
    for key in stale:
        entry = fresh.get(key)
        if entry is None:
            # It went with a reset of its program; whoever asked for it is told so.
            del entries[key]
        elif _is_stale(entry, loaded):
            raise Conflict("a card draws on another account now")
        else:
            entries[key] = entry


def _needs(program_id: int, cards: dict[CardKey, CardEntry], loaded: LoadedRows, instructed: Sequence[MovementRequest]) -> Needs:
    """What a batch needs of a program: what its cards are subject to, the sources of its chains and those that movements name."""
    sources = {row.source_id for row in loaded.rows.values() if row.program_id == program_id}
    sources |= {request.source_id for request in instructed if request.program_id == program_id}
    facts = [entry.card for key, entry in cards.items() if key[0] == program_id]
    return Needs(facts, {source_id for source_id in sources if source_id is not None})


async def _look_back(cache: Cache, entry: CardEntry, controls: Sequence[Control], account: Account, now: Instant) -> Account:
    """The account with the usage that its history gives to controls that are new to it, or were edited."""
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
