"""Documentation: the blocks of README.md, CONTRIBUTING.md and docs/ run, unless marked `no-run`, and print the shown output."""

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
"""A block with such a command does not use the shared instance, so it runs in the forward order only."""
ENTER = """eval "$(cardwright status -o env)"; env -0"""


@contextmanager
def running_instance(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a shell after `cardwright status -o env`, for a running instance.

    At the end, all invariants of its books must hold.
    """
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
    """Yield a function that returns folder and environment of an order. All pages of an order share an instance and a folder."""
    with ExitStack() as instances:

        @cache
        def shell_of(_order: str) -> tuple[Path, dict[str, str]]:
            return tmp_path_factory.mktemp("reader"), instances.enter_context(running_instance(tmp_path_factory.mktemp("data")))

        yield shell_of


@pytest.mark.parametrize(("order", "page"), READINGS)
def test_page_runs_as_it_is_written(
    order: str, page: Path, shell_of: Callable[[str], tuple[Path, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page run from top to bottom and print the shown output. The pages run in three orders."""
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
    """Every block names its language, so that no block is omitted from the tests by mistake."""
    nameless = [block.place for block in blocks_of(page) if not block.language]
    assert not nameless


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_block_that_is_not_run_says_why(page: Path, record_property: Callable[[str, object], None]) -> None:
    """Every block that is not run has a reason on the page, and the end of the run prints it."""
    left_out = [block for block in blocks_of(page) if block.language in RUNNABLE and not block.runs and block.target is None]
    for block in left_out:
        record_property("not run", f"{name_of(page)}:{block.line}: {block.reason}")
    assert not [block.place for block in left_out if not block.reason]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_block_knows_no_other_word(page: Path) -> None:
    """The first word after a language is `no-run` or absent, so that a misspelt `no-run` does not run a block."""
    words = {block.place: block.words[0] for block in blocks_of(page) if block.language in RUNNABLE and block.words}
    assert set(words.values()) <= {"no-run"}, words


@pytest.mark.parametrize(("tool", "name"), COMMANDS)
def test_command_exists(tool: str, name: str) -> None:
    """Each `make X` and `cardwright X` on a page exists, even if the page does not run it."""
    command = ["make", "-n", name] if tool == "make" else [sys.executable, "-m", "cardwright", name, "--help"]
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, f"{' '.join(command)}\n{tried.stdout}{tried.stderr}"


def test_something_is_read() -> None:
    """The README exists and more languages than the shell's are run, so the tests above are not empty by mistake."""
    assert PAGES[0].is_file()
    assert SHELL < RUNNABLE
