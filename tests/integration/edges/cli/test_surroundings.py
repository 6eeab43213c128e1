"""Commands in broken surroundings: each failure is one error line with a hint, without a traceback."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from cardwright.edges.cli.database_commands import opened
from cardwright.settings import Settings
from cardwright.storage.database import Database
from tests.integration.edges.cli.conftest import Done, command_line
from tests.support import free_port
from tests.support.disks import fill, small_disk, without_powers
from tests.support.forked import Start, run_forked
from tests.support.postgres import Account, TestPostgres, owner_account, temp_folder, with_database

ON_DATABASES = (("serve", "--port", "0"), ("migrate",), ("verify",), ("reset", "--yes"))
ON_INSTANCES = (("status",), ("program",), ("explain", "token"), ("backtest", "change.json"))
DAMAGED = {
    "empty": b"",
    "truncated": b'{"master_key": "ab',
    "no JSON": b"a letter to my aunt",
    "no UTF-8": b'{"application_token": "\xff\xfe"}',
    "another shape": b"[1, 2]",
    "another type": b'{"application_token": 1, "access_token": 2, "base_url": 3, "pid": 4, "mode": 5}',
    "a short key": b'{"master_key": "zz", "application_token": "a", "access_token": "b", "base_url": "x", "pid": 1, "mode": "x"}',
}
ERROR, HELP, NEXT = ["error: "], ["help:  "], ["next:  "]
SECRETS = {"master_key": "ab" * 32, "application_token": "a", "access_token": "b"}


def assert_told(done: Done, names: str, code: int = 1) -> None:
    """Check the exit code, and an error line with ``names`` that is followed by advice, the next command, or both."""
    assert "Traceback" not in done.err, done.err
    assert done.code == code, done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert [line[:7] for line in lines] in (ERROR + HELP, ERROR + NEXT, ERROR + HELP + NEXT), done.err
    assert names in lines[0], lines[0]
    assert done.out == ""


@pytest.fixture
def fork(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Return a function that runs a command in a forked process, which has already imported Cardwright."""
    folder = tmp_path_factory.mktemp("output")

    def run(*words: object, cwd: Path | None = None, account: Account | None = None) -> Done:
        output, errors = folder / "output", folder / "errors"
        output.write_bytes(b"")
        errors.write_bytes(b"")
        start = Start(
            words=[str(word) for word in words],
            environment=dict(os.environ),
            cwd=cwd or Path.cwd(),
            output=output,
            errors=errors,
            account=account,
        )
        code = run_forked(start)
        return Done(code, output.read_text(), errors.read_text())

    return run


@pytest.fixture
def run(cardwright: Callable[..., Done], fork: Callable[..., Done]) -> Callable[..., Done]:
    """Return a function that runs a command. ``serve`` gets a forked process, because it keeps signal handlers and locks."""

    def run(*words: object) -> Done:
        return (fork if words[0] == "serve" else cardwright)(*words)

    return run


def broken(path: Path, how: str) -> None:
    """Create something at a path that is no valid file."""
    path.parent.mkdir(exist_ok=True)
    match how:
        case "a folder":
            path.mkdir()
        case "a FIFO":
            os.mkfifo(path)
        case "a link to itself":
            path.symlink_to(path.name)
        case "a dangling link":
            path.symlink_to("nowhere")
        case _:
            path.write_bytes(DAMAGED[how])


# --- The data directory -------------------------------------------------------------------


@pytest.mark.parametrize("words", [*ON_DATABASES, *ON_INSTANCES], ids=lambda words: words[0])
@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_data_directory_that_is_a_file(run: Callable[..., Done], words: tuple[str, ...], folder: str) -> None:
    """A file in the place of the data directory or of a parent folder is named."""
    Path("file").write_text("")
    Path("change.json").write_text("{}")
    assert_told(run(*words, "--data-dir", folder), "file")


