"""Data loader: loads values by key, with one query for all keys that are requested at the same time."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Loader(Generic[K, V]):
    """A loader that collects keys during a query and loads them with the next one."""

    def __init__(self, load: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._load = load
        self._wanted: dict[K, list[asyncio.Future[V | None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def want(self, key: K) -> V | None:
        """Return the value of a key, or None. Raises the exceptions of the query."""
        # Each caller has a future, so that a cancelled caller does not cancel the others.
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
                # Pass any exception to the callers of this query. The task must continue, or later callers would never get an
                # answer.
                for waiter in itertools.chain.from_iterable(wanted.values()):
                    if not waiter.done():
                        waiter.set_exception(error)
                continue
            for key, waiters in wanted.items():
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(results.get(key))
        self._task = None
