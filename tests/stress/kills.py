"""Kills: SIGKILL under load at random moments and at armed failpoints, a restart, and a comparison with all answers."""

import http.client
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from tests.stress import api_fixtures, check
from tests.stress.load_clients import Crowd, PurchaseClient
from tests.stress.request_log import Memory
from tests.support.failpoints import Failpoints
from tests.support.receiver import Receiver, a_receiver
from tests.support.server import RunningServer
from tests.support.waiting import until

LOAD_CLIENTS = 16
CARDS = 24
SLOWEST_S = 60.0
"""The longest wait for an armed failpoint or for answers; only a safety limit."""

ANSWERS = (20, 300)
"""The minimum and maximum number of answers before a kill at a random moment."""

POINTS = ("commit.before", "commit.after", "answer.before", "delivery.record.before")
"""The failpoints (``kit/failpoints.py``) at which the process can be killed."""

BLOWS = ("random", "commit.after", "random", "answer.before", "random", "commit.before", "random", "delivery.record.before")
"""The order of the kills, which repeats."""

HOOK = {
    "token": "hook",
    "name": "hook",
    "events": ["transaction.*"],
    "config": {"url": "", "basic_auth_username": "stress", "basic_auth_password": "Stress-of-20-character1"},
}


@dataclass(slots=True)
class Figures:
    """The counts of a kill test: violations, and the number of attempts for each."""

    database: str = ""
    kills_at: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    committed_unanswered: int = 0
    looked_up: int = 0
    repeated: int = 0
    refused: int = 0
    verified: int = 0
    due: int = 0
    delivered: int = 0
    delivered_again: int = 0
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """The number of kills."""
        return self.kills_at.total()


class ServerDied(Exception):
    """A kill at an armed failpoint during the checks that follow the previous kill."""


@dataclass
class KillRun:
    """One database, its clients, and the servers that run on it one after the other."""

    address: str
    seed: int
    workers: int | None
    folder: Path
    inline: Receiver
    hook: Receiver
    failpoints: Failpoints
    # If False, the claims of a killed process end at once instead of after half a minute.
    patient: bool
    say: Callable[[str], None]
    memory: Memory = field(default_factory=Memory)
    figures: Figures = field(default_factory=Figures)
    load_clients: list[PurchaseClient] = field(default_factory=list)

    @property
    def dice(self) -> random.Random:
        """Random numbers that depend on the seed and on the number of kills, not on the speed of the machine."""
        return random.Random(f"{self.seed}-{self.figures.kills}")

    def start(self, fault: str = "") -> RunningServer:
        """Start a server on the database, with a failpoint armed if ``fault`` names one."""
        self.failpoints.disarm()
        if fault:
            self.failpoints.arm(*fault.split(":"))
        env = self.failpoints.environment
        return RunningServer(db=self.address, workers=self.workers, data_dir=self.folder, env=env)

    def settle(self) -> None:
        """Start the server for the first time, and create cards, a webhook and clients."""
        with self.start() as server, server.client() as client:
            cards = api_fixtures.build(client, CARDS)
            config = {**HOOK["config"], "url": self.hook.url}  # type: ignore[dict-item]
            api_fixtures.made(client.post("/webhooks", {**HOOK, "config": config}))
        seeds = f"{self.seed}"
        self.load_clients = [PurchaseClient(number, seeds, cards, self.memory, self.inline.url) for number in range(LOAD_CLIENTS)]

    def strike(self, point: str) -> None:
        """Start the server, check the effects of the previous kill, run load, and kill the server."""
        fault = "" if point == "random" else f"{point}:kill {self._passes(point)}"
        with self._life(point, fault) as server:
            try:
                self._look(server)
            except ServerDied:
                # The kill came during the checks and counts too. The next kill starts a new server.
                assert fault, f"the server ended without a kill:\n{server.output()[-4000:]}"
                return
            self._work(server, armed=bool(fault))

    @contextmanager
    def _life(self, point: str, fault: str) -> Iterator[RunningServer]:
        server = self.start(fault)
        try:
            yield server
        finally:
            server.kill()
            self._hear_last_words(server)
            server.close()
        self.figures.kills_at[point] += 1
        if not self.patient:
            check.expire_claims(self.address)

    def _passes(self, point: str) -> int:
        # The checks pass some failpoints too, before the load does.
        looks = {"answer.before": check.REPEATS_MAX + LOAD_CLIENTS, "delivery.record.before": 10}.get(point, LOAD_CLIENTS)
        return looks + self.dice.randint(1, 40)

    def _look(self, server: RunningServer) -> None:
        try:
            with server.client() as client:
                check.after_restart(client, self.address, self.memory, self.figures, self.dice)
        except (OSError, http.client.HTTPException) as error:
            raise ServerDied from error

    def _work(self, server: RunningServer, *, armed: bool) -> None:
        crowd = Crowd(server, self.load_clients)
        if armed:
            self.figures.missed += not crowd.failed.wait(SLOWEST_S)
        else:
            enough = self.dice.randint(*ANSWERS)
            until(lambda: len(crowd.answered) >= enough, SLOWEST_S)
        server.kill()
        crowd.stop()
        assert not crowd.odd, f"unexpected answers: {crowd.odd[:5]}"

    def _hear_last_words(self, server: RunningServer) -> None:
        output = server.output()
        for word in ("Traceback", "unhandled error", "could not be decided", "could not be made"):
            assert word not in output, f"the server's log has {word!r}:\n{output[-6000:]}"

    def end(self) -> None:
        """Start the server for the last time. Check the answers (all if ``patient``) and that every notification arrived."""
        with self.start() as server:
            with server.client() as client:
                newest = None if self.patient else check.NEWEST
                check.after_restart(client, self.address, self.memory, self.figures, self.dice, newest)
            check.deliveries(self.memory, self.figures, self.inline, self.hook, patience_s=240 if self.patient else 60)
        self.figures.acknowledged = len(self.memory.answered())
        check.verify_from_outside(self.address, self.folder)


