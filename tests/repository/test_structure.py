"""Structure of the package: no circular imports of folders, no import upwards, no folder too large, and a current picture."""

from collections.abc import Collection

import pytest

from tests.repository.folders import Arrow, Structure, imported_names, read_layers, read_modules
from tests.repository.structure import PICTURE, draw, without_shares

SHARE_MAX = 20
"""Maximum share of the package's lines in the files of one folder, in per cent. Subfolders do not count."""

TODAY = Structure(read_modules(), read_layers())

LAYERS = {"": [["edges"], ["resources"], ["left", "right"]], "resources": [["catalog"], ["high"], ["low"]]}

MODULES = {
    "__init__.py": '"""The package."""',
    "wiring.py": "from cardwright.resources import catalog\nfrom cardwright.right import tools",
    "edges/__init__.py": '"""Edges."""',
    "edges/http.py": "from cardwright.wiring import build\nfrom cardwright import __version__",
    "resources/__init__.py": '"""Resources."""',
    "resources/catalog.py": "from cardwright.resources.high import cards",
    "resources/high/__init__.py": '"""High."""',
    "resources/high/cards.py": "import cardwright.resources.low.route\n",
    "resources/low/__init__.py": '"""Low."""',
    "resources/low/route.py": "from cardwright.left import tools\n",
    "left/__init__.py": '"""Left."""',
    "left/tools.py": "from cardwright.right.tools import Tool\n",
    "right/__init__.py": '"""Right."""',
    "right/tools.py": "import os\n",
    "right/scripts/0001_first.py": "from cardwright.right import tools\n",
}
"""A package without a violation, with each kind of folder."""


def structure_with(path: str = "__init__.py", source: str = "") -> Structure:
    """Return the structure of MODULES with another source of one module."""
    return Structure(MODULES | {path: source}, LAYERS)


def text_of(structure: Structure, arrows: Collection[Arrow]) -> str:
    return "\n".join(f"{a} -> {b}: {'; '.join(structure.reasons[a, b])}" for a, b in arrows)


def too_large(structure: Structure) -> list[str]:
    return [folder for folder in structure.lines if structure.share(folder) > SHARE_MAX]


# --- Rules --------------------------------------------------------------------------------


def test_no_circle_of_folders() -> None:
    """No two folders import each other, directly or through others."""
    assert not TODAY.circles, text_of(TODAY, TODAY.circles)


def test_no_import_upwards() -> None:
    """No folder imports one of a higher layer of the import contracts."""
    assert not TODAY.upwards, text_of(TODAY, TODAY.upwards)


def test_no_folder_is_too_large() -> None:
    """No folder has more than SHARE_MAX per cent of the lines in its files."""
    assert not too_large(TODAY), f"more than {SHARE_MAX} % of the lines; split it into subfolders"


def test_picture_is_up_to_date() -> None:
    """The committed picture has the folders and the imports of the code. Percentages are not compared."""
    committed = PICTURE.read_text("utf-8") if PICTURE.exists() else ""
    assert without_shares(committed) == without_shares(draw(TODAY)), "run make structure and commit the picture"


# --- Tests of the rules -------------------------------------------------------------------


def test_a_clean_package_passes() -> None:
    """The rules find nothing in MODULES, and neighbours in one layer may import each other in one direction."""
    clean = structure_with()
    assert (clean.circles, clean.upwards) == ([], [])
    assert clean.reasons["left", "right"] == ["left/tools.py imports cardwright.right.tools"]
    assert clean.lines["right"] == 3, "a folder without __init__.py belongs to the one around it"


def test_a_circle_is_noticed() -> None:
    """Two neighbours in a layer that import each other are a circular import, and so is a circle through several folders."""
    assert structure_with("right/tools.py", "from cardwright.left import tools").circles == [("left", "right"), ("right", "left")]
    longer = structure_with("right/tools.py", "import cardwright.resources.high.cards").circles
    assert ("resources/low", "left") in longer
    assert ("right", "resources/high") in longer
    assert ("edges", "wiring.py") not in longer


def test_an_import_upwards_is_noticed() -> None:
    """An import of a higher layer is found in the package, between domains, and of a top-level file."""
    for path, source, arrow in [
        ("right/tools.py", "from cardwright.edges import http", ("right", "edges")),
        ("resources/low/route.py", "from cardwright.resources.high import cards", ("resources/low", "resources/high")),
        ("resources/low/route.py", "from ..catalog import routes", ("resources/low", "resources")),
        ("resources/high/cards.py", "from cardwright import wiring", ("resources/high", "wiring.py")),
    ]:
        assert structure_with(path, source).upwards == [arrow]


def test_every_kind_of_import_counts() -> None:
    """Imports in functions, under TYPE_CHECKING and with relative paths count."""
    source = "if TYPE_CHECKING:\n    import a.b\ndef f():\n    from c import d\n    from . import e\n    from ..g import h"
    names = set(imported_names("x/y/z.py", source))
    assert {"a.b", "c.d", "cardwright.x.y.e", "cardwright.x.g.h"} <= names


def test_a_large_folder_is_noticed() -> None:
    """The size of a folder is that of its files without subfolders."""
    assert "left" not in too_large(structure_with())
    assert "left" in too_large(structure_with("left/tools.py", "x = 1\n" * 100))
    assert "resources" not in too_large(structure_with("resources/low/route.py", "x = 1\n" * 100))


def test_a_change_of_the_picture_is_noticed() -> None:
    """A new folder and a new import change the picture, and a new line does not."""
    picture = without_shares(draw(structure_with()))
    assert without_shares(draw(structure_with("right/tools.py", "import os\nimport re\n"))) == picture
    assert without_shares(draw(structure_with("edges/http.py", "from cardwright.left import tools"))) != picture
    assert without_shares(draw(structure_with("right/new/__init__.py", "x = 1\ny = 2\n"))) != picture


def test_a_folder_without_a_layer_is_noticed() -> None:
    """A folder that no contract names raises ValueError."""
    with pytest.raises(ValueError, match="lost is in no layer"):
        draw(structure_with("lost/__init__.py", "import cardwright.left.tools\nx = 1\n"))
