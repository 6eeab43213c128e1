"""Dry run: a message that is loaded and decided like a batch of one, and then rolled back."""

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
"""Size of the id range for a dry run: enough for one purchase, its fee and its auto reloads. The ids are never stored."""


class Trial(NamedTuple):
    """The result of a dry run: the outcome of the message, and the snapshot and time of its decision.

    ``snapshot`` is None if the message is a replay of a decided one.
    """

    outcome: CardResult
    snapshot: Snapshot | None
    message: Message
    now: Instant


async def try_out(worker: Worker, cache: Cache, real_clock: RealClock, request: CardRequest, deadline: float) -> Trial | Problem:
    """Return the result that a batch of this message alone would have, or a problem, and abort the batch.

    Raises Conflict and Unavailable like ``run_batch``. The id and seed of the row have no meaning.
    """
    cards, holders, _, want = read_set_of([request])
    loaded = await worker.begin(want, deadline)
    try:
        batch = await configure(cache, cards, holders, loaded, real_clock())
        view = see(batch, request) if request.card.key in batch.cards else None
        ids = IdSource()
        # The id is above the account's last one, so that the message gets the same time as in a batch.
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
