"""Watchdog: aborts blocking work at its deadline, such as a wait for a database that does not answer."""

import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic


class Watch:
    """Piece of work under the watchdog. ``is_over`` is True after its deadline has passed and it was aborted."""

    __slots__ = ("abort", "is_over")

    def __init__(self, abort: Callable[[], None]) -> None:
        self.abort: Callable[[], None] | None = abort
        self.is_over = False


class Watchdog:
    """Thread that calls ``abort`` of each watched piece of work that reaches its deadline.

    ``abort`` must not block. It is called at most once, and never after the work has left the watch.
    """

    def __init__(self, name: str = "watchdog") -> None:
        self._name = name
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Watch]] = []
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @contextmanager
    def watch(self, deadline: float, abort: Callable[[], None]) -> Iterator[Watch]:
        """Watch the work of this block until ``deadline``, in seconds of ``time.monotonic``."""
        watch = Watch(abort)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            is_first = not self._heap or deadline < self._heap[0][0]
            heapq.heappush(self._heap, (deadline, next(self._order), watch))
            if is_first:
                self._changed.notify()
            if self._is_closed:
                self._expire(watch)
        try:
            yield watch
        finally:
            with self._changed:
                watch.abort = None

    def expire(self) -> None:
        """Abort all work under watch."""
        with self._changed:
            for _, _, watch in self._heap:
                self._expire(watch)
            self._heap.clear()

    def close(self) -> None:
        """Abort all work under watch now and later, and end the thread."""
        self.expire()
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = monotonic()
                while self._heap and (self._heap[0][0] <= now or self._heap[0][2].abort is None):
                    self._expire(heapq.heappop(self._heap)[2])
                self._changed.wait(self._heap[0][0] - now if self._heap else None)

    @staticmethod
    def _expire(watch: Watch) -> None:
        abort, watch.abort = watch.abort, None
        if abort is not None:
            watch.is_over = True
            abort()
