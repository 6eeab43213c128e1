"""Outgoing guard: checks of the URLs, addresses and headers of requests to endpoints that users choose.

The functions are pure: they resolve no name and open no socket. `check_url` runs when a URL is stored and again before it is
used. `check_address` runs for every address when a connection is opened. So a DNS name that changes its address in between (DNS
rebinding) cannot bypass the checks.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

URL_CHARS_MAX: Final = 512
HEADERS_MAX: Final = 64
HEADERS_CHARS_MAX: Final = 16_384

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class OutgoingPolicy:
    """Policy of the destinations of outgoing requests.

    `allowed_hosts` holds hosts that the operator trusts, as `host` or `host:port`, compared exactly. The rules of the sandbox
    apply to such a host: it may be private and use http, but it cannot be a metadata service.
    """

    allow_http: bool
    allow_private: bool
    allowed_hosts: frozenset[str] = frozenset()

    @classmethod
    def sandbox(cls) -> Self:
        """Return the policy for developers' machines: http and private addresses, so that no tunnel is necessary."""
        return cls(allow_http=True, allow_private=True)

    @classmethod
    def production(cls, allowed_hosts: Iterable[str] = ()) -> Self:
        """Return the policy with https to public addresses, and the operator's hosts. Raises ValueError for an invalid host."""
        return cls(allow_http=False, allow_private=False, allowed_hosts=frozenset(map(_vouched, allowed_hosts)))

    def towards(self, url: str) -> "OutgoingPolicy":
        """Return the policy for this URL: the sandbox's if the operator trusts its host, else this one."""
        target = _parse_target(url)
        if isinstance(target, _Target) and self.allowed_hosts & {target.host, f"{target.host}:{target.port}"}:
            return OutgoingPolicy.sandbox()
        return self


def check_url(url: str, policy: OutgoingPolicy) -> str | None:
    """Return the reason that this URL is not allowed, as far as its text shows; None if it is allowed."""
    target = _parse_target(url)
    if isinstance(target, str):
        return target
    rules = policy.towards(url)
    if target.scheme == "http" and not rules.allow_http:
        return "the URL must use https"
    if target.address is not None:
        return check_address(target.address, rules)
    if target.host.split(".")[-1] == "localhost" and not rules.allow_private:
        return "loopback address"  # RFC 6761: this name and its subdomains never leave the machine.
    return None


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL in one spelling, such as `https://example.com:443`. An invalid URL is returned."""
    target = _parse_target(url)
    return url if isinstance(target, str) else f"{target.scheme}://{target.host}:{target.port}"


def check_address(address: str, policy: OutgoingPolicy) -> str | None:
    """Return the reason that no connection to this resolved IP address is allowed; None if it is.

    An IPv6 address that contains an IPv4 address is checked as the IPv4 address, which is the one that answers.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return "not an IP address"
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        return "link-local address"  # Only link-local addresses need a zone, and they are never allowed.
    return next((reason for embedded in _embedded_addresses(ip) if (reason := _judge(embedded, policy)) is not None), None)


def check_headers(headers: Mapping[str, str]) -> str | None:
    """Return the reason that these request headers are not allowed; None if they are: no line breaks, no framing headers."""
    if len(headers) > HEADERS_MAX:
        return f"the request has more than {HEADERS_MAX} custom headers"
    if sum(len(name) + len(value) for name, value in headers.items()) > HEADERS_CHARS_MAX:
        return f"the headers are longer than {HEADERS_CHARS_MAX} characters"
    if not all(_HEADER_NAME.fullmatch(name) for name in headers):
        return "a header name has a character that is not allowed"
    if any(name.lower() in _FRAMING_HEADERS for name in headers):
        return "a header would change how the request is framed or routed"
    if not all(_is_plain(value) for value in headers.values()):
        return "a header value has a character that is not allowed"
    return None


# --- URLs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """Destination of a well-formed URL: lower-case host, IPv6 in brackets, and the address if the host is one."""

    scheme: str
    host: str
    port: int
    address: str | None


