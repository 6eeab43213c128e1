"""Configuration cache: programs, cards and original transactions, validated by the revisions that a batch reads."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, select

from cardwright.core.enums import HolderStatus
from cardwright.core.movements import AutoReload
from cardwright.core.render import SourceFragments, source_fragments_of
from cardwright.core.snapshot import CardFact, ProductFact, SourceFact, UserFact, fact_from
from cardwright.core.spend_controls import NO_SPEND, PROGRAM_LEVEL, Level, Spend, applying, by_level, level_of
from cardwright.core.velocity import Control, keeping, strictest_of
from cardwright.core.velocity_events import Past
from cardwright.engine.card_cache import CardEntry, CardKey, Cards
from cardwright.engine.dataloader import Loader
from cardwright.engine.packed_cache import PackedCache
from cardwright.engine.spend_control_cache import SpendEntry, load_spend
from cardwright.outbox.events import Subscription, load_subscriptions
from cardwright.storage.accounts import Account, load_account, load_reloads
from cardwright.storage.controls import ActiveControls, load_active_controls, load_past
from cardwright.storage.database import Database, Row
from cardwright.storage.engine.store import CardRow, EngineStore
from cardwright.storage.fee_groups import FeesByGroup, load_fees
from cardwright.storage.original_transactions import Original, TokenKey, claimed_id, is_named
from cardwright.storage.programs import Program, get_program
from cardwright.storage.records import find
from cardwright.storage.tables import card_products, funding_sources

ORIGINALS_MAX = 50_000
"""Maximum number of transactions that are cached for the messages that follow them, about 0.2 KB each."""

USERS_MAX = 300_000
"""Maximum number of users of a program whose controls are cached. If there are more, the program's entry is dropped."""

T = TypeVar("T")

AccountKey = tuple[int, str]
"""Program id and token of a user, for the account that the user owns or shares."""

ShowPan = Callable[[CardRow], str]
"""A function that returns the card number for answers to simulations. It is masked in production mode."""


_user = msgspec.json.Decoder(UserFact)
_pack = msgspec.msgpack.encode
_unpack_original = msgspec.msgpack.Decoder(Original).decode


class AccountEntry(NamedTuple):
    """A user's account for movements, valid while the account has the revision ``revision``."""

    key: AccountKey
    holder_id: int
    revision: int
    user: UserFact
    owner: UserFact


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """A funding source and its rendered fragments."""

    id: int
    fact: SourceFact
    fragments: SourceFragments


class VelocityLimits(NamedTuple):
    """The velocity controls that apply to a card.

    If the ``strictest`` pass, all of ``applicable`` pass. ``counted`` has one control for each separate usage, shadow controls
    included.
    """

    applicable: tuple[Control, ...] = ()
    strictest: tuple[Control, ...] = ()
    counted: tuple[Control, ...] = ()


NO_LIMITS = VelocityLimits()


class Needs(NamedTuple):
    """The parts of a program that a batch needs in addition: products and controls of these cards, and these funding sources."""

    cards: Sequence[CardFact] = ()
    sources: AbstractSet[int] = frozenset()


class Missing(NamedTuple):
    """The missing parts of a program: products by token, controls of single users by user token, funding sources by id."""

    products: AbstractSet[str]
    users: AbstractSet[str]
    sources: AbstractSet[int]


NO_NEEDS = Needs()


