"""Outgoing guard: tables of URLs, addresses and headers, checked as values and with real connections."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest
from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from cardwright.kit.guard import OutgoingPolicy, check_address, check_headers, check_url
from cardwright.outbox.client import EndpointResponse, GuardedClient

PRODUCTION = OutgoingPolicy.production()
SANDBOX = OutgoingPolicy.sandbox()

# {p} is the port of listeners at 127.0.0.1 and ::1. Each URL is a known way to reach them or another forbidden target.
FORBIDDEN_URLS = [
    # The local machine, in ordinary spelling.
    ("https://127.0.0.1:{p}/", "loopback address"),
    ("https://127.0.0.2:{p}/", "loopback address"),
    ("https://127.255.255.254:{p}/", "loopback address"),
    ("https://[::1]:{p}/", "loopback address"),
    ("https://[0:0:0:0:0:0:0:1]:{p}/", "loopback address"),
    ("https://[0000::0001]:{p}/", "loopback address"),
    ("https://localhost:{p}/", "loopback address"),
    ("https://LOCALHOST:{p}/", "loopback address"),
    ("https://localhost.:{p}/", "loopback address"),
    ("https://hooks.localhost:{p}/", "loopback address"),
    ("https://0.0.0.0:{p}/", "unspecified address"),
    ("https://0.1.2.3:{p}/", "unspecified address"),
    ("https://[::]:{p}/", "unspecified address"),
    # The local machine, in other spellings of IPv4.
    ("https://2130706433:{p}/", "four decimal numbers"),
    ("https://017700000001:{p}/", "four decimal numbers"),
    ("https://0x7f000001:{p}/", "four decimal numbers"),
    ("https://0x7F000001:{p}/", "four decimal numbers"),
    ("https://0177.0.0.1:{p}/", "four decimal numbers"),
    ("https://0x7f.0.0.1:{p}/", "four decimal numbers"),
    ("https://127.0.0.0x1:{p}/", "four decimal numbers"),
    ("https://127.0.0.0x:{p}/", "four decimal numbers"),
    ("https://127.1:{p}/", "four decimal numbers"),
    ("https://127.0.1:{p}/", "four decimal numbers"),
    ("https://0:{p}/", "four decimal numbers"),
    ("https://127.0.0.1.:{p}/", "four decimal numbers"),
    ("https://127.0.0.01:{p}/", "four decimal numbers"),
    ("https://127.0.0.256:{p}/", "four decimal numbers"),
    ("https://127.0.0.1.1:{p}/", "four decimal numbers"),
    ("https://１２７.０.０.１:{p}/", "ASCII"),
    ("https://127。0。0。1:{p}/", "ASCII"),
    ("https://①②⑦.0.0.1:{p}/", "ASCII"),
    ("https://ⓛocalhost:{p}/", "ASCII"),
    ("https://localhoſt:{p}/", "ASCII"),
    ("https://%31%32%37.0.0.1:{p}/", "four decimal numbers"),
    ("https://%6cocalhost:{p}/", "malformed host"),
    # The local machine, embedded in IPv6 addresses.
    ("https://[::ffff:127.0.0.1]:{p}/", "loopback address"),
    ("https://[::ffff:7f00:1]:{p}/", "loopback address"),
    ("https://[::ffff:0:127.0.0.1]:{p}/", "loopback address"),
    ("https://[::127.0.0.1]:{p}/", "loopback address"),
    ("https://[64:ff9b::7f00:1]:{p}/", "loopback address"),
    ("https://[64:ff9b::10.0.0.1]:{p}/", "private address"),
    ("https://[64:ff9b:1::7f00:1]:{p}/", "private address"),
    ("https://[2002:7f00:1::]:{p}/", "loopback address"),
    ("https://[2001:0:7f00:1::f7f7:f7f7]:{p}/", "loopback address"),
    ("https://[2001:0:808:808::80ff:fffe]:{p}/", "loopback address"),
    ("https://[2600::5efe:7f00:1]:{p}/", "loopback address"),
    ("https://[2600::200:5efe:7f00:1]:{p}/", "loopback address"),
    ("https://[2600:1:2:3:0:5efe:10.0.0.1]:{p}/", "private address"),
    ("https://[64:ff9b:1:7f00:0:100::]:{p}/", "private address"),
    # Private networks and metadata services.
    ("https://10.0.0.1:{p}/", "private address"),
    ("https://172.16.0.1:{p}/", "private address"),
    ("https://172.31.255.255:{p}/", "private address"),
    ("https://192.168.1.1:{p}/", "private address"),
    ("https://100.64.0.1:{p}/", "private address"),
    ("https://[fc00::1]:{p}/", "private address"),
    ("https://[fd12:3456::1]:{p}/", "private address"),
    ("https://[fec0::1]:{p}/", "private address"),
    ("https://169.254.169.254/latest/meta-data/", "link-local address"),
    ("https://[::ffff:169.254.169.254]/latest/meta-data/", "link-local address"),
    ("https://[fe80::1]:{p}/", "link-local address"),
    ("https://[fe80::1%25lo]:{p}/", "link-local address"),
    ("https://[::1%25lo]:{p}/", "link-local address"),
    ("https://[fd00:ec2::254]/", "cloud metadata address"),
    ("https://100.100.100.200/", "cloud metadata address"),
    ("https://168.63.129.16/", "cloud metadata address"),
    # Addresses without a host: multicast, broadcast, reserved, documentation and benchmarking.
    ("https://224.0.0.1:{p}/", "multicast address"),
    ("https://[ff02::1]:{p}/", "multicast address"),
    ("https://255.255.255.255:{p}/", "broadcast address"),
    ("https://240.0.0.1:{p}/", "reserved address"),
    ("https://192.0.0.8:{p}/", "reserved address"),
    ("https://192.0.2.1:{p}/", "documentation address"),
    ("https://198.18.0.1:{p}/", "benchmarking address"),
    ("https://[2001:db8::1]:{p}/", "documentation address"),
    ("https://[100::1]:{p}/", "reserved address"),
    # Other schemes.
    ("http://127.0.0.1:{p}/", "must use https"),
    ("http://example.com/", "must use https"),
    ("ftp://127.0.0.1:{p}/", "must use https"),
    ("file:///etc/passwd", "must use https"),
    ("gopher://127.0.0.1:{p}/_POST", "must use https"),
    ("ws://127.0.0.1:{p}/", "must use https"),
    ("tcp://127.0.0.1:{p}/", "must use https"),
    ("unix:///var/run/docker.sock", "must use https"),
    ("javascript:alert(1)", "absolute"),
    ("//127.0.0.1:{p}/", "absolute"),
    ("/hook", "absolute"),
    ("127.0.0.1:{p}", "absolute"),
    ("https:127.0.0.1:{p}/", "absolute"),
    ("https:/127.0.0.1:{p}/", "absolute"),
    ("", "absolute"),
    # URLs that parsers read differently.
    ("https://user:password@127.0.0.1:{p}/", "user name or password"),
    ("https://example.com@127.0.0.1:{p}/", "user name or password"),
    ("https://127.0.0.1:{p}@example.com/", "user name or password"),
    ("https://example.com\\@127.0.0.1:{p}/", "backslash"),
    ("https:\\\\127.0.0.1:{p}/", "backslash"),
    ("https://127.0.0.1:{p}\\.example.com/", "backslash"),
    ("https:///127.0.0.1:{p}/", "no host"),
    ("https://:{p}/", "no host"),
    ("https://.:{p}/", "malformed host"),
    ("https://example..com/", "malformed host"),
    ("https://-example.com/", "malformed host"),
    ("https://" + "a" * 64 + ".com/", "malformed host"),
    ("https://" + "a." * 127 + "com/", "malformed host"),
    ("https://127.0.0.1:{p}:443/", "invalid port"),
    ("https://::1:{p}/", "invalid port"),
    ("https://[::1:{p}/", "malformed host"),
    ("https://[::1]x:{p}/", "malformed host"),
    ("https://[127.0.0.1]:{p}/", "malformed IPv6"),
    ("https://[v1.127]:{p}/", "malformed IPv6"),
    ("https://[]:{p}/", "malformed IPv6"),
    ("https://127.0.0.1:0{p}/", "invalid port"),
    ("https://127.0.0.1:/", "invalid port"),
    ("https://127.0.0.1:0/", "invalid port"),
    ("https://127.0.0.1:65536/", "invalid port"),
    ("https://127.0.0.1:+{p}/", "invalid port"),
    ("https://127.0.0.1:４４３/", "invalid port"),
    ("https://127.0.0.1:{p}x/", "invalid port"),
    (" https://127.0.0.1:{p}/", "blanks or control"),
    ("https://127.0.0.1:{p}/a b", "blanks or control"),
    ("https://127.0.0.1:{p}/\r\nHost: example.com", "blanks or control"),
    ("https://127.0.0.1\t:{p}/", "blanks or control"),
    ("https://127.0.0.1\x00.example.com:{p}/", "blanks or control"),
    ("https://127.0.0.1\u200b:{p}/", "blanks or control"),
    ("https://127.0.0.1\u2028:{p}/", "blanks or control"),
    ("https://127.0.0.1\ud800:{p}/", "blanks or control"),
    ("https://127.0.0.1:{p}/#part", "fragment"),
    ("https://127.0.0.1:{p}#@example.com/", "fragment"),
    ("https://example.com/" + "a" * 500, "longer than 512"),
]

FINE_URLS = [
    "https://example.com",
    "https://example.com/",
    "HTTPS://Example.COM:8443/hook?x=[1]&y=%20#".removesuffix("#"),
    "https://example.com./",
    "https://xn--bcher-kva.example/h%C3%B6rer/hörer",
    "https://with_underscore.example.com/a@b:c",
    "https://1.example.com/",
    "https://0x7f.example/",
    "https://localhost.example.com/",
    "https://8.8.8.8/",
    "https://[2606:4700::1111]:443/",
    "https://[::ffff:8.8.8.8]/",
    "https://[64:ff9b::808:808]/",
    "https://example.com:65535/",
]

# Addresses that a name may resolve to, with the reason in production and in the sandbox, or None.
ADDRESSES = [
    ("127.0.0.1", "loopback address", None),
    ("127.8.8.8", "loopback address", None),
    ("::1", "loopback address", None),
    ("::ffff:127.0.0.1", "loopback address", None),
    ("::ffff:0:127.0.0.1", "loopback address", None),
    ("::127.0.0.1", "loopback address", None),
    ("64:ff9b::7f00:1", "loopback address", None),
    ("64:ff9b:1::7f00:1", "private address", None),
    ("64:ff9b:1::808:808", "private address", None),
    ("2002:7f00:1::", "loopback address", None),
    ("2001:0:7f00:1::f7f7:f7f7", "loopback address", None),
    ("2600::5efe:127.0.0.1", "loopback address", None),
    ("2600:1:2:3:200:5efe:127.0.0.1", "loopback address", None),
    ("2600::100:5efe:127.0.0.1", "loopback address", None),
    ("2002:808:808::5efe:127.0.0.1", "loopback address", None),
    ("fd00::5efe:8.8.8.8", "private address", None),
    ("10.255.255.255", "private address", None),
    ("172.20.0.1", "private address", None),
    ("192.168.0.1", "private address", None),
    ("100.127.255.255", "private address", None),
    ("fd00::1", "private address", None),
    ("2002:0a00:0001::1", "private address", None),
    ("192.0.0.9", "reserved address", None),
    ("192.88.99.1", "reserved address", None),
    ("198.19.255.255", "benchmarking address", None),
    ("203.0.113.7", "documentation address", None),
    ("198.51.100.7", "documentation address", None),
    ("3fff::1", "documentation address", None),
    ("2001:10::1", "reserved address", None),
    ("5f00::1", "reserved address", None),
    ("4000::1", "reserved address", None),
    ("250.0.0.1", "reserved address", None),
    ("0.0.0.0", "unspecified address", "unspecified address"),
    ("::", "unspecified address", "unspecified address"),
    ("::ffff:0.0.0.0", "unspecified address", "unspecified address"),
    ("::2", "unspecified address", "unspecified address"),
    ("169.254.169.254", "link-local address", "link-local address"),
    ("::ffff:169.254.169.254", "link-local address", "link-local address"),
    ("64:ff9b::a9fe:a9fe", "link-local address", "link-local address"),
    ("64:ff9b:1::a9fe:a9fe", "private address", "link-local address"),
    ("64:ff9b:1:a9fe:a9:fe00::", "private address", "link-local address"),
    ("64:ff9b:1:a9:fe:a9fe::", "private address", "link-local address"),
    ("64:ff9b:1:2:a9:fea9:fe00:0", "private address", "link-local address"),
    ("64:ff9b:1:2::169.254.169.254", "private address", "link-local address"),
    ("64:ff9b:1::8.8.8.8", "private address", None),
    ("64:ff9b:1:808:8:800::", "private address", None),
    ("64:ff9b:1::", "private address", "unspecified address"),
    ("2600::5efe:169.254.169.254", "link-local address", "link-local address"),
    ("2600:1:2:3:200:5efe:169.254.169.254", "link-local address", "link-local address"),
    ("2002:808:808::5efe:169.254.169.254", "link-local address", "link-local address"),
    ("fe80::5efe:8.8.8.8", "link-local address", "link-local address"),
    ("2002:a9fe:a9fe::1", "link-local address", "link-local address"),
    ("fe80::1", "link-local address", "link-local address"),
    ("febf::1", "link-local address", "link-local address"),
    ("fe80::1%eth0", "link-local address", "link-local address"),
    ("::1%lo", "link-local address", "link-local address"),
    ("224.0.0.251", "multicast address", "multicast address"),
    ("ff05::2", "multicast address", "multicast address"),
    ("255.255.255.255", "broadcast address", "broadcast address"),
    ("fd00:ec2::254", "cloud metadata address", "cloud metadata address"),
    ("fd20:ce::254", "cloud metadata address", "cloud metadata address"),
    ("192.0.0.192", "cloud metadata address", "cloud metadata address"),
    ("168.63.129.16", "cloud metadata address", "cloud metadata address"),
    ("127.1", "not an IP address", "not an IP address"),
    ("localhost", "not an IP address", "not an IP address"),
    ("", "not an IP address", "not an IP address"),
    ("8.8.8.8", None, None),
    ("172.32.0.1", None, None),
    ("100.128.0.1", None, None),
    ("2606:4700::1111", None, None),
    ("::ffff:8.8.8.8", None, None),
    ("64:ff9b::808:808", None, None),
    ("2002:808:808::1", None, None),
    ("2600::5efe:8.8.8.8", None, None),
    ("2600::200:5efe:808:808", None, None),
    ("2600::400:5efe:127.0.0.1", None, None),
    ("2600::5eff:127.0.0.1", None, None),
    ("2001:0:808:808::f7f7:f7f7", None, None),
]


PATIENT_MS = 60_000
"""The time limit of posts; only a safety limit."""


class Listeners:
    """Listeners at one port of 127.0.0.1 and, if the machine has IPv6, of ::1. They count connections."""

    def __init__(self) -> None:
        self.port = 0
        self.hosts: list[str] = []
        self.connections = 0

    def count(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Listeners]:
    """Open the listeners, and close them afterwards."""
    listeners = Listeners()
    servers = []
    for host in ("127.0.0.1", "::1"):
        try:
            server = await asyncio.start_server(listeners.count, host, listeners.port)
        except OSError:  # The machine has no IPv6.
            continue
        listeners.port = server.sockets[0].getsockname()[1]
        listeners.hosts.append(host)
        servers.append(server)
    assert "127.0.0.1" in listeners.hosts
    try:
        yield listeners
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()


class ResolvesTo(AbstractResolver):
    """A resolver under an attacker's control: it resolves every name to the given addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0) for address in self.addresses
        ]

    async def close(self) -> None:
        pass


