"""Chromium for tests: its search order, its control over a pipe, its error reports and its removal."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import browser as support
from tests.support.browser import Browser, BrowserError, ChromiumMissingError, Page, find_chromium

ROOT = Path(__file__).parents[3]


def executable(path: Path, script: str = "exit 0") -> Path:
    """Write a shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def run_module(**env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m tests.support.browser` with these variables instead of the present ones."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PATH", support.VARIABLE)}
    command = [sys.executable, "-m", "tests.support.browser"]
    return subprocess.run(command, cwd=ROOT, env=kept | env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A blank page."""
    with browser.new_page() as page:
        yield page


# --- Without a Chromium -------------------------------------------------------------------


def test_chromium_is_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the names on PATH is used. Without one the result is None."""
    monkeypatch.delenv(support.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium() is None
    for name in reversed(support.NAMES):
        path = executable(tmp_path / name)
        assert find_chromium() == str(path)


def test_variable_names_the_chromium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CARDWRIGHT_TEST_CHROMIUM precedes PATH. A file that is absent or not executable is an error, even with one on PATH."""
    executable(tmp_path / "chromium")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(support.VARIABLE, str(executable(tmp_path / "mine")))
    assert find_chromium() == str(tmp_path / "mine")
    (tmp_path / "mine").chmod(0o644)
    for name in ("mine", "absent"):
        monkeypatch.setenv(support.VARIABLE, str(tmp_path / name))
        with pytest.raises(ChromiumMissingError, match=f"CARDWRIGHT_TEST_CHROMIUM is '{re.escape(str(tmp_path / name))}'"):
            find_chromium()


def test_module_prints_the_line_only_without_chromium(tmp_path: Path) -> None:
    """The line of `make test` about missing browser tests appears only without Chromium."""
    missing = run_module(PATH=str(tmp_path))
    assert (missing.returncode, missing.stdout) == (0, "browser tests not run: no Chromium (make browser)\n")
    path = executable(tmp_path / "chromium")
    for env in ({"PATH": str(tmp_path)}, {"PATH": "", support.VARIABLE: str(path)}):
        present = run_module(**env)
        assert (present.returncode, present.stdout, present.stderr) == (0, "", "")
    wrong = run_module(PATH=str(tmp_path), CARDWRIGHT_TEST_CHROMIUM=str(tmp_path / "absent"))
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "CARDWRIGHT_TEST_CHROMIUM" in wrong.stderr


def test_browser_that_does_not_start_is_reported_with_its_output(tmp_path: Path) -> None:
    """A program that ends at once raises BrowserError with its output, without a wait."""
    path = executable(tmp_path / "chromium", "echo no such display >&2; exit 1")
    with Browser(str(path)) as browser, pytest.raises(BrowserError, match="Chromium ended\nno such display"):
        browser.new_page()


# --- With Chromium ------------------------------------------------------------------------


def test_script_is_evaluated(page: Page) -> None:
    """Values come back as JSON, even from promises and functions. An exception is a BrowserError with its message."""
    assert page.evaluate("({a: [1, 'é', null]})") == {"a": [1, "é", None]}
    assert page.evaluate("new Promise((resolve) => setTimeout(() => resolve(7), 10))") == 7
    assert page.evaluate("async (first, second) => first + second", 'a"', "b") == 'a"b'
    with pytest.raises(BrowserError, match="no such thing"):
        page.evaluate("Promise.reject(new Error('no such thing'))")
    with pytest.raises(BrowserError, match="SyntaxError"):
        page.evaluate("1 +")


def test_wait_ends(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """A condition that becomes true ends the wait. If it stays false, an AssertionError names it."""
    page.evaluate("setTimeout(() => { window.done = 'yes'; }, 50) && null")
    assert page.wait_for("window.done") == "yes"
    monkeypatch.setattr(support, "LIMIT_SECONDS", 1)
    with pytest.raises(AssertionError, match=r"not true in 1 s: window\.never"):
        page.wait_for("window.never")


def test_errors_are_noted(page: Page) -> None:
    """Console errors, uncaught exceptions and rejected promises count as errors. Other output does not."""
    page.evaluate("console.log('harmless'), console.error('first', 1)")
    page.evaluate("setTimeout(() => { throw new Error('second'); }), null")
    page.evaluate("setTimeout(() => { Promise.reject(new Error('third')); }), null")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 50))")
    assert [error.splitlines()[0] for error in page.errors] == ["first 1", "Error: second", "Error: third"]


def test_requests_to_others_are_noted(page: Page) -> None:
    """A failed request counts, too. Requests below the server's own address and data URLs do not count."""
    urls = ["http://elsewhere.invalid/a", "http://127.0.0.1:9/b", "data:text/plain,c"]
    page.evaluate("(urls) => Promise.allSettled(urls.map((url) => fetch(url)))", urls)
    assert page.requests_to_others("http://127.0.0.1:9") == ["http://elsewhere.invalid/a"]
    assert page.requests_to_others("http://127.0.0.1:8") == urls[:2]


def test_mouse_and_keys_do_what_a_user_does(page: Page) -> None:
    """Typing replaces the content of a field, a key reaches the focused element, and a click hits the topmost element."""
    page.evaluate(
        """(html) => {
          document.body.innerHTML = html;
          document.addEventListener('keydown', (event) => { window.pressed = [event.target.id, event.ctrlKey, event.key]; });
          document.querySelector('button').addEventListener('click', () => { window.clicked = true; });
        }""",
        "<input id='field' value='old'><p style='height: 5000px'></p><button>Below</button>",
    )
    page.type("#field", "new")
    assert page.evaluate("document.querySelector('#field').value") == "new"
    page.press("Enter", ctrl=True)
    assert page.evaluate("window.pressed") == ["field", True, "Enter"]
    page.click("button")
    assert page.evaluate("window.clicked") is True


def test_covered_element_is_not_clicked(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """A click waits while another element covers the target."""
    page.evaluate(
        "(html) => { document.body.innerHTML = html; }", "<button>Send</button><p style='position: fixed; inset: 0'></p>"
    )
    monkeypatch.setattr(support, "LIMIT_SECONDS", 1)
    with pytest.raises(AssertionError, match="not true in 1 s"):
        page.click("button")


def test_pages_share_nothing(browser: Browser, tmp_path: Path) -> None:
    """A page begins with empty storage, although an earlier page stored data for the same address."""
    file = tmp_path / "page.html"
    file.write_text("<p>Hello</p>")
    for _ in range(2):
        with browser.new_page() as page:
            page.navigate(file.as_uri())
            assert page.text("p") == "Hello"
            assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
            page.evaluate("localStorage.setItem('a', 'b'), sessionStorage.setItem('a', 'b')")


def test_page_that_does_not_open_is_an_error(page: Page) -> None:
    """An address without a server is a BrowserError with the address."""
    with pytest.raises(BrowserError, match=r"http://127\.0\.0\.1:9/: net::ERR_"):
        page.navigate("http://127.0.0.1:9/")