@dataclass(slots=True)
class ProgramEntry:
    """The shared configuration of a program, all of the revision ``revision``. Batches add the parts that they need."""

    id: int
    revision: int
    currency: str
    short_code: str
    masks_sources: bool
    subscriptions: list[Subscription]
    products: dict[str, ProductFact] = field(default_factory=dict)
    sources: dict[str, SourceEntry] = field(default_factory=dict)

    sources_by_id: dict[int, SourceEntry] = field(default_factory=dict)
    controls: dict[Level, tuple[Control, ...]] = field(default_factory=dict)
    shadows: dict[Level, tuple[Control, ...]] = field(default_factory=dict)
    spend: SpendEntry = field(default_factory=SpendEntry)
    reloads: dict[Level, AutoReload] = field(default_factory=dict)
    fees: FeesByGroup | None = None
    limits_by_card: dict[tuple[str, str], VelocityLimits] = field(default_factory=dict)

    def missing(self, needs: Needs) -> Missing:
        """Return the needs that the entry does not contain yet."""
        products = {card.card_product_token for card in needs.cards} - self.products.keys()
        users = {card.user_token for card in needs.cards} - self.spend.users if self.spend.has_user_controls else frozenset[str]()
        return Missing(products, users, needs.sources - self.sources_by_id.keys())

    def controls_of(self, card: CardFact) -> tuple[Control, ...]:
        """Return the velocity controls for a purchase with the card: the user's, the product's and the program's."""
        return applying(self.controls, card.user_token, card.card_product_token)

    def limits_of(self, card: CardFact) -> VelocityLimits:
        """Return the limits for a purchase with the card.

        They are cached by card product, and by user if the user has controls.
        """
        if not self.controls and not self.shadows:
            return NO_LIMITS
        user = ("user", card.user_token)
        key = (card.user_token if user in self.controls or user in self.shadows else "", card.card_product_token)
        limits = self.limits_by_card.get(key)
        if limits is None:
            controls, shadows = self.controls_of(card), self.shadows_of(card)
            limits = VelocityLimits(controls, strictest_of(controls), strictest_of(keeping((*controls, *shadows))))
            self.limits_by_card[key] = limits
        return limits

    def shadows_of(self, card: CardFact) -> tuple[Control, ...]:
        """Return the shadow controls for a purchase with the card."""
        return applying(self.shadows, card.user_token, card.card_product_token)

    def spend_of(self, card: CardFact, user: UserFact, product: ProductFact, mcc: str) -> Spend:
        """Return the other spend controls for a purchase with the card in this merchant category."""
        if not self.spend.is_used and user.status is not HolderStatus.LIMITED:
            return NO_SPEND
        return self.spend.of(card, user, product.config.transaction_controls, mcc)

    def add_controls(self, controls: ActiveControls) -> None:
        """Add loaded controls of the program or of single users."""
        self.controls.update(by_level(control for control in controls.velocity if not control.shadow))
        self.shadows.update(by_level(control for control in controls.velocity if control.shadow))
        self.limits_by_card.clear()
        self.spend.add(controls)

    def reload_of(self, owner_token: str, product_token: str | None) -> AutoReload | None:
        """Return the auto reload of an account: the owner's, else the card product's, else the program's, else None."""
        get = self.reloads.get
        of_product = get(("product", product_token)) if product_token is not None else None
        return get(("user", owner_token)) or of_product or get(PROGRAM_LEVEL)

    def source_of(self, product: ProductFact) -> SourceEntry | None:
        """Return the funding source of the product's Managed JIT Funding, or None if that is disabled."""
        funding = product.config.jit_funding.program_funding_source
        return self.sources[funding.funding_source_token] if funding.enabled else None

    def add_source(self, entry: SourceEntry) -> None:
        """Add a funding source."""
        self.sources[entry.fact.token] = self.sources_by_id[entry.id] = entry