def test_data_directory_that_is_a_file_beside_a_command(spawn: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    """`exec` repeats the error of the instance that did not start."""
    Path("file").write_text("")
    monkeypatch.setenv("CARDWRIGHT_DATA_DIR", "file")
    done = spawn("exec", "--db", "x.db", "--", "true")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert done.err.startswith("error: --data-dir file: not a folder")


# --- secrets.json and instance.json -------------------------------------------------------


@pytest.mark.parametrize("how", [*DAMAGED, "a folder", "a FIFO", "a link to itself", "a dangling link"])
def test_damaged_secrets(run: Callable[..., Done], how: str) -> None:
    """A damaged secrets.json is named by each command that reads it, and it is not replaced."""
    path = Path(".cardwright/secrets.json")
    broken(path, how)
    Path(".cardwright/instance.json").write_text('{"base_url": "http://127.0.0.1:1/v3", "pid": 1, "mode": "sandbox"}')
    Path("change.json").write_text("{}")
    before = os.lstat(path).st_ino
    for words in ON_INSTANCES:
        done = run(*words)
        if how == "a dangling link":
            assert "there are no credentials" in done.err
        else:
            assert_told(done, "secrets.json")
    if how in ("empty", "a FIFO", "a dangling link"):
        assert_told(run("serve", "--port", "0"), "secrets.json")
    assert os.lstat(path).st_ino == before


@pytest.mark.parametrize("how", [*DAMAGED, "a folder", "a FIFO", "a link to itself"])
def test_damaged_instance_file(run: Callable[..., Done], how: str) -> None:
    """A damaged instance.json is named by each command that looks for an instance."""
    broken(Path(".cardwright/instance.json"), how)
    Path(".cardwright/secrets.json").write_text(json.dumps(SECRETS))
    Path("change.json").write_text("{}")
    for words in ON_INSTANCES:
        assert_told(run(*words), "instance.json")


def test_secrets_with_a_part_missing(run: Callable[..., Done]) -> None:
    """A secrets.json without a master key gets no new key, because a new key could not decrypt the database."""
    broken(Path(".cardwright/secrets.json"), "a dangling link")
    Path(".cardwright/secrets.json").unlink()
    kept = '{"application_token": "a", "access_token": "b"}'
    Path(".cardwright/secrets.json").write_text(kept)
    done = run("serve", "--port", "0")
    assert_told(done, "has no master_key")
    assert "CARDWRIGHT_MASTER_KEY" in done.err
    assert Path(".cardwright/secrets.json").read_text() == kept


def test_damaged_certificate_key(run: Callable[..., Done]) -> None:
    """With --tls a damaged ca-key.pem is named."""
    broken(Path(".cardwright/ca-key.pem"), "empty")
    assert_told(run("serve", "--tls", "--port", "0"), "ca-key.pem")


def test_damaged_env_file(run: Callable[..., Done]) -> None:
    """A .env that is not UTF-8 is named."""
    Path(".env").write_bytes(b"CARDWRIGHT_PORT=\xff")
    assert_told(run("verify"), ".env", 2)


# --- A SQLite file ------------------------------------------------------------------------


@pytest.mark.parametrize("words", ON_DATABASES, ids=lambda words: words[0])
@pytest.mark.parametrize("how", ["a folder", "a FIFO", "no JSON", "a link to itself", "a dangling link"])
def test_file_that_is_no_database(run: Callable[..., Done], words: tuple[str, ...], how: str) -> None:
    """A path that is no SQLite file is named with --db. A dangling link is a file that does not exist yet."""
    broken(Path("x.db"), how)
    if how == "a dangling link":
        if words[0] in ("verify", "reset"):
            assert_told(run(*words, "--db", "x.db"), "--db x.db does not exist")
        return
    assert_told(run(*words, "--db", "x.db"), "--db x.db", 2 if how == "a link to itself" else 1)


@pytest.mark.parametrize("words", ON_DATABASES, ids=lambda words: words[0])
def test_malformed_database(run: Callable[..., Done], words: tuple[str, ...]) -> None:
    """A database whose pages were overwritten behind its header is named."""
    with opened(Settings(db="x.db")):
        pass
    size = Path("x.db").stat().st_size
    with Path("x.db").open("r+b") as file:
        file.seek(100)
        file.write(b"\x17" * (size - 100))
    assert_told(run(*words, "--db", "x.db"), "--db x.db: database disk image is malformed")


@pytest.mark.parametrize("words", ON_DATABASES, ids=lambda words: words[0])
@pytest.mark.parametrize("revision", ["0000", "abc", "9999"])
def test_unknown_revision(run: Callable[..., Done], migrated_url: str, words: tuple[str, ...], revision: str) -> None:
    """A database at an unknown revision, older or newer, is refused."""
    database = Database(migrated_url)
    with database.write() as db:
        db.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    database.close()
    assert_told(run(*words, "--db", migrated_url), f"is at revision {revision}, which this version")


@pytest.mark.parametrize("db", ["~no-such-user/x.db", "postgresql://me:hunter2@[/y", "mysql://x"])
def test_address_that_is_none(run: Callable[..., Done], db: str) -> None:
    """A wrong --db is a usage error, and its password is not printed."""
    for words in ON_DATABASES[1:]:
        done = run(*words, "--db", db)
        assert_told(done, "--db", 2)
        assert "hunter2" not in done.err


# --- Permissions --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reachable() -> Iterator[Path]:
    """Yield a folder that a user without privileges can reach."""
    folder = Path(tempfile.mkdtemp(prefix="cardwright-cli-", dir=temp_folder(owner_account())))
    (folder / "compiled").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield an empty folder in ``reachable``. The bytecode of the user's processes is kept beside it."""
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(reachable / "compiled"))
    folder = reachable / "home"
    folder.mkdir()
    without_powers(reachable)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("path", "mode", "commands"),
    [
        (".cardwright", 0o000, (*ON_DATABASES, *ON_INSTANCES)),
        (".cardwright", 0o500, (("serve", "--port", "0"),)),
        (".cardwright/secrets.json", 0o000, (("serve", "--port", "0"), *ON_INSTANCES)),
        (".cardwright/instance.json", 0o000, ON_INSTANCES),
        (".cardwright/cardwright.db", 0o000, ON_DATABASES),
        (".cardwright/cardwright.db", 0o400, (("serve", "--port", "0"), ("reset", "--yes"))),
        (".env", 0o000, (*ON_DATABASES, *ON_INSTANCES)),
    ],
)
def test_no_permission(
    fork: Callable[..., Done], home: Path, path: str, mode: int, commands: tuple[tuple[str, ...], ...]
) -> None:
    """A path without the needed permission is named, for a user to whom permissions apply."""
    folder = home / ".cardwright"
    folder.mkdir(mode=0o700)
    with opened(Settings(data_dir=folder)):
        pass
    (folder / "instance.json").write_text('{"base_url": "http://127.0.0.1:1/v3", "pid": 1, "mode": "sandbox"}')
    (home / "change.json").write_text("{}")
    (home / ".env").write_text("")
    without_powers(home)
    account = owner_account()
    (home / path).chmod(mode)
    if path.endswith(".db"):
        for beside in folder.glob("cardwright.db-*"):
            beside.unlink()
    try:
        for words in commands:
            done = fork(*words, cwd=home, account=account)
            assert_told(done, Path(path).name if mode != 0o500 else "cardwright.db", done.code)
            assert done.code in (1, 2)
            assert "does not exist" not in done.err, "an unreadable path must not be reported as missing"
            assert "no instance runs" not in done.err
    finally:
        (home / path).chmod(0o700)


