"""The way to the process that reads and writes SQLite for the heart (``sqlite_writer``), driven from the event loop."""

import asyncio
import marshal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cardwright.storage.hot import Conflict, Unavailable, nothing
from cardwright.storage.sqlite_writer import CONFLICT, LENGTH, framed

Part = tuple[str, Iterable[Sequence[Any]]]
"""The name of a statement, and the rows of parameters that it is run with."""


class Wire:
    """One such process; its requests are carried out in the order of asking."""

    def __init__(self, path: str, statements: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "cardwright.storage.sqlite_writer", path, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._socket.setblocking(False)
        self._unsent, self._heard = b"", b""
        self._waiters: deque[asyncio.Future[bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._on_readable)
        self.is_open = True
        self._send(framed(statements))

    async def read(self, parts: Sequence[Part]) -> tuple[int, list[Any]]:
        """The version of the database, and what each statement found. Raises Unavailable."""
        _, version, found = await self._ask(None, parts, nothing)
        return version, found

    async def write(self, version: int, parts: Sequence[Part], meanwhile: Callable[[], None]) -> None:
        """Commits, unless anybody else did since that version was read; ``meanwhile`` is called when the request is on its way.

        Raises Conflict when nothing was written and it must be run again, Unavailable.
        """
        await self._ask(version, parts, meanwhile)

    async def close(self) -> None:
        """Lets the process end, and waits for it."""
        self._end("it was closed")
        await asyncio.to_thread(self._process.wait)

    async def _ask(self, version: int | None, parts: Sequence[Part], meanwhile: Callable[[], None]) -> tuple[str, int, list[Any]]:
        if not self.is_open:
            raise Unavailable("the process that writes SQLite has ended")
        self._waiters.append(waiter := self._loop.create_future())
        self._send(framed((version, [(name, [tuple(row) for row in rows]) for name, rows in parts])))
        meanwhile()
        kind, seen, found = marshal.loads(await waiter)
        if kind:
            raise (Conflict if kind == CONFLICT else Unavailable)(found[0])
        return kind, seen, found

    def _send(self, message: bytes) -> None:
        if self._unsent:
            self._unsent += message
        else:
            self._unsent = message
            self._flush()

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(str(error))
            return
        if self._unsent:
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            more = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more:
            self._end("the process that writes SQLite has ended")
            return
        self._heard += more
        while len(heard := self._heard) >= LENGTH and len(heard) >= (end := LENGTH + int.from_bytes(heard[:LENGTH], "big")):
            message, self._heard = heard[LENGTH:end], heard[end:]
            self._waiters.popleft().set_result(message)

    def _end(self, reason: str) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        while self._waiters:
            self._waiters.popleft().set_exception(Unavailable(reason))