class Cache:
    """The configuration cache of a process. Missing entries are loaded outside the event loop, many cards in one query."""

    def __init__(self, database: Database, store: EngineStore, executor: Executor, show_pan: ShowPan) -> None:
        self._database = database
        self._store = store
        self._executor = executor
        self._show_pan = show_pan
        self._cards = Cards()
        self._programs: dict[int, ProgramEntry] = {}
        self._originals = PackedCache[int](ORIGINALS_MAX)
        self._card_loader = Loader[CardKey, CardEntry](self.reload_cards)
        self._original_loader = Loader[TokenKey, Original](self._load_originals)

    def find_card(self, key: CardKey) -> CardEntry | None:
        """Return the cached card, or None. It is out of date if its account has another revision."""
        return self._cards.find(key)

    async def load_card(self, key: CardKey) -> CardEntry | None:
        """Load a card, in one query with cards that are requested at the same time. Return None if it does not exist.

        Raises Unavailable if the database cannot be read.
        """
        return await self._card_loader.want(key)

    async def reload_accounts(self, keys: Sequence[AccountKey]) -> dict[AccountKey, AccountEntry]:
        """Load the current accounts of these users, without unknown users. Raises Unavailable if the database cannot be read."""
        return await self.look(find_accounts, keys)

    async def look(self, query: Callable[..., T], *arguments: object) -> T:
        """Run a query in a thread, in a read transaction, and return its result. Its first argument is the connection.

        Raises Unavailable if the database cannot be read.
        """

        def run() -> T:
            with self._database.read(self._database.limits.read_s) as db:
                return query(db, *arguments)

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)

    def add_original(self, original: Original) -> None:
        """Cache a transaction for later messages, because most purchases are followed soon."""
        self._originals.put(original.id, _pack(original))

    async def past(self, holder_id: int, user_token: str) -> list[Past]:
        """Return the past of a user on an account, for controls that recount it.

        Raises Unavailable if the database cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._load_past, holder_id, user_token)

    def _load_past(self, holder_id: int, user_token: str) -> list[Past]:
        with self._database.read(self._database.limits.read_s) as db:
            return load_past(db, holder_id, user_token)

    def clear(self) -> None:
        """Drop all entries after a reset."""
        self._cards.clear()
        self._originals.clear()
        self._programs.clear()

    async def want_original(self, key: TokenKey) -> Original | None:
        """Return the transaction with this token, or None if the program has none.

        Raises Unavailable if the database cannot be read.
        """
        row_id = claimed_id(key[1])
        packed = self._originals.get(row_id) if row_id is not None else None
        if packed is not None and is_named(original := _unpack_original(packed), key):
            return original
        return await self._original_loader.want(key)

    async def _load_originals(self, keys: Sequence[TokenKey]) -> dict[TokenKey, Original]:
        claims = {key: row_id for key in keys if (row_id := claimed_id(key[1])) is not None}
        rows = {row.id: row for row in await self._store.load_originals(list(claims.values()))} if claims else {}
        originals = {key: rows[row_id] for key, row_id in claims.items() if row_id in rows and is_named(rows[row_id], key)}
        # All other tokens can only be tokens that a sender chose.
        if rest := [key for key in keys if key not in originals]:
            originals |= await self._store.load_chosen(rest)
        for original in originals.values():
            self.add_original(original)
        return originals

    async def reload_cards(self, keys: Sequence[CardKey]) -> dict[CardKey, CardEntry]:
        """Load and cache the current cards, without unknown cards. Raises Unavailable if the database cannot be read."""
        return {row.key: self._cards.add(row, self._show_pan(row)) for row in await self._store.load_cards(keys)}

    async def card_with_secrets(self, key: CardKey) -> tuple[CardEntry, CardRow] | None:
        """Load the current card and its row with the encrypted secrets. Return None if it does not exist.

        Secrets are not cached: comparisons are rare, and need the current value.
        """
        rows = await self._store.load_cards([key])
        return (self._cards.add(rows[0], self._show_pan(rows[0])), rows[0]) if rows else None

    async def program(self, program_id: int, revision: int, needs: Needs = NO_NEEDS) -> ProgramEntry:
        """Return the program's configuration with the needed parts, all of one revision: this one or a later one."""
        entry = self._programs.get(program_id)
        # Requests without needs are frequent, so skip the check for missing parts.
        if entry is None or entry.revision < revision or (needs is not NO_NEEDS and any(entry.missing(needs))):
            load = asyncio.get_running_loop().run_in_executor(self._executor, self._load_program, program_id, entry, needs)
            entry = await load
            known = self._programs.get(program_id)
            if known is None or known.revision <= entry.revision:
                self._programs[program_id] = entry
        if len(entry.spend.users) > USERS_MAX and self._programs.get(program_id) is entry:
            # Callers keep this entry; the next batch loads a new, small one.
            del self._programs[program_id]
        return entry

    def _load_program(self, program_id: int, entry: ProgramEntry | None, needs: Needs) -> ProgramEntry:
        """Return the entry with the missing parts. If the program has changed since, return a new entry instead."""
        with self._database.read(self._database.limits.read_s) as db:
            program = get_program(db, program_id)
            if entry is None or entry.revision != program.revision:
                entry = _begun(db, program)
            missing = entry.missing(needs)
            if missing.users:
                entry.add_controls(load_active_controls(db, program_id, entry.spend.groups, missing.users))
                entry.spend.users |= missing.users
            if missing.products:
                _add_products(db, entry, missing.products)
            if missing.sources:
                _add_sources(db, entry, missing.sources)
        return entry


