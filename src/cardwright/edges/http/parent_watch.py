"""Parent watch: a worker process ends when the process that started it is gone."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess


def end_with_parent() -> None:
    """Send this process SIGTERM when its parent ends, also by SIGKILL; does nothing in a process that is no worker.

    The stop guard sees to it that SIGTERM ends the process in bounded time.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: BaseProcess) -> None:
    # The kernel closes the parent's end of this pipe when the parent ends; waiting for that costs nothing.
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
