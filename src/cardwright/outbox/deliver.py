"""Delivery: the loop that posts the notifications of the outbox and retries failed ones.

A slow endpoint does not delay others.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, TypeVar

import prometheus_client
import structlog
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from cardwright.kit.clock import RealClock
from cardwright.kit.failpoints import failpoint
from cardwright.kit.vault import Vault
from cardwright.outbox.client import GuardedClient
from cardwright.outbox.delivery_queue import Claim, DeliveryAttempt, RetryRules, Room, claim, is_any_claimable, record
from cardwright.outbox.endpoint import Endpoint, open_target, open_webhook
from cardwright.outbox.events import Category, Delivery
from cardwright.outbox.render import RenderTransactions, load_elements, notification
from cardwright.storage.database import Database, Row
from cardwright.storage.failures import Unavailable
from cardwright.storage.tables import webhooks

STOP_S: Final = 1.0
"""Maximum wait of `stop` for the responses to posts in progress, in seconds."""

ERROR_PAUSE_S: Final = 1.0
"""Pause of the loop after an error of the database, in seconds."""

OUTCOMES = prometheus_client.Counter("cardwright_deliveries_total", "Attempts to deliver a notification", ["outcome"])

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Claimed row, ready to post."""

    claim: Claim
    endpoint: Endpoint
    body: bytes = field(repr=False)


class Deliverer:
    """Delivery loop: delivers each notification at least once.

    Each process runs one in its event loop; processes share the work.

    At most ``sends_max`` posts are in progress, at most ``endpoint_max`` of them to one endpoint. An endpoint that did not
    answer last time gets one post at a time. Without a call of ``wake`` the loop reads the outbox every ``poll_ms``, which also
    finds due retries. Blocking work runs in ``executor``; one thread is enough. The client must be closed after ``run`` has
    returned.
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
        self._sends_max = sends_max
        self._endpoint_max = endpoint_max
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()
        self._stopping = False
        self._sends: set[asyncio.Task[None]] = set()
        self._sends_to: Counter[int] = Counter()
        self._silent: set[int] = set()
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
                claimed = await self._turn()
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
            if claimed == 0:
                await self._rest(self._poll_s)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._awake.wait(), seconds)
        except TimeoutError:
            return

    async def _turn(self) -> int:
        """Record finished attempts, then claim and send due rows. Return the number of claimed rows."""
        done, self._done = self._done, []
        try:
            claims = await self._in_thread(self._exchange, done, self._room())
        except BaseException:
            # Also for a cancellation: the attempts were sent, so a later turn must record them.
            self._done = done + self._done
            raise
        if claims:
            for prepared in await self._in_thread(self._prepare, claims):
                self._begin(prepared)
        return len(claims)

    def _room(self) -> Room:
        endpoints = {endpoint: self._endpoint_max - sends for endpoint, sends in self._sends_to.items()}
        endpoints |= {endpoint: max(0, 1 - self._sends_to[endpoint]) for endpoint in self._silent}
        # Counted by endpoint, because an ended task stays in `_sends` until its callback runs.
        free = 0 if self._stopping else self._sends_max - self._sends_to.total()
        return Room(free=free, each=self._endpoint_max, endpoints=endpoints)

    def _begin(self, prepared: Message | DeliveryAttempt) -> None:
        if isinstance(prepared, DeliveryAttempt):
            self._done.append(prepared)
            self._awake.set()
            return
        self._sends_to[prepared.claim.endpoint_id] += 1
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
        endpoint_id = message.claim.endpoint_id
        # An endpoint that does not answer gets one post at a time until it answers again.
        if attempt.status is None:
            self._silent.add(endpoint_id)
        else:
            self._silent.discard(endpoint_id)
        self._sends_to[endpoint_id] -= 1
        if not self._sends_to[endpoint_id]:
            del self._sends_to[endpoint_id]
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

    def _exchange(self, done: Sequence[DeliveryAttempt], room: Room) -> list[Claim]:
        """Record attempts and claim rows in one commit. Without either there is no commit."""
        real_ms = self._real_clock()
        if not done and not (room.free and self._is_any_claimable(real_ms, room)):
            return []
        if done:
            failpoint("delivery.record.before")
        with self._database.write() as db:
            states = record(db, real_ms, self._rules, done)
            claims = claim(db, real_ms, self._rules, room)
        for attempt, state in zip(done, states, strict=True):
            OUTCOMES.labels({Delivery.DUE: "failed", Delivery.DELIVERED: "delivered", Delivery.DEAD: "dead"}[state]).inc()
            if state is Delivery.DEAD:
                log.warning(
                    "notification failed for the last time",
                    outbox_id=attempt.claim.id,
                    error=attempt.error,
                    status=attempt.status,
                )
        return claims

    def _is_any_claimable(self, real_ms: int, room: Room) -> bool:
        with self._database.read() as db:
            return is_any_claimable(db, real_ms, room)

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
