"""Phases: the places in the server at which an outage begins, each reached by a failpoint that pauses a process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.stress.clusters import connect, stopped_backends, terminate_sessions, unanswered_commits
from tests.support.failpoints import Failpoints
from tests.support.postgres import Cluster

IDLE = "idle"
LOCKED = "commit.before"
SENT = "commit.sent"
IDS = "ids.before"
CONNECT = "connect.before"
DELIVERY = "delivery.record.before"
STOP = "stop.before"

PHASES = {
    IDLE: "idle",
    LOCKED: "between lock and COMMIT",
    SENT: "COMMIT sent, not answered",
    IDS: "reserving an id block",
    CONNECT: "opening a connection",
    DELIVERY: "delivering a notification",
    STOP: "stop after SIGTERM",
}
"""The failpoint of each phase, and the phase in words; an idle server needs no failpoint."""

SQLITE_PHASES = (IDLE, LOCKED, DELIVERY, STOP)

REACH_S = 5.0
"""The longest wait for a phase. When it is over, the outage begins all the same and the phase counts as missed."""


class Phases:
    """Brings a server that works under load into a phase: `with phases.enter(SENT, dice) as is_reached: outage.strike()`.

    ``reset`` empties a program that the load does not use: the process that does it draws a new block of ids.
    ``terminate`` sends the server SIGTERM.
    """

    def __init__(
        self, failpoints: Failpoints, cluster: Cluster | None, reset: Callable[[], None], terminate: Callable[[], None]
    ) -> None:
        self._failpoints, self._cluster, self._reset, self._terminate = failpoints, cluster, reset, terminate

    @contextmanager
    def enter(self, phase: str, dice: Random, *, resumes: bool = True) -> Iterator[bool]:
        """Pause a process in a phase, let it go on at the end. Without ``resumes`` the outage lets stopped backends go on."""
        match phase:
            case "idle":
                yield True
            case "commit.sent":
                with self._sent_and_done() if dice.random() < 0.5 else self._sent_and_undone(resumes) as is_reached:
                    yield is_reached
            case "ids.before":
                with self._paused(phase, "pause", self._reset) as is_reached:
                    yield is_reached
            case "connect.before":
                with self._paused(phase, "pause", self._lose_connections) as is_reached:
                    yield is_reached
            case "stop.before":
                # A batch is under way when SIGTERM comes, or, half of the time, all are answered and the engine stops.
                name, provoke = (LOCKED, self._await_stop) if dice.random() < 0.5 else (STOP, self._terminate)
                with self._paused(name, "pause", provoke) as is_reached:
                    yield is_reached
            case _:
                with self._paused(phase, f"pause {dice.randint(1, 8)}", lambda: None) as is_reached:
                    yield is_reached

    @contextmanager
    def _paused(self, name: str, action: str, provoke: Callable[[], None]) -> Iterator[bool]:
        self._failpoints.arm(name, action)
        provoke()
        try:
            yield self._failpoints.wait(name, REACH_S)
        finally:
            self._failpoints.release(name)

    @contextmanager
    def _sent_and_undone(self, resumes: bool) -> Iterator[bool]:
        """The backends stop before the COMMIT is sent: they have not read it when the outage begins."""
        assert self._cluster is not None
        with (
            self._paused(LOCKED, "pause", lambda: None) as is_locked,
            stopped_backends(self._cluster, resumes=resumes),
            self._paused(SENT, "pause", lambda: self._failpoints.release(LOCKED)) as is_sent,
        ):
            yield is_locked and is_sent

    @contextmanager
    def _sent_and_done(self) -> Iterator[bool]:
        """The COMMIT is on disk, and its answer waits for a standby that does not exist."""
        assert self._cluster is not None
        with unanswered_commits(self._cluster) as is_waiting, self._paused(SENT, "pause", lambda: None) as is_sent:
            yield is_waiting() and is_sent

    def _await_stop(self) -> None:
        """Send SIGTERM when a batch is under way."""
        self._failpoints.wait(LOCKED, REACH_S)
        self._terminate()

    def _lose_connections(self) -> None:
        assert self._cluster is not None
        with connect(self._cluster.dsn) as control:
            terminate_sessions(control)
