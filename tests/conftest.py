"""Fixtures for all tests: databases, servers and a browser; the profiles of Hypothesis; notes at the end of a run."""

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
"""A folder in memory on Linux. A commit there does not wait for a disk, which is most of the time of a test on SQLite."""

MEMORY_BYTES_MIN = 4 << 30

# Set it before the first use of a temporary folder. The processes of the run and their servers inherit it.
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN:
    os.environ.setdefault("TMPDIR", str(MEMORY))
    # Python caches the folder at its first use, and a plugin may have used it before.
    tempfile.tempdir = os.environ["TMPDIR"]

# Containers often set this. Every server and command of a test would compile the same 200 modules again, for 0.2 s of CPU each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No deadlines: a shared machine is sometimes slow. In CI a failed run must be repeatable, so its examples depend only on the
# test. Elsewhere each run draws new examples.
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
    """Yield a PostgreSQL server for this run, one per test process. It starts at its first use, in about half a second."""
    if "postgresql" not in chosen_databases():
        pytest.skip("CARDWRIGHT_TEST_DB excludes PostgreSQL; unset it, or run `make test` without DB=, to include this test")
    try:
        server = TestPostgres(durable=False)
    except PostgresMissingError as missing:
        reason = str(missing)
    else:
        with server:
            yield server
        return
    # Not a skip: a green run means that both databases were tested.
    pytest.fail(reason, pytrace=False)


@pytest.fixture(scope="session")
def sqlite_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server on SQLite for all modules of this run, one per test process; see ``shared_server``."""
    with audited_server("sqlite", request, tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Yield a server on PostgreSQL for all modules of this run, one per test process; see ``shared_server``."""
    with audited_server("postgresql", request, tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Yield a Chromium for this run, one per test process. Without Chromium the test is skipped, and `make test` reports it."""
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
    """Yield the DSN of an empty PostgreSQL database, for behaviour that SQLite does not have."""
    with empty_database("postgresql", request, tmp_path) as address:
        yield address


@pytest.fixture(params=chosen_databases())
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the address of an empty database: a path for SQLite, a DSN for PostgreSQL. The test runs with both."""
    with empty_database(request.param, request, tmp_path) as address:
        yield address


@pytest.fixture
def migrated_postgres_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the DSN of a PostgreSQL database with all tables and no rows."""
    with migrated_database("postgresql", request, tmp_path) as address:
        yield address


@pytest.fixture(params=chosen_databases())
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the address of a database with all tables and no rows. Otherwise like ``database_url``."""
    with migrated_database(request.param, request, tmp_path) as address:
        yield address
