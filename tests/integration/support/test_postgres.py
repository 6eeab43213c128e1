"""The private PostgreSQL is fresh, separate, found in the promised order, and gone afterwards."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support import postgres as support
from tests.support.postgres import Cluster, PostgresMissingError, TestPostgres, find_binaries

# So that these tests, too, fail where there is no PostgreSQL, and are left out where it is left out on purpose.
pytestmark = pytest.mark.usefixtures("postgres")

ROOT = Path(__file__).parents[3]


def setting(dsn: str, name: str) -> str:
    with psycopg.connect(dsn) as db:
        row = db.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_databases_are_fresh_and_apart(postgres: TestPostgres) -> None:
    """What is written into one new database is in no other, and dropping one takes it away under an open connection."""
    first, second = postgres.new_database(), postgres.new_database()
    with psycopg.connect(first, autocommit=True) as db:
        db.execute("CREATE TABLE only_here ()")
        postgres.drop_database(first)
        with pytest.raises(psycopg.OperationalError):
            db.execute("SELECT 1")
    with psycopg.connect(second) as db:
        assert db.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
    postgres.drop_database(second)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(first)


def fill_things(dsn: str) -> None:
    """Write a table with one row."""
    with psycopg.connect(dsn) as db:
        db.execute("CREATE TABLE things AS SELECT 1 AS id")


def test_copies_of_a_template_are_apart(postgres: TestPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases with the same content are copies of one template; on a given server the template is dropped at the end."""
    monkeypatch.setenv("CARDWRIGHT_TEST_DSN", postgres.dsn)
    count = "SELECT count(*) FROM pg_database"
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        before = admin.execute(count).fetchone()
        with TestPostgres() as server:
            first, second = server.new_database(fill_things), server.new_database(fill_things)
            with psycopg.connect(first) as db:
                db.execute("DELETE FROM things")
            with psycopg.connect(second) as db:
                assert db.execute("SELECT id FROM things").fetchall() == [(1,)]
            server.drop_database(first)
            server.drop_database(second)
        assert admin.execute(count).fetchone() == before


@pytest.mark.parametrize(("durable", "fsync"), [(True, "on"), (False, "off")])
def test_durability_is_what_was_asked_for(durable: bool, fsync: str) -> None:
    """A benchmark measures a server that really syncs; a test does not wait for the disk. Nothing is left of either."""
    with TestPostgres(durable=durable, settings={"work_mem": "7MB"}) as server:
        assert server.version >= support.OLDEST
        assert setting(server.dsn, "fsync") == fsync
        assert setting(server.dsn, "synchronous_commit") == fsync
        assert setting(server.dsn, "work_mem") == "7MB"
        assert setting(server.dsn, "max_connections") == "200"
        home = server.socket_dir
        assert home is not None
        psycopg.connect(f"postgresql://postgres@/postgres?host={home}&port={urlsplit(server.dsn).port}").close()
    assert not home.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.dsn)


def test_given_server_is_used(postgres: TestPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CARDWRIGHT_TEST_DSN nothing is started, and closing leaves that server alone."""
    monkeypatch.setenv("CARDWRIGHT_TEST_DSN", postgres.dsn)
    with TestPostgres() as server:
        dsn = server.new_database()
        assert (server.dsn, server.socket_dir) == (postgres.dsn, None)
        server.drop_database(dsn)
    psycopg.connect(postgres.dsn).close()


def test_only_own_databases_are_dropped(postgres: TestPostgres) -> None:
    """A slip of the hand does not drop somebody's database on a given server."""
    with pytest.raises(AssertionError):
        postgres.drop_database(postgres.dsn)


def test_newest_of_the_right_age_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too old ones and empty folders are passed over; when nothing is left, the message says what to do."""
    for version in (9, 14, 15, 17):
        folder = tmp_path / str(version)
        folder.mkdir()
        for name in ("initdb", "postgres"):
            (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}.1'\n")
            (folder / name).chmod(0o755)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(support, "candidate_folders", lambda: iter(tmp_path / name for name in ("empty", "9", "14", "17", "15")))
    assert find_binaries() == tmp_path / "17"
    monkeypatch.setattr(support, "candidate_folders", lambda: iter([tmp_path / "empty", tmp_path / "14"]))
    with pytest.raises(PostgresMissingError, match="apt-get install postgresql"):
        find_binaries()


def test_failed_start_tells_the_servers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses its settings is reported with its own log, and leaves nothing behind."""
    homes: list[Path] = []
    make = support.new_home

    def remembered(account: support.Account) -> Path:
        homes.append(make(account))
        return homes[-1]

    monkeypatch.setattr(support, "new_home", remembered)
    with pytest.raises(RuntimeError, match="max_connections"):
        Cluster(find_binaries(), durable=False, settings={"max_connections": "many"})
    assert [home.exists() for home in homes] == [False]


def test_home_can_be_entered_by_its_owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A temp folder that only we may enter does for ourselves, but not for the account that root hands the cluster to."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ours, others = support.Account(os.geteuid(), os.getegid(), "ourselves"), support.Account(12345, 12345, "somebody")
    assert support.temp_folder(ours) == tmp_path
    assert support.temp_folder(others) == Path("/tmp")


def test_killed_run_leaves_nothing() -> None:
    """When the tests are killed with no time to tidy up, the guard stops the server and removes its folder."""
    script = "import time; from tests.support.postgres import *; print(TestPostgres().socket_dir, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        home = Path(run.stdout.readline().strip())
        server = int((home / "data" / "postmaster.pid").read_text().splitlines()[0])
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while home.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not home.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
