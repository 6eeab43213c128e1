"""Origins: checks of the headers by which a browser shows that a page of another site caused a request."""

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

SAME_ORIGIN: Final = (b"same-origin", b"none")
"""Values of ``Sec-Fetch-Site`` for a page of the same origin, and for an address that the user typed."""

_HOST: Final = re.compile(rb"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")


def is_cross_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Return True if a page of another origin caused the request. Names of headers are in lower case.

    Clients other than browsers send neither ``Sec-Fetch-Site`` nor ``Origin``. ``Sec-Fetch-Site`` takes precedence, because a
    proxy may change ``Host``. A page cannot set any of the three. The port is part of an origin, the scheme is not compared: TLS
    may end at a proxy.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in SAME_ORIGIN
    origin, host = headers.get(b"origin"), headers.get(b"host")
    return origin is not None and (not host or origin.partition(b"://")[2].lower() != host.lower())


@lru_cache(maxsize=64)
def is_local_host(host: bytes, names: frozenset[str]) -> bool:
    """Return True if ``Host`` is ``localhost``, a name below it, a loopback address or one of ``names``, with any port.

    ``names`` are in lower case. With DNS rebinding, the name of a foreign page resolves to a loopback address, and the browser
    takes this server for the origin of the page. ``Host`` still has the name of the page.
    """
    parts = _HOST.fullmatch(host)
    if parts is None:
        return False
    name = parts["name"].decode("latin-1").lower().removesuffix(".")
    if name in names or name.split(".")[-1] == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
