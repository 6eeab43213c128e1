"""Scheduler: expiry of due holds and settlement of due direct deposits, each as a message to the engine.

The loop runs every second, and at once after a change of a program's clock. Several processes may run it at the same time: the
second one finds under the account's lock that the hold has expired already.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

import structlog

from cardwright.core.enums import State
from cardwright.core.messages import Details, Expiry
from cardwright.core.movements import APPLY_REASON, DepositTransition, MovementKind
from cardwright.core.problems import BAD_DEPOSIT_TRANSITION, HOLD_NOT_DUE, ORIGINAL_NOT_FOUND, UNAVAILABLE, USER_UNKNOWN, Problem
from cardwright.core.render import details_decoder
from cardwright.core.transaction_row import SETTLEMENT, TransactionRow, token_of, with_kind
from cardwright.engine.batch import CardRequest
from cardwright.engine.config_cache import AccountEntry, find_accounts
from cardwright.engine.loop import Engine
from cardwright.engine.movement_rows import MovementRequest
from cardwright.kit.clock import Instant, RealClock
from cardwright.storage.database import Database
from cardwright.storage.failures import Unavailable
from cardwright.storage.holds import DueHold, load_due_deposits, load_due_holds, programs_with_due_holds
from cardwright.storage.programs import get_program

DUE_MAX: Final = 200
"""Maximum number of holds, and of deposits, in one step."""

POLL_S: Final = 1.0
"""Seconds between two rounds of the loop."""

SETTLE_S: Final = 5.0
"""Maximum duration of ``settle`` in seconds. The next round of the loop processes the rest."""

DueDeposit = tuple[TransactionRow, AccountEntry]
"""The first transaction of a due deposit, and its account."""

T = TypeVar("T")
log = structlog.get_logger()


class Timers:
    """The loop that lets holds expire and direct deposits take effect. One for each process, in its event loop.

    ``wake_outbox`` is called after new events.
    """

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
        """Process due holds and deposits until ``stop`` is called."""
        while not self._stopped.is_set():
            try:
                for program_id in await self._in_thread(self._programs):
                    await self.settle(program_id)
            except Unavailable as error:
                # The outage has been logged. The next round begins in a second.
                log.debug("timers postponed, database unavailable", error=str(error))
            except Exception:
                # A bug must not end the task, because no hold would expire any more.
                log.exception("due holds and deposits could not be processed")
            try:
                await asyncio.wait_for(self._stopped.wait(), POLL_S)
            except TimeoutError:
                continue

    def stop(self) -> None:
        """End ``run`` after the current messages."""
        self._stopped.set()

    async def settle(self, program_id: int) -> None:
        """Process all holds and deposits that are due at a program's present time, earliest first.

        A hold or deposit that cannot be decided now stays due for the next round of the loop.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + SETTLE_S
        async with self._turn:
            while clock() < end and not self._stopped.is_set() and (due := await self._in_thread(self._due, program_id)):
                expired = await asyncio.gather(*(self._happen(program_id, item) for item in due))
                if any(expired):
                    self._wake_outbox()
                if not all(expired):
                    return

    async def _happen(self, program_id: int, item: DueHold | DueDeposit) -> bool:
        return await (self._expire(program_id, item) if isinstance(item, DueHold) else self._apply(*item))

    async def _apply(self, deposit: TransactionRow, account: AccountEntry) -> bool:
        """Settle a deposit. Return True if it is no longer due."""
        # No other resource uses a row's token of the kind SETTLEMENT, so a deposit is settled at most once.
        change = DepositTransition(
            token=with_kind(token_of(deposit), SETTLEMENT), amount=0, to=State.COMPLETION, channel="SYSTEM", reason=APPLY_REASON
        )
        request = MovementRequest(
            (account,), MovementKind.DEPOSIT_TRANSITION, change, deposit.seed, self._real_clock(), b"", root_id=deposit.id,
            ref_id=deposit.id,
        )  # fmt: skip
        try:
            await self._engine.move(request)
        except Problem as problem:
            if problem.kind in (BAD_DEPOSIT_TRANSITION, ORIGINAL_NOT_FOUND, USER_UNKNOWN):
                return True
            _note("a direct deposit could not take effect", deposit.id, problem)
            return False
        return True

    async def _expire(self, program_id: int, hold: DueHold) -> bool:
        """Expire a hold. Return True if it is no longer due."""
        message = Expiry(details=Details(mid=""))
        # The row takes the seed of its chain. So no random bits are drawn, and a seeded run is reproducible.
        try:
            card = await self._engine.card((program_id, hold.card_token))
            await self._engine.submit(CardRequest(card, message, 0, self._real_clock(), root_id=hold.row_id))
        except Problem as problem:
            if problem.kind in (HOLD_NOT_DUE, ORIGINAL_NOT_FOUND):
                return True
            _note("a hold could not expire", hold.row_id, problem)
            return False
        return True

    def _programs(self) -> list[int]:
        with self._database.read() as db:
            return programs_with_due_holds(db, self._real_clock())

    def _due(self, program_id: int) -> list[DueHold | DueDeposit]:
        with self._database.read() as db:
            now: Instant = get_program(db, program_id).clock.time_at(self._real_clock())
            holds, rows = load_due_holds(db, program_id, now, DUE_MAX), load_due_deposits(db, program_id, now, DUE_MAX)
            keys = [(program_id, details_decoder.decode(row.details).user_token or "") for row in rows]
            accounts = find_accounts(db, keys) if keys else {}
            return [*holds, *((row, accounts[key]) for row, key in zip(rows, keys, strict=True) if key in accounts)]

    async def _in_thread(self, look: Callable[..., T], *arguments: int) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, look, *arguments)


def _note(event: str, row_id: int, problem: Problem) -> None:
    """Log a hold or deposit that stays due. During an outage, which has a separate log line, use the level debug."""
    level = logging.DEBUG if problem.kind is UNAVAILABLE else logging.WARNING
    log.log(level, event, transaction=row_id, problem=str(problem))
