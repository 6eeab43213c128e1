"""What every action is given: the running platform's parts, and the call that it serves."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from cardwright.engine.loop import Engine
from cardwright.kit.clock import Instant, ProgramClock, RealClock
from cardwright.kit.guard import OutgoingPolicy
from cardwright.kit.ids import Ids
from cardwright.kit.page import Page
from cardwright.kit.vault import Vault
from cardwright.ledger.settlement import ClosingBalances
from cardwright.outbox.client import GuardedClient
from cardwright.outbox.events import Category, publish
from cardwright.storage.database import Database
from cardwright.storage.programs import Program
from cardwright.storage.transaction_lists.positions import ListPositions


@dataclass(frozen=True, slots=True)
class App:
    """The platform's parts, joined by ``wiring.py``. ``sandbox`` is False in production mode.

    ``settle`` lets everything happen that is due in a program's present time. ``resets`` counts the resets of each program
    in this process.
    """

    database: Database
    vault: Vault
    ids: Ids
    real_clock: RealClock
    engine: Engine
    client: GuardedClient
    policy: OutgoingPolicy
    sandbox: bool
    allow_simulate: bool
    bin_prefix: str
    first_clock: ProgramClock
    wake_outbox: Callable[[], None]
    settle: Callable[[int], Awaitable[None]]
    wake_backtests: Callable[[], None] = lambda: None
    list_positions: ListPositions = field(default_factory=ListPositions)
    resets: Counter[int] = field(default_factory=Counter)
    closings: ClosingBalances = field(default_factory=ClosingBalances)


@dataclass(slots=True)
class Call:
    """One request on its way through an action: an open transaction, the program as it is in it, and what was asked.

    ``path`` holds the path's parameters, ``query`` the route's query struct, ``page`` the part of the list asked for.
    """

    app: App
    db: Connection
    program: Program
    now: Instant
    path: dict[str, str]
    query: Any = None
    page: Page | None = None
    published: bool = field(default=False, init=False)

    @property
    def token(self) -> str:
        """The path's ``{token}``."""
        return self.path["token"]

    @property
    def list_page(self) -> Page:
        """The part of the list asked for, on routes that page."""
        assert self.page is not None, "the route declares no paging"
        return self.page

    def publish(self, category: Category, name: str, ref: str) -> None:
        """Puts an event into the outbox, in this call's commit, for every webhook that subscribed to it."""
        self.published |= publish(self.db, self.program.id, self.now, category, name, ref)


@dataclass(frozen=True, slots=True)
class EngineCall:
    """A request that is served by the engine: there is no transaction yet, the batch will have one."""

    app: App
    program_id: int
    path: dict[str, str]
    query: Any = None
    page: Page | None = None

    @property
    def list_page(self) -> Page:
        """The part of the list asked for, on routes that page."""
        assert self.page is not None, "the route declares no paging"
        return self.page
