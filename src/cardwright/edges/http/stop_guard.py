"""Stop guard: a limit for the time that a process takes to end after SIGTERM or SIGINT."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import structlog

STOP_MAX_S = 4.5
"""Seconds from the signal to the forced exit. The documented limit is 5 s; the rest is for the kernel and a busy machine."""

LOG_MAX_S = 0.2
"""Maximum wait in seconds for the last log line, because the reader of a full pipe may have stopped."""

log = structlog.get_logger()


def guard_stop(last_act: Callable[[], None] = lambda: None, limit_s: float = STOP_MAX_S) -> None:
    """End this process with exit code 1 if it still runs ``limit_s`` seconds after its first SIGTERM or SIGINT.

    ``last_act`` is called before the exit. The new handlers call the present ones, so call this function in the main thread after
    the server has installed its handlers.
    """
    guard = _Guard(last_act, limit_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, guard.before(signal.getsignal(number)))


class _Guard:
    """A countdown that the first signal starts. It runs in a thread, so that a blocked event loop cannot delay it."""

    def __init__(self, last_act: Callable[[], None], limit_s: float) -> None:
        self._last_act = last_act
        self._limit_s = limit_s
        self._is_armed = False

    def before(self, handler: object) -> Callable[[int, FrameType | None], None]:
        """Return a signal handler that starts the countdown and then calls ``handler``."""

        def handle(number: int, frame: FrameType | None) -> None:
            if not self._is_armed:
                self._is_armed = True
                threading.Thread(target=self._count_down, name="stop-guard", daemon=True).start()
            if callable(handler):
                handler(number, frame)

        return handle

    def _count_down(self) -> None:
        time.sleep(self._limit_s)
        writer = threading.Thread(target=self._log, daemon=True)
        writer.start()
        writer.join(LOG_MAX_S)
        try:
            self._last_act()
        finally:
            os._exit(1)

    def _log(self) -> None:
        log.error("the process did not stop in time and is ended", limit_s=self._limit_s, pid=os.getpid())