class AliasOfLocalhost(ThreadedResolver):
    """The system's resolver with one name that is an alias of localhost."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return await super().resolve("localhost" if host == "hooks.example.com" else host, port, family)


def monotonic_ms() -> int:
    """Return monotonic milliseconds."""
    return time.monotonic_ns() // 1_000_000


async def post_once(url: str, policy: OutgoingPolicy, resolver: AbstractResolver | None = None) -> EndpointResponse:
    """Post once with a new client."""
    client = GuardedClient(policy, monotonic_ms, resolver=resolver)
    try:
        return await client.post(url, b"{}", {}, timeout_ms=PATIENT_MS)
    finally:
        await client.close()


async def assert_nothing_connected(listeners: Listeners) -> None:
    """Connect to each listener and assert that these connections are the first. Listeners accept connections in order."""
    for number, host in enumerate(listeners.hosts):
        await post_once(f"http://{f'[{host}]' if ':' in host else host}:{listeners.port}/", SANDBOX)
        assert listeners.connections == number + 1


@pytest.mark.parametrize(("url", "reason"), FORBIDDEN_URLS)
def test_production_says_why_a_url_is_forbidden(url: str, reason: str) -> None:
    """Each forbidden URL is refused with the reason in its row."""
    verdict = check_url(url.replace("{p}", "8443"), PRODUCTION)
    assert verdict is not None
    assert reason in verdict


@pytest.mark.parametrize("url", FINE_URLS)
def test_production_allows_ordinary_urls(url: str) -> None:
    """Ordinary URLs of public hosts are allowed."""
    assert check_url(url, PRODUCTION) is None


def test_no_forbidden_url_opens_a_connection() -> None:
    """Posts to all forbidden URLs fail, and no connection arrives at the listeners."""

    async def story() -> None:
        async with listening() as listeners:
            client = GuardedClient(PRODUCTION, monotonic_ms)
            for url, _ in FORBIDDEN_URLS:
                answer = await client.post(url.replace("{p}", str(listeners.port)), b"{}", {}, timeout_ms=PATIENT_MS)
                assert (answer.status, answer.body) == (None, b"")
                assert answer.error is not None
                assert answer.error.startswith("refused by the outgoing guard: ")
            await client.close()
            await assert_nothing_connected(listeners)

    assert len(FORBIDDEN_URLS) >= 60
    asyncio.run(story())


def test_the_listeners_can_be_reached() -> None:
    """Posts to the same listeners arrive under the sandbox's policy, so the test above could detect a connection."""

    async def story() -> None:
        async with listening() as listeners:
            for host in listeners.hosts:
                answer = await post_once(f"http://{f'[{host}]' if ':' in host else host}:{listeners.port}/", SANDBOX)
                assert answer.error == "connection closed without an answer"
            assert listeners.connections == len(listeners.hosts)

    asyncio.run(story())


