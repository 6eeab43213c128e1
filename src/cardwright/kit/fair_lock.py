"""Fair lock: a shared and exclusive lock that serves threads in order of arrival."""

import threading
from collections import deque
from types import TracebackType
from typing import NamedTuple


class _Waiter(NamedTuple):
    """Waiting thread: it waits until its event, a lock, is released."""

    event: threading.Lock
    shares: bool


class FairLock:
    """Shared and exclusive lock in order of arrival.

    ``threading.Lock`` can starve waiters, because a busy holder can acquire it again at once. Shares exclude exclusive holders.
    A thread that waits for exclusive use blocks later shares, so they do not overtake it. Any thread may release the lock.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._sharing = 0
        self._waiting: deque[_Waiter] = deque()

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Acquire the lock exclusively, after earlier waiters.

        Return whether that succeeded within ``timeout_s``; None waits without limit.
        """
        with self._mutex:
            if not self._is_taken and not self._sharing:
                self._is_taken = True
                return True
            turn = self._queue(shares=False)
        return self._wait(turn, timeout_s)

    def release(self) -> None:
        """Hand the lock to the thread that has waited longest."""
        with self._mutex:
            assert self._is_taken, "the lock is not taken"
            self._is_taken = False
            self._hand_on()

    def share(self, timeout_s: float | None = None) -> bool:
        """Acquire a share. Return whether that succeeded within ``timeout_s``; None waits without limit.

        With a timeout of 0 it succeeds only if the lock has no exclusive holder and no waiter.
        """
        with self._mutex:
            if not self._is_taken and not self._waiting:
                self._sharing += 1
                return True
            if timeout_s == 0:
                return False
            turn = self._queue(shares=True)
        return self._wait(turn, timeout_s)

    def unshare(self) -> None:
        """Release a share; the last release hands the lock to the thread that has waited longest."""
        with self._mutex:
            assert self._sharing, "the lock is not shared"
            self._sharing -= 1
            if not self._sharing:
                self._hand_on()

    def _queue(self, *, shares: bool) -> _Waiter:
        turn = _Waiter(threading.Lock(), shares)
        turn.event.acquire()
        self._waiting.append(turn)
        return turn

    def _wait(self, turn: _Waiter, timeout_s: float | None) -> bool:
        if turn.event.acquire(timeout=-1 if timeout_s is None else timeout_s):
            return True
        with self._mutex:
            # The lock may have been handed over after the timeout.
            if turn.event.acquire(blocking=False):
                return True
            self._waiting.remove(turn)
            if not self._is_taken:
                # Later waiters may share the lock with the current holders.
                self._hand_on()
            return False

    def _hand_on(self) -> None:
        """Hand the lock to the next exclusive waiter, or to all waiters for shares in front of it."""
        while self._waiting and (self._waiting[0].shares or not self._sharing):
            turn = self._waiting.popleft()
            turn.event.release()
            if not turn.shares:
                self._is_taken = True
                return
            self._sharing += 1

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
