"""TCP proxy between a server under test and its database. It can hold back answers and cut connections."""

import contextlib
import socket
import threading
from typing import Self

from tests.support.server import HOST


class Proxy:
    """A proxy from ``proxy.port`` to ``port`` on this machine: `with Proxy(port) as proxy`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._answers = threading.Event()
        self._answers.set()
        self._mutex = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def mute(self) -> None:
        """Hold back all later answers of the database."""
        self._answers.clear()

    def cut(self) -> None:
        """Close all connections and discard the answers held back. New connections are forwarded as usual."""
        with self._mutex:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._answers.set()

    def close(self) -> None:
        """End the proxy and its connections."""
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            database = socket.create_connection((HOST, self._target))
            with self._mutex:
                self._pairs.append((client, database))
            threading.Thread(target=self._forward, args=(client, database), daemon=True).start()
            threading.Thread(target=self._forward, args=(database, client, self._answers), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, allowed: threading.Event | None = None) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if allowed is not None:
                    allowed.wait()
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
