"""The loop around the engine: an inbox, and workers that take from it whatever arrived while they were busy.

There is no timer: a batch is what came in while the previous commit was under way. With two workers one batch commits
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
"""Messages that may wait; the next one is refused at once."""

BATCH_MAX = 256
"""Messages in one commit."""

SWEEP_S = 0.1
"""How often the inbox is searched for messages that have waited too long while no worker takes any."""

OUTAGE_S = 2.0
"""When the database has been away for so long, messages are refused at once instead of waiting for it."""

RETRY_S = 0.1
"""The pause before another connection is tried."""

STOP_S = 0.7
"""The longest wait for the batches under way when the engine stops."""

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
    request: EngineRequest
    holder_ids: tuple[int, ...]
    rows_max: int
    deadline: float
    answer: "asyncio.Future[Result]"
    is_committing: bool = False


class Engine:
    """Takes messages, answers outcomes. One for each process; several processes may work on one PostgreSQL."""

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
        """Open the workers. A database that is away is waited for: this process may have been started in an outage."""
        for _ in range(self._store.workers_max):
            worker: Worker | None = None
            try:
                worker = await self._store.open_worker()
            except Unavailable as error:
                self._failure(error)
            self._worker_tasks.append(asyncio.create_task(self._run_worker(worker)))
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Decide what is in the inbox, answer it, and close the workers; what takes too long is answered 503."""
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
        """Drops what is cached and takes a fresh block of ids with the next batch, as after a reset."""
        self.cache.clear()
        self._ids = IdSource()

    async def card(self, key: CardKey) -> CardEntry:
        """The card as this process last saw it. Raises CARD_UNKNOWN, and OUT_OF_ORDER without a database."""
        entry = self.cache.find_card(key)
        return entry if entry is not None else await _there(self.cache.load_card(key), CARD_UNKNOWN)

    async def card_with_secrets(self, key: CardKey) -> tuple[CardEntry, CardRow]:
        """The card as it is now, with the row that its secrets are sealed in. Raises what ``card`` raises."""
        return await _there(self.cache.card_with_secrets(key), CARD_UNKNOWN)

    async def submit(self, request: CardRequest) -> CardResult:
        """Has a message decided; returns after its commit. Raises BUSY when too many wait, and what the message itself raises."""
        result = await self._decided(request, (request.card.holder_id,), 1)
        assert isinstance(result, CardResult)
        self.cache.add_original(Original.of(result.row, result.card.card.token))
        return result

    async def move(self, request: MovementRequest) -> MovementResult:
        """Has a movement carried out, as ``submit`` has a card's message decided."""
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
            # The edge gives the request up before the batch does: after a stall of the event loop, or because the server stops.
            result = _given_up(waiting, loop.time())
        if isinstance(result, Problem):
            raise result
        return result

    async def try_out(self, request: CardRequest) -> Trial:
        """What a message would become if it came now; nothing is written. Raises BUSY when too many ask, and what the
        message itself would raise.

        It uses a separate worker, opened for the first dry run, so batches wait for nothing but the accounts' locks.
        """
        if self._trials >= TRIALS_MAX or self._stopping:
            raise Problem(BUSY, "too many trials, try again later")
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
                log.info("trial is run again", conflict=str(conflict))
            except BaseException as error:
                # Also when the request is cancelled: the worker may be in the middle of a transaction.
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
        """The transaction that a message names. Raises ORIGINAL_NOT_FOUND, and OUT_OF_ORDER without a database."""
        return await _there(self.cache.want_original(key), ORIGINAL_NOT_FOUND)

    def _wake(self) -> None:
        """Sets an idle worker to work, if there is one; a busy one looks into the inbox by itself when it is done."""
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
        """What may be decided now; waits for it. None when the engine stops and nothing is left."""
        while not (batch := self._take()):
            if self._stopping and not self._inbox:
                return None
            self._idle.append(waiter := asyncio.get_running_loop().create_future())
            await waiter
        return batch

    def _take(self) -> list[_Waiting]:
        """The oldest messages whose accounts are in no other worker; the others keep their place."""
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
                    # Who waits for one of two accounts is not overtaken at the other, or he might wait for ever.
                    busy = busy.union(waiting.holder_ids)
            else:
                batch.append(waiting)
                room -= waiting.rows_max
        self._inbox.extendleft(reversed(passed_over))
        WAITING.set(len(self._inbox))
        return batch

    async def _sweep(self) -> None:
        """Refuse messages that wait while no worker takes any. The inbox is nearly in the order of deadlines."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(SWEEP_S)
            while self._inbox and (self._inbox[0].answer.done() or self._inbox[0].deadline < clock() + self._limits.batch_s):
                self._refuse_late(self._inbox.popleft())

    def _refuse_late(self, waiting: _Waiting) -> None:
        text = self._outage.text or "earlier messages took so long that this one was not decided in time"
        _answer(waiting, refusal("waited", text))

    async def _serve(self, worker: Worker | None, batch: Sequence[_Waiting]) -> Worker | None:
        """Decide a batch and answer it; return the worker for the next one, None when it broke."""
        try:
            worker, results = await self._settle(worker, batch, min(waiting.deadline for waiting in batch))
        except asyncio.CancelledError:
            now = asyncio.get_running_loop().time()
            self._answer_all(batch, [_given_up(waiting, now) for waiting in batch])
            await self._close(worker)
            raise
        except Exception:
            # Nothing may end the worker's task but the engine's own end: without it no message would be decided any more.
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
        """Decide a batch: again on a new worker while the database fails it and there is time."""
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
        """Wait a moment before the next try; return whether there is time for one."""
        await asyncio.sleep(RETRY_S)
        return not isinstance(error, SchemaChanged) and not self._stopping and asyncio.get_running_loop().time() < until

    def _failure(self, error: Unavailable) -> Problem:
        """The answer to what the database failed, which is noted."""
        if isinstance(error, Contended):
            return not_booked(public_reason(error))
        if not isinstance(error, ConnectionLost):
            self._outage.begin(error)
        return not_booked(self._outage.text or public_reason(error))

    async def _open(self, until: float) -> Worker:
        """A new worker in place of a broken one. Raises Unavailable."""
        try:
            async with asyncio.timeout_at(until):
                worker = await self._store.open_worker()
        except TimeoutError:
            TIMEOUTS.labels("connect").inc()
            raise TimedOut("the database does not accept a connection in time") from None
        except OSError as error:
            # No descriptor or no process is left, for instance.
            raise Unavailable(str(error)) from error
        RECONNECTS.inc()
        return worker

    async def _resolve(self, doubt: InDoubt, until: float) -> tuple[Worker | None, bool | None]:
        """Find out whether a batch was committed, on a new worker; None if there is no time to."""
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
                    # A bug must not turn the doubt into an answer that there is none.
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
            # A connection in any state may raise anything: it is given up in either case.
            log.info("a broken worker did not close", error=str(error))

    async def _decide(self, worker: Worker, batch: Sequence[_Waiting], until: float) -> list[Result]:
        """Runs the batch; when it conflicts with another process's commit, again."""
        if not self._ids.has(ROWS_MAX * self._store.workers_max):
            await self._refill(until)
        requests = [waiting.request for waiting in batch]
        clock = asyncio.get_running_loop().time

        def begin_commit() -> None:
            if any(waiting.answer.cancelled() for waiting in batch):
                raise Conflict("a message was given up")
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
                # A card may draw on another account by now, which the batch has found out and the cache knows.
                requests = [self._looked_up(request) for request in requests]
        return [Problem(BUSY, "too many conflicts, try again later")] * len(batch)

    def _looked_up(self, request: EngineRequest) -> EngineRequest:
        """The message with its card as it is known by now; a user's account never becomes another."""
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
    """Note that the last try to commit has left nothing: a message that is given up from here on was not booked."""
    for waiting in batch:
        waiting.is_committing = False


def _answer(waiting: _Waiting, result: Result) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(result)


def _given_up(waiting: _Waiting, now: float) -> Problem:
    """The answer to a message that is not waited for any longer: its time is over, or else the server stops.

    Its batch does not commit unless that is under way.
    """
    is_late = now >= waiting.deadline
    if not waiting.is_committing:
        return refusal("late", LATE) if is_late else refusal("stopping", STOPPING)
    request = waiting.request
    token = request.chosen_token if isinstance(request, CardRequest) else request.movement.token
    REFUSED.labels("late" if is_late else "stopping").inc()
    return unknown_outcome(token, "in time" if is_late else "before the server stopped")


def _unknown(batch: Sequence[_Waiting], in_doubt: BatchInDoubt) -> list[Result]:
    """The answers to a batch whose outcome is unknown; what it refused, or had decided before, is certain."""
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
    """What was found. Raises a problem of the kind ``missing`` when it was nothing, and OUT_OF_ORDER without a database."""
    try:
        entry = await lookup
    except Unavailable as error:
        log.info("the database failed to find what a message names", error=str(error))
        raise not_booked(public_reason(error)) from None
    if entry is None:
        raise Problem(missing)
    return entry
