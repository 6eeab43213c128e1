"""HTTP server: the application under uvicorn, in one process or several."""

import errno
import os
import resource
import socket
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.supervisors import Multiprocess

from cardwright.edges.http.connections import ClientLimits, Connections
from cardwright.edges.http.protocol import ApiProtocol
from cardwright.edges.http.stop_guard import guard_stop
from cardwright.settings import Settings

FIRST_PORT = 8181
TRIES = 50
BACKLOG = 4096

GRACEFUL_S = 2
"""Seconds that a stop waits for open requests and for clients to receive answers. Then the requests get 503."""

SPARE_FILES = 512
"""File descriptors beside the connections: databases, webhooks, refused connections."""


class PortTaken(Exception):
    """A requested port that another process uses, or no free port in the default range."""


def bind(host: str, port: int | None) -> socket.socket:
    """Return a listening socket on the requested port, or on the first free port from 8181 on.

    Raises PortTaken, and OSError for all other errors.
    """
    for candidate in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + TRIES):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            # Listen at once: with SO_REUSEADDR, two sockets can be bound to the same port until one listens.
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
            if port is not None:
                raise PortTaken(f"{host}:{port}: {error.strerror}") from None
            continue
        listener.set_inheritable(True)
        return listener
    raise PortTaken(f"{host}: no free port from {FIRST_PORT} to {FIRST_PORT + TRIES - 1}")


def run(settings: Settings, listener: socket.socket, certificate: Path | None) -> None:
    """Serve until SIGTERM or SIGINT, and answer open requests before the end. ``certificate`` is a PEM file with its key."""
    connections = Connections(ClientLimits.of(settings), names_of(settings, listener))
    config = uvicorn.Config(
        "cardwright.edges.http.application:from_environment",
        factory=True,
        loop="uvloop",
        http=cast(Any, partial(ApiProtocol, connections=connections)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        workers=settings.workers,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACEFUL_S,
        ssl_certfile=str(certificate) if certificate else None,
    )
    os.environ.update(environment_of(settings))
    raise_file_limit(settings.connections_max + SPARE_FILES)
    if settings.workers > 1:
        supervisor = Multiprocess(config, [listener])
        guard_stop(lambda: _kill_workers(supervisor))
        supervisor.run()
    else:
        uvicorn.Server(config).run(sockets=[listener])


def names_of(settings: Settings, listener: socket.socket) -> frozenset[str] | None:
    """Return the names of a sandbox on a loopback address: ``--host`` and the name of the machine, both in its certificate.

    Return None for any other server. Its names are not known here, and its clients are not only the browsers of this machine.
    """
    if not settings.is_sandbox or not ip_address(listener.getsockname()[0]).is_loopback:
        return None
    return frozenset((settings.host.lower(), socket.gethostname().lower()))


def _kill_workers(supervisor: Multiprocess) -> None:
    for worker in supervisor.processes:
        worker.process.kill()


def raise_file_limit(count: int) -> None:
    """Increase the soft limit of open files to ``count`` for this process and its workers, at most to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the settings as environment variables, for the application and its worker processes."""
    values = settings.model_dump(exclude_none=True)
    secrets = {"application_token", "access_token", "master_key", "new_master_key"}
    plain = {name: value.get_secret_value() if name in secrets else str(value) for name, value in values.items()}
    return {f"CARDWRIGHT_{name.upper()}": value for name, value in plain.items()}
