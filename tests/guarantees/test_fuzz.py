"""Fuzzing: requests that Schemathesis generates from the OpenAPI document never get 5xx."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.databases import migrated_file
from tests.support.server import RunningServer

SECONDS = 25
CASES_MIN = 500
"""Minimum number of cases in all runs. A slow machine makes fewer cases in a run and more runs."""

RUNS_MAX = 20

PASSES_ON = "/ping$"
"""The operation that returns the answer of another server, with any status."""


def test_nothing_leads_to_a_server_error(tmp_path: Path) -> None:
    """More than CASES_MIN valid and invalid calls of all operations, alone and in sequence, cause no internal error."""
    with RunningServer(db=migrated_file(tmp_path / "cardwright.db")) as server:
        cases = 0
        for run in range(RUNS_MAX):
            cases += _calls(server, tmp_path, seed=42 + run)
            if cases > CASES_MIN:
                break
        assert cases > CASES_MIN
        assert "Traceback" not in server.output(), server.output()[-8000:]


def _calls(server: RunningServer, folder: Path, seed: int) -> int:
    """Run schemathesis for SECONDS; return the number of cases."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.root_url}/openapi.json"]
    command += ["--auth", f"{server.application_token}:{server.access_token}", "--checks", "not_a_server_error"]
    command += ["--exclude-path-regex", PASSES_ON, "--max-time", str(SECONDS), "--max-examples", "5", "--seed", str(seed)]
    command += ["--continue-on-failure", "--no-shrink", "--no-color", "--generation-database", "none"]
    command += ["--suppress-health-check", "all", "--warnings", "off"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert run.returncode == 0, f"{run.stdout[-8000:]}{run.stderr[-2000:]}"
    cases = re.search(r"(\d+) generated", run.stdout)
    assert cases is not None, run.stdout[-2000:]
    return int(cases[1])
