"""Browser: a headless Chromium of the machine, controlled over the DevTools protocol, with a temporary profile."""

import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.waiting import until

VARIABLE = "CARDWRIGHT_TEST_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")
NOT_RUN = "browser tests not run: no Chromium (make browser)"

# Safety limits, in seconds. They end a test that failed; no test waits for one.
LIMIT_SECONDS = 120
STOP_SECONDS = 20

# Chromium's sandbox does not run as root. The last five flags stop the browser's own requests to other hosts.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--remote-debugging-pipe",
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

# Code, virtual key code and text of the keys that a test may press.
KEYS = {"Enter": ("Enter", 13, "\r"), "Delete": ("Delete", 46, ""), "/": ("Slash", 191, "/"), "a": ("KeyA", 65, "a")}
CTRL = 2

# The middle of an element in the window's coordinates. Null while the element is absent, has no size or is covered by another.
MIDDLE = """(selector) => {
  const element = document.querySelector(selector);
  element?.scrollIntoView({block: 'center', behavior: 'instant'});
  const box = element?.getClientRects()[0];
  const point = box && {x: box.x + box.width / 2, y: box.y + box.height / 2};
  return point && element.contains(document.elementFromPoint(point.x, point.y)) ? point : null;
}"""


class ChromiumMissingError(RuntimeError):
    """CARDWRIGHT_TEST_CHROMIUM names no executable file."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{VARIABLE} is {name!r}, which is not an executable file. Set it to the path of a Chromium, or unset it: then the "
            f"tests use the first of {', '.join(NAMES)} on PATH."
        )


class BrowserError(RuntimeError):
    """Chromium refused a command, a script threw an exception, or Chromium ended; the text has its message."""


def find_chromium() -> str | None:
    """Return the path of the Chromium to use, None if there is none.

    Raises ChromiumMissingError if the environment names an unusable one.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return next(filter(None, map(shutil.which, NAMES)), None)
    path = shutil.which(name)
    if path is None:
        raise ChromiumMissingError(name)
    return path


