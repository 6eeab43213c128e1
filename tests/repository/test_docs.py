"""Documentation tests: run every command and example of README.md, CONTRIBUTING.md and docs/, and compare the output."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.docs import RUNNABLE, SHELL, Reader, blocks_of, commands_of, difference
from tests.support.server import RunningServer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNING_PAGES = [page for page in PAGES if any(block.runs for block in blocks_of(page))]
COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUNNING_PAGES, ids=name_of)
def test_page_runs_as_it_is_written(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who types a page from top to bottom on a fresh server sees what the page shows."""
    with RunningServer(db=str(tmp_path / "cardwright.db")) as server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("CARDWRIGHT_URL", server.root_url)
        monkeypatch.setenv("CARDWRIGHT_BASE_URL", server.base_url)
        monkeypatch.setenv("CARDWRIGHT_APPLICATION_TOKEN", server.application_token)
        monkeypatch.setenv("CARDWRIGHT_ACCESS_TOKEN", server.access_token)
        with Reader(tmp_path, dict(os.environ)) as reader:
            for block in blocks_of(page):
                if block.runs:
                    printed = reader.run(block)
                    wrong = difference(block, printed)
                    assert wrong is None, f"{block.place}: {wrong}\n{block.text}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_block_names_its_language(page: Path) -> None:
    """No block escapes the tests because somebody forgot to say what it is."""
    nameless = [block.place for block in blocks_of(page) if not block.language]
    assert not nameless


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_block_that_is_not_run_says_why(page: Path, record_property: Callable[[str, object], None]) -> None:
    """What is left out is left out on purpose: the reason stands in the page, and the end of the run prints it."""
    left_out = [block for block in blocks_of(page) if block.language in RUNNABLE and not block.runs]
    for block in left_out:
        record_property("not run", f"{name_of(page)}:{block.line}: {block.reason}")
    assert not [block.place for block in left_out if not block.reason]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_block_knows_no_other_word(page: Path) -> None:
    """A misspelt `no-run` is found here, and not by the reader whose machine it was run on."""
    words = {block.place: block.words[0] for block in blocks_of(page) if block.language in RUNNABLE and block.words}
    assert set(words.values()) <= {"no-run"}, words


@pytest.mark.parametrize(("tool", "name"), COMMANDS)
def test_command_exists(tool: str, name: str) -> None:
    """Each `make X` and `cardwright X` that a page names is one, also where the page does not run it."""
    command = ["make", "-n", name] if tool == "make" else [sys.executable, "-m", "cardwright", name, "--help"]
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, f"{' '.join(command)}\n{tried.stdout}{tried.stderr}"


def test_something_is_read() -> None:
    """The pages are where we look for them, so the tests above are not empty by mistake."""
    assert PAGES[0].is_file()
    assert SHELL < RUNNABLE
