"""Failpoints: named places in the code at which a test kills or pauses the process.

They do nothing unless the environment variable ``CARDWRIGHT_FAILPOINTS`` names a folder. In it a file that has a failpoint's
name arms it, also while the process runs. The file holds an action and a count, 1 if left out:

* ``kill 7``: the seventh time that the process passes the failpoint, it kills itself with SIGKILL.
* ``pause 3``: the third time, the process renames the file to ``<name>.reached`` and waits until that file is gone, at
  most ``PAUSE_MAX_S``. Of several processes one takes the file.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

PAUSE_MAX_S = 30.0
"""The longest pause: a test that died must not leave a paused process behind."""

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
    """Carry out what the file asks for; return the file to wait for in case of a pause."""
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
        # Another process took it.
        return None
    _passes[path.name] = 0
    return reached
