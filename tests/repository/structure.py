"""Structure: the picture of the folders and their imports, ``docs/development/structure.svg``. `make structure` draws it."""

import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from html import escape
from itertools import pairwise
from statistics import mean
from typing import Any

from tests.repository.folders import ROOT, Arrow, Structure, closure, read_layers, read_modules

PICTURE = ROOT / "docs" / "development" / "structure.svg"

HEIGHT, GAP, LETTER = 38, 14, 6.4
"""Pixels: height of a box, space beside it, and width of a letter, from which the width of a panel's boxes follows."""


class Panel:
    """Boxes in rows from the highest layer to the lowest, and arrows, without those that a path of other arrows replaces."""

    def __init__(self, ranks: Mapping[str, tuple[int, int]], arrows: Collection[Arrow]) -> None:
        reached = closure(arrows)
        direct = sorted((a, b) for a, b in arrows if not any(b in reached[c] for x, c in arrows if x == a))
        # Folders of one layer with imports between them are in different rows: the row follows the longest path of imports.
        keys = {box: (rank, -self._depth(box, ranks, arrows)) for box, rank in ranks.items()}
        rows = sorted(set(keys.values()))
        self.row = {box: rows.index(key) for box, key in keys.items()}
        self.layer = [rank for rank, _ in rows]
        self.half = (LETTER * max(map(len, ranks)) + 16) / 2
        # An arrow over several rows has a point in each row between them, which keeps the place free of boxes.
        self.paths: list[list[Any]] = [[a, *((a, b, row) for row in range(self.row[a] + 1, self.row[b])), b] for a, b in direct]
        self.x = self._places(len(rows))

    def _depth(self, box: str, ranks: Mapping[str, tuple[int, int]], arrows: Collection[Arrow]) -> int:
        return max((1 + self._depth(b, ranks, arrows) for a, b in arrows if a == box and ranks[a] == ranks[b]), default=0)

    def _places(self, row_count: int) -> dict[Any, float]:
        """Return the middle of each box and point. Repeated sweeps move each item to the mean of the items joined to it."""
        rows: list[list[Any]] = [[box for box in self.row if self.row[box] == row] for row in range(row_count)]
        joined = defaultdict(list)
        for path in self.paths:
            for point in path[1:-1]:
                rows[point[2]].append(point)
            for upper, lower in pairwise(path):
                joined[upper].append(lower)
                joined[lower].append(upper)
        x = {item: float(index) for row in rows for index, item in enumerate(row)}
        best, fewest = dict(x), float("inf")
        for sweep in range(60):
            for row in rows if sweep % 2 else rows[::-1]:
                wanted = {item: mean([x[other] for other in joined[item]] or [x[item]]) for item in row}
                x.update(self._apart(sorted(row, key=lambda item: (wanted[item], str(item))), wanted))
            if (cost := self._cost(x)) < fewest:
                best, fewest = dict(x), cost
        left = min(place - self._half(item) for item, place in best.items())
        return {item: place - left for item, place in best.items()}

    def _cost(self, x: Mapping[Any, float]) -> float:
        """Return the horizontal length of the arrows in pixels. Each crossing adds 100."""
        steps = [(self._row(a), x[a], x[b]) for path in self.paths for a, b in pairwise(path)]
        crossings = sum(a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for a in steps for b in steps) / 2
        return crossings * 100 + sum(abs(start - end) for _, start, end in steps)

    def _row(self, item: Any) -> int:
        return self.row[item] if isinstance(item, str) else int(item[2])

    @property
    def width(self) -> float:
        """Width of the panel in pixels."""
        return max(place + self._half(item) for item, place in self.x.items())

    def _half(self, item: Any) -> float:
        return self.half if isinstance(item, str) else 0.0

    def _apart(self, row: list[Any], wanted: Mapping[Any, float]) -> dict[Any, float]:
        """Return the places nearest to the wanted ones, by least squares, without overlaps in the row."""
        offsets = [0.0]
        for left, right in pairwise(row):
            offsets.append(offsets[-1] + self._half(left) + GAP + self._half(right))
        # Pool adjacent violators: items that would overlap share the mean of their wanted places.
        pools: list[list[float]] = []
        for item, offset in zip(row, offsets, strict=True):
            pools.append([wanted[item] - offset])
            while len(pools) > 1 and mean(pools[-2]) > mean(pools[-1]):
                pools[-2:] = [pools[-2] + pools[-1]]
        starts = [mean(pool) for pool in pools for _ in pool]
        return {item: start + offset for item, start, offset in zip(row, starts, offsets, strict=True)}


