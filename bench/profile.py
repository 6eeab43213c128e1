"""Profile: samples of the server under load by part and function, a flame graph, and the statements of a batch."""

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import psycopg
import uvloop

from bench.cases import Run, closed
from bench.load import closed_loop
from bench.meter import batches_of
from bench.seed import ENVIRONMENT
from bench.stations import APPROVED, Station
from tests.support.server import RunningServer

SAMPLES_PER_S = 200

# The innermost frame that matches an entry determines the part of a sample. For one frame, the first match counts.
PARTS = (
    ("HTTP: uvicorn, httptools", ("uvicorn/", "starlette/")),
    ("HTTP: Cardwright (credential, route, body)", ("edges/http/", "resources/common/route.py", "kit/vault.py", "vault.py")),
    ("simulation: request to message", ("resources/simulations/", "core/money.py")),
    ("answer: JSON rendering", ("core/render.py", "core/iso8583_response.py", "core/transaction_row.py", "core/countries.py")),
    ("decision", ("core/",)),
    ("engine: batch, snapshot, rows", ("engine/batch_runner.py", "engine/transaction_rows.py")),
    (
        "caches: configuration, cards, original transactions",
        ("engine/config_cache.py", "engine/dataloader.py", "storage/original_transactions.py"),
    ),
    ("database: reading, encoding, writing", ("storage/", "psycopg", "sqlalchemy/")),
    ("engine: inbox, workers, futures", ("engine/loop.py", "kit/ids.py")),
    ("outbox", ("outbox/",)),
)
LIBRARY = "event loop and the rest"

WAITING = ("_worker (concurrent/", "wait (threading.py", "Condition.wait (threading.py", "Event.wait (threading.py")
"""Innermost frames of idle threads. py-spy counts some of them as busy."""


def profile(run: Run, folder: Path, name: str) -> dict[str, Any]:
    """Profile both databases at 64 in flight and write flame graphs to the folder.

    The result has no profile of a database if py-spy is missing or fails.
    """
    results: dict[str, Any] = {}
    for kind in ("postgres", "sqlite"):
        station = run.yard.station(kind, "main")
        run.say(f"{kind}, profile", None)
        stacks = _sampled(run, station)
        if stacks is None:
            continue
        flame(stacks, folder / f"{name}-{kind}.svg", f"{kind}, 64 in flight")
        cost = fmean(numbers["server_us"] for numbers in closed(run, station, 64))
        results[kind] = {"server_us": cost, "parts": parts_of(stacks), "functions": functions_of(stacks)}
    results["statements"] = statements(run)
    return results


def _sampled(run: Run, station: Station) -> list[tuple[list[str], int]] | None:
    """Return stacks of the server under load with sample counts, outermost frame first. None if py-spy fails or is missing."""
    target = run.yard.folder / "stacks.txt"
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        return None
    seconds = max(4, round(run.seconds))
    command: list[str | Path] = [spy, "record", "--format", "raw", "--rate", str(SAMPLES_PER_S), "--duration", str(seconds)]
    command += ["--full-filenames", "--pid", str(station.server.pid), "--output", target]
    spying = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    uvloop.run(closed_loop(station.place, station.purchases(99), 64, seconds + 1, check=APPROVED))
    _, errors = spying.communicate()
    if spying.returncode or not target.exists():
        print(f"no profile: {errors.decode()[-300:]}")
        return None
    rows = (line.rpartition(" ") for line in target.read_text().splitlines())
    stacks = [([_short(frame) for frame in stack.split(";")], int(count)) for stack, _, count in rows]
    return [(stack, count) for stack, count in stacks if not stack[-1].startswith(WAITING)]


def _short(frame: str) -> str:
    """Return `function (path)` without the line number; the path begins at the package or the library."""
    match = re.match(r"(.*) \((.*?)(?::\d+)?\)$", frame)
    if match is None:
        return frame
    path = re.sub(r".*/(?:site-packages/|src/cardwright/|python3\.\d+/)", "", match[2])
    return f"{match[1]} ({path})"


def parts_of(stacks: Iterable[tuple[Sequence[str], int]]) -> dict[str, float]:
    """Return the share of the samples by part, the largest first."""
    counts = Counter[str]()
    for stack, count in stacks:
        counts[_part(stack)] += count
    total = sum(counts.values())
    return {part: count / total for part, count in counts.most_common()}


def _part(stack: Sequence[str]) -> str:
    for frame in reversed(stack):
        path = frame.rpartition("(")[2]
        for part, prefixes in PARTS:
            if path.startswith(prefixes):
                return part
    return LIBRARY


