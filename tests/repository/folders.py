"""Folders of the package: their lines, their imports, and their order in the import contracts."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "cardwright"

Arrow = tuple[str, str]
"""A folder and a folder that it imports."""


def read_modules(package: Path = ROOT / "src" / PACKAGE) -> dict[str, str]:
    """Return the source of each module by its path below the package."""
    return {file.relative_to(package).as_posix(): file.read_text("utf-8") for file in sorted(package.rglob("*.py"))}


def read_layers(file: Path = ROOT / "pyproject.toml") -> dict[str, list[list[str]]]:
    """Return the layers of the import contracts, the highest first, by the folder that they divide; "" is the package."""
    contracts = tomllib.loads(file.read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = {}
    for contract in contracts:
        if contract["type"] == "layers":
            rows = [[name.strip().removeprefix(f"{PACKAGE}.") for name in re.split("[:|]", row)] for row in contract["layers"]]
            for container in contract.get("containers", [PACKAGE]):
                layers[container.removeprefix(PACKAGE).strip(".").replace(".", "/")] = rows
    return layers


class Structure:
    """The folders of a set of modules. A top-level file counts as a separate folder."""

    def __init__(self, modules: Mapping[str, str], layers: Mapping[str, list[list[str]]]) -> None:
        self.layers = layers
        self.lines: dict[str, int] = defaultdict(int)
        self.reasons: dict[Arrow, list[str]] = defaultdict(list)
        packages = {path.removesuffix("/__init__.py") for path in modules if path.endswith("/__init__.py")}
        paths = {module_name(path): path for path in modules}
        folders = {path: _folder(path, packages) for path in modules}
        for path, source in modules.items():
            self.lines[folders[path]] += len(source.splitlines())
            for name in imported_names(path, source):
                target = folders[paths[name]] if name in paths else folders[path]
                if target != folders[path]:
                    self.reasons[folders[path], target].append(f"{path} imports {name}")

    def rank(self, folder: str) -> tuple[int, int]:
        """Return the place in the contracts, (0, 0) for the highest: layer of the package, layer of the folder around it.

        A top-level file stands above the highest layer that it imports, and below all if it imports none.
        """
        package = self.layers[""]
        if folder.endswith(".py"):
            below = [self.rank(b)[0] for a, b in self.reasons if a == folder and not b.endswith(".py")]
            return (min(below), -1) if below else (len(package), -1)
        first, _, rest = folder.partition("/")
        inner = _index(self.layers[first], rest.partition("/")[0]) if rest and first in self.layers else 0
        return _index(package, first), inner

    @cached_property
    def circles(self) -> list[Arrow]:
        """Arrows between folders that import each other, directly or through others."""
        reached = closure(self.reasons)
        return sorted((a, b) for a, b in self.reasons if a in reached[b])

    @cached_property
    def upwards(self) -> list[Arrow]:
        """Arrows that point to a higher layer."""
        return sorted((a, b) for a, b in self.reasons if self.rank(b) < self.rank(a))

    def share(self, *folders: str) -> float:
        """Return the lines of the folders' files, subfolders not counted, in per cent of all lines."""
        return 100 * sum(self.lines[folder] for folder in folders) / sum(self.lines.values())


def module_name(path: str) -> str:
    """Return the full name of a module, which for ``__init__.py`` is the name of its package."""
    return ".".join((PACKAGE, *path.removesuffix(".py").split("/"))).removesuffix(".__init__")


def _folder(path: str, packages: Collection[str]) -> str:
    # Alembic loads its scripts by their path: a folder without __init__.py belongs to the package around it.
    folder = path.rpartition("/")[0]
    while folder and folder not in packages:
        folder = folder.rpartition("/")[0]
    return folder or path


def imported_names(path: str, source: str) -> Iterator[str]:
    """Yield the full names that a module imports, at any depth and for type checkers too."""
    package = [PACKAGE, *path.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*around, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _index(layers: list[list[str]], name: str) -> int:
    for index, names in enumerate(layers):
        if name in names:
            return index
    raise ValueError(f"{name} is in no layer of the import contracts of pyproject.toml")


def closure(arrows: Collection[Arrow]) -> dict[str, set[str]]:
    """Return all folders that each folder imports, directly or through others."""
    reached: dict[str, set[str]] = defaultdict(set)
    for a, b in arrows:
        reached[a].add(b)
    for middle in [*reached]:
        for a in [*reached]:
            if middle in reached[a]:
                reached[a] |= reached[middle]
    return reached
