"""A lock that is handed on in the order of asking."""

import threading
from collections import deque
from types import TracebackType


class Gate:
    """Like ``threading.Lock``, but first come, first served: who releases it and comes back waits behind the others.

    With an ordinary lock a busy holder takes it again at once, and others can wait for as long as it stays busy. May be
    released by another thread than the one that acquired it.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        """Takes the gate, waiting for its turn; without ``blocking`` only if nobody has it or waits for it."""
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return True
            if not blocking:
                return False
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()
        return True

    def release(self) -> None:
        """Hands the gate to whoever has waited longest."""
        with self._mutex:
            assert self._is_taken, "nobody has the gate"
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
