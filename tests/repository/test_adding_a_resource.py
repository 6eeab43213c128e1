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
from tests.support.docs import Block, blocks_of, write_target

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "development" / "adding-a-resource.md"
PAGE_REVISIONS = ("0007", "0008")
"""The last and the next database revision on the page. The test replaces them with the current ones."""

RUN_HERE = "tests/repository/test_adding_a_resource.py runs it in a copy of the repository"
"""The reason of the blocks of commands that this test runs. The other commands take too long."""

OTHER_RESOURCE = {"note": "poem", "Note": "Poem", "NOTE": "POEM", "content": "stanzas", "first_call": "first_poem"}
"""Words of the page, and those of another resource. It has another field and sorts after the notes."""

EXERCISE = [
    block.target
    for block in blocks_of(PAGE)
    if block.target is not None and block.language != "diff" and (ROOT / block.target).exists()
]
"""New files of the page that the repository has already, because a contributor followed the page in it."""

page_is_open = pytest.mark.skipif(bool(EXERCISE), reason=f"the repository has files of the page: {', '.join(EXERCISE)}")

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


def renumbered(block: Block, last: int) -> Block:
    """Return the block; if it is the migration, with the database revision after ``last``."""
    if block.target is None or "/migrations/" not in block.target:
        return block
    target, text = block.target, block.text
    for number, current in zip(reversed(PAGE_REVISIONS), (f"{last + 1:04d}", f"{last:04d}"), strict=True):
        target, text = target.replace(number, current), text.replace(f'"{number}"', f'"{current}"')
    return replace(block, target=target, text=text)


def renamed(block: Block) -> Block:
    """Return the block with the words of the other resource."""
    target, text = block.target, block.text
    assert target is not None
    for word, other in OTHER_RESOURCE.items():
        target, text = target.replace(word, other), text.replace(word, other)
    return replace(block, target=target, text=text)


def run(command: str, copy: Path) -> subprocess.CompletedProcess[str]:
    """Run shell commands in the copy."""
    typed = ["bash", "-eux", "-o", "pipefail", "-c", command]
    return subprocess.run(typed, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)


def environment(copy: Path) -> dict[str, str]:
    """Return an environment that imports the package of the copy, without settings of the outer pytest."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTHONPATH": str(copy / "src"), "PYTEST_DEBUG_TEMPROOT": str(copy.parent)}


@page_is_open
def test_the_steps_add_a_resource(copy: Path) -> None:
    """Each block fits the current files, each command of the page succeeds, and each path on the page exists afterwards."""
    shown = blocks_of(PAGE)
    blocks = [renumbered(block, int(newest())) for block in shown]
    written = {old.target: new.target for old, new in zip(shown, blocks, strict=True)}
    commands = 0
    for block in blocks:
        if block.target is not None:
            write_target(block, copy)
        elif block.reason == RUN_HERE:
            done = run(block.text, copy)
            assert done.returncode == 0, f"{block.place}\n{done.stderr}{done.stdout}"
            commands += block.text.count("pytest")
    assert (len([block for block in blocks if block.target]), commands) == (11, 4)
    created = [block for block in blocks if block.target and block.language != "diff"]
    # `ruff check --fix` would hide a mistake of the page.
    assert [block.place for block in created if (copy / str(block.target)).read_text(encoding="utf-8") != block.text] == []
    paths = REPOSITORY_PATH.findall(PAGE.read_text(encoding="utf-8"))
    assert [path for path in paths if not (copy / (written.get(path) or path)).exists()] == []


@page_is_open
def test_the_steps_fit_after_another_resource(copy: Path) -> None:
    """The steps fit the files of a contributor who added another resource by the same steps."""
    blocks = [block for block in blocks_of(PAGE) if block.target is not None]
    for last, resource in enumerate((map(renamed, blocks), blocks), start=int(newest())):
        for block in resource:
            write_target(renumbered(block, last), copy)
    done = run(".venv/bin/ruff check --fix\n.venv/bin/ruff format --check\n.venv/bin/python -m tests.repository.errors", copy)
    assert done.returncode == 0, f"{done.stderr}{done.stdout}"


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
