"""A trial: what a message would become if it came now, read and decided as in a batch of its own, and then dropped."""

from typing import NamedTuple

from cardwright.core.messages import Message
from cardwright.core.problems import Problem
from cardwright.core.snapshot import Snapshot
from cardwright.engine.batch import CardRequest, CardResult, configure, read_set_of
from cardwright.engine.batch_runner import answer, see
from cardwright.engine.config_cache import Cache
from cardwright.engine.id_blocks import IdSource
from cardwright.kit.clock import Instant, RealClock
from cardwright.storage.engine.store import Worker

TRIAL_IDS = 64
"""Ids that mean nothing, enough for one purchase and the auto reloads that it sets off."""


class Trial(NamedTuple):
    """What a message would have become: its outcome, and what it would have been decided by, and when.

    ``snapshot`` is None when the message only repeats one that was decided before.
    """

    outcome: CardResult
    snapshot: Snapshot | None
    message: Message
    now: Instant


async def try_out(worker: Worker, cache: Cache, real_clock: RealClock, request: CardRequest, deadline: float) -> Trial | Problem:
    """What a batch of this message alone would answer, by the same reading and deciding; then the batch is dropped.

    Raises what ``run_batch`` raises. The row's id and seed mean nothing.
    """
    cards, holders, _, want = read_set_of([request])
    loaded = await worker.begin(want, deadline)
    try:
        batch = await configure(cache, cards, holders, loaded, real_clock())
        view = see(batch, request) if request.card.key in batch.cards else None
        ids = IdSource()
        # Newer than what the account has, so that the message gets the time that a batch would give it.
        first_id = 1 + max((account.last_id for account in batch.accounts.values()), default=0)
        ids.refill(range(first_id, first_id + TRIAL_IDS, 2))
        result = answer(batch, ids, request)
    finally:
        await worker.abort()
    if isinstance(result, Problem):
        return result
    assert view is not None
    assert isinstance(result, CardResult), "a card's message has an outcome"
    repeats = not batch.write.transactions
    now = batch.now[request.card.key[0]] if repeats else result.row.created_ms
    return Trial(result, None if repeats else view.snapshot, view.message, now)