# --- Picture ------------------------------------------------------------------------------

PITCH, MARGIN, TOP = 72, 24, 64
"""Pixels: distance of the rows, margin of the picture, and space above the first row."""

STYLE = """
svg { --ink: #1f2328; --soft: #59636e; --paper: #ffffff; --box: #ffffff; --band: #f2f4f7; --edge: #8c959f }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --box: #161b22; --band: #1c222b; --edge: #7d8590 }
}
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink) }
.share, .note { font-size: 11px; fill: var(--soft) }
.heading { font-size: 16px; font-weight: 600 }
.paper { fill: var(--paper) } .band { fill: var(--band) }
.box { fill: var(--box); stroke: var(--edge) }
.arrow { fill: none; stroke: var(--edge); stroke-width: 1.3 } .head { fill: var(--edge) }
"""

NOTES = (
    "Arrow: a module of the upper folder imports one of the lower folder. An arrow is left out if other arrows make a path.",
    "Band: a layer of the import contracts in pyproject.toml. Per cent: lines in the folder, of all lines of the package.",
)


def panels_of(structure: Structure) -> list[tuple[str, Panel, dict[str, list[str]]]]:
    """Return panels with heading and folders of each box: of the package, then of each folder with contracts inside."""
    panels = []
    inner = [folder for folder in structure.layers if folder]
    # A folder with a single line has only an __init__.py with a docstring.
    folders = [folder for folder in sorted(structure.lines) if structure.lines[folder] > 1 or folder.endswith(".py")]
    for container in ["", *inner]:
        boxes: dict[str, str] = {}
        members: dict[str, list[str]] = defaultdict(list)
        for folder in folders:
            if not container:
                boxes[folder] = next((outer for outer in inner if folder.startswith(f"{outer}/")), folder)
            elif f"{folder}/".startswith(f"{container}/"):
                boxes[folder] = folder.removeprefix(f"{container}/") if folder != container else f"{container}/*.py"
        ranks = {}
        for folder, box in boxes.items():
            members[box].append(folder)
            layer, inner_layer = structure.rank(folder)
            ranks[box] = (inner_layer, 0) if container else (layer, min(0, inner_layer))
        arrows = {(boxes[a], boxes[b]) for a, b in structure.reasons if a in boxes and b in boxes and boxes[a] != boxes[b]}
        panels.append((f"Inside {container}/" if container else "The package", Panel(ranks, arrows), members))
    return panels


def draw(structure: Structure) -> str:
    """Return the picture as SVG."""
    panels = panels_of(structure)
    tallest = max(len(panel.layer) for _, panel, _ in panels)
    parts: list[str] = []
    left = MARGIN
    for heading, panel, members in panels:
        pitch = PITCH * (tallest - 1) / max(1, len(panel.layer) - 1)
        parts += _drawn(structure, heading, panel, members, left, pitch)
        left += round(panel.width) + 2 * MARGIN
    width, height = left - MARGIN, TOP + PITCH * (tallest - 1) + HEIGHT + 2 * MARGIN + 18 * len(NOTES)
    notes = [_text(MARGIN, height - 18 * (len(NOTES) - index), note, "note") for index, note in enumerate(NOTES)]
    imports: dict[str, list[str]] = defaultdict(list)
    for a, b in sorted(structure.reasons):
        imports[a].append(b)
    sentences = " ".join(f"{escape(a)} imports {', '.join(targets)}." for a, targets in imports.items())
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' role="img" aria-labelledby="title description">',
            '<title id="title">Structure of Cardwright: folders, their imports and their share of the lines</title>',
            f'<desc id="description">{sentences}</desc>',
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path class="head" d="M0 1 8 4 0 7z"/></marker></defs>',
            f'<rect class="paper" width="{width}" height="{height}"/>',
            *parts,
            *notes,
            "</svg>\n",
        ]
    )


