"""Calls: the parts of the server and the request that an action receives."""

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
    """The parts of the server, which ``wiring.py`` creates.

    ``sandbox`` is False in production mode. ``settle`` takes the id of a program and executes its messages that are due at the
    program's present time. ``resets`` counts the resets of each program in this process.
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
    """A request during its database transaction: the transaction, the program as read in it, and the parameters.

    ``path`` has the path's parameters, ``query`` the route's query struct, and ``page`` the requested part of a list.
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
        """Return the path's ``{token}``."""
        return self.path["token"]

    @property
    def list_page(self) -> Page:
        """Return the requested page. The route must declare ``paging``."""
        assert self.page is not None, "the route declares no paging"
        return self.page

    def publish(self, category: Category, name: str, ref: str) -> None:
        """Insert an event into the outbox, in the commit of this call, for every webhook that subscribes to it."""
        self.published |= publish(self.db, self.program.id, self.now, category, name, ref)


@dataclass(frozen=True, slots=True)
class EngineCall:
    """A request that the engine serves. It has no database transaction yet; the batch opens one."""

    app: App
    program_id: int
    path: dict[str, str]
    query: Any = None
    page: Page | None = None

    @property
    def list_page(self) -> Page:
        """Return the requested page. The route must declare ``paging``."""
        assert self.page is not None, "the route declares no paging"
        return self.page
