"""`cardwright backup` and `cardwright restore`: files, keys under a passphrase, and refusals that write nothing."""

import json
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cardwright.edges.cli.database_commands import opened
from cardwright.kit.passphrase import LENGTH_MIN
from cardwright.settings import Settings
from cardwright.storage.database import Database
from cardwright.storage.migrate import present
from tests.integration.edges.cli.conftest import Done
from tests.support.backups import all_rows
from tests.support.server import RunningServer

PASSPHRASE = "a long passphrase"

Command = Callable[..., Done]


@pytest.fixture
def started(migrated_url: str) -> str:
    """A database on which a server has started, with its keys in ``data``."""
    with opened(Settings(db=migrated_url, data_dir=Path("data"))):
        pass
    return migrated_url


@pytest.fixture
def sqlite() -> str:
    """A SQLite database on which a server has started, with its keys in ``data``."""
    with opened(Settings(db="x.db", data_dir=Path("data"))):
        pass
    return "x.db"


def secrets_in(folder: str) -> dict[str, str]:
    """Return the secrets of a data directory."""
    return dict(json.loads(Path(folder, "secrets.json").read_bytes()))


def test_backup_reports_its_rows(cardwright: Command, started: str) -> None:
    """The counts go to stderr, and with --json to stdout. The file has mode 0600, and its part is gone."""
    done = cardwright("backup", "x.backup", "--db", started, "--data-dir", "data")
    assert (done.code, done.out) == (0, "")
    size = Path("x.backup").stat().st_size
    report = json.loads(cardwright("backup", "y.backup", "--db", started, "--data-dir", "data", "--json").out)
    assert (report["tables"]["programs"], report["with_keys"], report["bytes"]) == (1, False, Path("y.backup").stat().st_size)
    assert f"x.backup: {report['rows']} rows of " in done.err
    assert f"in {size:,} bytes, without keys" in done.err
    assert stat.S_IMODE(Path("x.backup").stat().st_mode) == 0o600
    assert not Path("x.backup.part").exists()


def test_restore_moves_a_database(cardwright: Command, started: str) -> None:
    """A restore into a new file needs no keys, reports its rows and the next command, and the rows are equal."""
    cardwright("backup", "x.backup", "--db", started, "--data-dir", "data")
    done = cardwright("restore", "x.backup", "--db", "new.db", "--data-dir", "elsewhere", "--json")
    assert done.code == 0
    report = json.loads(done.out)
    assert (report["database"], report["keys_written"]) == ("new.db", False)
    assert "set CARDWRIGHT_MASTER_KEY to the master key of this database" in done.err
    assert "next:  cardwright verify --db new.db --data-dir elsewhere" in done.err
    assert all_rows("new.db") == all_rows(started)
    assert not Path("elsewhere/secrets.json").exists()
    assert cardwright("verify", "--db", "new.db").code == 0


def test_existing_file_is_kept(cardwright: Command, sqlite: str) -> None:
    """An existing file is replaced only with --force, a folder never, and the database and its WAL not either."""
    Path("x.backup").write_text("old")
    Path("folder").mkdir()
    before = all_rows(sqlite)
    refused = cardwright("backup", "x.backup", "--db", sqlite)
    assert (refused.code, Path("x.backup").read_text()) == (2, "old")
    assert cardwright("backup", "x.backup", "--db", sqlite, "--force").code == 0
    assert cardwright("restore", "x.backup", "--db", "new.db").code == 0
    assert cardwright("backup", "folder", "--db", sqlite, "--force").code == 1
    for file in ("x.db", "./x.db-wal", "link"):
        if file == "link":
            Path(file).symlink_to("x.db")
        done = cardwright("backup", file, "--db", sqlite, "--force")
        assert (done.code, "belongs to the database itself" in done.err) == (2, True)
    assert all_rows(sqlite) == before


def test_full_disk_leaves_no_file(sqlite: str, spawn: Callable[..., Done]) -> None:
    """A backup that does not fit on the disk fails with the name of its part, which is removed. An old backup stays."""
    Path("x.backup").write_text("old")
    with closing(sqlite3.connect(sqlite)) as db, db:
        db.execute("INSERT INTO meta (key, value) VALUES ('incompressible', hex(randomblob(300000)))")
    # SQLite's shared memory is a file of 32 KiB.
    limit = (100_000, resource.RLIM_INFINITY)
    words = ("backup", "x.backup", "--force", "--db", Path(sqlite).absolute())
    done = spawn(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit), cwd=Path.cwd())
    assert done.code == 1
    assert "x.backup.part: File too large" in done.err
    assert "Traceback" not in done.err
    assert (Path("x.backup").read_text(), Path("x.backup.part").exists()) == ("old", False)


