"""Schemathesis reads our own OpenAPI document and sends what it makes of it: nothing leads to a 5xx."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import RunningServer

SECONDS = 25
PASSES_ON = "/ping$"
"""The one operation that answers what another server answered, whatever that is."""


def test_nothing_leads_to_a_server_error(tmp_path: Path) -> None:
    """Thousands of valid and invalid calls of every operation, alone and in sequence, and not one internal error."""
    with RunningServer(db=str(tmp_path / "cardwright.db")) as server:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.root_url}/openapi.json"]
        command += ["--auth", f"{server.application_token}:{server.access_token}", "--checks", "not_a_server_error"]
        command += ["--exclude-path-regex", PASSES_ON, "--max-time", str(SECONDS), "--max-examples", "5", "--seed", "42"]
        command += ["--continue-on-failure", "--no-shrink", "--no-color", "--generation-database", "none"]
        command += ["--suppress-health-check", "all", "--warnings", "off"]
        run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert run.returncode == 0, f"{run.stdout[-8000:]}{run.stderr[-2000:]}"
        cases = re.search(r"(\d+) generated", run.stdout)
        assert cases is not None, run.stdout[-2000:]
        assert int(cases[1]) > 500, run.stdout[-2000:]
        assert "Traceback" not in server.output(), server.output()[-8000:]
