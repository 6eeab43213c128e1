"""Named points at which a test can make the process die, to prove that nothing acknowledged is lost.

They do nothing unless the environment variable ``CARDWRIGHT_FAULT`` names one, as ``commit.after:7``: the seventh time
it is passed, the process kills itself without any clean-up.
"""

import os
import signal

_name, _, _count = os.environ.get("CARDWRIGHT_FAULT", "").partition(":")
_passed = 0


def fault(name: str) -> None:
    """Passes a fault point."""
    global _passed
    if name != _name:
        return
    _passed += 1
    if _passed >= int(_count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
