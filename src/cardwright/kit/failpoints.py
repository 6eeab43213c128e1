"""Failpoints: named places in the code at which a test kills or pauses the process.

They do nothing unless the environment variable ``CARDWRIGHT_FAILPOINTS`` names a folder. A file in it with the name of a
failpoint arms that failpoint, even while the process runs. The file contains an action and a count, 1 if left out:

* ``kill 7``: when the process passes the failpoint for the seventh time, it kills itself with SIGKILL.
* ``pause 3``: at the third time the process renames the file to ``<name>.reached``. It waits until that file is gone, at most
  ``PAUSE_MAX_S``. If several processes arrive, only one takes the file and pauses.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

PAUSE_MAX_S = 30.0
"""Maximum pause in seconds: a test that died must not leave a paused process behind."""

POLL_S = 0.002

_folder = os.environ.get("CARDWRIGHT_FAILPOINTS")
_passes = Counter[str]()


def failpoint(name: str) -> None:
    """Pass a failpoint in code that runs in a thread; a pause blocks the thread."""
    if _folder is not None and (reached := _act(Path(_folder, name))) is not None:
        deadline = time.monotonic() + PAUSE_MAX_S
        while reached.exists() and time.monotonic() < deadline:
            time.sleep(POLL_S)


async def async_failpoint(name: str) -> None:
    """Pass a failpoint in a coroutine; a pause leaves the event loop to the other tasks."""
    if _folder is not None and (reached := _act(Path(_folder, name))) is not None:
        deadline = time.monotonic() + PAUSE_MAX_S
        while reached.exists() and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)


def _act(path: Path) -> Path | None:
    """Execute the action of the file. Return the file to wait for in case of a pause, else None."""
    try:
        action, _, count = path.read_text().partition(" ")
    except OSError:
        return None
    _passes[path.name] += 1
    if _passes[path.name] < int(count or 1):
        return None
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    reached = path.with_name(f"{path.name}.reached")
    try:
        path.rename(reached)
    except FileNotFoundError:
        # Another process took the file.
        return None
    _passes[path.name] = 0
    return reached
