"""Watchdog: it aborts work at its deadline, once, and does not abort work that has ended in time."""

import threading
from time import monotonic

import pytest

from cardwright.kit.watchdog import Watchdog

SAFETY_S = 60
LATER = 3600.0


def test_work_is_aborted_at_its_deadline() -> None:
    """Work is aborted at its deadline and marked as over. Work with a later deadline continues."""
    watchdog, aborted = Watchdog(), threading.Event()
    with watchdog.watch(monotonic() + LATER, pytest.fail) as patient:
        with watchdog.watch(monotonic() + 0.01, aborted.set) as late:
            assert aborted.wait(SAFETY_S)
        assert late.is_over
        assert not patient.is_over
    watchdog.close()


def test_work_that_has_ended_is_not_aborted() -> None:
    """Work that ends before its deadline is not aborted."""
    watchdog, aborted, later = Watchdog(), threading.Event(), threading.Event()
    with watchdog.watch(monotonic() + 0.02, aborted.set):
        pass
    # The watchdog has passed the first deadline when it aborts the second.
    with watchdog.watch(monotonic() + 0.04, later.set):
        assert later.wait(SAFETY_S)
    assert not aborted.is_set()
    watchdog.close()


def test_an_earlier_deadline_is_noticed() -> None:
    """New work with an earlier deadline than the current one is aborted in time."""
    watchdog, aborted = Watchdog(), threading.Event()
    with watchdog.watch(monotonic() + LATER, pytest.fail), watchdog.watch(monotonic() + 0.01, aborted.set):
        assert aborted.wait(SAFETY_S)
    watchdog.close()


def test_expire_aborts_what_is_under_watch() -> None:
    """``expire`` aborts all work at once. Later work is watched as usual."""
    watchdog, aborts = Watchdog(), list[str]()
    with watchdog.watch(monotonic() + LATER, lambda: aborts.append("first")):
        watchdog.expire()
        assert aborts == ["first"]
    with watchdog.watch(monotonic() + LATER, lambda: aborts.append("second")) as second:
        assert not second.is_over
    watchdog.close()
    assert aborts == ["first"]


def test_after_close_nothing_waits() -> None:
    """Closing the watchdog aborts all work, and later work is aborted at once, so that a server can stop."""
    watchdog, aborts = Watchdog(), list[str]()
    with watchdog.watch(monotonic() + LATER, lambda: aborts.append("before")):
        watchdog.close()
        with watchdog.watch(monotonic() + LATER, lambda: aborts.append("after")) as after:
            assert after.is_over
    assert aborts == ["before", "after"]
