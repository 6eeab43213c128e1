"""The loop around the heart: an inbox, and lanes that take from it whatever arrived while they were busy.

There is no timer: a batch is what came in while the previous commit was under way. With two lanes one batch commits
while the next is decided; no account is in both, so neither waits for the other's locks.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import structlog
from prometheus_client import Counter, Gauge, Histogram

from cardwright.core.problems import BUSY, CARD_UNKNOWN, ORIGINAL_NOT_FOUND, OUT_OF_ORDER, Kind, Problem
from cardwright.engine.batch import Ask, Asked, Outcome, Result
from cardwright.engine.cache import Cache
from cardwright.engine.cards import CardEntry, CardKey
from cardwright.engine.heart import run_batch
from cardwright.engine.ids import IdSource
from cardwright.engine.moving import CHARGES_MAX, Instructed, Moved
from cardwright.engine.trial import Trial, try_out
from cardwright.kit.clock import RealClock
from cardwright.kit.failpoints import async_failpoint
from cardwright.storage.hot import CardRow, Conflict, HotStore, Lane, Unavailable
from cardwright.storage.originals import Original, TokenKey

INBOX_MAX = 4_096
"""Messages that may wait; the next one is refused at once."""

BATCH_MAX = 256
"""Messages in one commit."""

AGE_MAX_MS = 4_000
"""A message that waited longer is refused: whoever asked has given up (network time limits are a few seconds)."""

TRIALS_MAX = 64
"""Messages that may wait to be tried out; the next one is refused at once."""
ROWS_MAX = 3 * (BATCH_MAX + CHARGES_MAX)
"""Transactions in one commit: a batch is full when its messages may become as many as BATCH_MAX, the last of them several;
and each may have a real-time fee and set off an auto reload.
"""

RETRIES_MAX = 20
"""How often a batch that met another process's commit is run again before its messages are refused."""

BATCHES = Histogram("cardwright_batch_messages", "Messages decided in one commit", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256))
WAITING = Gauge("cardwright_inbox_messages", "Messages that wait for a batch")
DECIDED = Counter("cardwright_messages_total", "Decided messages", ["outcome"]).labels("answered")

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    asked: Ask
    holder_ids: tuple[int, ...]
    rows_max: int
    answer: "asyncio.Future[Result]"