_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)[^#]*(?P<fragment>#.*)?")
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# The numbers that the resolver's inet_aton accepts: it reads a host that ends with one as an address.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _parse_target(url: str) -> _Target | str:
    """Return the destination of the URL, or the reason that it is invalid.

    Stricter than HTTP clients, so that none reads it differently.
    """
    if reason := _check_text(url):
        return reason
    parts = _URL.fullmatch(url)
    if parts is None:
        return "the URL must be absolute, such as https://example.com/hook"
    if parts["fragment"] is not None:
        return "the URL must not have a fragment"
    if (scheme := parts["scheme"].lower()) not in _DEFAULT_PORTS:
        return "the URL must use https"
    if "@" in parts["authority"]:
        return "the URL must not hold a user name or password"
    return _parse_authority(scheme, parts["authority"])


def _check_text(url: str) -> str | None:
    """Return the reason that the characters of this URL are not allowed.

    Parsers differ on blanks and backslashes, so both are refused.
    """
    if len(url) > URL_CHARS_MAX:
        return f"the URL is longer than {URL_CHARS_MAX} characters"
    if not url.isprintable() or any(map(str.isspace, url)):
        return "the URL must not have blanks or control characters"
    if "\\" in url:
        return "the URL must not have a backslash"
    return None


def _parse_authority(scheme: str, authority: str) -> _Target | str:
    """Return host and port, or the reason that they are invalid."""
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return "the URL has a malformed host"
    port = _DEFAULT_PORTS[scheme] if parts["port"] is None else _parse_port(parts["port"])
    if port is None:
        return "the URL has an invalid port"
    host = parts["host"].lower()
    if host == "":
        return "the URL has no host"
    if host.startswith("["):
        return _parse_ipv6(scheme, host[1:-1], port)
    return _parse_name(scheme, host, port)


def _parse_port(text: str) -> int | None:
    return int(text) if _PORT.fullmatch(text) and int(text) <= 65_535 else None


def _parse_ipv6(scheme: str, literal: str, port: int) -> _Target | str:
    """Parse a host in brackets. The host has one spelling for each address, so comparing hosts compares addresses."""
    try:
        address = str(IPv6Address(literal))
    except ValueError:
        return "the URL has a malformed IPv6 address"
    return _Target(scheme=scheme, host=f"[{address}]", port=port, address=address)


def _parse_name(scheme: str, host: str, port: int) -> _Target | str:
    """Parse a host without brackets: a name, or an IPv4 address as four decimal numbers."""
    if not host.isascii():
        return "the host must be written in ASCII, an international name in its xn-- form"
    name = host.removesuffix(".")
    if _NUMBER.fullmatch(name.split(".")[-1]):
        try:
            return _Target(scheme=scheme, host=host, port=port, address=str(IPv4Address(host)))
        except ValueError:
            return "an IPv4 address must be written as four decimal numbers"
    if len(name) > 253 or not _NAME.fullmatch(name):
        return "the URL has a malformed host"
    return _Target(scheme=scheme, host=name, port=port, address=None)


def _vouched(entry: str) -> str:
    """Return an allowed host in the spelling that `towards` compares. Raises ValueError if it is not `host` or `host:port`."""
    target = _parse_target(f"https://{entry}")
    if isinstance(target, str) or "/" in entry or "?" in entry:
        raise ValueError(f"allowed host {entry!r}: expected host or host:port")
    has_port = not entry.endswith("]") and ":" in entry
    return f"{target.host}:{target.port}" if has_port else target.host


# --- Addresses -----------------------------------------------------------------------------------------------------


def _table(*rows: tuple[str, str]) -> tuple[tuple[_Network, str], ...]:
    return tuple((ip_network(network), reason) for network, reason in rows)


# Never allowed, not even in a sandbox. Metadata services return cloud credentials without authentication. Those outside the
# link-local range are listed one by one; Azure's has a public address.
_NEVER: Final = _table(
    ("0.0.0.0/8", "unspecified address"),
    ("169.254.0.0/16", "link-local address"),
    ("224.0.0.0/4", "multicast address"),
    ("255.255.255.255/32", "broadcast address"),
    ("100.100.100.200/32", "cloud metadata address"),
    ("168.63.129.16/32", "cloud metadata address"),
    ("192.0.0.192/32", "cloud metadata address"),
    ("::/128", "unspecified address"),
    ("fe80::/10", "link-local address"),
    ("ff00::/8", "multicast address"),
    ("fd00:ec2::254/128", "cloud metadata address"),
    ("fd20:ce::254/128", "cloud metadata address"),
)

# The IANA special-purpose registries (RFC 6890 and its successors), listed here because `ipaddress.is_global` differs
# between Python releases.
_NOT_PUBLIC: Final = _table(
    ("127.0.0.0/8", "loopback address"),
    ("10.0.0.0/8", "private address"),
    ("172.16.0.0/12", "private address"),
    ("192.168.0.0/16", "private address"),
    ("100.64.0.0/10", "private address"),
    ("192.0.0.0/24", "reserved address"),
    ("192.0.2.0/24", "documentation address"),
    ("198.51.100.0/24", "documentation address"),
    ("203.0.113.0/24", "documentation address"),
    ("192.88.99.0/24", "reserved address"),
    ("198.18.0.0/15", "benchmarking address"),
    ("240.0.0.0/4", "reserved address"),
    ("::1/128", "loopback address"),
    ("fc00::/7", "private address"),
    ("fec0::/10", "private address"),
    ("64:ff9b:1::/48", "private address"),
    ("2001:db8::/32", "documentation address"),
    ("3fff::/20", "documentation address"),
    ("2001::/23", "reserved address"),
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")

# IPv4-mapped, IPv4-translated, IPv4-compatible and NAT64: the last four bytes are the address that answers.
_CARRIERS: Final = tuple(map(IPv6Network, ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96")))
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")

# The bytes of the IPv4 address after a prefix of 48, 56, 64 and 96 bits (RFC 6052, 2.2). Byte 8 is not part of it. A shorter
# prefix does not fit into the local prefix.
_NAT64_BYTES: Final = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
_NO_HOST: Final = IPv4Network("0.0.0.0/8")

_ISATAP: Final = b"\x5e\xfe"


def _embedded_addresses(ip: _Address) -> Iterator[_Address]:
    """Yield the addresses that may answer a connection to `ip`."""
    if isinstance(ip, IPv4Address) or int(ip) < 2:  # :: and ::1 are not IPv4-compatible addresses.
        yield ip
        return
    if _is_isatap(ip):
        yield _last_four_bytes(ip)
    if any(ip in carrier for carrier in _CARRIERS):
        yield _last_four_bytes(ip)
    elif ip in _LOCAL_NAT64:
        # The IPv6 address is checked too: it is not public.
        yield ip
        yield from _local_nat64_addresses(ip)
    elif ip.sixtofour is not None:
        yield ip.sixtofour
    elif ip.teredo is not None:
        yield from ip.teredo  # The Teredo server and the client.
    else:
        yield ip


def _last_four_bytes(ip: IPv6Address) -> IPv4Address:
    return IPv4Address(ip.packed[-4:])


def _is_isatap(ip: IPv6Address) -> bool:
    """Return True for an interface identifier of ISATAP (RFC 5214, 6.1) under any prefix: the last four bytes may answer.

    The first byte of the identifier has the bits "universal" and "group"; the second byte is 0.
    """
    identifier = ip.packed[8:]
    return identifier[0] & 0b1111_1100 == 0 and identifier[1] == 0 and identifier[2:4] == _ISATAP


def _local_nat64_addresses(ip: IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that a translator of the local prefix may extract. RFC 8215 does not fix its prefix length.

    For all but the true length, bytes of zero often give an address in 0.0.0.0/8. No host has one, so it counts only if all
    lengths give one.
    """
    addresses = [IPv4Address(bytes(ip.packed[place] for place in places)) for places in _NAT64_BYTES]
    return [address for address in addresses if address not in _NO_HOST] or addresses


def _judge(ip: _Address, policy: OutgoingPolicy) -> str | None:
    """Return the reason that no connection to this unwrapped address is allowed; None if it is."""
    if reason := _look_up(_NEVER, ip):
        return reason
    if policy.allow_private:
        return None
    if reason := _look_up(_NOT_PUBLIC, ip):
        return reason
    return "reserved address" if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST else None


def _look_up(table: tuple[tuple[_Network, str], ...], ip: _Address) -> str | None:
    return next((reason for network, reason in table if ip in network), None)


# --- Headers -------------------------------------------------------------------------------------------------------

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Only the HTTP client may set these. A custom value could end the message early, append a second one, or select a virtual
# host that was not checked.
_FRAMING_HEADERS: Final = frozenset(
    (
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


def _is_plain(value: str) -> bool:
    return all(character.isprintable() or character == "\t" for character in value)