def test_folder_in_which_nothing_can_be_made(fork: Callable[..., Done], home: Path) -> None:
    """The first start in a folder without write permission names the path that it cannot create."""
    without_powers(home)
    account = owner_account()
    home.chmod(0o500)
    for words in (("serve", "--port", "0"), ("migrate",)):
        assert_told(fork(*words, cwd=home, account=account), ".cardwright")
        assert_told(fork(*words, "--db", "x.db", cwd=home, account=account), "x.db" if words[0] == "migrate" else ".cardwright")


# --- A full disk --------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 4096, 8192, 32768, 131072])
def test_full_disk_at_the_first_start(fork: Callable[..., Done], tmp_path: Path, left: int) -> None:
    """A start on a full disk ends with an error and leaves no partial secrets.json. With free space it works again."""
    with small_disk(tmp_path / "disk") as disk:
        filler = fill(disk, left)
        for words in (("serve", "--port", "0"), ("migrate",)):
            assert_told(fork(*words, "--data-dir", disk / "data"), "")
        secrets = disk / "data" / "secrets.json"
        assert not secrets.exists() or set(json.loads(secrets.read_text())) == set(SECRETS)
        filler.unlink()
        with opened(Settings(data_dir=disk / "data")):
            pass
        assert set(json.loads(secrets.read_text())) == set(SECRETS)


