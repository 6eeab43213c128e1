"""In-process platform: a database with cards, and the engine without an edge, in the process of the test."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from cardwright.core.messages import CATEGORY_OF, Authorization, Details, Merchant, Refund
from cardwright.core.movement_steps import Charge
from cardwright.core.movements import (
    AnyMovement,
    Deposit,
    DepositTransition,
    FeeCharge,
    GpaLoad,
    MovementKind,
    PeerTransfer,
    ProgramTransfer,
    Unload,
)
from cardwright.core.snapshot import CardFact, fact_from
from cardwright.core.transaction_types import RequestType
from cardwright.engine.batch import CardRequest, EngineRequest, Result
from cardwright.engine.batch_runner import run_batch
from cardwright.engine.card_cache import CardEntry, CardKey
from cardwright.engine.config_cache import Cache
from cardwright.engine.id_blocks import IdSource
from cardwright.engine.movement_rows import MovementRequest
from cardwright.kit.clock import ProgramClock
from cardwright.kit.guard import OutgoingPolicy
from cardwright.kit.ids import Ids
from cardwright.kit.vault import MasterKey, Vault, counted_nonces
from cardwright.resources.account_holders import account_holder_groups, deposit_accounts, user_transitions, users
from cardwright.resources.analysis import shadow_controls
from cardwright.resources.cards import card_transitions, cards
from cardwright.resources.common.call import App, Call
from cardwright.resources.controls import auth_controls, exempt_mids, mcc_groups, velocity_controls
from cardwright.resources.fees import fees, real_time_fee_groups
from cardwright.resources.funding import auto_reloads, funding_sources
from cardwright.resources.programs import card_products
from cardwright.storage import tables
from cardwright.storage.database import Database
from cardwright.storage.engine.postgres import PostgresStore
from cardwright.storage.engine.sqlite import SqliteStore
from cardwright.storage.engine.store import CardRow, EngineStore, Worker
from cardwright.storage.migrate import migrate
from cardwright.storage.programs import ProgramSettings, get_program, insert_program
from cardwright.storage.records import find
from cardwright.storage.tables import (
    holder_transactions,
    holders,
    journal,
    message_tokens,
    movements,
    outbox,
    shadow_hits,
    transactions,
)
from tests.support.databases import migrated_file
from tests.support.instants import NOON

CREATORS: dict[str, tuple[Callable[..., str], type[msgspec.Struct]]] = {
    "fundingsources/program": (funding_sources.create_source, funding_sources.SourceCreate),
    "cardproducts": (card_products.create_product, card_products.ProductCreate),
    "users": (users.create_user, users.UserCreate),
    "cards": (cards.create_card, cards.CardCreate),
    "cardtransitions": (card_transitions.create_transition, card_transitions.CardTransitionCreate),
    "shadow-controls": (
        lambda call, body: msgspec.json.encode(shadow_controls.create_shadow(call, body)).decode(),
        velocity_controls.VelocityCreate,
    ),
    "velocitycontrols": (velocity_controls.create_control, velocity_controls.VelocityCreate),
    "autoreloads": (auto_reloads.create_reload, auto_reloads.ReloadCreate),
    "authcontrols": (auth_controls.create_auth_control, auth_controls.AuthControlCreate),
    "authcontrols/exemptmids": (exempt_mids.create_exemption, exempt_mids.ExemptionCreate),
    "mccgroups": (mcc_groups.create_mcc_group, mcc_groups.MccGroupCreate),
    "fees": (fees.create_fee, fees.FeeCreate),
    "realtimefeegroups": (real_time_fee_groups.create_fee_group, real_time_fee_groups.FeeGroupCreate),
    "depositaccounts": (deposit_accounts.create_account, deposit_accounts.DepositAccountCreate),
    "accountholdergroups": (account_holder_groups.create_holder_group, account_holder_groups.HolderGroupCreate),
    "usertransitions": (user_transitions.create_transition, user_transitions.TransitionCreate),
}

WRITTEN = (holders, transactions, journal, outbox, message_tokens, movements, shadow_hits, holder_transactions)
"""The tables that the engine writes."""

SELECT_WRITTEN = {table.name: f"SELECT {', '.join(table.columns.keys())} FROM {table.name}" for table in WRITTEN}


def _shown(row: CardRow) -> str:
    """Return the visible part of the card number."""
    return fact_from(CardFact, row.card_fact).last_four


class InProcessPlatform:
    """A program on a database. It creates objects by the actions that the API calls."""

    def __init__(self, address: str, seed: int = 7) -> None:
        if not address.startswith("postgres") and not Path(address).exists():
            migrated_file(Path(address))
        self.database = Database(address)
        migrate(self.database)
        self.ids = Ids(seed)
        self.store: EngineStore = SqliteStore(self.database) if self.database.is_sqlite else PostgresStore(self.database)
        self.executor = ThreadPoolExecutor(2)
        self.cache = Cache(self.database, self.store, self.executor, _shown)
        parts: dict[str, Any] = {
            "database": self.database, "ids": self.ids, "real_clock": lambda: NOON, "sandbox": True, "allow_simulate": True,
            "vault": Vault(MasterKey(b"k" * 32).derived_keys, counted_nonces(seed)),
            "policy": OutgoingPolicy.sandbox(), "bin_prefix": "111111",
            "first_clock": ProgramClock(0, NOON), "wake_outbox": lambda: None, "settle": None, "engine": None, "client": None,
        }  # fmt: skip
        self.app = App(**parts)
        self._loop = asyncio.new_event_loop()
        self._worker: Worker | None = None
        with self.database.write() as db:
            self.program_id = insert_program(
                db, token="world", name="World", short_code="wrld", settings=ProgramSettings(),
                clock=ProgramClock(0, NOON), now=NOON,
            )  # fmt: skip

    def make(self, path: str, **body: Any) -> dict[str, Any]:
        """Create a resource like POST /v3/<path>; return the answer."""
        action, shape = CREATORS[path]
        with self.database.write() as db:
            query = cards.ShowBoth() if path == "cards" else None
            call = Call(self.app, db, get_program(db, self.program_id), NOON, {}, query=query)
            answer = action(call, msgspec.convert(body, shape))
        made: dict[str, Any] = msgspec.json.decode(answer)
        return made

    def close(self) -> None:
        """Close all connections."""
        self._loop.run_until_complete(self._close_store())
        self._loop.close()
        self.executor.shutdown()
        self.database.close()

    async def _close_store(self) -> None:
        if self._worker is not None:
            await self._worker.close()
            await self.store.close()

    def run(self, batches: Sequence[Sequence[EngineRequest]]) -> list[Result]:
        """Decide the batches one after the other on one worker, with ids of the store; return the results.

        The worker stays open until the platform is closed, because its start takes longer than most batches.
        """
        return self._loop.run_until_complete(self._run(batches))

    async def _run(self, batches: Sequence[Sequence[EngineRequest]]) -> list[Result]:
        if self._worker is None:
            self._worker = await self.store.open_worker()
        ids, results = IdSource(), list[Result]()
        ids.refill(self.store.next_ids())
        for batch in batches:
            requests = [await self.addressed(request) for request in batch]
            results += await run_batch(self._worker, self.cache, ids, lambda: NOON, requests)
        return results

    async def addressed(self, request: EngineRequest) -> EngineRequest:
        """Return the message with the card or the accounts in place of their keys."""
        if isinstance(request, CardRequest):
            return request._replace(card=await self.card(request.card))  # type: ignore[arg-type]
        accounts = await self.cache.reload_accounts(request.accounts)  # type: ignore[arg-type]
        return request._replace(accounts=tuple(accounts[key] for key in request.accounts))  # type: ignore[index]

    async def card(self, key: CardKey) -> CardEntry:
        """Return the card with this key. The card must exist."""
        entry = self.cache.find_card(key) or await self.cache.load_card(key)
        assert entry is not None
        return entry

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows of the engine's tables as sorted tuples, by table."""
        with self.database.read() as db:
            rows_by_table = {name: db.exec_driver_sql(query).all() for name, query in SELECT_WRITTEN.items()}
        return {name: sorted([tuple(map(_plain, row)) for row in rows], key=repr) for name, rows in rows_by_table.items()}


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


