"""New files: complete or absent under their name, and one writer at a time."""

import errno
import os
import stat
from pathlib import Path

import pytest

from cardwright.kit.files import new_file


def test_new_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    """Under any umask the file has mode 0600, and its name exists only at the end. A part of a killed process is overwritten."""
    path, part = tmp_path / "x", tmp_path / "x.part"
    part.write_bytes(b"longer than the new content")
    before = os.umask(0)
    try:
        with new_file(path, is_replacing=False) as file:
            file.write(b"content")
            assert not path.exists()
    finally:
        os.umask(before)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode), part.exists()) == (b"content", 0o600, False)


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    """After an exception there is no part, and an existing file is unchanged. An error of the disk names the part."""
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail() -> None:
        with new_file(path, is_replacing=True) as file:
            file.write(b"new")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"x\.part") as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "x.part")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"x": b"old"}


def test_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    """Without ``is_replacing`` a file that appears in the meantime stays."""
    path = tmp_path / "x"
    with pytest.raises(FileExistsError), new_file(path, is_replacing=False):
        path.write_bytes(b"old")
    assert path.read_bytes() == b"old"
    with new_file(path, is_replacing=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_file_has_one_writer(tmp_path: Path) -> None:
    """A second writer of the same file is refused and does not disturb the first one."""
    path = tmp_path / "x"
    with new_file(path, is_replacing=False) as file:
        file.write(b"first")
        file.flush()
        with pytest.raises(BlockingIOError), new_file(path, is_replacing=False):
            raise AssertionError
        file.write(b" and rest")
    assert path.read_bytes() == b"first and rest"


def test_link_in_the_place_of_the_part_is_refused(tmp_path: Path) -> None:
    """A symbolic link with the name of the part is not followed."""
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / "x.part").symlink_to("victim")
    with pytest.raises(OSError, match=r"x\.part"), new_file(tmp_path / "x", is_replacing=False):
        raise AssertionError
    assert (tmp_path / "victim").read_bytes() == b"old"
