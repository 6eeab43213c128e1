"""pgbench, the yardstick: TPC-B-like transactions on the very server that we run on, prepared, over the same TCP."""

import re
import subprocess
import tempfile
from array import array
from pathlib import Path

from bench.load import quantile
from bench.meter import Meter
from tests.support.postgres import find_binaries

SCALE = 50


def program() -> Path:
    """Where pgbench is: beside the server's own programs. Raises FileNotFoundError."""
    path = find_binaries() / "pgbench"
    if not path.exists():
        raise FileNotFoundError(f"{path} (Debian: apt-get install postgresql-contrib)")
    return path


def initialize(dsn: str, scale: int) -> None:
    """Makes pgbench's tables; with fewer branches than clients these would queue for the branches' rows."""
    subprocess.run([program(), "-i", "-q", "-s", str(scale), dsn], check=True, capture_output=True)


def run(dsn: str, clients: int, seconds: float, meter: Meter) -> dict[str, float]:
    """Transactions a second, their latencies in milliseconds, and what one cost."""
    with tempfile.TemporaryDirectory(prefix="pgbench-") as folder:
        command: list[str | Path] = [program(), "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(2, clients))]
        command += ["-T", str(max(1, round(seconds))), "-l", "--log-prefix", f"{folder}/log", dsn]
        meter.edge()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        meter.edge()
        latencies = sorted(_latencies(Path(folder)))
    match = re.search(r"tps = ([0-9.]+)", done.stdout)
    assert match is not None, done.stdout
    numbers = {"rate": float(match[1]), "count": float(len(latencies))}
    numbers |= {f"p{share}_ms": quantile(latencies, share / 100) / 1e3 for share in (50, 99)}
    return numbers | meter.costs(len(latencies))


def _latencies(folder: Path) -> "array[int]":
    """Microseconds: the third column of the log."""
    latencies = array("q")
    for file in folder.iterdir():
        with file.open() as lines:
            latencies.extend(int(line.split(" ", 3)[2]) for line in lines)
    return latencies