class Engine:
    """Takes messages, answers outcomes. One for each process; several processes may work on one PostgreSQL."""

    def __init__(self, store: HotStore, cache: Cache, real_clock: RealClock, executor: Executor) -> None:
        self.cache = cache
        self._store = store
        self._real_clock = real_clock
        self._executor = executor
        self._ids = IdSource()
        self._inbox: deque[_Waiting] = deque()
        self._busy: set[int] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._lanes: list[asyncio.Task[None]] = []
        self._refilling = asyncio.Lock()
        self._stopping = False
        self._trying = asyncio.Lock()
        self._trial_lane: Lane | None = None
        self._trials = 0

    async def start(self) -> None:
        """Opens the lanes. Raises what the database raises when it cannot be reached."""
        for lane in [await self._store.open_lane() for _ in range(self._store.lanes_max)]:
            self._lanes.append(asyncio.create_task(self._run_lane(lane)))

    async def stop(self) -> None:
        """Decides what is in the inbox, answers it, and closes the lanes."""
        self._stopping = True
        while self._idle:
            self._wake()
        await asyncio.gather(*self._lanes)
        async with self._trying:
            await self._close_trial_lane()
        await self._store.close()

    def forget(self) -> None:
        """Drops what is cached and takes a fresh block of ids with the next batch, as after a reset."""
        self.cache.forget()
        self._ids = IdSource()

    async def card(self, key: CardKey) -> CardEntry:
        """The card as this process last saw it. Raises CARD_UNKNOWN, and OUT_OF_ORDER without a database."""
        entry = self.cache.find_card(key)
        return entry if entry is not None else await _there(self.cache.load_card(key), CARD_UNKNOWN)

    async def card_with_secrets(self, key: CardKey) -> tuple[CardEntry, CardRow]:
        """The card as it is now, with the row that its secrets are sealed in. Raises what ``card`` raises."""
        return await _there(self.cache.card_with_secrets(key), CARD_UNKNOWN)

    async def submit(self, asked: Asked) -> Outcome:
        """Has a message decided; returns after its commit. Raises BUSY when too many wait, and what the message itself raises."""
        result = await self._decided(asked, (asked.card.holder_id,), 1)
        assert isinstance(result, Outcome)
        self.cache.remember_original(Original.of(result.row, result.card.card.token))
        return result

    async def move(self, asked: Instructed) -> Moved:
        """Has a movement carried out, as ``submit`` has a card's message decided."""
        result = await self._decided(asked, tuple(entry.holder_id for entry in asked.accounts), asked.rows_max)
        assert isinstance(result, Moved)
        return result

    async def _decided(self, asked: Ask, holder_ids: tuple[int, ...], rows_max: int) -> Outcome | Moved:
        if len(self._inbox) >= INBOX_MAX or self._stopping:
            raise Problem(BUSY, "the inbox is full, try again later")
        waiting = _Waiting(asked, holder_ids, rows_max, asyncio.get_running_loop().create_future())
        self._inbox.append(waiting)
        self._wake()
        result = await waiting.answer
        if isinstance(result, Problem):
            raise result
        return result

    async def try_out(self, asked: Asked) -> Trial:
        """What a message would become if it came now; nothing is written. Raises BUSY when too many ask, and what the
        message itself would raise.

        It has a lane of its own, opened when the first one asks, so the batches wait for nothing but the accounts' locks.
        """
        if self._trials >= TRIALS_MAX or self._stopping:
            raise Problem(BUSY, "too many trials, try again later")
        self._trials += 1
        try:
            async with self._trying:
                result = await self._try_out(asked)
        finally:
            self._trials -= 1
        if isinstance(result, Problem):
            raise result
        return result

    async def _try_out(self, asked: Asked) -> Trial | Problem:
        for _ in range(RETRIES_MAX):
            try:
                if self._trial_lane is None:
                    self._trial_lane = await self._store.open_lane()
                return await try_out(self._trial_lane, self.cache, self._real_clock, asked)
            except Conflict as conflict:
                log.info("trial is run again", conflict=str(conflict))
            except Unavailable as error:
                log.error("the database failed a trial", error=str(error))
                await self._close_trial_lane()
                return Problem(OUT_OF_ORDER, "the database does not answer")
        return Problem(BUSY, "too many conflicts, try again later")

    async def _close_trial_lane(self) -> None:
        lane, self._trial_lane = self._trial_lane, None
        try:
            if lane is not None:
                await lane.close()
        except Exception as error:
            # Whatever a connection in any state may raise: it is given up in either case.
            log.info("a broken lane did not close", error=str(error))

    async def original(self, key: TokenKey) -> Original:
        """The transaction that a message names. Raises ORIGINAL_NOT_FOUND, and OUT_OF_ORDER without a database."""
        return await _there(self.cache.want_original(key), ORIGINAL_NOT_FOUND)

    def _wake(self) -> None:
        """Sets an idle lane to work, if there is one; a busy one looks into the inbox by itself when it is done."""
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _run_lane(self, lane: Lane) -> None:
        while (batch := await self._next_batch()) is not None:
            holders = {holder_id for waiting in batch for holder_id in waiting.holder_ids}
            self._busy |= holders
            try:
                lane = await self._serve(lane, batch)
            finally:
                self._busy -= holders
        await lane.close()

    async def _next_batch(self) -> list[_Waiting] | None:
        """What may be decided now; waits for it. None when the engine stops and nothing is left."""
        while not (batch := self._take()):
            if self._stopping and not self._inbox:
                return None
            self._idle.append(waiter := asyncio.get_running_loop().create_future())
            await waiter
        return batch

    def _take(self) -> list[_Waiting]:
        """The oldest messages whose accounts are in no other lane; the others keep their place."""
        batch, passed_over, busy = list[_Waiting](), deque[_Waiting](), self._busy
        oldest, room = self._real_clock() - AGE_MAX_MS, BATCH_MAX
        while self._inbox and room > 0:
            waiting = self._inbox.popleft()
            if waiting.answer.cancelled():
                continue
            if waiting.asked.received_ms < oldest:
                waiting.answer.set_result(Problem(BUSY, f"waited longer than {AGE_MAX_MS} ms, try again later"))
            elif not busy.isdisjoint(waiting.holder_ids):
                passed_over.append(waiting)
                if len(waiting.holder_ids) > 1:
                    # Who waits for one of two accounts is not overtaken at the other, or he might wait for ever.
                    busy = busy.union(waiting.holder_ids)
            else:
                batch.append(waiting)
                room -= waiting.rows_max
        self._inbox.extendleft(reversed(passed_over))
        WAITING.set(len(self._inbox))
        return batch

    async def _serve(self, lane: Lane, batch: Sequence[_Waiting]) -> Lane:
        """Decides a batch and answers it; gives back the lane, or a new one when the old one broke."""
        try:
            results = await self._decide(lane, batch)
        except Unavailable as error:
            log.error("the database failed a batch", error=str(error), messages=len(batch))
            results = [Problem(OUT_OF_ORDER, "the database does not answer")] * len(batch)
            lane = await self._reopen(lane)
        await async_failpoint("answer.before")
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(result)
        BATCHES.observe(len(batch))
        DECIDED.inc(len(batch))
        return lane

    async def _decide(self, lane: Lane, batch: Sequence[_Waiting]) -> list[Result]:
        """Runs the batch; when it conflicts with another process's commit, again, and at last one by one."""
        if not self._ids.has(ROWS_MAX * self._store.lanes_max):
            await self._refill()
        asked = [waiting.asked for waiting in batch]
        for _ in range(RETRIES_MAX):
            try:
                return await run_batch(lane, self.cache, self._ids, self._real_clock, asked)
            except Conflict as conflict:
                log.info("batch is run again", conflict=str(conflict), messages=len(batch))
                # A card may draw on another account by now, which the batch has found out and the cache knows.
                asked = [self._looked_up(one) for one in asked]
        return [Problem(BUSY, "too many conflicts, try again later")] * len(batch)

    def _looked_up(self, asked: Ask) -> Ask:
        """The message with its card as it is known by now; a user's account never becomes another."""
        if isinstance(asked, Instructed):
            return asked
        return asked._replace(card=self.cache.find_card(asked.card.key) or asked.card)

    async def _refill(self) -> None:
        async with self._refilling:
            if not self._ids.has(ROWS_MAX * self._store.lanes_max):
                block = await asyncio.get_running_loop().run_in_executor(self._executor, self._store.next_ids)
                self._ids.refill(block)

    async def _reopen(self, lane: Lane) -> Lane:
        """A new lane in place of a broken one, as soon as the database answers again."""
        try:
            await lane.close()
        except Exception as error:
            # Whatever a connection in any state may raise: it is given up in either case.
            log.info("a broken lane did not close", error=str(error))
        delay = 0.1
        while not self._stopping:
            try:
                return await self._store.open_lane()
            except Exception as error:
                # Nothing may end the lane but the engine's own end: without it no message would be decided any more.
                log.error("the database cannot be reached", error=str(error), retry_s=delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
        return lane


async def _there(found: Awaitable[T | None], missing: Kind) -> T:
    """What was found. Raises a problem of the kind ``missing`` when it was nothing, and OUT_OF_ORDER without a database."""
    try:
        entry = await found
    except Unavailable as error:
        log.error("the database failed to find what a message names", error=str(error))
        raise Problem(OUT_OF_ORDER, "the database does not answer") from None
    if entry is None:
        raise Problem(missing)
    return entry
