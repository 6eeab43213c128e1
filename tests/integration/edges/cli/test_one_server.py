"""Locks of SQLite files: one server for each file under any name, and the permissions of the files."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.edges.cli.conftest import Done
from tests.integration.edges.cli.test_serve import running


@pytest.mark.parametrize("name", ["symlink", "hard link", "spelling", "folder", "dangling symlink"])
def test_second_server_is_refused_by_any_name(spawn: Callable[..., Done], name: str) -> None:
    """A second server on the same file is refused under any name and creates no file. The first one keeps working."""
    Path("other").mkdir()
    second = Path("other", "x.db")
    if name == "dangling symlink":
        # The first server creates the file through the link.
        second.symlink_to("../x.db")
    with running("--db", second if name == "dangling symlink" else "x.db", "--port", 0) as server:
        match name:
            case "symlink":
                second.symlink_to("../x.db")
            case "hard link":
                os.link("x.db", second)
            case "spelling":
                second = Path("other/../x.db")
            case "folder":
                Path("here").symlink_to(".")
                second = Path("here/x.db")
            case _:
                second = Path("x.db")
        done = spawn("serve", "--db", second, "--port", 0)
        assert done.code == 1, done.err
        assert done.err.startswith(f"error: --db {second}: another Cardwright server is using this database")
        assert "Traceback" not in done.err
        assert list(Path().rglob("*.lock")) == []
        # The first server still answers: without credentials the status is 401.
        assert server.post("/v3/users") == 401
    assert [path.name for path in Path().rglob("secrets.json")] == ["secrets.json"]


def test_file_in_a_folder_mounted_twice(spawn: Callable[..., Done], tmp_path: Path) -> None:
    """The same file under a second mount point is refused, as with two containers on one volume."""
    volume, other = tmp_path / "volume", tmp_path / "other"
    volume.mkdir()
    other.mkdir()
    if subprocess.run(["mount", "--bind", str(volume), str(other)], capture_output=True, check=False).returncode:
        pytest.skip("this user has no right to mount a folder")
    try:
        with running("--db", volume / "x.db", "--port", 0):
            done = spawn("serve", "--db", other / "x.db", "--data-dir", "elsewhere", "--port", 0)
        assert done.code == 1
        assert "another Cardwright server is using this database" in done.err
    finally:
        subprocess.run(["umount", "-l", str(other)], check=True)


def test_next_server_may_have_the_file(spawn: Callable[..., Done]) -> None:
    """The lock ends with the process, even after SIGKILL. `migrate`, `verify` and `reset` work beside a server."""
    with running("--db", "x.db", "--port", 0) as server:
        for words in (("migrate",), ("verify",), ("reset", "--yes")):
            assert spawn(*words, "--db", "x.db").code == 0
        assert server.post("/v3/users") == 401
        server.process.kill()
        server.process.wait()
        with running("--db", "x.db", "--port", 0) as successor:
            assert successor.post("/v3/users") == 401


def test_files_of_a_server_are_private() -> None:
    """Under umask 0 the files of the database and of the data directory have mode 0600."""
    with running("--db", "x.db", "--port", 0, preexec_fn=lambda: os.umask(0)):
        files = [*Path().glob("x.db*"), *Path(".cardwright").iterdir()]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
        assert set(modes) == {"x.db", "x.db-wal", "x.db-shm", "secrets.json", "instance.json"}
        assert set(modes.values()) == {0o600}, modes
        assert stat.S_IMODE(Path(".cardwright").stat().st_mode) == 0o700


def test_file_that_others_can_read_is_named(cardwright: Callable[..., Done]) -> None:
    """A database with mode 644 keeps it, and a warning has the command that changes it. `migrate` creates private files."""
    assert cardwright("migrate", "--db", "x.db").code == 0
    assert stat.S_IMODE(Path("x.db").stat().st_mode) == 0o600
    Path("x.db").chmod(0o644)
    with running("--db", "x.db", "--port", 0) as server:
        server.process.terminate()
        _, errors = server.process.communicate(timeout=60)
    assert "warning: --db x.db is open to other users (mode 644);  chmod 600 x.db*" in errors
    assert stat.S_IMODE(Path("x.db").stat().st_mode) == 0o644