def test_a_name_is_judged_by_the_address_that_is_dialled() -> None:
    """An allowed name that resolves to a forbidden address is refused at dial time, and nothing connects."""

    async def story() -> None:
        async with listening() as listeners:
            url = f"https://hooks.example.com:{listeners.port}/"
            assert check_url(url, PRODUCTION) is None
            for address, reason, _ in ADDRESSES:
                if reason is not None:
                    answer = await post_once(url, PRODUCTION, ResolvesTo(address))
                    assert answer.error == f"refused by the outgoing guard: {reason}", address
            await assert_nothing_connected(listeners)

    asyncio.run(story())


def test_what_the_operating_system_resolves_is_judged_too() -> None:
    """A name that the system's resolver resolves to `localhost`, as an alias or search domain does, is refused at dial time."""

    async def story() -> None:
        async with listening() as listeners:
            answer = await post_once(f"https://hooks.example.com:{listeners.port}/", PRODUCTION, AliasOfLocalhost())
            assert answer.error == "refused by the outgoing guard: loopback address"
            await assert_nothing_connected(listeners)

    asyncio.run(story())


def test_every_address_of_a_name_is_judged() -> None:
    """Of several addresses of a name, only the allowed ones are dialled."""

    async def story() -> None:
        async with listening() as listeners:
            url = f"http://hooks.example.com:{listeners.port}/"
            for addresses in (("169.254.169.254", "127.0.0.1"), ("fe80::1", "127.0.0.1")):
                answer = await post_once(url, SANDBOX, ResolvesTo(*addresses))
                assert answer.error == "connection closed without an answer"
            assert listeners.connections == 2
            answer = await post_once(url, PRODUCTION, ResolvesTo("127.0.0.1", "::1"))
            assert answer.error == "refused by the outgoing guard: the URL must use https"
            answer = await post_once(url.replace("http:", "https:"), PRODUCTION, ResolvesTo("127.0.0.1", "::1"))
            assert answer.error == "refused by the outgoing guard: loopback address"
            assert listeners.connections == 2

    asyncio.run(story())


