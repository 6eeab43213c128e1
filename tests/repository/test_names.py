"""Names: no coined nouns, pronouns or participles (the list is in ``forbidden_names``), and no class names in messages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository.forbidden_names import COINED_TEXT, COINED_WORDS, PLAIN_WORDS
from tests.repository.test_layout import ROOT, name_of, python_files, text_files, tree_of

PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
TEXT = re.compile(rf"\b({'|'.join(sorted(COINED_TEXT))})\b", re.IGNORECASE)
LISTS = {Path(__file__), Path(__file__).with_name("forbidden_names.py")}
FILES = [file for file in python_files(ROOT / "src", ROOT / "tests", ROOT / "bench") if file not in LISTS]


def names_bound(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each variable, attribute, parameter, function, class and import that a module binds."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.alias(name=name, asname=asname):
                yield node.lineno, asname or name.split(".")[-1]
            case _:
                pass


def forbidden(name: str) -> bool:
    """Return True if a name is a plain word, or has a coined word among its parts."""
    return name.strip("_").lower() in PLAIN_WORDS or not COINED_WORDS.isdisjoint(part.lower() for part in PARTS.findall(name))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_names_are_words_of_the_field(file: Path) -> None:
    """Neither a module nor anything that it binds has a forbidden name."""
    names = [(1, file.stem), *names_bound(tree_of(file))]
    assert [f"{name_of(file)}:{line}: {name}" for line, name in names if forbidden(name)] == []


@pytest.mark.parametrize(
    "code",
    [
        "one = 1",
        "self._found = 1",
        "def f(at): ...",
        "def told(): ...",
        "class Lane: ...",
        "class PostgresLane: ...",
        "open_lane = 1",
        "import storm",
        "from x import y as few",
        "[more for more in ()]",
        "lambda seen: 0",
        "try: ...\nexcept OSError as what: ...",
        "match 1:\n    case own: ...",
    ],
)
def test_a_forbidden_name_is_noticed(code: str) -> None:
    """The rule above finds each of these violations."""
    assert any(forbidden(name) for _, name in names_bound(ast.parse(code)))


@pytest.mark.parametrize("name", ["one_way", "at_ms", "surface", "interface", "plane", "seen_ids", "count_more"])
def test_a_longer_name_is_left_alone(name: str) -> None:
    """A plain word may be a part of a longer name, and a coined word a part of another word."""
    assert not forbidden(name)


def test_no_text_has_a_coined_word() -> None:
    """Documentation, comments, strings and targets of make contain no coined word."""
    lines = ((file, number, line) for file in text_files() for number, line in enumerate(file.read_text("utf-8").splitlines(), 1))
    assert [
        f"{name_of(file)}:{number}: {line.strip()}" for file, number, line in lines if file not in LISTS and TEXT.search(line)
    ] == []


CLASS = re.compile(r"\b(?:[A-Z][a-z0-9]+){2,}\b")
SOURCES = python_files(ROOT / "src")
CLASSES = {node.name for file in SOURCES for node in ast.walk(tree_of(file)) if isinstance(node, ast.ClassDef)}


def texts_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string with several words that is not a docstring: help, messages, log events."""
    holders = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, holders)]
    lone = {id(statement.value) for body in bodies for statement in body if isinstance(statement, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value and id(node) not in lone:
            yield node.lineno, node.value


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_no_message_has_the_name_of_a_class(file: Path) -> None:
    """No help text, message or log event of the package contains the name of a class."""
    texts = texts_in(tree_of(file))
    assert [f"{name_of(file)}:{line}: {text}" for line, text in texts if CLASSES.intersection(CLASS.findall(text))] == []


def test_a_class_in_a_message_is_noticed() -> None:
    """The rule above finds a class name in a message, and ignores docstrings."""
    code = 'def f():\n    """Raises CardRequest."""\n    print("CardRequest in JSON.")'
    assert list(texts_in(ast.parse(code))) == [(3, "CardRequest in JSON.")]
    assert "CardRequest" in CLASSES
