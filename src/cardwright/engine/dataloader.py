"""Loading by key, where all who ask at the same time share one query."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Loader(Generic[K, V]):
    """Collects keys while a query is under way and loads them with the next one."""

    def __init__(self, load: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._load = load
        self._wanted: dict[K, list[asyncio.Future[V | None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def want(self, key: K) -> V | None:
        """What the key leads to, None when to nothing. Raises what the query raises."""
        # Each caller waits by itself: one that gives up must not take the others' answer along.
        waiter: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(key, []).append(waiter)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await waiter

    async def _run(self) -> None:
        while self._wanted:
            wanted, self._wanted = self._wanted, {}
            try:
                results = await self._load(list(wanted))
            except Exception as error:
                # Whatever it is, those who wait get it; the task goes on, or all who ask later would wait for ever.
                for waiter in itertools.chain.from_iterable(wanted.values()):
                    if not waiter.done():
                        waiter.set_exception(error)
                continue
            for key, waiters in wanted.items():
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(results.get(key))
        self._task = None