@pytest.mark.parametrize(("address", "in_production", "in_sandbox"), ADDRESSES)
def test_addresses_are_judged_by_what_they_carry(address: str, in_production: str | None, in_sandbox: str | None) -> None:
    """Mapped, translated and tunnelled addresses are unwrapped. Metadata, multicast and link-local ones fail in a sandbox too."""
    assert check_address(address, PRODUCTION) == in_production
    assert check_address(address, SANDBOX) == in_sandbox


@given(st.ip_addresses(v=4) | st.sampled_from([IPv4Address(text) for text in ("127.0.0.1", "10.0.0.1", "169.254.169.254")]))
def test_no_carrier_changes_the_verdict(ip: IPv4Address) -> None:
    """An IPv4 address embedded in any IPv6 form gets the same result as the plain address."""
    high, low = int(ip) >> 16, int(ip) & 0xFFFF
    forms = [f"::ffff:{ip}", f"::ffff:0:{ip}", f"64:ff9b::{ip}", f"2002:{high:x}:{low:x}::1"]
    forms += [f"::{ip}"] if int(ip) > 1 else []  # :: and ::1 embed no IPv4 address.
    for policy in (PRODUCTION, SANDBOX):
        assert {check_address(form, policy) for form in forms} == {check_address(str(ip), policy)}


