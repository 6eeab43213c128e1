"""Phases: the places in the server's work at which an outage begins. A failpoint pauses a process at each."""

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
"""The phases by failpoint, with their names in the tables; an idle server needs no failpoint."""

SQLITE_PHASES = (IDLE, LOCKED, DELIVERY, STOP)

REACH_S = 5.0
"""The longest wait for a phase. Afterwards the outage begins anyway, and the phase counts as missed."""


class Phases:
    """The phases of a server under load: `with phases.enter(SENT, dice) as is_reached: outage.strike()`.

    ``reset`` resets a program that the load does not use, for which the process reserves a new id block.
    ``terminate`` sends the server SIGTERM.
    """

    def __init__(
        self, failpoints: Failpoints, cluster: Cluster | None, reset: Callable[[], None], terminate: Callable[[], None]
    ) -> None:
        self._failpoints, self._cluster, self._reset, self._terminate = failpoints, cluster, reset, terminate

    @contextmanager
    def enter(self, phase: str, dice: Random, *, resumes: bool = True) -> Iterator[bool]:
        """Pause a process in a phase until the end. If not ``resumes``, the outage itself continues stopped backends."""
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
                # SIGTERM arrives during a batch in half of the cases, and otherwise after all answers, when the engine stops.
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
        """Stop the backends before the COMMIT is sent, so that they have not read it when the outage begins."""
        assert self._cluster is not None
        with (
            self._paused(LOCKED, "pause", lambda: None) as is_locked,
            stopped_backends(self._cluster, resumes=resumes),
            self._paused(SENT, "pause", lambda: self._failpoints.release(LOCKED)) as is_sent,
        ):
            yield is_locked and is_sent

    @contextmanager
    def _sent_and_done(self) -> Iterator[bool]:
        """Keep a COMMIT unanswered that is on disk: its answer waits for a standby that does not exist."""
        assert self._cluster is not None
        with unanswered_commits(self._cluster) as is_waiting, self._paused(SENT, "pause", lambda: None) as is_sent:
            yield is_waiting() and is_sent

    def _await_stop(self) -> None:
        """Send SIGTERM during a batch."""
        self._failpoints.wait(LOCKED, REACH_S)
        self._terminate()

    def _lose_connections(self) -> None:
        assert self._cluster is not None
        with connect(self._cluster.dsn) as control:
            terminate_sessions(control)
