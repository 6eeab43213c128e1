"""Loading by key, where all who ask at the same time share one query."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Loader(Generic[K]):
    """Collects keys while a query is under way and loads them with the next; ``load`` puts what it finds where it belongs."""

    def __init__(self, load: Callable[[Iterable[K]], Awaitable[None]]) -> None:
        self._load = load
        self._wanted: dict[K, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def want(self, key: K) -> None:
        """Returns when the key has been looked for. Raises what the query raises."""
        waiter = self._wanted.get(key)
        if waiter is None:
            waiter = self._wanted[key] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await asyncio.shield(waiter)

    async def _run(self) -> None:
        while self._wanted:
            wanted, self._wanted = self._wanted, {}
            try:
                await self._load(wanted)
            except Exception as error:
                for waiter in wanted.values():
                    waiter.set_exception(error)
                continue
            for waiter in wanted.values():
                waiter.set_result(None)
        self._task = None
