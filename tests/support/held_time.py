"""An event loop whose time stands still until the test moves it, so that timers do not depend on the machine's speed.

Sockets and threads work as ever. ``run_held`` runs a test's coroutine on such a loop.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SAFETY_S = 60.0
"""The longest that a test may take in real time: with the loop's time, time limits stand still too."""

TURNS = 20
"""Turns of the loop in which a timer that has gone off takes effect."""


class HeldLoop(asyncio.SelectorEventLoop):
    """A loop whose clock begins at 0 and is moved by ``advance`` only."""

    _now = 0.0

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return self._now

    def time_ms(self) -> int:
        """Return the loop's time in milliseconds."""
        return round(self._now * 1000)

    async def advance(self, seconds: float) -> None:
        """Move the time and let everything that is due happen."""
        self._now += seconds
        for _ in range(TURNS):
            await asyncio.sleep(0)


def run_held(story: Callable[[HeldLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop whose time stands still. Raises CancelledError when it takes more than ``SAFETY_S``."""
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
    """Wait until a condition holds that other tasks or sockets of the loop bring about."""
    while not condition():
        # A pause in real time: the loop's own timers stand still.
        await asyncio.to_thread(time.sleep, 0.001)
