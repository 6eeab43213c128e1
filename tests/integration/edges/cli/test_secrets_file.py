"""File of secrets: created atomically by one of several starters, and never for a database with other keys."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cardwright.edges.cli.database_commands import opened
from cardwright.edges.cli.output import Failure
from cardwright.instance_secrets import Misconfigured, Secrets, ensure_secrets, load_secrets
from cardwright.kit.files import create_file, replace_file
from cardwright.settings import Settings
from tests.integration.edges.cli.conftest import Done, command_line
from tests.support.failpoints import Failpoints

FILE = Path(".cardwright/secrets.json")

LIMITS = """
import os, resource, sys
from pathlib import Path
from cardwright.kit.files import create_file, replace_file
replace_file(Path("old"), b"old")
for size in range(100):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for write, path in ((create_file, Path("new")), (replace_file, Path("old"))):
        try:
            write(path, b"n" * 100)
        except OSError as error:
            assert error.filename == str(path), error
        else:
            raise AssertionError(f"{size} bytes are not enough")
    assert os.listdir() == ["old"], os.listdir()
    assert Path("old").read_bytes() == b"old"
"""


def test_full_disk_at_any_byte_leaves_no_file() -> None:
    """If the disk is full at any byte, a new file does not exist, an old one is unchanged, and no temporary file remains."""
    done = subprocess.run([sys.executable, "-c", LIMITS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_crash_before_the_file_exists_leaves_none(spawn: Callable[..., Done]) -> None:
    """A process that is killed before the written file gets its name leaves no secrets.json. The next start creates it."""
    with Failpoints() as failpoints:
        failpoints.arm("file.written", "kill")
        done = spawn("serve", "--port", 0, env={**os.environ, **failpoints.environment})
    assert done.code == -signal.SIGKILL
    assert not FILE.exists()
    with opened(Settings()):
        assert set(json.loads(FILE.read_text())) == set(Secrets.__slots__)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_are_private(tmp_path: Path, umask: int) -> None:
    """The file is readable only for its owner under any umask."""
    before = os.umask(umask)
    try:
        create_file(tmp_path / "a", b"a")
        replace_file(tmp_path / "b", b"b")
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o600}


def test_first_of_concurrent_starters_wins() -> None:
    """Concurrent starters without a file all get the secrets of the first one, and none reads a partial file."""
    for _ in range(20):
        barrier, all_secrets = threading.Barrier(8), list[Secrets]()

        def start(barrier: threading.Barrier, all_secrets: list[Secrets]) -> None:
            barrier.wait()
            all_secrets.append(ensure_secrets(Settings(), None))

        threads = [threading.Thread(target=start, args=(barrier, all_secrets)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(all_secrets) == 8
        assert set(all_secrets) == {load_secrets(Settings())}
        assert os.listdir(FILE.parent) == [FILE.name]
        FILE.unlink()


def test_filled_database_gets_no_new_secrets(spawn: Callable[..., Done], database_url: str) -> None:
    """`serve` without the file is refused on a filled database and writes nothing. With the file the database opens again."""
    settings = Settings(db=database_url, data_dir=FILE.parent)
    FILE.parent.mkdir()
    with opened(settings):
        pass
    kept = FILE.read_bytes()
    FILE.unlink()
    before = sorted(os.listdir(FILE.parent))
    done = spawn("serve", "--port", 0, "--db", database_url, "--data-dir", FILE.parent)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert done.err.startswith(
        "error: the database was filled under another master key, and there is no .cardwright/secrets.json"
    )
    assert "set CARDWRIGHT_MASTER_KEY to the key of this database, or --data-dir" in done.err
    assert sorted(os.listdir(FILE.parent)) == before
    FILE.write_bytes(kept)
    with opened(settings):
        assert FILE.read_bytes() == kept


def test_lost_tokens_are_made_again_under_the_same_key() -> None:
    """With the master key in the environment, lost tokens are created again, and the file contains no key."""
    with opened(Settings()):
        key = json.loads(FILE.read_text())["master_key"]
    FILE.unlink()
    with opened(Settings(master_key=key)):  # type: ignore[arg-type]
        assert set(json.loads(FILE.read_text())) == {"application_token", "access_token"}
    with pytest.raises(Failure, match="has no master_key"), opened(Settings()):
        pass


def test_seed_makes_the_same_secrets_again() -> None:
    """With the same seed a lost file is created again with the same content. Another seed is refused."""
    with opened(Settings(seed=7)):
        kept = FILE.read_bytes()
    FILE.unlink()
    with pytest.raises(Failure, match="filled under another master key"), opened(Settings(seed=8)):
        pass
    assert not FILE.exists()
    with opened(Settings(seed=7)):
        assert FILE.read_bytes() == kept


def test_server_process_makes_no_secrets() -> None:
    """A worker process creates no secrets: it fails if the file is missing or incomplete."""
    with pytest.raises(FileNotFoundError):
        load_secrets(Settings())
    FILE.parent.mkdir()
    FILE.write_text("{}")
    with pytest.raises(Misconfigured, match="has no access_token, application_token, master_key"):
        load_secrets(Settings())


def test_server_goes_on_without_its_instance_file() -> None:
    """A data directory that cannot store instance.json causes a warning, and the server runs."""
    Path(".cardwright/instance.json").mkdir(parents=True)
    with subprocess.Popen(command_line("serve", "--port", 0, "--json"), stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["mode"] == "sandbox"
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert "warning: " in errors
    assert "instance.json: Is a directory; `cardwright status` does not find this instance" in errors
    assert "Traceback" not in errors