class Browser:
    """A Chromium process with an empty profile: `with Browser(path) as browser, browser.new_page() as page`.

    JSON messages, each followed by a NUL byte, pass through two pipes, the file descriptors 3 and 4 of Chromium. Chromium ends
    when the pipes close, as after a killed test run. Not safe for several threads.
    """

    def __init__(self, path: str) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="cardwright-browser-", ignore_cleanup_errors=True)
        self._log = Path(self._home.name, "output.log")
        self._ids = itertools.count(1)
        self._buffer = b""
        self._pages: dict[str, Page] = {}
        command = [path, *FLAGS, f"--user-data-dir={Path(self._home.name, 'profile')}"]
        commands, self._commands = os.pipe()
        self._messages, messages = os.pipe()
        # The child's ends are first copied above 4, because the first dup2 would close the second pipe if it were 3 or 4.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands, messages)]
        actions: list[Any] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self._log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(ends, 3)),
        ]
        # Chromium writes to these folders too, despite --user-data-dir.
        folders = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), self._home.name)
        # posix_spawn and not subprocess, which cannot pass a descriptor under a given number.
        self._pid = os.posix_spawn(path, command, {**os.environ, **folders}, file_actions=actions, setpgroup=0)
        for end in (commands, messages, *ends):
            os.close(end)

    def new_page(self) -> "Page":
        """Return a new page with separate, empty storage."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Return the result of a DevTools command. Raises BrowserError if the command fails."""
        number, deadline = next(self._ids), time.monotonic() + LIMIT_SECONDS
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        # If Chromium has ended, the pipe is broken, and reading raises the error with its output.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next_message(method, deadline)).get("id") != number:
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None and "method" in answer:
                page.note(answer["method"], answer["params"])
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def close(self) -> None:
        """Stop Chromium and remove its profile."""
        with contextlib.suppress(BrowserError):
            self.call("Browser.close")
        os.close(self._commands)
        os.close(self._messages)
        deadline = time.monotonic() + STOP_SECONDS
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(self._pid, signal.SIGKILL)
            time.sleep(0.01)
        self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_message(self, method: str, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready = select.select([self._messages], [], [], max(0, deadline - time.monotonic()))[0]
            part = os.read(self._messages, 1 << 16) if ready else b""
            if not part:
                problem = "Chromium ended" if ready else f"no answer in {LIMIT_SECONDS} s"
                raise BrowserError(f"{method}: {problem}\n{self._log.read_text(errors='replace')[-4000:]}")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


class Page:
    """A page of the browser. ``errors`` are the console's errors and uncaught exceptions, ``requests`` the URLs it requested."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser, self._session, self._context = browser, session, context
        self.errors: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a DevTools command to this page. Raises BrowserError if the command fails."""
        return self._browser.call(method, session=self._session, **parameters)

    def note(self, event: str, details: dict[str, Any]) -> None:
        """Add an event of the DevTools protocol to ``errors`` or ``requests`` if it belongs there."""
        match event, details:
            case "Network.requestWillBeSent", {"request": {"url": url}}:
                self.requests.append(url)
            case "Network.webSocketCreated", {"url": url}:
                self.requests.append(url)
            case "Runtime.exceptionThrown", {"exceptionDetails": exception}:
                self.errors.append(_text_of(exception))
            case "Runtime.consoleAPICalled", {"type": "error" | "assert", "args": values}:
                self.errors.append(" ".join(str(value.get("value", value.get("description"))) for value in values))
            case "Log.entryAdded", {"entry": {"level": "error", **entry}}:
                self.errors.append(f"{entry['text']} ({entry.get('url', 'no URL')})")

    def requests_to_others(self, root_url: str) -> list[str]:
        """Return the requested URLs with another host than ``root_url``. URLs without a host, such as data:, do not count."""
        return [url for url in self.requests if urlsplit(url).netloc not in ("", urlsplit(root_url).netloc)]

    def navigate(self, url: str) -> None:
        """Open a URL and wait until the document is loaded; its modules may still run. Raises BrowserError if that fails."""
        if problem := self.call("Page.navigate", url=url).get("errorText"):
            raise BrowserError(f"{url}: {problem}")
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, script: str, *arguments: object) -> Any:
        """Return the JSON value of a JavaScript expression, or of its promise. Raises BrowserError if it throws.

        With ``arguments`` the script is a function, and the value is its result for them.
        """
        expression = f"({script})(...{json.dumps(arguments)})" if arguments else script
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if exception := answer.get("exceptionDetails"):
            raise BrowserError(f"{_text_of(exception)}\nin: {expression}")
        return answer["result"].get("value")

    def wait_for(self, script: str, *arguments: object) -> Any:
        """Return the value of ``evaluate`` as soon as it is true. Raises AssertionError after 120 seconds."""
        try:
            return until(lambda: self.evaluate(script, *arguments), LIMIT_SECONDS)
        except AssertionError:
            raise AssertionError(
                f"not true in {LIMIT_SECONDS} s: {script} {arguments}; errors of the page: {self.errors}"
            ) from None

    def text(self, selector: str) -> str:
        """Return the visible text of the first element that fits, after it has appeared with some text."""
        return str(self.wait_for("(selector) => document.querySelector(selector)?.innerText", selector))

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse, after it has appeared and is not covered by another."""
        point = self.wait_for(MIDDLE, selector)
        for event in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=event, button="left", clickCount=1, **point)

    def type(self, selector: str, text: str) -> None:
        """Click a field and replace its content with a text."""
        self.click(selector)
        self.press("a", ctrl=True)
        self.press("Delete")
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, ctrl: bool = False) -> None:
        """Press and release a key of ``KEYS`` in the element that has the focus. Ctrl+A selects all on every system."""
        code, number, text = KEYS[key]
        details: dict[str, Any] = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": CTRL if ctrl else 0}
        if ctrl and key == "a":
            self.call("Input.dispatchKeyEvent", type="rawKeyDown", commands=["selectAll"], **details)
        else:
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **details)
        self.call("Input.dispatchKeyEvent", type="keyUp", **details)

    def close(self) -> None:
        """Close the page and discard its storage."""
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text_of(exception: dict[str, Any]) -> str:
    return str(exception.get("exception", {}).get("description") or exception["text"])


def main() -> int:
    """Print the line that ends `make test` if there is no Chromium, and nothing otherwise. Exit code 1 for a wrong variable."""
    try:
        chromium = find_chromium()
    except ChromiumMissingError as missing:
        print(missing, file=sys.stderr)
        return 1
    if chromium is None:
        print(NOT_RUN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
