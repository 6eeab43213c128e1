"""Outages: the database becomes unavailable in each listed way (such as kill, freeze, full disk) and recovers. This is a short
run; `make outages` runs the long one.

The run records times and does not check them, because a busy machine may be slow. The limits are only a safety net.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress.clusters import Pair
from tests.stress.disks import Disk, MountError
from tests.stress.outage_checks import Limits, Record
from tests.stress.outages import (
    DISK_FULL,
    FAILOVER,
    FREEZE,
    HELD_LOCK,
    KILL_BACKEND,
    READ_ONLY,
    RESTART_FAST,
    RESTART_IMMEDIATE,
    TERMINATE,
    DiskSite,
    FileSite,
    PairSite,
    PostgresSite,
    Site,
    State,
    durable_cluster,
    run_site,
)
from tests.stress.phases import CONNECT, DELIVERY, IDLE, IDS, LOCKED, SENT, STOP
from tests.support.postgres import Cluster

SAFETY = Limits(answer_s=30, recovery_s=30, ready_s=30, stop_s=30)

# With this fixture the tests fail without PostgreSQL, and are skipped if CARDWRIGHT_TEST_DB excludes it.
needs_postgres = pytest.mark.usefixtures("postgres")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Yield a durable PostgreSQL for this module only, because the tests restart it."""
    made = durable_cluster()
    yield made
    made.stop()


def carry_out(site: Site, folder: Path, *outages: tuple[str, str]) -> list[Record]:
    """Run outages, each a kind and a phase; assert no violation and no missed phase; return their records."""
    state = State(folder / "state.json", 7)
    plan = [(kind, phase, number) for number, (kind, phase) in enumerate(outages)]
    run_site(site, plan, state, print, limits=SAFETY, patient=False)
    violations = [f"{record.name}: {text}" for record in state.records for text in record.violations]
    assert not violations, "\n".join(violations)
    assert [record.phase for record in state.records if not record.is_reached] == []
    assert [record.verified for record in state.records][-1] == 1
    return state.records


@needs_postgres
def test_postgresql_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    """After each kind of outage of PostgreSQL, in different phases, every request is answered and no acknowledged one is lost."""
    records = carry_out(
        PostgresSite(cluster, 1, freeze_s=3),
        tmp_path,
        (RESTART_FAST, SENT),
        (RESTART_IMMEDIATE, LOCKED),
        (TERMINATE, IDS),
        (KILL_BACKEND, CONNECT),
        (FREEZE, IDLE),
        (RESTART_FAST, STOP),
    )
    assert sum(record.acknowledged for record in records) > 0
    assert sum(record.log_lines for record in records) > 0, "the server logged nothing, so no outage reached it"


@needs_postgres
def test_two_processes_come_back(cluster: Cluster, tmp_path: Path) -> None:
    """After two server processes lose their sessions during a delivery, purchases are approved on every connection again."""
    records = carry_out(PostgresSite(cluster, 2), tmp_path, (TERMINATE, DELIVERY))
    assert records[0].acknowledged > 0


@needs_postgres
def test_failover_to_a_standby(tmp_path: Path) -> None:
    """After a failover during an unanswered COMMIT to the synchronous standby, no acknowledged request is lost."""
    with Pair() as pair:
        records = carry_out(PairSite(pair), tmp_path, (FAILOVER, SENT))
    assert records[0].log_lines > 0, "the server logged nothing, so the failover did not reach it"


def test_held_lock_on_sqlite(tmp_path: Path) -> None:
    """While another process holds SQLite's write lock for 2 s, all requests are answered, and purchases continue afterwards."""
    carry_out(FileSite(str(tmp_path / "cardwright.db"), lock_s=2), tmp_path, (HELD_LOCK, LOCKED))


def test_disk_of_sqlite(tmp_path: Path) -> None:
    """With a full or read-only disk purchases are refused, nothing is lost, and purchases continue when the disk recovers."""
    try:
        disk = Disk()
    except MountError as error:
        pytest.skip(f"this user cannot mount a file system, so no disk can be filled: {error}")
    with disk:
        records = carry_out(DiskSite(disk), tmp_path, (DISK_FULL, LOCKED), (READ_ONLY, DELIVERY))
    assert records[0].refused > 0
    assert records[1].refused > 0
