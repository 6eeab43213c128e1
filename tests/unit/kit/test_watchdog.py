"""The watchdog aborts work at its deadline, once, and leaves alone what has ended in time."""

import threading
from time import monotonic

import pytest

from cardwright.kit.watchdog import Watchdog

SAFETY_S = 60
LATER = 3600.0


def test_work_is_aborted_at_its_deadline() -> None:
    """Work whose deadline passes is aborted and knows it; work with a later deadline goes on."""
    watchdog, aborted = Watchdog(), threading.Event()
    with watchdog.watch(monotonic() + LATER, pytest.fail) as patient:
        with watchdog.watch(monotonic() + 0.01, aborted.set) as late:
            assert aborted.wait(SAFETY_S)
        assert late.is_over
        assert not patient.is_over
    watchdog.close()


def test_work_that_has_ended_is_not_aborted() -> None:
    """A deadline that passes after the work has left the watch aborts nothing."""
    watchdog, aborted, later = Watchdog(), threading.Event(), threading.Event()
    with watchdog.watch(monotonic() + 0.02, aborted.set):
        pass
    # The watchdog has passed the first deadline when it aborts the second.
    with watchdog.watch(monotonic() + 0.04, later.set):
        assert later.wait(SAFETY_S)
    assert not aborted.is_set()
    watchdog.close()


def test_an_earlier_deadline_is_noticed() -> None:
    """A deadline before the one that the watchdog sleeps for wakes it."""
    watchdog, aborted = Watchdog(), threading.Event()
    with watchdog.watch(monotonic() + LATER, pytest.fail), watchdog.watch(monotonic() + 0.01, aborted.set):
        assert aborted.wait(SAFETY_S)
    watchdog.close()


def test_expire_aborts_what_is_under_watch() -> None:
    """All work is aborted at once; work that comes later is watched as before."""
    watchdog, aborts = Watchdog(), list[str]()
    with watchdog.watch(monotonic() + LATER, lambda: aborts.append("first")):
        watchdog.expire()
        assert aborts == ["first"]
    with watchdog.watch(monotonic() + LATER, lambda: aborts.append("second")) as second:
        assert not second.is_over
    watchdog.close()
    assert aborts == ["first"]


def test_after_close_nothing_waits() -> None:
    """Work that begins after the watchdog was closed is aborted at once: a server that stops waits for nothing."""
    watchdog, aborts = Watchdog(), list[str]()
    with watchdog.watch(monotonic() + LATER, lambda: aborts.append("before")):
        watchdog.close()
        with watchdog.watch(monotonic() + LATER, lambda: aborts.append("after")) as after:
            assert after.is_over
    assert aborts == ["before", "after"]