@contextmanager
def new_platform(address: str | Path) -> Any:
    """Yield a new platform and close it at the end."""
    platform = InProcessPlatform(str(address))
    try:
        yield platform
    finally:
        platform.close()


def card_request(
    platform: InProcessPlatform, card: str, amount: int, *, seed: int, token: str | None = None, root_id: int | None = None,
    kind: type[Any] = Authorization, forced: bool = False, request_type: RequestType | None = None, **details: Any,
) -> CardRequest:  # fmt: skip
    """Return a message of ``amount`` minor units for ``InProcessPlatform.run``, by default a purchase.

    Its card is the key of a card. ``run`` replaces it with the card.
    """
    fields: dict[str, Any] = {"is_forced": True} if forced else {} if request_type is None else {"request_type": request_type}
    if request_type in CATEGORY_OF:
        details["velocity_category"] = CATEGORY_OF[request_type]
    key: Any = (platform.program_id, card)
    return CardRequest(
        card=key,
        message=kind(amount=amount, details=Details(mid="m1" if root_id is None else "", **details), **fields),
        seed=seed,
        received_ms=NOON,
        root_id=root_id,
        refund_of=root_id if kind is Refund else None,
        chosen_token=token,
        request_hash=f"{card}{amount}{details}{kind}{request_type}{root_id}".encode() if token else b"",
    )


KINDS: dict[type[Any], MovementKind] = {
    GpaLoad: MovementKind.ORDER, Unload: MovementKind.UNLOAD, FeeCharge: MovementKind.FEE_CHARGE,
    PeerTransfer: MovementKind.PEER_TRANSFER, ProgramTransfer: MovementKind.PROGRAM_TRANSFER,
    Deposit: MovementKind.DEPOSIT, DepositTransition: MovementKind.DEPOSIT_TRANSITION,
}  # fmt: skip


def movement_request(
    platform: InProcessPlatform, kind: type[Any], users: Sequence[str], amount: int, *, seed: int, token: str | None = None,
    fees: Sequence[int] = (), source: str | None = None, root_id: int | None = None,
    **extra_fields: Any,
) -> MovementRequest:  # fmt: skip
    """Return a movement of ``amount`` minor units for ``InProcessPlatform.run``. ``fees`` are in minor units too."""
    accounts: Any = tuple((platform.program_id, user) for user in users)
    charges = tuple(Charge(token=f"fee{fee}", amount=fee, fee=f'{{"token":"fee{fee}"}}') for fee in fees)
    fields: dict[str, Any] = {"echoed": {"user_token": users[0]}, **extra_fields}
    movement: AnyMovement = kind(token=token or f"own{seed}", amount=amount, charges=charges, **fields)
    with platform.database.read() as db:
        source_row = find(db, tables.funding_sources, platform.program_id, source) if source else None
    return MovementRequest(
        accounts=accounts, kind=KINDS[kind], movement=movement, seed=seed,
        received_ms=NOON, request_hash=f"{kind}{users}{amount}{fees}{root_id}".encode(),
        source_id=source_row.id if source_row is not None else None, root_id=root_id, ref_id=root_id,
    )  # fmt: skip


CAPABLE = Merchant()
"""The default merchant, whose terminal accepts partial approvals."""
