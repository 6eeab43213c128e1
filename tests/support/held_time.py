"""Held time: an event loop whose clock moves only when the test moves it, so that timers do not depend on the machine's speed.

Sockets and threads work as usual. ``run_held`` runs a test's coroutine on such a loop.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SAFETY_S = 60.0
"""Maximum real time of a test, in seconds. The timeouts of the loop cannot end a test, because its clock does not move."""

TURNS = 20
"""Iterations of the loop in which an expired timer takes effect."""


class HeldLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock begins at 0 and moves only by ``advance``."""

    _now = 0.0

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return self._now

    def time_ms(self) -> int:
        """Return the loop's time in milliseconds."""
        return round(self._now * 1000)

    async def advance(self, seconds: float) -> None:
        """Move the clock and run everything that is due."""
        self._now += seconds
        for _ in range(TURNS):
            await asyncio.sleep(0)


def run_held(story: Callable[[HeldLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a HeldLoop; return its result. Raises CancelledError if it takes more than ``SAFETY_S``."""
    with asyncio.Runner(loop_factory=HeldLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, HeldLoop)

        async def guarded() -> T:
            task = asyncio.current_task()
            assert task is not None
            alarm = threading.Timer(SAFETY_S, loop.call_soon_threadsafe, (task.cancel,))
            alarm.start()
            try:
                return await story(loop)
            finally:
                alarm.cancel()

        return runner.run(guarded())


async def turn_until(condition: Callable[[], object]) -> None:
    """Wait until other tasks or sockets of the loop make a condition true."""
    while not condition():
        # A pause in real time, because the clock of the loop does not move.
        await asyncio.to_thread(time.sleep, 0.001)
