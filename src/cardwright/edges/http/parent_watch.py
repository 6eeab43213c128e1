"""Parent watch: the end of a worker process after the end of its parent process."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess


def end_with_parent() -> None:
    """Send SIGTERM to this process when its parent ends, even if SIGKILL ends it. Do nothing in a process that is no worker.

    The stop guard limits the time from SIGTERM to the end of the process.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: BaseProcess) -> None:
    # The kernel closes the parent's end of this pipe when the parent ends. The wait needs no polling.
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
