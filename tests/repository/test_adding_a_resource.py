"""Page about adding a resource: its steps in a copy of the repository add a resource that passes its tests."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cardwright.storage.migrate import newest
from tests.support.docs import SHELL, Block, blocks_of, write_target

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "development" / "adding-a-resource.md"
PAGE_REVISIONS = ("0002", "0003")
"""The last and the next database revision on the page. The test replaces them with the current ones."""

REPOSITORY_PATH = re.compile(r"`((?:src|tests|docs)/[^`\s]+)`")
IDENTIFIER = re.compile(r"`(\w+)`")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return the folder of a copy of the repository with this virtual environment."""
    folder = tmp_path / "cardwright"
    for name in ("src", "tests", "docs", "bench"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(file, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def renumbered(block: Block) -> Block:
    """Return the block; if it is the migration, with the next free database revision."""
    if block.target is None or "/migrations/" not in block.target:
        return block
    target, text = block.target, block.text
    for number, current in zip(reversed(PAGE_REVISIONS), (f"{int(newest()) + 1:04d}", newest()), strict=True):
        target, text = target.replace(number, current), text.replace(f'"{number}"', f'"{current}"')
    return replace(block, target=target, text=text)


def environment(copy: Path) -> dict[str, str]:
    """Return an environment that imports the package of the copy, without settings of the outer pytest."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTHONPATH": str(copy / "src"), "PYTEST_DEBUG_TEMPROOT": str(copy.parent)}


def test_the_steps_add_a_resource(copy: Path) -> None:
    """Each block fits the current files, each command of the page succeeds, and each path on the page exists afterwards."""
    shown = blocks_of(PAGE)
    blocks = [renumbered(block) for block in shown]
    written = {old.target: new.target for old, new in zip(shown, blocks, strict=True)}
    commands = 0
    for block in blocks:
        if block.target is not None:
            write_target(block, copy)
        elif block.language in SHELL:
            typed = ["bash", "-eux", "-o", "pipefail", "-c", block.text]
            done = subprocess.run(typed, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block.place}\n{done.stderr}{done.stdout}"
            commands += block.text.count("pytest")
    assert (len([block for block in blocks if block.target]), commands) == (10, 4)
    paths = REPOSITORY_PATH.findall(PAGE.read_text(encoding="utf-8"))
    assert [path for path in paths if not (copy / (written.get(path) or path)).exists()] == []


def test_the_tables_name_what_is_there() -> None:
    """Each identifier in a table row about a file occurs in that file."""
    rows = re.findall(r"^\| `([\w/.]+\.py)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 5
    absent = [
        (path, name)
        for path, cell in rows
        for name in IDENTIFIER.findall(cell)
        if not re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert absent == []