def _drawn(
    structure: Structure, heading: str, panel: Panel, members: dict[str, list[str]], left: int, pitch: float
) -> Iterator[str]:
    """Yield the bands, the arrows and the boxes of a panel."""
    yield _text(left, TOP - 28, heading, "heading")
    x = {item: left + place for item, place in panel.x.items()}
    y = [TOP + row * pitch for row in range(len(panel.layer))]
    # Top-level files are outside of the bands: no contract gives them a layer.
    for layer in sorted({layer for layer in panel.layer if layer[1] >= 0}):
        rows = [row for row, other in enumerate(panel.layer) if other == layer]
        top, height = y[rows[0]] - 8, y[rows[-1]] - y[rows[0]] + HEIGHT + 16
        yield f'<rect class="band" x="{left - 8}" y="{top:.0f}" width="{panel.width + 16:.0f}" height="{height:.0f}" rx="6"/>'
    for path in panel.paths:
        yield f'<path class="arrow" marker-end="url(#head)" d="{_curve(panel, path, x, y)}"/>'
    for box, folders in members.items():
        top = y[panel.row[box]]
        left_x, width = x[box] - panel.half, 2 * panel.half
        yield f'<rect class="box" x="{left_x:.0f}" y="{top:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5"/>'
        yield _text(x[box], top + 16, box, "name")
        yield _text(x[box], top + 31, f"{structure.share(*folders):.1f} %", "share")


def _text(x: float, y: float, text: str, kind: str) -> str:
    anchor = ' text-anchor="middle"' if kind in ("name", "share") else ""
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}"{anchor}>{escape(text)}</text>'


def _curve(panel: Panel, path: list[Any], x: Mapping[Any, float], y: list[float]) -> str:
    """Return the path of an arrow: from the lower side of its first box through its points to the upper side of the last."""
    places = [(_side(panel, path, 0, x), y[panel.row[path[0]]] + HEIGHT)]
    for point in path[1:-1]:
        places += [(x[point], y[point[2]]), (x[point], y[point[2]] + HEIGHT)]
    places.append((_side(panel, path, -1, x), y[panel.row[path[-1]]] - 1))
    commands = [f"M{places[0][0]:.0f} {places[0][1]:.0f}"]
    for (x1, y1), (x2, y2) in zip(places[::2], places[1::2], strict=True):
        middle = (y1 + y2) / 2
        commands.append(f"L{x1:.0f} {y1:.0f} C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {y2:.0f}")
    return " ".join(commands)


def _side(panel: Panel, path: list[Any], end: int, x: Mapping[Any, float]) -> float:
    """Return the place where an arrow meets its box. The arrows of one side are in the order of their next points."""
    towards = 1 if end == 0 else -2
    paths = sorted((other for other in panel.paths if other[end] == path[end]), key=lambda other: x[other[towards]])
    return x[path[end]] + (paths.index(path) - (len(paths) - 1) / 2) * min(18.0, 1.6 * panel.half / len(paths))


def without_shares(picture: str) -> str:
    """Return a picture without its percentages, which change with every module."""
    return re.sub(r"[\d.]+ %", "%", picture)


if __name__ == "__main__":
    today = Structure(read_modules(), read_layers())
    if today.circles:
        sys.exit(f"These folders import each other: {today.circles}")
    PICTURE.write_text(draw(today), "utf-8")
