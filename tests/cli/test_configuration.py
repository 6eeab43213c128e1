"""The page about configuration is complete and true: a heading for every setting and variable, a row for every command."""

import re
import subprocess
from pathlib import Path

import pytest

from cardwright.edges.cli.commands import cli
from cardwright.settings import Settings

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### (\S+)$", PAGE, re.MULTILINE)
VARIABLE = re.compile(r"\bCARDWRIGHT_[A-Z]+(?:_[A-Z]+)*\b")


def section(name: str) -> str:
    """What the page says under a heading."""
    return PAGE.split(f"### {name}\n", 1)[1].split("\n#", 1)[0]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_heading(name: str) -> None:
    """Whoever meets a setting finds it on the page, with its option if it has one."""
    variable = f"CARDWRIGHT_{name.upper()}"
    assert HEADINGS.count(variable) == 1
    (serve,) = [command.callback for command in cli.registered_commands if command.callback and command.callback.__name__ == "serve"]
    has_option = name in serve.__annotations__
    assert (f"`--{name.replace('_', '-')}`" in section(variable)) is has_option


@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if field.default not in (None, "")]
)
def test_defaults_are_true(name: str) -> None:
    """A default that the page names is the one that counts."""
    default = Settings.model_fields[name].default
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    assert re.search(rf"Default: `{re.escape(shown)}`", section(f"CARDWRIGHT_{name.upper()}"))


def test_every_variable_has_a_heading() -> None:
    """No file of ours reads a variable that the page does not tell, and the page tells of none that nobody reads."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    read = [ROOT / name for name in listed if name == "Makefile" or name.startswith(("src/", "tests/support/", "tests/conftest"))]
    found = {name for file in read if file.suffix != ".md" for name in VARIABLE.findall(file.read_text(encoding="utf-8"))}
    settings = {f"CARDWRIGHT_{name.upper()}" for name in Settings.model_fields}
    told = {name for name in HEADINGS if name.startswith("CARDWRIGHT_")}
    assert found - told == set()
    assert told - found - settings == set()


def test_every_command_has_a_row() -> None:
    """The table of commands is the list of commands."""
    names = [command.name or command.callback.__name__ for command in cli.registered_commands if command.callback]
    assert sorted(re.findall(r"^\| `cardwright ([a-z]+)` \|", PAGE, re.MULTILINE)) == sorted(names)
