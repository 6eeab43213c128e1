"""What every test may ask for: a fresh database of either kind, and Hypothesis in the mood of the place."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.browser import NOT_RUN, Browser, ChromiumMissingError, find_chromium
from tests.support.databases import chosen_databases, empty_database, migrated_database
from tests.support.fixtures import audited_server
from tests.support.postgres import PostgresMissingError, TestPostgres
from tests.support.server import RunningServer

MEMORY = Path("/dev/shm")
"""Linux keeps its files in memory. A commit does not wait for a disk there, which is most of the time of a test on SQLite."""

MEMORY_BYTES_MIN = 4 << 30

# Before anything asks for a temporary folder; the processes of the run and the servers that they start inherit it.
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN:
    os.environ.setdefault("TMPDIR", str(MEMORY))
    # Python keeps the answer of the first question, and a plugin may have asked before.
    tempfile.tempdir = os.environ["TMPDIR"]

# Containers often set this. Every server and command of a test would compile the same 200 modules again, for 0.2 s of CPU each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shared machine is sometimes slow, which is no fault of the code: no deadlines. In CI a red run must be red again when
# somebody looks into it, so examples there follow from the test alone; at a desk new ones are drawn every time.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

NOT_RUN_BLOCK = "not run"
"""The property of a test report with a block of the documentation that is not run. The summary of the run lists these blocks."""

FIGURE = "figure"
"""The property of a test report with a figure, which the summary prints too."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the blocks of the documentation that are not run, and the recorded figures, of all test processes."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    calls = [report for report in reports if getattr(report, "when", "") == "call"]
    texts = sorted(str(text) for report in calls for name, text in report.user_properties if name == NOT_RUN_BLOCK)
    if texts:
        terminalreporter.section("blocks of the documentation that are not run")
        terminalreporter.write_line("\n".join(texts))
    for figure in sorted({str(text) for report in calls for name, text in report.user_properties if name == FIGURE}):
        terminalreporter.write_line(figure)


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestPostgres]:
    """A PostgreSQL server for this run, one for each worker; it starts in half a second when the first test asks for it."""
    if "postgresql" not in chosen_databases():
        pytest.skip("CARDWRIGHT_TEST_DB leaves PostgreSQL out; unset it, or type `make test` without DB=, to run this too")
    try:
        server = TestPostgres(durable=False)
    except PostgresMissingError as missing:
        reason = str(missing)
    else:
        with server:
            yield server
        return
    # Not a skip: a green run must mean that both databases were tried.
    pytest.fail(reason, pytrace=False)


@pytest.fixture(scope="session")
def sqlite_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on SQLite for all modules of this run, one for each worker; see ``shared_server``."""
    with audited_server("sqlite", request, tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on PostgreSQL for all modules of this run, one for each worker; see ``shared_server``."""
    with audited_server("postgresql", request, tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium for this run, one for each worker. Without one the test is skipped, and `make test` says so in its last line."""
    try:
        path = find_chromium()
    except ChromiumMissingError as missing:
        pytest.fail(str(missing), pytrace=False)
    if path is None:
        pytest.skip(NOT_RUN)
    with Browser(path) as running:
        yield running


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The DSN of an empty database, for what SQLite has nothing to do with."""
    with empty_database("postgresql", request, tmp_path) as address:
        yield address


@pytest.fixture(params=chosen_databases())
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: a file's path for SQLite, a DSN for PostgreSQL; the test runs once with each."""
    with empty_database(request.param, request, tmp_path) as address:
        yield address


@pytest.fixture
def migrated_postgres_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The DSN of a database with all tables, for what SQLite has nothing to do with."""
    with migrated_database("postgresql", request, tmp_path) as address:
        yield address


@pytest.fixture(params=chosen_databases())
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with all tables, for what the migrations have nothing to do with; otherwise as ``database_url``."""
    with migrated_database(request.param, request, tmp_path) as address:
        yield address
