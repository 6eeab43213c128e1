"""What happens by itself when time passes: holds expire, each as a message through the heart.

The loop looks every second, and at once when somebody moves a clock. Several processes may look at the same time: whoever
comes second finds under the account's lock that there is nothing left to expire.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

import structlog

from cardwright.core.messages import Details, Expiry
from cardwright.core.problems import HOLD_NOT_DUE, ORIGINAL_NOT_FOUND, Problem
from cardwright.engine.heart import Asked
from cardwright.engine.loop import Engine
from cardwright.kit.clock import Instant, RealClock
from cardwright.storage.database import Database
from cardwright.storage.holds import DueHold, load_due_holds, programs_with_due_holds
from cardwright.storage.programs import get_program

DUE_MAX: Final = 200
"""Holds that expire in one go."""

POLL_S: Final = 1.0
"""How often the loop looks without being asked to."""

SETTLE_S: Final = 5.0
"""How long ``settle`` goes on; the loop comes back to the rest."""

T = TypeVar("T")
log = structlog.get_logger()


class Timers:
    """Lets holds expire. One for each process, in its event loop; ``wake_outbox`` is called when there is news to tell."""

    def __init__(
        self, database: Database, engine: Engine, real_clock: RealClock, executor: Executor, wake_outbox: Callable[[], None]
    ) -> None:
        self._database = database
        self._engine = engine
        self._real_clock = real_clock
        self._executor = executor
        self._wake_outbox = wake_outbox
        self._turn = asyncio.Lock()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Looks until ``stop`` is called."""
        while not self._stopped.is_set():
            try:
                for program_id in await self._in_thread(self._programs):
                    await self.settle(program_id)
            except Exception:
                log.exception("the timers could not be looked at")
            try:
                await asyncio.wait_for(self._stopped.wait(), POLL_S)
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Ends ``run`` after the messages under way."""
        self._stopped.set()

    async def settle(self, program_id: int) -> None:
        """Lets everything happen that is due in a program's present time, the longest due first.

        What cannot be decided now stays due, and the loop comes back to it.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + SETTLE_S
        async with self._turn:
            while clock() < end and not self._stopped.is_set() and (due := await self._in_thread(self._due_holds, program_id)):
                expired = await asyncio.gather(*(self._expire(program_id, hold) for hold in due))
                if any(expired):
                    self._wake_outbox()
                if not all(expired):
                    return

    async def _expire(self, program_id: int, hold: DueHold) -> bool:
        """Whether the hold is gone afterwards."""
        message = Expiry(details=Details(mid=""))
        # The seed of a message that follows another is its chain's; nothing is drawn, so a seeded run repeats.
        try:
            card = await self._engine.card((program_id, hold.card_token))
            await self._engine.submit(Asked(card, message, 0, self._real_clock(), root_id=hold.row_id))
        except Problem as problem:
            if problem.kind in (HOLD_NOT_DUE, ORIGINAL_NOT_FOUND):
                return True
            log.warning("a hold could not expire", transaction=hold.row_id, problem=str(problem))
            return False
        return True

    def _programs(self) -> list[int]:
        with self._database.read() as db:
            return programs_with_due_holds(db, self._real_clock())

    def _due_holds(self, program_id: int) -> list[DueHold]:
        with self._database.read() as db:
            now: Instant = get_program(db, program_id).clock.at(self._real_clock())
            return load_due_holds(db, program_id, now, DUE_MAX)

    async def _in_thread(self, look: Callable[..., T], *arguments: int) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, look, *arguments)