PIECES = [
    "https://",
    "http://",
    "HTTPS:",
    "//",
    "/",
    "\\",
    "@",
    ":",
    "443",
    ".",
    "[",
    "]",
    "[::1]",
    "::",
    "127.0.0.1",
    "0x7f",
    "1",
]
PIECES += [
    "localhost",
    "example.com",
    "xn--a",
    "%2e",
    "%25",
    "?",
    "#",
    "&",
    "\t",
    "\n",
    " ",
    "。",
    "１",
    "\u200b",
    "\u00ad",
    "é",
    "ß",
    "-",
    "_",
]


# The guard refuses almost all URLs made of pieces alone, so most examples begin with a valid host.
HEADS = ("", "example.com", "example.com/", "example.com?", "example.com:8443", "example.com:8443/")


@settings(max_examples=400)
@given(st.sampled_from(HEADS), st.lists(st.sampled_from(PIECES) | st.characters(), max_size=8).map("".join), st.booleans())
@example("example.com:8443/", "@127.0.0.1", False)
def test_the_client_reads_an_allowed_url_as_the_guard_did(head: str, tail: str, is_sandbox: bool) -> None:
    """The parser of the HTTP client finds the same host and port in an allowed URL as the guard."""
    url = "https://" + head + tail
    if check_url(url, SANDBOX if is_sandbox else PRODUCTION) is None:
        read = URL(url)
        assert read.raw_host is not None
        assert read.user is None
        entry = f"[{read.raw_host}]" if ":" in read.raw_host else read.raw_host
        assert OutgoingPolicy.production([f"{entry}:{read.port}"]).towards(url).allow_private


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://localhost:8080/", None),
        ("http://127.0.0.1/", None),
        ("http://[::1]:8080/", None),
        ("https://192.168.1.5/", None),
        ("http://gateway:9000/jit", None),
        ("http://169.254.169.254/", "link-local address"),
        ("http://[fe80::1]/", "link-local address"),
        ("http://0.0.0.0:8080/", "unspecified address"),
        ("http://2130706433/", "an IPv4 address must be written as four decimal numbers"),
        ("http://user:password@localhost/", "the URL must not hold a user name or password"),
        ("ftp://localhost/", "the URL must use https"),
    ],
)
def test_a_sandbox_reaches_the_developer_s_machine_and_no_metadata(url: str, reason: str | None) -> None:
    """The sandbox additionally allows http and private addresses, and nothing else."""
    assert check_url(url, SANDBOX) == reason


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("http://gateway/", True),
        ("http://GATEWAY.:9000/x", True),
        ("https://gateway/", True),
        ("http://ledger:9000/", True),
        ("http://ledger:9001/", False),
        ("http://ledger/", False),
        ("http://sub.gateway/", False),
        ("http://gateway.example.com/", False),
        ("https://10.0.0.7/", True),
        ("https://10.0.0.8/", False),
        ("https://[0:0::1]:8443/", True),
        ("https://[::1]/", False),
        ("https://tls.example:443/", True),
        ("https://tls.example/", True),
        ("http://169.254.169.254/", False),
        ("ftp://gateway/", False),
    ],
)
def test_an_operator_vouches_for_exact_hosts(url: str, is_allowed: bool) -> None:
    """An allowed host is exempt, and with a port only at that port. Other hosts and metadata addresses are not."""
    policy = OutgoingPolicy.production(["Gateway", "ledger:9000", "10.0.0.7", "[::1]:8443", "tls.example:443", "169.254.169.254"])
    assert (check_url(url, policy) is None) == is_allowed


