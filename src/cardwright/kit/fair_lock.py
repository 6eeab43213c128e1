"""A lock that is handed on in the order of asking, and that some may share."""

import threading
from collections import deque
from types import TracebackType
from typing import NamedTuple


class _Waiter(NamedTuple):
    """A waiting thread: it sleeps until its event, a lock, is released."""

    event: threading.Lock
    shares: bool


class FairLock:
    """Like ``threading.Lock``, but first come, first served: who releases it and comes back waits behind the others.

    With an ordinary lock a busy holder takes it again at once, and others can wait for as long as it stays busy. Those who
    ``share`` it have it together, and keep out who wants it alone; who waits for it alone is not overtaken by them. May be
    released by another thread than the one that acquired it.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._sharing = 0
        self._waiting: deque[_Waiter] = deque()

    def acquire(self, timeout_s: float | None = None) -> bool:
        """Take the lock alone, after those who asked before; return whether that was possible in time."""
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
        """Take the lock together with others that share it; return whether that was possible in time.

        With a timeout of 0 it is taken only if it is not taken alone and no thread waits for it.
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
            # It may have been handed on just now.
            if turn.event.acquire(blocking=False):
                return True
            self._waiting.remove(turn)
            if not self._is_taken:
                # Those behind may share the lock with those who have it.
                self._hand_on()
            return False

    def _hand_on(self) -> None:
        """To one who wants it alone, or to all who share it up to the next who does not."""
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
