"""Private PostgreSQL server of the tests: empty and separate databases, the documented search order, and complete removal."""

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

# These tests, too, fail without PostgreSQL, and are skipped if CARDWRIGHT_TEST_DB excludes it.
pytestmark = pytest.mark.usefixtures("postgres")

ROOT = Path(__file__).parents[3]


def setting(dsn: str, name: str) -> str:
    with psycopg.connect(dsn) as db:
        row = db.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_databases_are_fresh_and_apart(postgres: TestPostgres) -> None:
    """A new database shows no data of another one, and is dropped although a connection is open."""
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
    """Create a table with one row."""
    with psycopg.connect(dsn) as db:
        db.execute("CREATE TABLE things AS SELECT 1 AS id")


def test_copies_of_a_template_are_apart(postgres: TestPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases with the same content are copies of one template. A given server loses the template at the end."""
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
    """A durable server syncs to disk, and another server does not. Both leave no folder and no process."""
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
    """With CARDWRIGHT_TEST_DSN no server is started, and the given one keeps running at the end."""
    monkeypatch.setenv("CARDWRIGHT_TEST_DSN", postgres.dsn)
    with TestPostgres() as server:
        dsn = server.new_database()
        assert (server.dsn, server.socket_dir) == (postgres.dsn, None)
        server.drop_database(dsn)
    psycopg.connect(postgres.dsn).close()


def test_only_own_databases_are_dropped(postgres: TestPostgres) -> None:
    """Only a database with the tests' name prefix can be dropped."""
    with pytest.raises(AssertionError):
        postgres.drop_database(postgres.dsn)


def test_newest_of_the_right_age_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions that are too old and empty folders are skipped. If no version is left, the error names the package to install."""
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


def test_failed_start_reports_the_servers_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses its settings raises an error with its log, and leaves no folder."""
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
    """A temporary folder with mode 0700 is used for the current account. For another account the folder is /tmp."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ours, others = support.Account(os.geteuid(), os.getegid(), "ourselves"), support.Account(12345, 12345, "somebody")
    assert support.temp_folder(ours) == tmp_path
    assert support.temp_folder(others) == Path("/tmp")


def test_killed_run_leaves_nothing() -> None:
    """When the tests are killed, the guard process stops the server and removes its folder."""
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