@pytest.mark.parametrize(
    "entry", ["https://gateway", "gateway/", "gateway?", "", "a b", "user@gateway", "gateway:x", "127.1", "*.corp"]
)
def test_an_allowed_host_that_could_never_match_is_an_error(entry: str) -> None:
    """An entry of the allowed hosts that is not a host or host:port raises ValueError."""
    with pytest.raises(ValueError, match="expected host or host:port"):
        OutgoingPolicy.production([entry])


def test_vouching_for_a_name_does_not_open_metadata_behind_it() -> None:
    """An allowed name that resolves to a metadata service is refused at dial time."""
    policy = OutgoingPolicy.production(["gateway"])
    answer = asyncio.run(post_once("http://gateway:1/", policy, ResolvesTo("169.254.169.254")))
    assert answer.error == "refused by the outgoing guard: link-local address"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, None),
        ({"Content-Type": "application/json", "X-Tab": "a\tb", "X-Name": "Zoë"}, None),
        ({"Host": "internal"}, "framed or routed"),
        ({"content-length": "0"}, "framed or routed"),
        ({"Transfer-Encoding": "chunked"}, "framed or routed"),
        ({"CONNECTION": "close"}, "framed or routed"),
        ({"Expect": "100-continue"}, "framed or routed"),
        ({"X-A": "b\r\nHost: internal"}, "header value"),
        ({"X-A": "b\nc"}, "header value"),
        ({"X-A": "b\x00"}, "header value"),
        ({"X-A": "\ud800"}, "header value"),
        ({"X A": "b"}, "header name"),
        ({"X-A:": "b"}, "header name"),
        ({"": "b"}, "header name"),
        ({"X-Ä": "b"}, "header name"),
        ({"X-A\r\nX-B": "c"}, "header name"),
        ({f"X-{number}": "b" for number in range(65)}, "more than 64"),
        ({"X-A": "b" * 16_384}, "longer than"),
    ],
)
def test_headers_cannot_bend_the_request(headers: dict[str, str], reason: str | None) -> None:
    """Line breaks, framing headers, and too many or too long headers are refused. Ordinary headers pass."""
    verdict = check_headers(headers)
    assert verdict is None if reason is None else verdict is not None and reason in verdict
