"""Delivery: the loop that posts the notifications of the outbox and retries failed ones.

An endpoint that does not answer delays no other.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

import prometheus_client
import structlog
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from cardwright.kit.clock import RealClock
from cardwright.kit.failpoints import failpoint
from cardwright.kit.vault import Vault
from cardwright.outbox.client import GuardedClient
from cardwright.outbox.delivery_queue import (
    NO_WORK,
    Claim,
    DeliveryAttempt,
    RetryRules,
    Work,
    claim,
    claimable,
    end_leases,
    find_work,
    record,
)
from cardwright.outbox.endpoint import Endpoint, open_target, open_webhook
from cardwright.outbox.events import Category, Delivery
from cardwright.outbox.render import RenderTransactions, load_elements, notification
from cardwright.outbox.room import Endpoints, Room
from cardwright.storage.database import Database, Row
from cardwright.storage.failures import Unavailable
from cardwright.storage.tables import webhooks

STOP_S: Final = 1.0
"""Maximum wait of `stop` for the responses to posts in progress, in seconds."""

ERROR_PAUSE_S: Final = 1.0
"""Pause of the loop after an error of the database, in seconds."""

PREPARED_MAX: Final = 16
"""Maximum number of notifications that are rendered before the first of them is posted."""

OUTCOMES = prometheus_client.Counter("cardwright_deliveries_total", "Attempts to deliver a notification", ["outcome"])

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Claimed row, ready to post."""

    claim: Claim
    endpoint: Endpoint
    body: bytes = field(repr=False)


class Exchange(NamedTuple):
    """Result of an exchange with the database. With ``has_further_work`` another one follows without a pause."""

    claims: list[Claim]
    has_further_work: bool


