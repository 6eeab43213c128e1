"""Failpoints: a folder of failpoints that a test arms while the process under test runs."""

import tempfile
import time
from pathlib import Path
from typing import Self

REACH_S = 30.0
"""Maximum wait for a failpoint, in seconds; only a safety limit."""


class Failpoints:
    """Failpoints (``kit/failpoints.py``) of the processes with ``environment``: `with Failpoints() as failpoints`."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="cardwright-failpoints-")
        self.environment = {"CARDWRIGHT_FAILPOINTS": self._home.name}

    def arm(self, name: str, action: str) -> None:
        """Arm a failpoint with an action such as ``kill 7`` or ``pause``."""
        # The file is written under another name and renamed, so that no process reads a part of it.
        new = Path(self._home.name, f".{name}")
        new.write_text(action)
        new.rename(new.with_name(name))

    def is_reached(self, name: str) -> bool:
        """Return True if a process pauses at the failpoint."""
        return self._reached(name).exists()

    def wait(self, name: str, seconds: float = REACH_S) -> bool:
        """Wait until a process pauses at the failpoint, at most ``seconds``; return True if one does."""
        deadline = time.monotonic() + seconds
        while not self.is_reached(name) and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.is_reached(name)

    def release(self, name: str) -> None:
        """Let the paused process continue, or disarm the failpoint if no process has reached it."""
        self._reached(name).unlink(missing_ok=True)
        Path(self._home.name, name).unlink(missing_ok=True)

    def disarm(self) -> None:
        """Release and disarm all failpoints."""
        for file in Path(self._home.name).iterdir():
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder."""
        self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reached(self, name: str) -> Path:
        return Path(self._home.name, f"{name}.reached")