def _begun(db: Connection, program: Program) -> ProgramEntry:
    """Return a new entry of a program with the parts that every batch needs."""
    subscriptions = load_subscriptions(db, program.id)
    spend, controls = load_spend(db, program.id)
    reloads = {level_of(auto_reload): auto_reload for auto_reload in load_reloads(db, program.id)}
    settings = program.settings
    fees = load_fees(db, program.id, settings.currency)
    masked = settings.mask_funding_source_tokens
    entry = ProgramEntry(
        program.id, program.revision, settings.currency, program.short_code, masked, subscriptions, spend=spend,
        reloads=reloads, fees=fees,
    )  # fmt: skip
    entry.add_controls(controls)
    _add_sources(db, entry, {reload.source_id for reload in reloads.values()})
    return entry


def _add_sources(db: Connection, entry: ProgramEntry, ids: Collection[int]) -> None:
    query = select(funding_sources).where(funding_sources.c.program_id == entry.id, funding_sources.c.id.in_(ids))
    for row in db.execute(query) if ids else ():
        entry.add_source(_source_of(entry, row))


def _add_products(db: Connection, entry: ProgramEntry, tokens: Collection[str]) -> None:
    """Add card products with the funding sources, merchant groups and country lists that they refer to."""
    query = select(card_products.c.token, card_products.c.doc).where(
        card_products.c.program_id == entry.id, card_products.c.token.in_(tokens)
    )
    facts: dict[str, ProductFact] = {row.token: fact_from(ProductFact, row.doc) for row in db.execute(query)}
    for product in facts.values():
        funding = product.config.jit_funding.program_funding_source
        if funding.enabled and funding.funding_source_token not in entry.sources:
            row = find(db, funding_sources, entry.id, funding.funding_source_token)
            assert row is not None, "a product names a funding source that was there when it was made"
            entry.add_source(_source_of(entry, row))
    entry.spend.load_groups(db, entry.id, (product.config.transaction_controls for product in facts.values()))
    entry.products.update(facts)


def find_accounts(db: Connection, keys: Sequence[AccountKey]) -> dict[AccountKey, AccountEntry]:
    """Return the accounts of the users with these program ids and tokens, without unknown users."""
    accounts = {key: load_account(db, *key) for key in keys}
    return {key: _account_of(key, account) for key, account in accounts.items() if account is not None}


def _account_of(key: AccountKey, account: Account) -> AccountEntry:
    user = _user.decode(account.user_fact)
    owner = user if account.owner_fact is None else _user.decode(account.owner_fact)
    return AccountEntry(key, account.holder_id, account.revision, user, owner)


def _source_of(program: ProgramEntry, row: Row) -> SourceEntry:
    fact = fact_from(SourceFact, row.doc)
    return SourceEntry(row.id, fact, source_fragments_of(fact, masked=program.masks_sources))