def functions_of(stacks: Iterable[tuple[Sequence[str], int]], shown: int = 40) -> list[tuple[str, float, float]]:
    """Return the functions with the most samples, and their shares without and with the functions that they call."""
    self_counts, total_counts = Counter[str](), Counter[str]()
    for stack, count in stacks:
        self_counts[stack[-1]] += count
        for frame in set(stack):
            total_counts[frame] += count
    samples = sum(self_counts.values())
    return [(frame, count / samples, total_counts[frame] / samples) for frame, count in self_counts.most_common(shown)]


# --- The flame graph ----------------------------------------------------------------------

WIDTH, ROW, LEAST = 1200, 16, 0.004
"""Width of the graph and height of a row in pixels, and the smallest share of a frame that is drawn (about five pixels)."""


def flame(stacks: Iterable[tuple[Sequence[str], int]], path: Path, title: str) -> None:
    """Write a flame graph as SVG without scripts. Widths are shares of the samples; the outermost frame is at the top."""
    root = _tree(stacks)
    boxes = list[tuple[int, float, float, str]]()
    _lay_out(root, 0, 0.0, 1.0, boxes)
    height = (max((depth for depth, *_ in boxes), default=0) + 2) * ROW + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="10">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/><text x="4" y="14" font-size="12">{_escaped(title)}</text>',
    ]
    for depth, left, share, frame in boxes:
        x, y, width = left * WIDTH, 22 + depth * ROW, share * WIDTH
        label = frame if len(frame) * 6.1 < width else frame[: max(0, int(width / 6.1) - 1)]
        text = f'<text x="{x + 2:.1f}" y="{y + 11}">{_escaped(label)}</text>' if len(label) > 2 else ""
        lines.append(
            f'<g><title>{_escaped(frame)} {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{max(0.5, width - 0.5):.1f}" '
            f'height="{ROW - 1}" fill="{_colour(frame)}"/>{text}</g>'
        )
    path.write_text("\n".join([*lines, "</svg>\n"]), encoding="utf-8")


_Tree = dict[str, Any]


def _tree(stacks: Iterable[tuple[Sequence[str], int]]) -> _Tree:
    root: _Tree = {"count": 0, "inner": {}}
    for stack, count in stacks:
        node = root
        node["count"] += count
        for frame in stack:
            node = node["inner"].setdefault(frame, {"count": 0, "inner": {}})
            node["count"] += count
    return root


def _lay_out(node: _Tree, depth: int, left: float, share: float, boxes: list[tuple[int, float, float, str]]) -> None:
    for frame, inner in sorted(node["inner"].items(), key=lambda item: -int(item[1]["count"])):
        width = share * inner["count"] / node["count"]
        if width >= LEAST:
            boxes.append((depth, left, width, frame))
            _lay_out(inner, depth + 1, left, width, boxes)
        left += width


def _colour(frame: str) -> str:
    """Return a warm colour for the package's frames and a cool one for libraries."""
    path = frame.rpartition("(")[2]
    ours = any(path.startswith(prefix) for prefix in ("edges/", "resources/", "core/", "engine/", "storage/", "outbox/", "kit/"))
    shade = sum(frame.encode()) % 30
    return f"hsl({30 + shade // 2 if ours else 200 + shade},{75 if ours else 35}%,{68 + shade // 5}%)"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- Statements ---------------------------------------------------------------------------


def statements(run: Run) -> dict[str, float]:
    """Return statements and messages per commit at 64 in flight, counted in PostgreSQL's log.

    The result is empty if PostgreSQL was not started by the benchmark, because its log is not available then.
    """
    postgres = run.yard.postgres
    if postgres.socket_dir is None:
        return {}
    run.yard.rest()
    seeded = run.yard.copy("postgres", "small")
    name = seeded.address.rpartition("/")[2]
    with psycopg.connect(postgres.dsn, autocommit=True) as db:
        db.execute(f"ALTER DATABASE {name} SET log_min_duration_statement = 0".encode())
    log = postgres.socket_dir / "server.log"
    with RunningServer(db=seeded.address, env=ENVIRONMENT) as server:
        station = Station(seeded, server, 1, None)
        station.warm()
        # The log must contain all lines of the warm-up before its size is read.
        time.sleep(0.2)
        begin, (commits, messages) = log.stat().st_size, batches_of(server.root_url)
        uvloop.run(closed_loop(station.place, station.purchases(1), 64, 1.0, check=APPROVED))
        time.sleep(0.2)
        after = batches_of(server.root_url)
        with log.open("rb") as file:
            file.seek(begin)
            executed = Counter(re.findall(rb"  execute ([a-z_]+):", file.read()))
    count = after[0] - commits
    hot = {name.decode(): number / count for name, number in executed.most_common() if number > count / 20}
    return {"messages": (after[1] - messages) / count, "statements": sum(hot.values()), **hot}
