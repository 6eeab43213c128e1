"""What tests and benchmarks share: a PostgreSQL of their own, a running server, documentation that runs."""

import random
import socket

# Below every system's ephemeral range, so that no outgoing connection takes the port between our look and its use.
_PORTS = range(15_000, 32_000)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on `host` that nobody listens on now; another process may still be faster, so callers try again."""
    # Seeded by the system, whatever a test has done to the global generator: two processes must not draw alike.
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