def test_full_disk_of_a_database_in_use(fork: Callable[..., Done], tmp_path: Path) -> None:
    """`serve` and `reset` report that the disk is full."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        with opened(Settings(data_dir=disk)):
            pass
        fill(disk)
        for words in (("serve", "--port", "0"), ("reset", "--yes")):
            assert_told(fork(*words, "--data-dir", disk), "--db")


def test_output_that_cannot_be_written(spawn: Callable[..., Done]) -> None:
    """A full disk for the output of a command is reported."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    import subprocess

    with opened(Settings(db="x.db")), open("/dev/full", "w") as full:
        done = subprocess.run(command_line("verify", "--db", "x.db"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: No space left on device" in done.stderr


# --- PostgreSQL ---------------------------------------------------------------------------


def test_postgresql_that_is_away(run: Callable[..., Done]) -> None:
    """An address without a server is named without the password."""
    for words in ON_DATABASES:
        done = run(*words, "--db", f"postgresql://me:hunter2@127.0.0.1:{free_port()}/x")
        assert_told(done, "--db postgresql://me:***@127.0.0.1:")
        assert "hunter2" not in done.err


def test_postgresql_without_the_database(run: Callable[..., Done], postgres: TestPostgres) -> None:
    """A database that does not exist is named."""
    for words in ON_DATABASES:
        assert_told(run(*words, "--db", with_database(postgres.dsn, "no_such_database")), "no_such_database")


def test_postgresql_that_refuses_the_password(run: Callable[..., Done], postgres: TestPostgres, postgres_url: str) -> None:
    """A rejected password is reported, and not printed."""
    if postgres.socket_dir is None:
        pytest.skip("the test does not change the access rules of a given server")
    rules = postgres.socket_dir / "data" / "pg_hba.conf"
    before = rules.read_text()
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute("CREATE ROLE careful LOGIN PASSWORD 'right'")
        rules.write_text(f"host all careful all scram-sha-256\n{before}")
        db.execute("SELECT pg_reload_conf()")
        try:
            address = postgres_url.replace("postgres@", "careful:hunter2@")
            for words in ON_DATABASES:
                done = run(*words, "--db", address)
                assert_told(done, "password authentication failed")
                assert "hunter2" not in done.err
        finally:
            rules.write_text(before)
            db.execute("SELECT pg_reload_conf()")
            db.execute("DROP ROLE careful")


def test_postgresql_without_rights(run: Callable[..., Done], postgres: TestPostgres, postgres_url: str) -> None:
    """For a role without the right to create tables, the error is permission denied."""
    if postgres.socket_dir is None:
        pytest.skip("the test does not create roles on a given server")
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute("CREATE ROLE guest LOGIN")
        try:
            for words in (("serve", "--port", "0"), ("migrate",)):
                assert_told(run(*words, "--db", postgres_url.replace("postgres@", "guest@")), "permission denied")
        finally:
            db.execute(sql.SQL("DROP ROLE guest"))
