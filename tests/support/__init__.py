"""Helpers of tests and benchmarks: a private PostgreSQL, a running server, a runner of the documentation, a free port."""

import random
import socket

# Below the ephemeral range of every system, so that no outgoing connection takes the port between the check and its use.
_PORTS = range(15_000, 32_000)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port on `host` without a listener. Another process may take it before its use, so callers retry."""
    # A generator of the system, because tests seed the global one and two processes must draw different ports.
    dice = random.SystemRandom()
    for _ in range(100):
        port = dice.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port on {host} in 100 tries")