def test_terminal_shows_progress(cardwright: Command, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line shows the progress of both commands, and is removed at the end. A file gets no such line."""
    quiet = cardwright("backup", "x.backup", "--db", sqlite)
    assert "\r" not in quiet.err
    monkeypatch.setattr("cardwright.edges.cli.backup.EVERY_S", 0)
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    lines = cardwright("backup", "y.backup", "--db", sqlite).err.split("\r")
    assert "programs: 1 rows" in [line.strip() for line in lines]
    assert lines[-2].strip() == ""
    assert "100% read" in cardwright("restore", "y.backup", "--db", "new.db").err


# --- Keys ---------------------------------------------------------------------------------


def test_keys_come_back_under_the_passphrase(cardwright: Command, started: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --with-keys a restore writes the secrets of the backup, and a server starts with them. The file shows no secret."""
    monkeypatch.setenv("CARDWRIGHT_BACKUP_PASSPHRASE", PASSPHRASE)
    assert cardwright("backup", "x.backup", "--with-keys", "--db", started, "--data-dir", "data").code == 0
    content = Path("x.backup").read_bytes()
    assert not [value for value in (*secrets_in("data").values(), PASSPHRASE) if value.encode() in content]
    done = cardwright("restore", "x.backup", "--with-keys", "--db", "new.db", "--data-dir", "elsewhere", "--json")
    assert (done.code, json.loads(done.out)["keys_written"]) == (0, True)
    assert "elsewhere/secrets.json: written" in done.err
    assert secrets_in("elsewhere") == secrets_in("data")
    assert stat.S_IMODE(Path("elsewhere/secrets.json").stat().st_mode) == 0o600
    with opened(Settings(db="new.db", data_dir=Path("elsewhere"))) as (_, keys):
        assert keys.access_token == secrets_in("data")["access_token"]


def test_keys_of_the_environment_are_in_the_backup(cardwright: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in variables get into the backup like those in the data directory. On restore, a variable is not written again."""
    given = {"MASTER_KEY": f"{7:064x}", "APPLICATION_TOKEN": "application", "ACCESS_TOKEN": "access"}
    for name, value in given.items():
        monkeypatch.setenv(f"CARDWRIGHT_{name}", value)
    with opened(Settings(db="x.db")):
        pass
    monkeypatch.setenv("CARDWRIGHT_BACKUP_PASSPHRASE", PASSPHRASE)
    assert cardwright("backup", "x.backup", "--with-keys", "--db", "x.db").code == 0
    assert cardwright("restore", "x.backup", "--with-keys", "--db", "1.db", "--data-dir", "1").code == 0
    assert not Path("1/secrets.json").exists()
    monkeypatch.delenv("CARDWRIGHT_MASTER_KEY")
    monkeypatch.delenv("CARDWRIGHT_ACCESS_TOKEN")
    assert cardwright("restore", "x.backup", "--with-keys", "--db", "2.db", "--data-dir", "2").code == 0
    assert secrets_in("2") == {"master_key": given["MASTER_KEY"], "access_token": "access"}


def test_wrong_passphrase_writes_nothing(cardwright: Command, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong passphrase is refused before the database is opened. Without --with-keys the rows can still be restored."""
    monkeypatch.setenv("CARDWRIGHT_BACKUP_PASSPHRASE", PASSPHRASE)
    assert cardwright("backup", "x.backup", "--with-keys", "--db", sqlite, "--data-dir", "data").code == 0
    monkeypatch.setenv("CARDWRIGHT_BACKUP_PASSPHRASE", f"{PASSPHRASE} ")
    done = cardwright("restore", "x.backup", "--with-keys", "--db", "new.db", "--data-dir", "elsewhere")
    assert (done.code, "the passphrase is wrong" in done.err, PASSPHRASE in done.err) == (2, True, False)
    assert not Path("new.db").exists()
    assert not Path("elsewhere").exists()
    assert cardwright("restore", "x.backup", "--db", "new.db", "--data-dir", "elsewhere").code == 0


def test_passphrase_is_asked_twice(cardwright: Command, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the passphrase of a backup is asked twice, and that of a restore once. Two different ones are refused."""
    answers = iter([PASSPHRASE, PASSPHRASE, PASSPHRASE, PASSPHRASE, "another passphrase"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
    assert cardwright("backup", "x.backup", "--with-keys", "--db", sqlite, "--data-dir", "data").code == 0
    assert cardwright("restore", "x.backup", "--with-keys", "--db", "new.db", "--data-dir", "elsewhere").code == 0
    done = cardwright("backup", "y.backup", "--with-keys", "--db", sqlite, "--data-dir", "data")
    assert (done.code, "the two passphrases differ" in done.err) == (2, True)
    assert not Path("y.backup").exists()


def test_passphrase_has_a_minimum(cardwright: Command, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup refuses a short passphrase, and none, and names the variable."""
    words = ("backup", "x.backup", "--with-keys", "--db", sqlite, "--data-dir", "data")
    assert "set CARDWRIGHT_BACKUP_PASSPHRASE" in cardwright(*words).err
    monkeypatch.setenv("CARDWRIGHT_BACKUP_PASSPHRASE", "é" * (LENGTH_MIN - 1))
    short = cardwright(*words)
    assert (short.code, "CARDWRIGHT_BACKUP_PASSPHRASE: " in short.err) == (2, True)
    assert not Path("x.backup").exists()
    monkeypatch.setenv("CARDWRIGHT_BACKUP_PASSPHRASE", "é" * LENGTH_MIN)
    assert cardwright(*words).code == 0


def test_other_master_key_is_refused(cardwright: Command, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup does not contain another key than that of its database, and a restore needs it if any key is in use."""
    monkeypatch.setenv("CARDWRIGHT_BACKUP_PASSPHRASE", PASSPHRASE)
    cardwright("backup", "x.backup", "--db", sqlite, "--data-dir", "data")
    monkeypatch.setenv("CARDWRIGHT_MASTER_KEY", f"{8:064x}")
    done = cardwright("backup", "y.backup", "--with-keys", "--db", sqlite, "--data-dir", "data")
    assert (done.code, "the master key in use is not that of the database" in done.err) == (2, True)
    assert not Path("y.backup").exists()
    done = cardwright("restore", "x.backup", "--db", "new.db")
    assert (done.code, "the master key in use is not that of x.backup" in done.err) == (2, True)
    assert not Path("new.db").exists()
    monkeypatch.setenv("CARDWRIGHT_MASTER_KEY", secrets_in("data")["master_key"])
    assert cardwright("restore", "x.backup", "--db", "new.db").code == 0


# --- Refusals -----------------------------------------------------------------------------


def test_damaged_file_writes_nothing(cardwright: Command, sqlite: str) -> None:
    """A truncated and a changed file are refused before a database file is created."""
    cardwright("backup", "x.backup", "--db", sqlite)
    content = Path("x.backup").read_bytes()
    changed = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    for damaged in (b"", content[:-1], content[: len(content) // 2], changed):
        Path("y.backup").write_bytes(damaged)
        done = cardwright("restore", "y.backup", "--db", "new.db")
        assert (done.code, "y.backup: it is " in done.err) == (1, True)
        assert not Path("new.db").exists()


def test_database_in_use_is_refused(cardwright: Command, migrated_url: str, sqlite: str, tmp_path: Path) -> None:
    """A restore is refused while a server runs on the database, also if the server has no objects yet."""
    cardwright("backup", "x.backup", "--db", sqlite)
    with RunningServer(db=migrated_url, data_dir=tmp_path / "running"):
        done = cardwright("restore", "x.backup", "--db", migrated_url)
    assert done.code == 1
    assert "use the database" in done.err or "is using this database" in done.err
    assert "stop" in done.err
    done = cardwright("restore", "x.backup", "--db", migrated_url)
    assert done.code == 0, done.err
    assert all_rows(migrated_url) == all_rows(sqlite)


def test_server_waits_for_the_end_of_a_restore(cardwright: Command, sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a restore writes a SQLite file, a server does not start on it. Afterwards the lock is released."""
    cardwright("backup", "x.backup", "--db", sqlite)
    tries = list[Done]()

    def start(name: str) -> None:
        if name == "restore.commit":
            words = [sys.executable, "-m", "cardwright", "serve", "--db", "new.db", "--port", "0", "--data-dir", "data"]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
            tries.append(Done(done.returncode, done.stdout, done.stderr))

    monkeypatch.setattr("cardwright.storage.backup.restore.failpoint", start)
    assert cardwright("restore", "x.backup", "--db", "new.db").code == 0
    assert (tries[0].code, "is using this database" in tries[0].err) == (1, True)
    with opened(Settings(db="new.db", data_dir=Path("data"))) as (database, _):
        assert present(database) is not None


def test_backup_needs_the_schema_of_this_version(cardwright: Command, sqlite: str) -> None:
    """A database of another schema is not written, because its tables are not those of this version."""
    with closing(sqlite3.connect(sqlite)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '0001'")
    done = cardwright("backup", "x.backup", "--db", sqlite)
    assert (done.code, "is at revision 0001" in done.err, Path("x.backup").exists()) == (1, True, False)
    assert "next:  cardwright migrate" in done.err


def test_backup_reads_only(cardwright: Command, started: str) -> None:
    """A backup changes no row."""
    before = all_rows(started)
    assert cardwright("backup", "x.backup", "--db", started, "--data-dir", "data").code == 0
    with closing(Database(started)) as database:
        assert present(database) is not None
    assert all_rows(started) == before
