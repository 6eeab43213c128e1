"""Inbox: a worker takes the oldest messages whose accounts are free, and no transfer starves."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from cardwright.engine.loop import BATCH_MAX, Engine, _Waiting
from cardwright.kit.limits import Limits
from cardwright.storage.outage import Outage

MISSING: Any = None


class Stub:
    """A stand-in for a message that has just arrived."""

    received_ms = 0


def taken(busy: set[int], inbox: Sequence[tuple[int, ...]], rows: int = 1) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the accounts of the taken messages and of the messages that stay, in order. ``busy`` accounts are in a batch."""

    async def take() -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        engine = Engine(MISSING, MISSING, lambda: 0, MISSING, Outage(), Limits())
        engine._busy = busy
        stub: Any = Stub()
        loop = asyncio.get_running_loop()
        engine._inbox.extend(_Waiting(stub, holders, rows, loop.time() + 60, loop.create_future()) for holders in inbox)
        batch = engine._take()
        return [request.holder_ids for request in batch], [request.holder_ids for request in engine._inbox]

    return asyncio.run(take())


@pytest.mark.parametrize(
    ("busy", "inbox", "batch", "left"),
    [
        (set(), [(1,), (2,), (1,)], [(1,), (2,), (1,)], []),
        ({1}, [(1,), (2,), (1,)], [(2,)], [(1,), (1,)]),
        (set(), [(1, 2), (2, 1), (3,)], [(1, 2), (2, 1), (3,)], []),
        ({1}, [(1, 2), (3,)], [(3,)], [(1, 2)]),
        ({2}, [(1, 2), (3,)], [(3,)], [(1, 2)]),
        # A transfer is blocked on 1. Later messages for 2 wait behind it; messages for other accounts pass.
        ({1}, [(1, 2), (2,), (2, 3), (3,), (4,)], [(4,)], [(1, 2), (2,), (2, 3), (3,)]),
        ({1}, [(2,), (1, 2), (2,)], [(2,)], [(1, 2), (2,)]),
        # A blocked message for one account blocks no other account.
        ({1}, [(1,), (2,), (3,)], [(2,), (3,)], [(1,)]),
    ],
)
def test_what_is_taken(
    busy: set[int], inbox: list[tuple[int, ...]], batch: list[tuple[int, ...]], left: list[tuple[int, ...]]
) -> None:
    """No account is in two batches, the order stays, and no message overtakes a blocked transfer at either of its accounts."""
    assert taken(busy, inbox) == (batch, left)


def test_a_batch_is_full_by_its_transactions() -> None:
    """A message counts with the highest number of transactions that it may become, so that it does not enlarge a commit."""
    batch, left = taken(set(), [(1,)] * BATCH_MAX, rows=8)
    assert (len(batch), len(left)) == (BATCH_MAX // 8, BATCH_MAX - BATCH_MAX // 8)
