"""pgbench for comparison: TPC-B-like transactions with prepared statements, on the same PostgreSQL server over the same TCP."""

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
    """Return the path of pgbench, in the folder of the server's programs. Raises FileNotFoundError if there is none."""
    path = find_binaries() / "pgbench"
    if not path.exists():
        raise FileNotFoundError(f"{path} (Debian: apt-get install postgresql-contrib)")
    return path


def initialize(dsn: str, scale: int) -> None:
    """Create pgbench's tables. With fewer branches than clients, the clients would queue for the branches' rows."""
    subprocess.run([program(), "-i", "-q", "-s", str(scale), dsn], check=True, capture_output=True)


def run(dsn: str, clients: int, seconds: float, meter: Meter) -> dict[str, float]:
    """Run pgbench; return transactions per second, latencies in milliseconds, and the costs of one transaction."""
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
    """Return the latencies in microseconds, the third column of the log."""
    latencies = array("q")
    for file in folder.iterdir():
        with file.open() as lines:
            latencies.extend(int(line.split(" ", 3)[2]) for line in lines)
    return latencies
