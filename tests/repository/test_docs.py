"""Documentation tests: run every command and example of README.md, CONTRIBUTING.md and docs/, and compare the output."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path

import pytest

from cardwright.storage.database import Database
from tests.support.databases import check_books
from tests.support.docs import RUNNABLE, SHELL, Reader, blocks_of, commands_of, difference
from tests.support.server import RunningServer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNING_PAGES = [page for page in PAGES if any(block.runs for block in blocks_of(page))]
COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


ORDERS = {
    "forward": RUNNING_PAGES,
    "backward": RUNNING_PAGES[::-1],
    "shuffled": random.Random(1).sample(RUNNING_PAGES, len(RUNNING_PAGES)),
}
READINGS = [pytest.param(order, page, id=f"{order}-{name_of(page)}") for order, pages in ORDERS.items() for page in pages]
STARTS_AN_INSTANCE = re.compile(r"^cardwright (exec|serve)\b", re.MULTILINE)
"""Such a block leaves the shared instance alone, so it runs in the forward order only."""
ENTER = """eval "$(cardwright status -o env)"; env -0"""


@contextmanager
def running_instance(folder: Path) -> Iterator[dict[str, str]]:
    """An instance, and the variables of a shell that ran `cardwright status -o env`. At the end the books must balance."""
    database = str(folder / "cardwright.db")
    with RunningServer(db=database, data_dir=folder) as server:
        env = {name: value for name, value in os.environ.items() if not name.startswith("CARDWRIGHT_")}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        secrets = {"CARDWRIGHT_APPLICATION_TOKEN": server.application_token, "CARDWRIGHT_ACCESS_TOKEN": server.access_token}
        known = {**env, **secrets, "CARDWRIGHT_DATA_DIR": str(folder)}
        printed = subprocess.run(["bash", "-euc", ENTER], env=known, capture_output=True, text=True, check=True).stdout
        variables = dict(line.split("=", 1) for line in printed.split("\0") if line.startswith("CARDWRIGHT_"))
        del variables["CARDWRIGHT_DATA_DIR"]
        yield env | variables
    with closing(Database(database)) as books:
        check_books(books)


@pytest.fixture(scope="module")
def shell_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Path, dict[str, str]]]]:
    """The folder and the environment of an order's reader: all pages of an order share one instance and one folder."""
    with ExitStack() as instances:

        @cache
        def shell_of(_order: str) -> tuple[Path, dict[str, str]]:
            return tmp_path_factory.mktemp("reader"), instances.enter_context(running_instance(tmp_path_factory.mktemp("data")))

        yield shell_of


@pytest.mark.parametrize(("order", "page"), READINGS)
def test_page_runs_as_it_is_written(
    order: str, page: Path, shell_of: Callable[[str], tuple[Path, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who types a page from top to bottom sees what the page shows, whichever pages were read on the instance before."""
    folder, env = shell_of(order)
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("CARDWRIGHT_")]:
        monkeypatch.delenv(name)
    for name in env.keys() - os.environ.keys() | {"PATH"}:
        monkeypatch.setenv(name, env[name])
    with Reader(folder, env) as reader:
        for block in blocks_of(page):
            if block.runs and (order == "forward" or not STARTS_AN_INSTANCE.search(block.text)):
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
    left_out = [block for block in blocks_of(page) if block.language in RUNNABLE and not block.runs and block.target is None]
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