def run(address: str, *, seed: int, count: int, workers: int | None = None, patient: bool = True,
        order: tuple[str, ...] = BLOWS, say: Callable[[str], None] = print) -> Figures:  # fmt: skip
    """Kill the server ``count`` times on one database. Raises AssertionError for the first violated guarantee."""
    started = time.monotonic()
    with _kill_run(address, seed, workers, patient, say) as kill_run:
        kill_run.figures.database = "PostgreSQL" if "://" in address else "SQLite"
        kill_run.settle()
        for point in islice(cycle(order), count):
            kill_run.strike(point)
            figures = kill_run.figures
            say(f"{figures.database} {figures.kills}/{count} {point}: {progress(figures, kill_run.memory)}")
        kill_run.end()
    kill_run.figures.seconds = time.monotonic() - started
    return kill_run.figures


def progress(figures: Figures, memory: Memory) -> str:
    """Return the progress in one line."""
    return (
        f"{len(memory.by_token)} requests, {len(memory.unanswered())} of them open, "
        f"{figures.committed_unanswered} committed without an answer so far"
    )


@contextmanager
def _kill_run(address: str, seed: int, workers: int | None, patient: bool, say: Callable[[str], None]) -> Iterator[KillRun]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cardwright-stress-")))
        inline, hook = (stack.enter_context(a_receiver()) for _ in range(2))
        failpoints = stack.enter_context(Failpoints())
        yield KillRun(address, seed, workers, folder, inline, hook, failpoints, patient, say)


def unproven(figures: Figures) -> list[str]:
    """Return the dangerous states that were never reached. Without them the test proves nothing."""
    wanted = {
        "a commit without an answer": figures.committed_unanswered,
        "a notification that was sent and not recorded as sent": figures.delivered_again,
        **{f"a kill at {point}": figures.kills_at[point] for point in POINTS},
    }
    return [name for name, count in wanted.items() if count == 0]