class Deliverer:
    """Delivery loop: delivers each notification at least once.

    Each process runs one in its event loop; processes share the work.

    ``Room`` describes the limits ``sends_max`` and ``endpoint_max`` of the posts in progress. Without a call of ``wake`` the
    loop reads the outbox every ``poll_ms``, which also finds due retries. Blocking work runs in ``executor``; one thread is
    enough. The client must be closed after ``run`` has returned.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        client: GuardedClient,
        real_clock: RealClock,
        rules: RetryRules,
        render_transactions: RenderTransactions,
        executor: Executor,
        *,
        poll_ms: int = 250,
        sends_max: int = 64,
        endpoint_max: int = 8,
    ) -> None:
        self._database = database
        self._vault = vault
        self._client = client
        self._real_clock = real_clock
        self._rules = rules
        self._render_transactions = render_transactions
        self._executor = executor
        self._poll_s = poll_ms / 1000
        self._endpoints = Endpoints(sends_max=sends_max, endpoint_max=endpoint_max)
        self._after: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()
        self._stopping = False
        self._sends: set[asyncio.Task[None]] = set()
        self._done: list[DeliveryAttempt] = []

    async def run(self) -> None:
        """Deliver until ``stop`` is called or the task is cancelled. Then wait at most ``STOP_S`` for the posts in progress."""
        self._loop = asyncio.get_running_loop()
        turns = asyncio.create_task(self._take_turns())
        try:
            # A turn has an open transaction, so cancellation ends the loop after the turn and not within it.
            await asyncio.shield(turns)
        finally:
            self._stopping = True
            self._awake.set()
            await turns
            await self._finish()
            self._loop = None

    def stop(self) -> None:
        """End ``run``. Nothing more is claimed, and a post without a response within ``STOP_S`` counts as failed."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Signal new rows in the outbox, from any thread. The loop reads them at once, or directly after its current turn."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._awake.set)

    # --- The loop ------------------------------------------------------------------------

    async def _take_turns(self) -> None:
        while not self._stopping:
            # Cleared before the turn, so that rows that arrive during it trigger the next one.
            self._awake.clear()
            try:
                has_further_work = await self._turn()
            except Unavailable as error:
                # The outage is already logged.
                log.debug("outbox waits for the database", error=str(error))
                await self._rest(ERROR_PAUSE_S)
                continue
            except Exception:
                # A bug must not end the loop, or all deliveries would stop.
                log.exception("outbox could not be read or written")
                await self._rest(ERROR_PAUSE_S)
                continue
            if not has_further_work:
                await self._rest(self._poll_s)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._awake.wait(), seconds)
        except TimeoutError:
            return

    async def _turn(self) -> bool:
        """Record finished attempts, then claim and send due rows. Return whether another turn must follow at once."""
        done, self._done = self._done, []
        room = None if self._stopping else self._endpoints.room()
        try:
            exchange = await self._in_thread(self._exchange, done, room)
        except BaseException:
            # Also for a cancellation: the attempts were sent, so a later turn must record them.
            self._done = done + self._done
            raise
        # Rendering takes longer than claiming, so the first posts begin before the last ones are rendered.
        for start in range(0, len(exchange.claims), PREPARED_MAX):
            for prepared in await self._in_thread(self._prepare, exchange.claims[start : start + PREPARED_MAX]):
                self._begin(prepared)
        return exchange.has_further_work

    def _begin(self, prepared: Message | DeliveryAttempt) -> None:
        if isinstance(prepared, DeliveryAttempt):
            self._done.append(prepared)
            self._awake.set()
            return
        self._endpoints.begin(prepared.claim.endpoint_id, has_answered=prepared.claim.has_answered)
        task = asyncio.create_task(self._send(prepared))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    async def _finish(self) -> None:
        if self._sends:
            await asyncio.wait(self._sends, timeout=STOP_S)
        for send in self._sends:
            send.cancel()
        await asyncio.gather(*self._sends)
        try:
            await self._turn()
        except Unavailable as error:
            log.warning("outcomes could not be written; their leases expire", attempts=len(self._done), error=str(error))
        except Exception:
            # A bug must not prevent the other parts from closing.
            log.exception("outcomes could not be written; their leases expire", attempts=len(self._done))

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    # --- One post ------------------------------------------------------------------------

    async def _send(self, message: Message) -> None:
        attempt = await self._attempt(message)
        self._endpoints.end(message.claim.endpoint_id, has_answered=attempt.status is not None)
        self._done.append(attempt)
        self._awake.set()

    async def _attempt(self, message: Message) -> DeliveryAttempt:
        at_ms, endpoint, body = self._real_clock(), message.endpoint, message.body
        try:
            answer = await self._client.post(endpoint.url, body, endpoint.headers(body), self._rules.timeout_ms)
        except asyncio.CancelledError:
            # Only `_finish` cancels. The notification may have arrived; at-least-once delivery counts it as failed.
            return DeliveryAttempt(claim=message.claim, at_ms=at_ms, error="Cardwright stopped before the answer came")
        except Exception:
            # The client returns network errors in its response, so this is a bug. It counts as an attempt, or the endpoint
            # would keep one place fewer.
            log.exception("a notification could not be posted", outbox_id=message.claim.id)
            return DeliveryAttempt(claim=message.claim, at_ms=at_ms, error="internal error")
        return DeliveryAttempt(
            claim=message.claim, at_ms=at_ms, status=answer.status, duration_ms=answer.duration_ms, error=answer.error,
            body=endpoint.shown(answer.body.decode(errors="replace")),
        )  # fmt: skip

    # --- In a thread ---------------------------------------------------------------------

    def _exchange(self, done: Sequence[DeliveryAttempt], room: Room | None) -> Exchange:
        """Record attempts and claim rows in one commit. Without either there is no commit, and without room no claim."""
        real_ms = self._real_clock()
        work = self._find_work(real_ms) if room is not None else NO_WORK
        queues = claimable(work.queues, room) if room is not None else []
        if not (done or queues or work.has_expired):
            return Exchange([], work.after is not None)
        if done:
            failpoint("delivery.record.before")
        with self._database.write() as db:
            states = record(db, real_ms, self._rules, done)
            ended = end_leases(db, real_ms) if work.has_expired else 0
            claims = claim(db, real_ms, self._rules, queues, room) if room is not None else []
        for attempt, state in zip(done, states, strict=True):
            OUTCOMES.labels({Delivery.DUE: "failed", Delivery.DELIVERED: "delivered", Delivery.DEAD: "dead"}[state]).inc()
            if state is Delivery.DEAD:
                log.warning(
                    "notification failed for the last time",
                    outbox_id=attempt.claim.id,
                    error=attempt.error,
                    status=attempt.status,
                )
        return Exchange(claims, bool(claims or ended) or work.after is not None)

    def _find_work(self, real_ms: int) -> Work:
        """Return the work of the next queues. An idle outbox causes no commit."""
        with self._database.read() as db:
            work = find_work(db, real_ms, self._after)
        self._after = work.after
        return work

    def _prepare(self, claims: Sequence[Claim]) -> list[Message | DeliveryAttempt]:
        """Return the message of each claim. This runs after the claiming commit, because rendering takes longer than claiming."""
        with self._database.read() as db:
            query = select(webhooks).where(webhooks.c.id.in_({claim.webhook_id for claim in claims} - {None}))
            hooks = {row.id: row for row in db.execute(query)}
            return [self._prepare_one(db, claim, hooks.get(claim.webhook_id)) for claim in claims]

    def _prepare_one(self, db: Connection, claim: Claim, hook: Row | None) -> Message | DeliveryAttempt:
        if claim.target is None and (hook is None or not hook.active):
            why = "the webhook does not exist any more" if hook is None else "the webhook is not active"
            return DeliveryAttempt(claim=claim, at_ms=self._real_clock(), error=why, is_last=True)
        try:
            category = Category(claim.category)
            elements = load_elements(db, claim.program_id, category, claim.refs, self._render_transactions)
            endpoint = open_webhook(self._vault, hook) if claim.target is None else open_target(self._vault, claim.target)
        except SQLAlchemyError:
            raise
        except Exception:
            # A message that fails, because of a bug or another sealing key, must not affect others.
            log.exception("a notification could not be made", outbox_id=claim.id)
            return DeliveryAttempt(claim=claim, at_ms=self._real_clock(), error="the notification could not be made")
        return Message(claim=claim, endpoint=endpoint, body=notification(category, elements))
