"""Engine loop: an inbox of messages, and workers that process them in batches.

There is no timer: a batch contains the messages that arrived during the previous commit. With two workers, one batch commits
while the next is decided. No account is in both batches, so neither waits for the other's locks.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import structlog
from prometheus_client import Counter, Gauge, Histogram

from cardwright.core.problems import BUSY, CARD_UNKNOWN, INTERNAL, ORIGINAL_NOT_FOUND, Kind, Problem
from cardwright.core.transaction_row import token_of
from cardwright.engine.batch import CardRequest, CardResult, EngineRequest, Result
from cardwright.engine.batch_runner import BatchInDoubt, run_batch
from cardwright.engine.card_cache import CardEntry, CardKey
from cardwright.engine.config_cache import Cache
from cardwright.engine.dry_run import Trial, try_out
from cardwright.engine.id_blocks import IdSource
from cardwright.engine.movement_rows import CHARGES_MAX, MovementRequest, MovementResult
from cardwright.engine.refusals import CONFLICTS, LATE, REFUSED, STOPPING, not_booked, refusal, unknown_outcome
from cardwright.kit.clock import RealClock
from cardwright.kit.failpoints import async_failpoint
from cardwright.kit.limits import Limits, deadline
from cardwright.storage.engine.store import CardRow, EngineStore, Worker
from cardwright.storage.failures import (
    Conflict,
    ConnectionLost,
    Contended,
    InDoubt,
    SchemaChanged,
    TimedOut,
    Unavailable,
    public_reason,
)
from cardwright.storage.original_transactions import Original, TokenKey
from cardwright.storage.outage import RECONNECTS, TIMEOUTS, Outage

INBOX_MAX = 4_096
"""Maximum number of waiting messages. Further ones are refused at once."""

BATCH_MAX = 256
"""Maximum number of messages in one commit."""

SWEEP_S = 0.1
"""Seconds between two searches of the inbox for messages past their deadline, in case no worker takes any."""

OUTAGE_S = 2.0
"""Seconds of an outage of the database after which messages are refused at once."""

RETRY_S = 0.1
"""Seconds before the next attempt to connect."""

STOP_S = 0.7
"""Maximum wait in seconds for the current batches when the engine stops."""

TRIALS_MAX = 64
"""Maximum number of waiting dry runs. Further ones are refused at once."""
ROWS_MAX = 3 * (BATCH_MAX + CHARGES_MAX)
"""Maximum number of transactions in one commit. The messages of a batch become up to BATCH_MAX rows, and the last message can
add up to CHARGES_MAX more. Each row may have a real-time fee and cause an auto reload.
"""

RETRIES_MAX = 20
"""Maximum number of runs of a batch that conflicts with commits of other processes. Then its messages are refused."""

BATCHES = Histogram("cardwright_batch_messages", "Messages decided in one commit", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256))
WAITING = Gauge("cardwright_inbox_messages", "Messages that wait for a batch")
DECIDED = Counter("cardwright_messages_total", "Decided messages", ["outcome"]).labels("answered")

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    request: EngineRequest
    holder_ids: tuple[int, ...]
    rows_max: int
    deadline: float
    answer: "asyncio.Future[Result]"
    is_committing: bool = False


class Engine:
    """The engine of a process: it decides messages and returns results. Several processes may use one PostgreSQL database."""

    def __init__(
        self, store: EngineStore, cache: Cache, real_clock: RealClock, executor: Executor, outage: Outage, limits: Limits
    ) -> None:
        self.cache = cache
        self._store = store
        self._real_clock = real_clock
        self._executor = executor
        self._outage = outage
        self._limits = limits
        self._ids = IdSource()
        self._inbox: deque[_Waiting] = deque()
        self._busy: set[int] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._worker_tasks: list[asyncio.Task[None]] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._refilling = asyncio.Lock()
        self._stopping = False
        self._trying = asyncio.Lock()
        self._dry_run_worker: Worker | None = None
        self._trials = 0

    async def start(self) -> None:
        """Start the workers. During an outage they connect later, because a process may start during an outage."""
        for _ in range(self._store.workers_max):
            worker: Worker | None = None
            try:
                worker = await self._store.open_worker()
            except Unavailable as error:
                self._failure(error)
            self._worker_tasks.append(asyncio.create_task(self._run_worker(worker)))
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Decide and answer the messages in the inbox, and close the workers. Answer 503 after ``STOP_S`` seconds."""
        self._stopping = True
        while self._idle:
            self._wake()
        if self._worker_tasks:
            _, late = await asyncio.wait(self._worker_tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._worker_tasks, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._inbox:
            _answer(self._inbox.popleft(), refusal("stopping", STOPPING))
        await self._close(self._dry_run_worker)
        await self._store.close()

    def clear(self) -> None:
        """Drop the caches and the id block after a reset. The next batch draws a new block."""
        self.cache.clear()
        self._ids = IdSource()

    async def card(self, key: CardKey) -> CardEntry:
        """Return the card, cached or loaded. Raises CARD_UNKNOWN, and UNAVAILABLE during an outage."""
        entry = self.cache.find_card(key)
        return entry if entry is not None else await _there(self.cache.load_card(key), CARD_UNKNOWN)

    async def card_with_secrets(self, key: CardKey) -> tuple[CardEntry, CardRow]:
        """Return the current card and its row with the encrypted secrets. Raises the same problems as ``card``."""
        return await _there(self.cache.card_with_secrets(key), CARD_UNKNOWN)

    async def submit(self, request: CardRequest) -> CardResult:
        """Decide a message and return its result after the commit. Raises BUSY if the inbox is full, and other problems."""
        result = await self._decided(request, (request.card.holder_id,), 1)
        assert isinstance(result, CardResult)
        self.cache.add_original(Original.of(result.row, result.card.card.token))
        return result

    async def move(self, request: MovementRequest) -> MovementResult:
        """Decide a movement and return its result after the commit. Raises problems like ``submit``."""
        result = await self._decided(request, tuple(entry.holder_id for entry in request.accounts), request.rows_max)
        assert isinstance(result, MovementResult)
        return result

    async def _decided(self, request: EngineRequest, holder_ids: tuple[int, ...], rows_max: int) -> CardResult | MovementResult:
        if len(self._inbox) >= INBOX_MAX:
            REFUSED.labels("inbox").inc()
            raise Problem(BUSY, "the inbox is full, try again later")
        if self._stopping:
            raise refusal("stopping", STOPPING)
        if self._outage.lasts(OUTAGE_S):
            raise refusal("outage", self._outage.text or LATE)
        loop = asyncio.get_running_loop()
        until = deadline.get(loop.time() + self._limits.answer_s) - self._limits.margin_s
        waiting = _Waiting(request, holder_ids, rows_max, until, loop.create_future())
        self._inbox.append(waiting)
        self._wake()
        try:
            result = await waiting.answer
        except asyncio.CancelledError:
            # The HTTP edge cancels a request before its batch ends, after a stall of the event loop or when the server stops.
            result = _given_up(waiting, loop.time())
        if isinstance(result, Problem):
            raise result
        return result

    async def try_out(self, request: CardRequest) -> Trial:
        """Decide a message in a dry run and return the result. Raises BUSY if too many dry runs wait, and other problems.

        Nothing is written. A separate worker, opened for the first dry run, serves it, so batches wait only for account locks.
        """
        if self._trials >= TRIALS_MAX or self._stopping:
            raise Problem(BUSY, "too many dry runs, try again later")
        self._trials += 1
        try:
            async with self._trying:
                result = await self._try_out(request)
        finally:
            self._trials -= 1
        if isinstance(result, Problem):
            raise result
        return result

    async def _try_out(self, request: CardRequest) -> Trial | Problem:
        until = asyncio.get_running_loop().time() + self._limits.batch_s
        for _ in range(RETRIES_MAX):
            worker, self._dry_run_worker = self._dry_run_worker, None
            try:
                if worker is None:
                    worker = await self._store.open_worker()
                trial = await try_out(worker, self.cache, self._real_clock, request, until)
            except Conflict as conflict:
                self._dry_run_worker = worker
                log.info("dry run is run again", conflict=str(conflict))
            except BaseException as error:
                # Close the worker also after a cancellation, because a transaction may be open.
                await self._close(worker)
                if not isinstance(error, Unavailable):
                    raise
                problem = self._failure(error)
                if not isinstance(error, ConnectionLost):
                    return problem
            else:
                self._dry_run_worker = worker
                return trial
        return Problem(BUSY, "too many conflicts, try again later")

    async def original(self, key: TokenKey) -> Original:
        """Return the transaction that a message refers to. Raises ORIGINAL_NOT_FOUND, and UNAVAILABLE during an outage."""
        return await _there(self.cache.want_original(key), ORIGINAL_NOT_FOUND)

    def _wake(self) -> None:
        """Wake an idle worker, if there is one. A busy worker reads the inbox after its batch."""
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _run_worker(self, worker: Worker | None) -> None:
        while (batch := await self._next_batch()) is not None:
            holders = {holder_id for waiting in batch for holder_id in waiting.holder_ids}
            self._busy |= holders
            try:
                worker = await self._serve(worker, batch)
            finally:
                self._busy -= holders
        await self._close(worker)

    async def _next_batch(self) -> list[_Waiting] | None:
        """Wait for the next batch and return it. Return None if the engine stops and the inbox is empty."""
        while not (batch := self._take()):
            if self._stopping and not self._inbox:
                return None
            self._idle.append(waiter := asyncio.get_running_loop().create_future())
            await waiter
        return batch

    def _take(self) -> list[_Waiting]:
        """Remove and return the oldest messages whose accounts are in no other batch. The others keep their order."""
        batch, passed_over, busy = list[_Waiting](), deque[_Waiting](), self._busy
        earliest, room = asyncio.get_running_loop().time() + self._limits.batch_s, BATCH_MAX
        while self._inbox and room > 0:
            waiting = self._inbox.popleft()
            if waiting.answer.cancelled():
                continue
            if waiting.deadline < earliest:
                self._refuse_late(waiting)
            elif not busy.isdisjoint(waiting.holder_ids):
                passed_over.append(waiting)
                if len(waiting.holder_ids) > 1:
                    # A transfer blocked on one account also blocks later messages for its other account; otherwise it could
                    # starve.
                    busy = busy.union(waiting.holder_ids)
            else:
                batch.append(waiting)
                room -= waiting.rows_max
        self._inbox.extendleft(reversed(passed_over))
        WAITING.set(len(self._inbox))
        return batch

    async def _sweep(self) -> None:
        """Refuse messages past their deadline while no worker takes any. The inbox is nearly in the order of deadlines."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(SWEEP_S)
            while self._inbox and (self._inbox[0].answer.done() or self._inbox[0].deadline < clock() + self._limits.batch_s):
                self._refuse_late(self._inbox.popleft())

    def _refuse_late(self, waiting: _Waiting) -> None:
        text = self._outage.text or "earlier messages took so long that this one was not decided in time"
        _answer(waiting, refusal("waited", text))

    async def _serve(self, worker: Worker | None, batch: Sequence[_Waiting]) -> Worker | None:
        """Decide a batch and answer it. Return the worker for the next batch, or None if it broke."""
        try:
            worker, results = await self._settle(worker, batch, min(waiting.deadline for waiting in batch))
        except asyncio.CancelledError:
            now = asyncio.get_running_loop().time()
            self._answer_all(batch, [_given_up(waiting, now) for waiting in batch])
            await self._close(worker)
            raise
        except Exception:
            # No exception may end the worker's task before the engine stops, or no further message would be decided.
            log.exception("a batch failed", messages=len(batch))
            await self._close(worker)
            worker, results = None, [Problem(INTERNAL)] * len(batch)
        await async_failpoint("answer.before")
        self._answer_all(batch, results)
        return worker

    def _answer_all(self, batch: Sequence[_Waiting], results: Sequence[Result]) -> None:
        for waiting, result in zip(batch, results, strict=True):
            _answer(waiting, result)
        BATCHES.observe(len(batch))
        DECIDED.inc(len(batch))

    async def _settle(self, worker: Worker | None, batch: Sequence[_Waiting], until: float) -> tuple[Worker | None, list[Result]]:
        """Decide a batch. If the database fails, decide it again on a new worker until the deadline."""
        while True:
            try:
                if worker is None:
                    worker = await self._open(until)
                return worker, await self._decide(worker, batch, until)
            except BatchInDoubt as batch_in_doubt:
                await self._close(worker)
                worker, is_committed = await self._resolve(batch_in_doubt.doubt, until)
                if is_committed is None:
                    REFUSED.labels("unknown").inc(len(batch))
                    log.warning("the outcome of a batch is unknown", messages=len(batch))
                    return worker, _unknown(batch, batch_in_doubt)
                if is_committed:
                    return worker, batch_in_doubt.results
                _end_try(batch)
            except Unavailable as error:
                _end_try(batch)
                await self._close(worker)
                worker, problem = None, self._failure(error)
                if not await self._can_retry(error, until):
                    REFUSED.labels("database").inc(len(batch))
                    return None, [problem] * len(batch)

    async def _can_retry(self, error: Unavailable, until: float) -> bool:
        """Wait ``RETRY_S`` seconds. Return True if there is time for another try."""
        await asyncio.sleep(RETRY_S)
        return not isinstance(error, SchemaChanged) and not self._stopping and asyncio.get_running_loop().time() < until

    def _failure(self, error: Unavailable) -> Problem:
        """Record a failure of the database, and return the problem for its messages."""
        if isinstance(error, Contended):
            return not_booked(public_reason(error))
        if not isinstance(error, ConnectionLost):
            self._outage.begin(error)
        return not_booked(self._outage.text or public_reason(error))

    async def _open(self, until: float) -> Worker:
        """Open a new worker in place of a broken one.

        Raises Unavailable if the database accepts no connection until ``until``.
        """
        try:
            async with asyncio.timeout_at(until):
                worker = await self._store.open_worker()
        except TimeoutError:
            TIMEOUTS.labels("connect").inc()
            raise TimedOut("the database does not accept a connection in time") from None
        except OSError as error:
            # For example, no file descriptor or process is left.
            raise Unavailable(str(error)) from error
        RECONNECTS.inc()
        return worker

    async def _resolve(self, doubt: InDoubt, until: float) -> tuple[Worker | None, bool | None]:
        """Look up on a new worker if a batch was committed. Return the worker and the answer, None if time runs out."""
        clock = asyncio.get_running_loop().time
        while clock() < until and not self._stopping:
            worker: Worker | None = None
            try:
                worker = await self._open(until)
                return worker, await worker.is_committed(doubt, until)
            except Exception as error:
                if isinstance(error, Unavailable):
                    self._failure(error)
                else:
                    # After a bug the outcome is still in doubt, so try again.
                    log.exception("a batch in doubt could not be looked up")
                await self._close(worker)
                await asyncio.sleep(RETRY_S)
        return None, None

    @staticmethod
    async def _close(worker: Worker | None) -> None:
        try:
            if worker is not None:
                await worker.close()
        except Exception as error:
            # A broken connection may raise any exception. It is dropped in any case.
            log.info("a broken worker did not close", error=str(error))

    async def _decide(self, worker: Worker, batch: Sequence[_Waiting], until: float) -> list[Result]:
        """Run the batch, and again after each conflict with another process."""
        if not self._ids.has(ROWS_MAX * self._store.workers_max):
            await self._refill(until)
        requests = [waiting.request for waiting in batch]
        clock = asyncio.get_running_loop().time

        def begin_commit() -> None:
            if any(waiting.answer.cancelled() for waiting in batch):
                raise Conflict("a message of the batch was cancelled")
            for waiting in batch:
                waiting.is_committing = True

        for _ in range(RETRIES_MAX):
            try:
                return await run_batch(worker, self.cache, self._ids, self._real_clock, requests, until, begin_commit)
            except Conflict as conflict:
                _end_try(batch)
                log.info("batch is run again", conflict=str(conflict), messages=len(batch))
                if clock() + self._limits.lock_s >= until:
                    return [refusal("conflict", CONFLICTS)] * len(batch)
                # A card may belong to another account now. The failed run has updated the cache.
                requests = [self._looked_up(request) for request in requests]
        return [Problem(BUSY, "too many conflicts, try again later")] * len(batch)

    def _looked_up(self, request: EngineRequest) -> EngineRequest:
        """Return the request with its card from the cache. A movement is unchanged, because a user's account never changes."""
        if isinstance(request, MovementRequest):
            return request
        return request._replace(card=self.cache.find_card(request.card.key) or request.card)

    async def _refill(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(until), self._refilling:
                if not self._ids.has(ROWS_MAX * self._store.workers_max):
                    block = await asyncio.get_running_loop().run_in_executor(self._executor, self._store.next_ids)
                    self._ids.refill(block)
        except TimeoutError:
            raise TimedOut("a block of ids could not be drawn in time") from None


def _end_try(batch: Sequence[_Waiting]) -> None:
    """Record that the last try committed nothing. A message that is cancelled from now on was not booked."""
    for waiting in batch:
        waiting.is_committing = False


def _answer(waiting: _Waiting, result: Result) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(result)


def _given_up(waiting: _Waiting, now: float) -> Problem:
    """Return the answer to a cancelled message, whose deadline has passed or whose server stops.

    Its batch does not commit, unless the commit has already begun.
    """
    is_late = now >= waiting.deadline
    if not waiting.is_committing:
        return refusal("late", LATE) if is_late else refusal("stopping", STOPPING)
    request = waiting.request
    token = request.chosen_token if isinstance(request, CardRequest) else request.movement.token
    REFUSED.labels("late" if is_late else "stopping").inc()
    return unknown_outcome(token, "in time" if is_late else "before the server stopped")


def _unknown(batch: Sequence[_Waiting], in_doubt: BatchInDoubt) -> list[Result]:
    """Return the answers to a batch whose outcome is unknown. Problems and replays in it are certain."""
    answers = list[Result]()
    for waiting, result in zip(batch, in_doubt.results, strict=True):
        request = waiting.request
        if isinstance(result, CardResult) and isinstance(request, CardRequest) and result.row.id in in_doubt.doubt.row_ids:
            token = request.chosen_token or token_of(result.row)
            result = unknown_outcome(f"transaction {token}")
        elif isinstance(request, MovementRequest) and isinstance(result, MovementResult):
            result = unknown_outcome(request.movement.token)
        answers.append(result)
    return answers


async def _there(lookup: Awaitable[T | None], missing: Kind) -> T:
    """Return the result of a lookup. Raises a problem of the kind ``missing`` for None, and UNAVAILABLE without a database."""
    try:
        entry = await lookup
    except Unavailable as error:
        log.info("lookup failed, database unavailable", error=str(error))
        raise not_booked(public_reason(error)) from None
    if entry is None:
        raise Problem(missing)
    return entry
