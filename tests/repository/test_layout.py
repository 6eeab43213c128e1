"""Layout of the code: a pure core, sections in order, no unused module, no leftover notes, and unit tests without a server."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
CORE = SRC / "cardwright" / "core"
RESOURCES = SRC / "cardwright" / "resources"

# Alembic finds its scripts by their folder, so no module imports them.
MIGRATIONS = SRC / "cardwright" / "storage" / "migrations"

# The core is pure: values in, values out, without clock, randomness, input or output.
IMPURE_MODULES = {"random", "secrets", "time"}
IMPURE_MODULES |= {"aiohttp", "asyncio", "http", "io", "logging", "os", "pathlib", "shutil", "socket", "ssl", "structlog"}
IMPURE_MODULES |= {"psycopg", "sqlalchemy", "sqlite3", "subprocess", "sys", "tempfile", "threading", "urllib"}
IMPURE_NAMES = re.compile(r"^(datetime\.(now|utcnow|today)|date\.today|uuid[1-8]|getnode|open|print|input)$")

SECTIONS = ("Shapes", "Rules", "Queries", "Actions", "Routes")
SECTION = re.compile(r"^# --- (\w+)", re.MULTILINE)

LEFT_BEHIND = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|home|root|Users)/|/tmp/plan")


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def python_files(*folders: Path) -> list[Path]:
    return sorted(file for folder in folders for file in folder.rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


SOURCES = python_files(SRC)
TESTS = python_files(ROOT / "tests")


# --- The core is pure ---------------------------------------------------------------------


def impurities(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each use of a clock, of randomness, of input or output, or of floats in a module."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names if name.name.split(".")[0] in IMPURE_MODULES)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                if module.split(".")[0] in IMPURE_MODULES:
                    yield node.lineno, module
                yield from ((node.lineno, name.name) for name in names if IMPURE_NAMES.match(name.name))
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=attribute):
                if IMPURE_NAMES.match(f"{owner}.{attribute}") or (owner == "uuid" and IMPURE_NAMES.match(attribute)):
                    yield node.lineno, f"{owner}.{attribute}"
            case ast.Call(func=ast.Name(id=name)) if name == "float" or IMPURE_NAMES.match(name):
                yield node.lineno, f"{name}()"
            case ast.Constant(value=float() | complex() as number):
                yield node.lineno, f"{number!r} is a float"
            case _:
                pass


@pytest.mark.parametrize("file", python_files(CORE), ids=name_of)
def test_core_is_pure(file: Path) -> None:
    """No module of core/ uses a clock, randomness, floats, input or output, so a decision depends only on its arguments."""
    assert list(impurities(tree_of(file))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import random",
        "import os.path",
        "from time import time",
        "from uuid import uuid4",
        "from datetime import datetime\nx = datetime.now()",
        "import datetime\nx = datetime.datetime.utcnow()",
        "import uuid\nx = uuid.uuid4()",
        "x = 0.1",
        "x = float('1')",
        "x = open('file')",
    ],
)
def test_impurity_is_noticed(code: str) -> None:
    """The rule above finds each of these violations."""
    assert list(impurities(ast.parse(code)))


def test_pure_code_is_left_alone() -> None:
    """Types of time and ids without a clock or randomness are permitted in the core."""
    code = "from datetime import UTC, datetime\nfrom uuid import UUID\nx = datetime(2026, 1, 2, tzinfo=UTC)\ny = 10 // 3"
    assert list(impurities(ast.parse(code))) == []


# --- Files -------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SOURCES + TESTS, ids=name_of)
def test_module_says_what_it_is(file: Path) -> None:
    """Every module begins with a docstring whose first paragraph is a sentence."""
    docstring = (ast.get_docstring(tree_of(file)) or "").strip()
    first = docstring.split("\n\n")[0]
    assert first, "no docstring"
    assert first[-1] in ".!?…", f"not a sentence: {first}"


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_file_can_be_read_in_one_sitting(file: Path) -> None:
    """Every file of the package has fewer than 500 lines."""
    assert len(file.read_text(encoding="utf-8").splitlines()) < 500


@pytest.mark.parametrize("file", TESTS, ids=name_of)
def test_test_says_what_it_proves(file: Path) -> None:
    """Every test has a docstring."""
    functions = [node for node in ast.walk(tree_of(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    silent = [node.name for node in functions if node.name.startswith("test_") and not ast.get_docstring(node)]
    assert silent == []


@pytest.mark.parametrize("file", python_files(RESOURCES), ids=name_of)
def test_sections_are_in_order(file: Path) -> None:
    """The sections of a resource have the names and the order of SECTIONS. Sections may be absent."""
    sections = SECTION.findall(file.read_text(encoding="utf-8"))
    assert sections == [section for section in SECTIONS if section in sections]


# --- Leftovers ---------------------------------------------------------------------------


def names_used(file: Path) -> Iterator[str]:
    """Yield the full names that a file imports, or names in a string such as "cardwright.edges.http:app"."""
    package = module_of(file).split(".") if file.name == "__init__.py" else module_of(file).split(".")[:-1]
    for node in ast.walk(tree_of(file)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, level=level, names=names):
                above = package[: len(package) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                yield base
                yield from (f"{base}.{name.name}" for name in names)
            case ast.Constant(value=str(text)) if text.startswith("cardwright."):
                yield text.split(":")[0]
            case _:
                pass


def entry_points() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {target.split(":")[0] for target in project["scripts"].values()}


def test_no_module_is_an_orphan() -> None:
    """Every module is imported by another one or is an entry point."""
    used = {name for file in SOURCES for name in names_used(file) if name != module_of(file)} | entry_points()
    modules = {module_of(file) for file in SOURCES if file.name != "__init__.py" and not file.is_relative_to(MIGRATIONS)}
    assert sorted(modules - used) == []


def text_files() -> list[Path]:
    """Return all files written by hand, except this one, which contains the forbidden patterns."""
    folders = (SRC, ROOT / "tests", ROOT / "docs", ROOT / "bench", ROOT / ".ci")
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    files += [file for file in ROOT.iterdir() if file.suffix in (".md", ".toml", ".yml") or file.name == "Makefile"]
    endings = ("", ".py", ".md", ".toml", ".yml", ".yaml", ".sql", ".mako", ".ini", ".json", ".html", ".txt", ".sh")
    return sorted(file for file in files if file.suffix in endings and file != Path(__file__))


@pytest.mark.parametrize(
    ("rule", "text"), [(LEFT_BEHIND, "unfinished work"), (MACHINE_PATH, "a path of one machine")], ids=["notes", "paths"]
)
def test_nothing_is_left_behind(rule: re.Pattern[str], text: str) -> None:
    """No file has a note about unfinished work or a path of one machine."""
    lines = ((file, number, line) for file in text_files() for number, line in enumerate(file.read_text("utf-8").splitlines(), 1))
    places = [f"{name_of(file)}:{number}: {line.strip()}" for file, number, line in lines if rule.search(line)]
    assert places == [], text


# --- Unit tests -----------------------------------------------------------------------------

SERVERS = re.compile(
    r"tests\.(stress|support\.(browser|clusters|databases|fixtures|in_process_platform|issuing|postgres|receiver|server|shop|waiting))\b"
)
FIXTURES = {"browser", "database_url", "migrated_postgres_url", "migrated_url", "postgres", "postgres_url", "server"}


@pytest.mark.parametrize("file", python_files(ROOT / "tests" / "unit"), ids=name_of)
def test_unit_test_needs_no_server(file: Path) -> None:
    """A unit test imports no helper that starts a server and takes no fixture with a database, so the folder takes seconds."""
    imports = [node for node in ast.walk(tree_of(file)) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in imports if SERVERS.match(node.module or "")] == []
    functions = [node for node in ast.walk(tree_of(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in functions if FIXTURES & {argument.arg for argument in node.args.args}] == []


@pytest.mark.parametrize("folder", sorted(path for path in (ROOT / "tests" / "unit").iterdir() if path.is_dir()), ids=name_of)
def test_unit_tests_mirror_the_package(folder: Path) -> None:
    """A folder of unit tests has the name of the package, or of the helper folder, that it tests."""
    assert (SRC / "cardwright" / folder.name).is_dir() or folder.name in ("bench", "support") or folder.name == "__pycache__"
